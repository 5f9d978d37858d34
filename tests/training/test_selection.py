"""Rules over the leaves of a net: their order, the table, and every error message."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from swsjax.errors import ConfigError
from swsjax.training.selection import FROZEN, select

NET = {
    "conv": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 3, 1, 2), jnp.bfloat16)},
    "dense": [{"bias": jnp.ones(4), "kernel": jnp.ones((8, 4))}],
    "steps": jnp.array(7),
}


def groups(rules=(), net=NET):
    return {leaf.name: leaf.group for leaf in select(net, rules).leaves}


def test_without_rules_all_weights_are_in_one_group():
    assert groups() == {
        "conv/bias": "weights",
        "conv/kernel": "weights",
        "dense/0/bias": "weights",
        "dense/0/kernel": "weights",
        "steps": FROZEN,
    }


def test_the_first_rule_that_matches_decides():
    rules = [("*/bias", None), ("conv/*", "convolutions"), ("dense/?/k*", FROZEN)]
    assert groups(rules) == {
        "conv/bias": None,
        "conv/kernel": "convolutions",
        "dense/0/bias": None,
        "dense/0/kernel": FROZEN,
        "steps": FROZEN,
    }
    other_order = [("conv/*", "convolutions"), ("*/bias", None)]
    assert groups(other_order)["conv/bias"] == "convolutions"


def test_leaves_that_are_not_weights_are_frozen_whatever_a_rule_says():
    assert groups([("*", "all")])["steps"] is FROZEN


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        (jnp.ones(2, jnp.complex64), "complex64"),
        (jnp.ones(2, bool), "bool"),
        (jax.random.key(0), "key<fry>"),
        (0.5, "float"),
        (len, "builtin_function_or_method"),
    ],
)
def test_a_rule_for_a_leaf_that_cannot_be_trained(leaf, kind):
    message = (
        f"rule 'x' maps to 'group', but x of type {kind} cannot be trained; expected a floating "
        "array of 16 bits or more, or FROZEN"
    )
    net = {"w": jnp.ones(3), "x": leaf}
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        select(net, [("x", "group")])
    assert groups([("x", FROZEN)], net) == groups([], net)


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.float8_e4m3fn])
@pytest.mark.parametrize("group", ["group", None])
def test_a_rule_for_weights_and_an_array_that_cannot_be_trained(dtype, group):
    """Counters stay as they are, but complex numbers were probably meant."""
    net = {"w": jnp.ones(3), "v": jnp.ones(2), "steps": jnp.array(3), "x": jnp.ones(2, dtype)}
    message = (
        f"rule '[wsx]*' maps to {group!r}, but x of type {jnp.dtype(dtype)} cannot be trained; "
        "expected a floating array of 16 bits or more, or FROZEN for it before '[wsx]*'"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        select(net, [("[wsx]*", group)])
    # What it says to do.
    found = groups([("x", FROZEN), ("[wsx]*", group)], net)
    assert found == {"w": group, "v": "weights", "steps": FROZEN, "x": FROZEN}
    assert groups([], net)["x"] is groups([("[wsx]*", FROZEN)], net)["x"] is FROZEN


BRACKETS = {"layer[0]": jnp.ones(2), "layer[1]": jnp.ones(3), "layer0": jnp.ones(4)}


def test_the_name_of_a_leaf_means_that_leaf():
    assert groups([("layer[0]", None)], BRACKETS) == {
        "layer0": "weights",
        "layer[0]": None,
        "layer[1]": "weights",
    }


@given(st.sets(st.text("ab*?[]!-", min_size=1, max_size=5), min_size=2, max_size=6), st.data())
def test_any_name_is_a_rule_for_itself(names, data):
    name = data.draw(st.sampled_from(sorted(names)))
    found = groups([(name, None)], dict.fromkeys(names, np.ones(2)) | {"other": np.ones(3)})
    assert [known for known, group in found.items() if group is None] == [name]


def test_brackets_in_a_pattern_stand_for_one_of_several_characters():
    assert groups([("layer[0-9]", None)], BRACKETS)["layer0"] is None
    assert groups([("*[[]?]", None)], BRACKETS) == {
        "layer0": "weights",
        "layer[0]": None,
        "layer[1]": None,
    }
    message = (
        f"rule '*r[1]' matches no leaf; {NEAR}: layer[1], layer[0]?; in a pattern [[] stands for ["
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        select(BRACKETS, [("*r[1]", None)])


def test_names_of_leaves_in_modules():
    module = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    assert groups(net=module)["layers/0/weight"] == "weights"
    module = nnx.BatchNorm(2, rngs=nnx.Rngs(0))  # its statistics are not parameters
    assert groups([("bias", None)], module) == {"bias": None, "scale": "weights"}


def test_the_table():
    table = str(select(NET, [("conv/bias", None), ("conv/*", "convolutions"), ("*bias", FROZEN)]))
    assert table == "\n".join(
        [
            "leaf            type      shape    weights  what happens",
            "conv/bias       float32   2              2  trained, not compressed",
            "conv/kernel     bfloat16  3x3x1x2       18  compressed, in the group 'convolutions'",
            "dense/0/bias    float32   4              4  frozen",
            "dense/0/kernel  float32   8x4           32  compressed, in the group 'weights'",
            "steps           int32     -              1  frozen",
        ]
    )


NEAR = "did you mean one of"
NOTHING = (
    "params hold no weights to compress; expected a pytree of floating arrays, some of which the "
    "rules leave in a group, got "
)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("conv/kernl", None)], f"rule 'conv/kernl' matches no leaf; {NEAR}: conv/kernel"),
        (
            [("zzz", "x")],
            f"rule 'zzz' matches no leaf; {NEAR}: conv/bias, conv/kernel, dense/0/bias, "
            "dense/0/kernel, steps?",
        ),
        (
            [("conv/*", "a"), ("conv/bias", None)],
            "rule 'conv/bias' decides nothing: earlier rules match everything it matches; move "
            "it before them or leave it out",
        ),
        (
            [("conv/*", 3)],
            "rule 'conv/*' maps to 3; expected the name of a group, None or FROZEN",
        ),
        (
            [("conv/*", "")],
            "rule 'conv/*' maps to ''; expected the name of a group, None or FROZEN",
        ),
        (
            [("steps", "counters")],
            "rule 'steps' maps to 'counters', but steps of type int32 cannot be trained; expected "
            "a floating array of 16 bits or more, or FROZEN",
        ),
        (
            [("st*", None)],
            "rule 'st*' maps to None, but steps of type int32 cannot be trained; expected a "
            "floating array of 16 bits or more, or FROZEN",
        ),
        ([("*", None)], NOTHING),
        ([("*", FROZEN)], NOTHING),
    ],
)
def test_wrong_rules(rules, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        select(NET, rules)


@pytest.mark.parametrize("net", [{}, [], {"a": jnp.arange(3)}, {"a": jnp.zeros((0, 2))}, None])
def test_nothing_to_compress(net):
    with pytest.raises(ConfigError, match=f"^{re.escape(NOTHING)}"):
        select(net)
