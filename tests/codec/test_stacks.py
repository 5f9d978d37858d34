"""Hundreds of small leaves are coded together: fast, smaller, and to the same bits."""

import cProfile
import pstats

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import decode

from swsjax import codec
from swsjax.codec.bits import bits_of
from swsjax.codec.stacks import groups_of, stackable
from swsjax.file import dumps, loads
from swsjax.measure.reports import report

BOOK = np.float32([-0.5, -0.25, 0.125, 0.3, 0, 0])
STACKED = 64  # flag


def named(arrays):
    return [(("layers", i, "w"), array) for i, array in enumerate(arrays)]


def assert_restored(arrays):
    data = codec.pack(named(arrays))
    for array, bits in zip(arrays, codec.unpack(data).bits, strict=True):
        assert bits.tobytes() == array.tobytes()
    return data


def is_stacked(data):
    return data[3] == 3 and bool(data[4] & STACKED)


KINDS = {
    "normal": lambda rng, shape: rng.normal(size=shape).astype(np.float32),
    "book": lambda rng, shape: rng.choice(BOOK, shape),
    "zero": lambda rng, shape: np.zeros(shape, np.float32),
    "half": lambda rng, shape: rng.choice(BOOK, shape).astype(np.float16),
    "complex": lambda rng, shape: rng.choice(BOOK, shape).astype(np.complex128),
    "negative": lambda rng, shape: rng.choice(BOOK, shape) * np.float32(-1),
    "bool": lambda rng, shape: rng.random(shape) < 0.3,
}


@settings(max_examples=10, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3),
    shapes=st.lists(
        st.sampled_from([(), (3,), (2, 2), (4,), (1, 4), (0, 3)]), min_size=1, max_size=4
    ),
    count=st.integers(500, 900),
    seed=st.integers(0, 2**32 - 1),
)
def test_leaves_are_restored(kinds, shapes, count, seed):
    rng = np.random.default_rng(seed)
    arrays = [KINDS[kinds[i % len(kinds)]](rng, shapes[i % len(shapes)]) for i in range(count)]
    data = assert_restored([np.asarray(array) for array in arrays])
    decoded = decode(data)[0]
    assert [leaf[3] for leaf in decoded] == [bits_of(array).tolist() for array in arrays]


@pytest.mark.parametrize("count", [255, 256])
def test_stacks_begin_with_256_leaves(count):
    rng = np.random.default_rng(0)
    data = assert_restored([rng.choice(BOOK, 4) for _ in range(count)])
    assert is_stacked(data) == (count == 256)


@pytest.mark.parametrize("size", [256, 257])
def test_stacks_end_with_256_entries(size):
    rng = np.random.default_rng(0)
    data = assert_restored([KINDS["normal"](rng, size) for _ in range(256)])
    assert is_stacked(data) == (size == 256)


@pytest.mark.parametrize("kind", ["normal", "book", "zero", "negative"])
def test_stacks_are_smaller(kind):
    rng = np.random.default_rng(0)
    arrays = [KINDS[kind](rng, 4) for _ in range(400)]
    stacked, rest = codec.leaf_bits(arrays), []
    for start in range(0, 400, 200):  # too few for a stack
        rest += codec.leaf_bits(arrays[start : start + 200])
    assert sum(stacked) < 0.9 * sum(rest)


def test_leaves_in_units_of_their_own_are_not_stacked():
    """A stack would have one level for each pair of unit and level."""
    rng = np.random.default_rng(0)
    signs = [rng.choice(np.float32([-1, 0, 1]), 200) for _ in range(260)]
    data = assert_restored([leaf * np.float32(rng.random()) for leaf in signs])
    assert not is_stacked(data)
    assert len(data) < len(codec.pack(named(signs))) + 7 * 260


def test_the_leaves_of_a_stack_share_its_bits():
    rng = np.random.default_rng(0)
    arrays = [rng.choice(BOOK, 4) for _ in range(300)] + [rng.choice(BOOK, (60, 60))]
    bits = codec.leaf_bits(arrays)
    assert len(set(bits[:300])) == 1
    data = codec.pack(named(arrays))
    assert sum(bits) / 8 == pytest.approx(len(data), abs=200)


def test_groups_keep_the_order_of_their_first_leaves():
    shapes = [(4,), (5,), (2, 2)] * 256
    sets = stackable(shapes, [np.dtype("u4")] * len(shapes))
    assert [group[0] for group in sets] == [0, 1]
    fewer = stackable(shapes[:-2], [np.dtype("u4")] * 766)
    assert [len(group) for group in fewer] == [511]
    types = [np.dtype("u4"), np.dtype("u4"), np.dtype("u2")] * 256
    assert [group[:2] for group in stackable(shapes, types)] == [[0, 3], [1, 4], [2, 5]]
    groups = groups_of(len(shapes) + 1, [sets[1]])
    assert [group[0] for group in groups[:3]] == [0, 1, 2]
    assert sorted(i for group in groups for i in group) == list(range(len(shapes) + 1))


@pytest.mark.parametrize(
    ("kind", "written", "measured"), [("normal", 300, 500), ("book", 330, 750)]
)
def test_work_is_in_proportion_to_the_leaves(kind, written, measured):
    """In calls of functions, which a machine's speed does not change."""
    rng = np.random.default_rng(0)
    tree = {
        f"block_{b:04}": {f"layer_{i}": {"kernel": KINDS[kind](rng, 4)} for i in range(10)}
        for b in range(200)
    }
    data, calls = calls_of(dumps, tree)
    assert calls < written * 2000
    figures, calls = calls_of(report, data)
    assert calls < measured * 2000
    assert figures.parameters == 8000
    assert len(data) < {"normal": 27_200, "book": 2600}[kind]
    loaded = loads(data)
    assert loaded["block_0112"]["layer_3"]["kernel"].tobytes() == (
        tree["block_0112"]["layer_3"]["kernel"].tobytes()
    )


def calls_of(function, *arguments):
    profile = cProfile.Profile()
    found = profile.runcall(function, *arguments)
    return found, pstats.Stats(profile).total_calls
