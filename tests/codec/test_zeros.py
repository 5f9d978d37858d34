"""Negative zeros: every bit comes back, and a sign costs little where it follows from others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import decode

from swsjax import codec
from swsjax.codec.bits import bits_of
from swsjax.codec.rangecoder import Decoder, Encoder
from swsjax.codec.zeros import code_zero_signs, count_negative_zeros, negative_zeros, positive_zeros

BOOK = np.float32([-0.9, -0.5, -0.25, 0.125, 0.3, 0.7])
ZERO_SIGNS = 128  # flag


def size_of(array):
    data = codec.pack([(("w",), array)])
    assert codec.unpack(data).bits[0].tobytes() == array.tobytes()
    return len(data)


@pytest.fixture
def pruned():
    """A matrix with 10 % of its weights, and positive zeros."""
    rng = np.random.default_rng(0)
    mask = rng.random((200, 100)) < 0.1
    return np.where(mask, rng.choice(BOOK, mask.shape), np.float32(0))


def with_signs(pruned, negative):
    return np.where((pruned == 0) & negative, np.float32(-0.0), pruned)


@pytest.mark.parametrize(
    "negative",
    [
        np.ones((200, 100), bool),
        np.arange(100) % 3 == 0,
        np.random.default_rng(1).random(100) < 0.5,
        np.random.default_rng(1).random((200, 1)) < 0.5,
    ],
    ids=["all", "every third column", "some columns", "some rows"],
)
def test_signs_that_follow_from_few_bits_cost_little(pruned, negative):
    assert size_of(with_signs(pruned, negative)) < 1.03 * size_of(pruned)


def test_random_signs_cost_a_bit_each(pruned):
    """Also of weights that have no codebook."""
    rng = np.random.default_rng(1)
    unquantised = np.where(pruned != 0, rng.normal(size=pruned.shape), 0).astype(np.float32)
    for array in (pruned, unquantised):
        signed = with_signs(array, rng.random(pruned.shape) < 0.5)
        bits = 8 * (size_of(signed) - size_of(array))
        assert bits < 1.02 * (array == 0).sum() + 100


def test_few_negative_zeros_cost_few_bytes(pruned):
    few = np.zeros(pruned.shape, bool)
    few[3, 5] = few[70, 20] = True
    assert size_of(with_signs(pruned, few)) <= size_of(pruned) + 16


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "complex64"])
def test_a_leaf_of_negative_zeros(dtype):
    zeros = np.full((300, 200), -0.0).astype(dtype)
    assert size_of(zeros) < 40


def test_files_without_negative_zeros_have_no_signs(pruned):
    assert codec.pack([(("w",), pruned)])[3] == 1
    data = codec.pack([(("w",), with_signs(pruned, np.arange(100) % 2 == 0))])
    assert (data[3], data[4] & ZERO_SIGNS) == (3, ZERO_SIGNS)


PATTERNS = st.sampled_from([0, 0, 0x80000000, 0x80000000, 0x3F800000, 0xBF800000, 0x7FC00001])


@settings(max_examples=30, deadline=None)
@given(
    small=hnp.arrays(np.uint32, hnp.array_shapes(max_dims=3, max_side=9), elements=PATTERNS),
    copies=st.sampled_from([1, 40]),
)
def test_any_array_is_restored_by_both_decoders(small, copies):
    array = np.concatenate([small] * copies).view(np.float32)
    other = np.where(np.arange(600) % 7 == 0, np.float32(0.5), np.float32(-0.0))
    data = codec.pack([(("a",), array), (("b",), other), (("c",), other.reshape(20, 30))])
    expected = [bits_of(leaf) for leaf in (array, other, other)]
    for bits, (*_, patterns), wanted in zip(
        codec.unpack(data).bits, decode(data)[0], expected, strict=True
    ):
        np.testing.assert_array_equal(bits, wanted)
        assert patterns == wanted.tolist()


@pytest.mark.parametrize(("shape", "density"), [((264, 500), 0.05), ((132_000,), 0.0)])
def test_zeros_of_more_than_one_chunk(shape, density):
    rng = np.random.default_rng(0)
    values = np.where(rng.random(shape) < density, rng.normal(size=shape), 0).astype(np.float32)
    negative = rng.random(shape) < np.linspace(0, 1, shape[-1])
    array = np.where(negative & (values == 0), np.float32(-0.0), values)
    data = codec.pack([(("w",), array)])
    assert data[4] & ZERO_SIGNS
    expected = bits_of(array)
    np.testing.assert_array_equal(codec.unpack(data).bits[0], expected)
    assert decode(data)[0][0][3] == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(
    matrix=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=30),
        elements=st.sampled_from([0, 0, 1, 128]),
    )
)
def test_signs_of_any_matrix(matrix):
    negative = negative_zeros(matrix)
    encoder = Encoder()
    code_zero_signs(
        encoder,
        np.where(negative, 0, matrix).astype(np.uint8),
        negative if negative.any() else None,
    )
    decoded = np.where(negative, 0, matrix).astype(np.uint8)
    code_zero_signs(Decoder(encoder.getvalue()), decoded, None)
    np.testing.assert_array_equal(decoded, matrix)


@pytest.mark.parametrize("name", codec.DTYPES)
def test_positive_zeros_change_nothing_else(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    every = np.arange({"bool": 2, "int4": 16, "uint4": 16}.get(name, 256), dtype=np.uint8)
    patterns = np.zeros((every.size, dtype.itemsize), np.uint8)
    patterns[:, -1] = every  # the byte of the sign
    patterns[1::2, 0] |= 1  # NaN with payloads among them
    array = patterns.reshape(-1).view(dtype)
    made = positive_zeros(array)
    is_float = "float" in name or "complex" in name
    assert count_negative_zeros(array) == is_float
    assert count_negative_zeros(made) == 0
    changed = [i for i in range(array.size) if made[i].tobytes() != array[i].tobytes()]
    assert len(changed) == is_float
    assert all(made[i] == 0 and array[i] == 0 for i in changed)


def test_both_parts_of_complex_numbers_count():
    array = np.array([complex(-0.0, -0.0), complex(1, -0.0)])
    assert count_negative_zeros(array) == 3
    assert not np.signbit(positive_zeros(array).imag).any()
    assert not np.signbit(positive_zeros(array).real).any()


def test_big_endian_arrays_have_negative_zeros():
    array = np.array([0.0, -0.0, -1.0], ">f4")
    assert count_negative_zeros(array) == 1
    assert positive_zeros(array).tobytes() == np.float32([0, 0, -1]).tobytes()
