"""Leaves that are a unit times levels of one codebook: one codebook and one unit per leaf."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import decode

from swsjax import codec
from swsjax.codec.bits import bits_of, levels_of
from swsjax.codec.units import ONE, checked_unit, divided, find_units, multiplied
from swsjax.errors import FormatError

LAYERS = [(392, 150), (150,), (150, 100), (100,), (100, 10), (10,)]


def rounded(values, bits):
    """Round float32 values to so many significant bits."""
    fraction, exponent = np.frexp(np.float64(values))
    return np.float32(np.ldexp(np.round(fraction * 2**bits), exponent - bits))


def levels_and_places(shapes, count, rng, density=0.03):
    """Levels of 8 significant bits, and leaves of them."""
    levels = np.unique(rounded(rng.normal(size=count), 8))
    densities = [density if len(shape) > 1 else 0.3 for shape in shapes]
    return [
        np.where(rng.random(shape) < d, rng.choice(levels, shape), np.float32(0))
        for shape, d in zip(shapes, densities, strict=True)
    ]


def in_units(leaves, rng):
    return [leaf * rounded(rng.lognormal(-2, 1), 16) for leaf in leaves]


def named(arrays):
    return [((f"w{i}",), array) for i, array in enumerate(arrays)]


def assert_restored(arrays, encoding="entropy"):
    data = codec.pack(named(arrays), encoding=encoding)
    for array, bits in zip(arrays, codec.unpack(data).bits, strict=True):
        assert bits.tobytes() == array.tobytes()
    return data


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("encoding", codec.ENCODINGS)
def test_a_unit_takes_few_bytes(seed, encoding):
    rng = np.random.default_rng(seed)
    plain = levels_and_places(LAYERS, 14, rng)
    net = in_units(plain, rng)
    data = assert_restored(net, encoding)
    of_plain = codec.pack(named(plain), encoding=encoding)
    assert (of_plain[3], data[3]) == (1, 2)
    per_leaf = 3.5 if encoding == "entropy" else 4
    assert len(data) <= len(of_plain) + per_leaf * len(net) + 2


def test_rates_count_one_codebook_and_a_unit_per_leaf():
    rng = np.random.default_rng(0)
    plain = levels_and_places(LAYERS, 14, rng)
    net = in_units(plain, rng)
    for measure in (codec.entropy_bound, codec.han_size):
        codebooks = [sum(size.codebook for size in measure(leaves)) for leaves in (plain, net)]
        assert codebooks == [14 * 32, 14 * 32 + 6 * 32]
        totals = [sum(size.total for size in measure(leaves)) for leaves in (plain, net)]
        assert totals[1] - totals[0] == pytest.approx(6 * 32)
    assert len(codec.pack(named(net), encoding="han")) < len(codec.pack(named(plain))) * 1.2


def test_one_leaf_with_a_unit():
    levels = levels_and_places([(100, 100)], 30, np.random.default_rng(0), 0.3)[0]
    net = levels * rounded(0.3712, 16)
    data = assert_restored([net])
    assert data[3] == 2
    assert len(data) < len(codec.pack(named([levels]))) + 5


def test_two_codebooks_in_units():
    rng = np.random.default_rng(0)
    first, second = (levels_and_places([(120, 60)] * 3, 12, rng) for _ in range(2))
    plain = len(codec.pack(named([*first, *second])))
    data = assert_restored(in_units([*first, *second], rng))
    assert data[3] == 2
    assert len(data) < plain + 4 * 6 + 8


def test_ternary_leaves_of_full_precision_sizes():
    rng = np.random.default_rng(0)
    signs = [rng.choice(np.float32([-1, 0, 1]), (40, 40), p=[0.1, 0.8, 0.1]) for _ in range(10)]
    data = assert_restored([leaf * np.float32(rng.random()) for leaf in signs])
    assert len(data) < len(codec.pack(named(signs))) + 10 * 4 + 8


def test_nets_without_units_stay_in_version_1():
    rng = np.random.default_rng(0)
    shapes = LAYERS[2:]
    plain = levels_and_places(shapes, 14, rng)
    floats = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    few = [rng.choice(rng.normal(size=9).astype(np.float32), shape) for shape in shapes]
    halves = [leaf * np.float32(0.5) ** i for i, leaf in enumerate(few)]
    other = [leaf.astype(np.float16) for leaf in plain] + [leaf.astype(np.float64) for leaf in few]
    for net in (plain, floats, few, halves, other, [np.zeros(9, np.float32)], []):
        for encoding in codec.ENCODINGS:
            assert codec.pack(named(net), encoding=encoding)[3] == 1


@pytest.mark.parametrize(
    "odd",
    [
        np.float32([0.0, -0.0, 0.0]),
        np.float32([np.nan, np.inf, 1.0]),
        np.array([0xFFC00001, 0x7F800001, 0], np.uint32).view(np.float32),
        np.float32([1e-45, 1e-40, 0]),
        np.float32([3e38, 1e-38, 0]),
        np.float32([1, 2**-126, 0]),
        np.float32(0.123),
        np.float64([0.5, 0.25]),
        np.float16([0.5, 0.25]),
        np.int32([7, 1_000_000_000]),
        np.zeros((0, 3), np.float32),
        np.zeros(3, np.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("encoding", codec.ENCODINGS)
def test_leaves_beside_leaves_in_units(odd, encoding):
    rng = np.random.default_rng(0)
    net = in_units(levels_and_places(LAYERS[2:4], 14, rng), rng)
    for arrays in ([odd, *net], [*net, odd], [np.tile(odd, 300), *net]):
        version = assert_restored(arrays, encoding)[3]
        # In the Han format all leaves with a codebook share it or none does: a level more may cost
        # every weight a bit, so that none does.
        assert version == 2 or encoding == "han"


@settings(max_examples=50, deadline=None)
@given(
    shapes=st.lists(st.sampled_from([(12, 9), (30, 20), (7,), (1,), (3, 3, 2, 4)]), max_size=7),
    count=st.integers(1, 40),
    density=st.sampled_from([0.05, 0.4, 1.0]),
    scale=st.sampled_from([-126, -60, 0, 60, 120]),
    special=st.sampled_from([None, -0.0, np.inf, np.nan, 1e-42]),
    seed=st.integers(0, 2**32 - 1),
    encoding=st.sampled_from(codec.ENCODINGS),
)
def test_nets_in_units_are_restored(shapes, count, density, scale, special, seed, encoding):
    rng = np.random.default_rng(seed)
    net = in_units(levels_and_places(shapes, count, rng, density), rng)
    net = [np.float32(np.ldexp(leaf, scale)) for leaf in net]
    if special is not None and net:
        net[0].reshape(-1)[0] = special
    data = assert_restored(net, encoding)
    decoded = decode(data)[0]
    assert [leaf[3] for leaf in decoded] == [bits_of(array).tolist() for array in net]


@settings(max_examples=6, deadline=None)
@given(count=st.integers(8, 24), leaves=st.integers(2, 6), seed=st.integers(0, 2**32 - 1))
def test_units_cost_at_most_four_bytes_per_leaf(count, leaves, seed):
    rng = np.random.default_rng(seed)
    plain = levels_and_places([(60, 40)] * leaves, count, rng, 0.3)
    data = codec.pack(named(in_units(plain, rng)))
    assert len(data) <= len(codec.pack(named(plain))) + 4 * leaves + 8


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 30), sizes=st.lists(st.integers(1, 30), min_size=1), seed=st.integers(0)
)
def test_units_are_found_exactly(count, sizes, seed):
    rng = np.random.default_rng(seed)
    book = np.unique(rounded(rng.normal(size=count), 8))
    leaves = []
    for size in [count, *sizes]:
        chosen = rng.choice(book, min(size, book.size), replace=False)
        leaf = np.sort((chosen * rounded(rng.lognormal(), 16)).view(np.uint32))
        leaves.append(leaf)
    units = find_units(leaves) or [ONE] * len(leaves)
    entries = [divided(leaf, unit) for leaf, unit in zip(leaves, units, strict=True)]
    for leaf, unit, entry in zip(leaves, units, entries, strict=True):
        np.testing.assert_array_equal(multiplied(entry, unit), leaf)
    # The first leaf has the whole book, unless all its levels have a common divisor.
    assert np.unique(np.concatenate(entries)).size <= book.size + 2 * (book.size < 4)


def test_the_product_keeps_infinities_and_nan_payloads():
    levels = np.array([0x7F800000, 0x7F800001, 0x80000000, 0xFF800000, 0xFFC12345], np.uint32)
    np.testing.assert_array_equal(multiplied(levels, 0x40490FDB), levels)
    overflow = multiplied(np.array([0x7F000000], np.uint32), 0x42000000)
    assert overflow.tolist() == [0x7F800000]


@pytest.mark.parametrize("unit", [0, 1, 0x7FFFFF, 0x7F800000, 0x7FFFFFFF, 0x80000000, 0xBF800000])
def test_damaged_units_are_rejected(unit):
    with pytest.raises(FormatError, match="expected a positive normal float32"):
        checked_unit(unit)


def test_plain_floats_are_given_up_quickly():
    rng = np.random.default_rng(0)
    leaves = [np.sort(rng.normal(size=250).astype(np.float32).view(np.uint32)) for _ in range(400)]
    start = time.perf_counter()
    assert find_units(leaves) is None
    assert time.perf_counter() - start < 0.5


def test_many_leaves_of_bfloat16_values_are_searched_quickly():
    rng = np.random.default_rng(0)
    arrays = [rounded(rng.normal(size=250), 8) for _ in range(100)]
    leaves = [levels_of(bits_of(array), 2048) for array in arrays]
    start = time.perf_counter()
    find_units(leaves)
    assert time.perf_counter() - start < 2
