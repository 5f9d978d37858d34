"""A state as the arrays that are written, and back."""

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.training.stored import abstract_arrays, arrays_of, state_of

STATE = {
    "kernel": jnp.arange(6000, dtype=jnp.float32).reshape(60, 100),
    "bias": jnp.arange(5, dtype=jnp.bfloat16),
    "empty": jnp.zeros((0, 3)),
    "host": np.array([True, False]),
    "key": jax.random.key(3),
    "keys": jax.random.split(jax.random.key(1), 2000),
    "step": jnp.int32(-7),
}


def test_small_leaves_are_written_together():
    found = arrays_of(STATE)
    sizes = sorted(array.size for array in found.values())
    assert sizes == [10 + 2 + 8 + 4, 4000, 6000]  # bytes, and two arrays as they are
    for name, shape in abstract_arrays(STATE).items():
        assert (shape.shape, shape.dtype) == (found[name].shape, found[name].dtype)


def test_a_state_comes_back_as_it_was():
    back = state_of(arrays_of(STATE), STATE)
    assert jax.tree.structure(back) == jax.tree.structure(STATE)
    for was, found in zip(jax.tree.leaves(STATE), jax.tree.leaves(back), strict=True):
        assert type(was) is type(found)
        assert was.dtype == found.dtype
        if jnp.issubdtype(was.dtype, jax.dtypes.prng_key):
            was, found = jax.random.key_data(was), jax.random.key_data(found)
        np.testing.assert_array_equal(was, found, strict=True)


def test_a_state_of_large_leaves_alone():
    state = [jnp.ones((64, 64))]
    assert list(arrays_of(state)) == ["00000"]
    np.testing.assert_array_equal(state_of(arrays_of(state), state)[0], state[0])
