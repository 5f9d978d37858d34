"""Each element type is kept to the bit, or refused by the name of its leaf."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import swsjax
from swsjax import codec


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.bfloat16])
def test_narrow_floats_come_back(dtype):
    width = jnp.dtype(dtype).itemsize
    array = jnp.asarray(np.arange(256 * width, dtype=np.uint8).view(dtype))
    back = swsjax.loads(swsjax.dumps({"w": array}), like={"w": array})["w"]
    assert (back.dtype, np.asarray(back).tobytes()) == (array.dtype, np.asarray(array).tobytes())


@pytest.mark.parametrize("dtype", [jnp.int4, jnp.uint4])
def test_integers_of_4_bits_come_back(dtype):
    array = jnp.asarray(np.arange(16, dtype=np.uint8).view(dtype).reshape(2, 8))
    data = swsjax.dumps({"w": array})
    for like in (array, np.asarray(array)):
        back = swsjax.loads(data, like={"w": like})["w"]
        assert (type(back), back.dtype, back.shape) == (type(like), array.dtype, (2, 8))
        np.testing.assert_array_equal(back.astype(int), array.astype(int))
    (layer,) = swsjax.report(data).layers
    assert (layer.levels, layer.non_zeros) == (16, 15)


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">i4", ">u8", ">c8", ">c16"])
def test_other_byte_orders_become_that_of_the_machine(dtype):
    array = (np.arange(12).reshape(3, 4) - 5).astype(dtype)
    array[0, 0] = 0
    for negative_zeros in (True, False):
        back = swsjax.loads(swsjax.dumps({"w": array}, negative_zeros=negative_zeros))["w"]
        assert back.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    "array",
    [
        jnp.ones(3, jnp.int2),
        jnp.ones(3, jnp.float8_e4m3fnuz),
        jnp.ones(3, jnp.float8_e8m0fnu),
        np.ones(3, np.longdouble),
        np.ones(3, np.clongdouble),
        np.array(["2020-01-01"], "M8[D]"),
    ],
    ids=lambda array: array.dtype.name,
)
@pytest.mark.parametrize("negative_zeros", [True, False])
def test_types_without_a_place_in_files_are_refused(array, negative_zeros):
    message = (
        f"leaf ('fc', 'w') has element type {array.dtype.name}, expected one of "
        f"{', '.join(codec.DTYPES)}; convert it with astype"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        swsjax.dumps({"fc": {"w": array}}, negative_zeros=negative_zeros)


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [((3, 0), (3, 0)), ((0, 3), (0, 3)), ((0,), (1, 0)), ((2, 0, 4), (0, 4)), ((2, 3, 0), (6, 0))],
)
def test_empty_arrays_as_sparse_matrices(shape, matrix):
    made = swsjax.to_sparse(np.zeros(shape, np.float32))
    assert (made.shape, made.nnz) == (matrix, 0)
