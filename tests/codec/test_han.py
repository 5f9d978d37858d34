"""The Han format: exact sizes, exact round trip, and damaged streams."""

import numpy as np
import pytest

from swsjax.codec.bits import bits_of
from swsjax.codec.han import decode_han, encode_han, han_size
from swsjax.errors import FormatError


def sparse(shape, density, levels, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    book = (rng.choice(2000, levels, replace=False) + 1).astype(dtype) / dtype(64)
    return np.where(rng.random(shape) < density, rng.choice(book, shape), dtype(0))


NETS = {
    "lenet": [sparse((784, 300), 0.03, 15), sparse((300,), 0.5, 15), sparse((10, 4), 0, 1)],
    "dense": [sparse((60, 50), 1, 8), sparse((), 1, 1), sparse((5, 0), 1, 1)],
    "conv": [sparse((5, 5, 3, 20), 0.1, 4), sparse((2, 3, 4), 0.3, 3, 1, np.float16)],
    "unquantised": [np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32)],
    "other types": [np.arange(9, dtype=np.int64).reshape(3, 3) % 3, np.array([True, False])],
    "nothing": [],
}


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_round_trip_and_exact_size(net, huffman):
    shapes, bits = [leaf.shape for leaf in net], [bits_of(leaf) for leaf in net]
    stream, has_units = encode_han(shapes, bits, huffman)
    decoded = decode_han(
        stream, shapes, [leaf.dtype for leaf in bits], huffman, has_units=has_units
    )
    for actual, expected in zip(decoded, bits, strict=True):
        np.testing.assert_array_equal(actual, expected)
    total = sum(size.total for size in han_size(net, huffman))
    assert len(stream) == (total + 7) // 8


def test_hand_computed_size():
    # One row with gaps 1, 6 and 1. With p = 2, the gap of 6 needs a filler (4 + 2): four entries of
    # 2 + 2 bits, as the values are two levels and the filler. With p = 3, no filler: three entries
    # of 3 + 1 bits.
    matrix = np.float32([[1, 0, 0, 0, 0, 0, 2, 1]])
    size = han_size([matrix])[0]
    assert (size.positions, size.values, size.fillers) == (9, 3, 0)
    assert (size.pointers, size.codebook) == (2, 64)


def test_fillers_bridge_rare_wide_gaps():
    row = np.zeros((1, 4000), np.float32)
    row[0, :500] = row[0, 3999] = 1
    size = han_size([row])[0]
    assert size.fillers > 0
    assert size.positions + size.fillers < 501 * 12


def test_orientation_minimises_row_pointers():
    tall = np.zeros((1000, 4), np.float32)
    tall[::100] = 1
    size = han_size([tall])[0]
    assert size.total == han_size([tall.T.copy()])[0].total
    assert size.pointers == 4 * 6


def test_shared_codebook_is_charged_once():
    a, b = sparse((50, 50), 0.3, 15), sparse((50, 50), 0.3, 15)
    first, second = han_size([a, b])
    assert first.codebook == 15 * 32
    assert second.codebook == 0


def test_minus_zero_is_a_level():
    leaf = np.float32([0.0, -0.0, 0.0, 0.0] * 20)
    assert han_size([leaf])[0].codebook == 32
    decoded = decode_han(encode_han([(80,)], [bits_of(leaf)]).coded, [(80,)], [np.uint32])[0]
    np.testing.assert_array_equal(decoded, bits_of(leaf))


@pytest.mark.parametrize("huffman", [False, True])
def test_damage_raises_format_error_or_changes_the_matrix(huffman):
    net = NETS["conv"]
    shapes, bits = [leaf.shape for leaf in net], [bits_of(leaf) for leaf in net]
    stream, has_units = encode_han(shapes, bits, huffman)
    dtypes = [leaf.dtype for leaf in bits]
    rng = np.random.default_rng(0)
    errors = 0
    for _ in range(200):
        damaged = bytearray(stream)
        for at in rng.integers(len(stream), size=3):
            damaged[at] = rng.integers(256)
        damaged = damaged[: rng.integers(len(damaged) // 2, len(damaged) + 1)]
        try:
            decode_han(bytes(damaged), shapes, dtypes, huffman, has_units=has_units)
        except FormatError:
            errors += 1
    assert errors > 100
