"""Rules over leaves: their order, the table, and every error."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.errors import ConfigError
from swsjax.training.selection import FROZEN, by_mixture, is_weight, select

NET = {
    "conv": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 3, 1, 2), jnp.bfloat16)},
    "dense": [{"bias": jnp.ones(4), "kernel": jnp.ones((8, 4))}],
    "steps": jnp.array(7),
}


def labels(rules=(), net=NET):
    return {leaf.path: leaf.label for leaf in select(net, rules).leaves}


def test_without_rules_one_mixture_is_over_all_weights():
    assert labels() == {
        "conv/bias": "weights",
        "conv/kernel": "weights",
        "dense/0/bias": "weights",
        "dense/0/kernel": "weights",
        "steps": FROZEN,
    }


def test_the_first_rule_that_matches_decides():
    rules = [("*/bias", None), ("conv/*", "convolutions"), ("dense/?/k*", FROZEN)]
    assert labels(rules) == {
        "conv/bias": None,
        "conv/kernel": "convolutions",
        "dense/0/bias": None,
        "dense/0/kernel": FROZEN,
        "steps": FROZEN,
    }
    with_another_order = [("conv/*", "convolutions"), ("*/bias", None)]
    assert labels(with_another_order)["conv/bias"] == "convolutions"


def test_what_is_no_weight_stays_frozen_whatever_a_rule_says():
    assert labels([("*", "all")])["steps"] is FROZEN


def test_paths_of_modules():
    module = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    assert labels(net=module)["layers/0/weight"] == "weights"
    state = nnx.to_pure_dict(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param))
    assert list(labels(net={"fc": state})) == ["fc/bias", "fc/kernel"]


def test_the_table():
    table = str(select(NET, [("conv/bias", None), ("conv/*", "convolutions"), ("*bias", FROZEN)]))
    assert table == "\n".join(
        [
            "leaf            type      shape    weights  what happens",
            "conv/bias       float32   2              2  trained, not compressed",
            "conv/kernel     bfloat16  3x3x1x2       18  compressed under the mixture "
            "'convolutions'",
            "dense/0/bias    float32   4              4  frozen",
            "dense/0/kernel  float32   8x4           32  compressed under the mixture 'weights'",
            "steps           int32     -              1  frozen",
        ]
    )


NEAR = "did you mean one of"
NOTHING = (
    "params hold no weights to compress; expected a pytree of floating arrays, of which the rules "
    "leave some under a mixture, got "
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
            "rule 'conv/bias' decides nothing: earlier rules match all that it matches; put it "
            "before them or leave it out",
        ),
        (
            [("conv/*", 3)],
            "rule 'conv/*' maps to 3; expected a mixture's name, None or FROZEN",
        ),
        (
            [("conv/*", "")],
            "rule 'conv/*' maps to ''; expected a mixture's name, None or FROZEN",
        ),
        ([("*", None)], NOTHING),
        ([("*", FROZEN)], NOTHING),
    ],
)
def test_rules_that_are_wrong(rules, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        select(NET, rules)


@pytest.mark.parametrize("net", [{}, [], {"a": jnp.arange(3)}, {"a": jnp.zeros((0, 2))}, None])
def test_nothing_to_compress(net):
    with pytest.raises(ConfigError, match=f"^{re.escape(NOTHING)}"):
        select(net)


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (np.float64(1), True),
        (np.ones(2), True),
        (jnp.ones(2, jnp.float16), True),
        (np.arange(2), False),
        (jnp.ones(2, bool), False),
        (jnp.ones(2, jnp.complex64), False),
        (jax.random.key(0), False),
        (1.0, False),
        ("text", False),
        (jax.nn.relu, False),
    ],
)
def test_what_a_weight_is(leaf, expected):
    assert is_weight(leaf) == expected


def test_leaves_by_mixture():
    leaves = [np.ones(1), np.ones(2), np.ones(3), np.ones(4)]
    groups = by_mixture(leaves, ["b", None, "a", "b"])
    assert list(groups) == ["b", "a"]
    assert [x.size for x in groups["b"]] == [1, 4]
    assert [x.size for x in groups["a"]] == [3]
