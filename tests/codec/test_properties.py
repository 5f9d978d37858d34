"""Any pytree of arrays is restored bit for bit, in every encoding."""

from typing import NamedTuple

import jax
import ml_dtypes  # noqa: F401  registers bfloat16, float8 and int4 with NumPy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swsjax import codec
from swsjax.codec.bits import bits_of
from swsjax.codec.han import encode_han
from swsjax.codec.header import pattern_shape
from swsjax.file import files

SETTINGS = settings(max_examples=60, deadline=None)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)


class Pair(NamedTuple):
    left: object
    right: object


@st.composite
def arrays(draw):
    """Arrays of every type, with arbitrary bit patterns or with zero and a few others."""
    name = draw(st.sampled_from(list(codec.DTYPES)))
    shape = draw(SHAPES)
    width = codec.DTYPES[name]
    bits = np.dtype(f"u{min(width, 8)}")
    top = {"bool": 1, "int4": 15, "uint4": 15}.get(name, int(np.iinfo(bits).max))
    values = st.integers(0, top)
    if draw(st.booleans()):
        values = st.sampled_from([0, 0, *draw(st.lists(values, min_size=1, max_size=5))])
    patterns = draw(hnp.arrays(bits, (*shape, 2) if width == 16 else shape, elements=values))
    return patterns.reshape(-1).view(np.dtype(name)).reshape(shape)


KEYS = st.text(max_size=6)
TREES = st.recursive(
    arrays(),
    lambda inner: st.one_of(
        st.dictionaries(KEYS, inner, max_size=3),
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=6,
)


@SETTINGS
@given(tree=TREES, encoding=st.sampled_from(codec.ENCODINGS))
def test_any_pytree_is_restored(tree, encoding):
    decoded = files.loads(files.dumps(tree, encoding=encoding), like=tree)
    assert jax.tree.structure(decoded) == jax.tree.structure(tree)
    for expected, actual in zip(jax.tree.leaves(tree), jax.tree.leaves(decoded), strict=True):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        assert actual.tobytes() == expected.tobytes()


@SETTINGS
@given(leaves=st.lists(arrays(), max_size=5), huffman=st.booleans())
def test_han_sizes_are_exact(leaves, huffman):
    shapes = [pattern_shape(leaf.dtype.itemsize, leaf.shape) for leaf in leaves]
    stream, _ = encode_han(shapes, [bits_of(leaf) for leaf in leaves], huffman)
    sizes = codec.han_size(leaves, huffman)
    assert len(stream) == -(-sum(size.total for size in sizes) // 8)
    plain = codec.han_size(leaves)
    for leaf, size in zip(leaves, plain, strict=True):
        assert size.total <= leaf.nbytes * 8 + 32


@settings(SETTINGS, max_examples=30)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    levels=st.integers(1, 40),
    density=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    copies=st.sampled_from([1, 3, 9]),
    seed=st.integers(0, 2**32 - 1),
    encoding=st.sampled_from(codec.ENCODINGS),
)
def test_sparse_matrices_are_restored(rows, columns, levels, density, copies, seed, encoding):
    """Repeated rows exercise the neighbour search, the second leaf exercises links."""
    rng = np.random.default_rng(seed)
    book = rng.normal(size=levels).astype(np.float32)
    one = np.where(rng.random((rows, columns)) < density, rng.choice(book, (rows, columns)), 0)
    first = np.tile(one, (copies, 1)).astype(np.float32)
    second = (first.T * (rng.random(first.T.shape) < 0.5)).astype(np.float32)
    leaves = [(("a",), first), (("b",), second), (("c",), first.reshape(copies, 1, rows, columns))]
    contents = codec.unpack(codec.pack(leaves, encoding=encoding))
    for (_, array), bits in zip(leaves, contents.bits, strict=True):
        assert bits.tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(1100, 1000), (2, 600_000), (1_200_000,)])
def test_matrices_of_more_than_one_chunk(shape):
    rng = np.random.default_rng(0)
    array = np.where(rng.random(shape) < 0.01, rng.choice(np.float32([-1, 1, 2]), shape), 0)
    array = array.astype(np.float32)
    contents = codec.unpack(codec.pack([(("a",), array)]))
    assert contents.bits[0].tobytes() == array.tobytes()
