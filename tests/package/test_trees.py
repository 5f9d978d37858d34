"""Which leaves of a tree are weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.trees import is_weight


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
