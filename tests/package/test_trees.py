"""Which leaves of a tree are weights, and their names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.trees import is_weight, leaf_name, name_of, named_leaves


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (np.float64(1), True),
        (np.ones(2), True),
        (jnp.ones(2, jnp.float16), True),
        (jnp.ones(2, jnp.bfloat16), True),
        (np.ones(2, ">f4"), True),
        (jnp.ones(2, jnp.float8_e4m3fn), False),
        (np.arange(2), False),
        (jnp.ones(2, bool), False),
        (jnp.ones(2, jnp.complex64), False),
        (jax.random.key(0), False),
        (1.0, False),
        ("text", False),
        (jax.nn.relu, False),
    ],
)
def test_floating_arrays_are_weights(leaf, expected):
    assert is_weight(leaf) == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), "(the tree itself)"),
        (("",), ""),
        (("", ""), "/"),
        (("", "x"), "/x"),
        ((0,), "0"),
        (("fc", 0, "w"), "fc/0/w"),
    ],
)
def test_names_of_paths(path, name):
    assert name_of(path) == leaf_name(tuple(map(jax.tree_util.DictKey, path))) == name


def test_only_a_tree_that_is_a_leaf_is_the_tree_itself():
    assert named_leaves({"": 1, "a": {"": 2}}) == [("", 1), ("a/", 2)]
    assert named_leaves(3) == [("(the tree itself)", 3)]
