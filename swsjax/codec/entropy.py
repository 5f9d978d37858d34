"""The entropy encoding: all leaves of a file in one range-coded string."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swsjax.codec.bits import levels_of
from swsjax.codec.codebook import MAX_LEVELS, code_codebook, codebook_bits
from swsjax.codec.diagonals import places, to_diagonals
from swsjax.codec.header import Shape, matrix_shape
from swsjax.codec.planes import RawSection, code_planes, entropy_q16
from swsjax.codec.positions import code_positions
from swsjax.codec.rangecoder import Coder, Decoder, Encoder
from swsjax.codec.structure import Profiles, code_structure, find_structure
from swsjax.codec.values import LevelModel, code_levels
from swsjax.errors import FormatError

__all__ = ["Encoded", "decode_entropy", "encode_entropy"]

_CODEBOOK, _SPARSE_RAW, _DENSE_RAW, _ZERO = range(4)
_KIND_BITS = 2
_BIT_Q16 = 45426  # ln 2 in units of 2**-16
_UNUSED_LEVEL_BITS = 6
_CHUNK = 1 << 20


class Encoded(NamedTuple):
    """What :func:`encode_entropy` returns.

    ``coded`` is the range-coded string and ``raw`` the bytes stored without coding. ``leaf_bits``
    has the fractional number of bits of every leaf; all shared codebooks are charged to the leaf
    that is coded first.
    """

    coded: bytes
    raw: bytes
    leaf_bits: list[float]


def encode_entropy(shapes: Sequence[Shape], bits: Sequence[np.ndarray]) -> Encoded:
    """Return the range-coded bytes, the raw bytes, and the number of bits of every leaf.

    Args:
        shapes: shape of every leaf's bit patterns.
        bits: flat bit patterns of every leaf.

    Example:
        >>> leaf = np.tile(np.array([0, 0, 0, 7, 0], np.uint32), 100)
        >>> coded, raw, leaf_bits = encode_entropy([(20, 25)], [leaf])
        >>> len(coded) < 30, raw, 8 * len(coded) - sum(leaf_bits) < 8
        (True, b'', True)
        >>> bool((decode_entropy(coded, raw, [(20, 25)], ["u4"])[0] == leaf).all())
        True
    """
    coder, raw = Encoder(), RawSection()
    leaf_bits = _code_leaves(coder, raw, shapes, bits, range(len(bits)))
    return Encoded(coder.getvalue(), b"".join(raw.parts), leaf_bits)


def decode_entropy(
    coded: bytes,
    raw: bytes,
    shapes: Sequence[Shape],
    dtypes: Sequence[npt.DTypeLike],
    names: Sequence[object] | None = None,
    where: int = 0,
) -> list[np.ndarray]:
    """Return the flat bit patterns of every leaf.

    Args:
        coded, raw: what :func:`encode_entropy` returned.
        shapes: shape of every leaf's bit patterns.
        dtypes: unsigned type of every leaf's bit patterns.
        names: name of every leaf for messages; by default its index.
        where: file offset of ``coded``, for messages; ``raw`` follows it.

    Raises:
        FormatError: ``coded`` or ``raw`` is damaged.

    Example:
        >>> coded, raw, _ = encode_entropy([(3,)], [np.array([0, 9, 9], np.uint8)])
        >>> decode_entropy(coded, raw, [(3,)], ["u1"])
        [array([0, 9, 9], dtype=uint8)]
    """
    section = RawSection(raw, where + len(coded))
    bits = [np.zeros(math.prod(s), t) for s, t in zip(shapes, dtypes, strict=True)]
    _code_leaves(Decoder(coded, where), section, shapes, bits, names or range(len(bits)))
    if section.left:
        raise FormatError(f"{section.left} bytes are left after the raw values")
    return bits


class _Leaf(NamedTuple):
    """A leaf and what the encoder decided about it."""

    name: object
    shape: Shape
    bits: np.ndarray
    kind: int = _ZERO
    levels: np.ndarray | None = None
    cost: int = 0  # estimate, in nats * 2**16
    without_levels: int = 0  # the same with a codebook, excluding its levels
    shares: bool = False


def _code_leaves(
    coder: Coder,
    raw: RawSection,
    shapes: Sequence[Shape],
    bits: Sequence[np.ndarray],
    names: Sequence[object],
) -> list[float]:
    """Code all leaves; return the number of bits of every leaf when writing.

    Leaves with two or more axes come first, so that the models of biases have seen the kernels.
    """
    order = sorted(range(len(bits)), key=lambda i: len(shapes[i]) < 2)
    leaves = [_Leaf(names[i], tuple(shapes[i]), bits[i]) for i in order]
    shared = dict.fromkeys(leaf.bits.dtype for leaf in leaves)
    if coder.writes:
        leaves = [_classify(leaf) for leaf in leaves]
        for dtype in shared:
            leaves, shared[dtype] = _share(leaves, dtype)
    models = {}
    for dtype, levels in shared.items():
        with _located("shared codebook", coder):
            if coder.integer(int(levels is not None), 1):
                levels = code_codebook(coder, levels, dtype)
                models[dtype] = levels, LevelModel(levels)
    profiles = Profiles()
    leaf_bits = [0.0] * len(leaves)
    before = 0.0
    for i, leaf in zip(order, leaves, strict=True):
        with _located(f"leaf {leaf.name}", coder):
            _code_leaf(coder, raw, leaf, models.get(leaf.bits.dtype), profiles)
        if coder.writes:
            after = coder.bits + 8 * raw.size
            leaf_bits[i], before = after - before, after
    return leaf_bits


@contextlib.contextmanager
def _located(what: str, coder: Coder) -> Iterator[None]:
    """Prefix the message of a FormatError with the part of the file and its offset."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{what}, coded data from byte {coder.where}: {error}") from None


def _code_leaf(
    coder: Coder,
    raw: RawSection,
    leaf: _Leaf,
    shared: tuple[np.ndarray, LevelModel] | None,
    profiles: Profiles,
) -> None:
    """Code one leaf; ``shared`` is the codebook and model of its element width, or None."""
    kind = coder.integer(leaf.kind, _KIND_BITS)
    if kind == _ZERO:
        return
    if leaf.bits.size == 0:
        raise FormatError(f"shape {leaf.shape} is empty, but data is coded for it")
    if kind == _DENSE_RAW:
        code_planes(coder, raw, leaf.bits)
        return
    codebook = None
    if kind == _CODEBOOK:
        if shared and coder.integer(int(leaf.shares), 1):
            codebook = shared
        else:
            levels = code_codebook(coder, leaf.levels, leaf.bits.dtype)
            codebook = levels, LevelModel(levels)
    matrix = leaf.bits.reshape(matrix_shape(leaf.shape))
    structure, mask = None, None
    if coder.writes:
        mask = (matrix != 0).view(np.uint8)
        structure = find_structure(mask, leaf.shape, profiles)
    structure = code_structure(coder, structure, leaf.shape, matrix.shape, profiles)
    if structure.transposed:
        matrix = matrix.T
    if mask is None:
        diagonals = np.zeros(matrix.shape[::-1], np.uint8)
    else:
        diagonals = to_diagonals(mask.T if structure.transposed else mask)
        del mask
    link = profiles.logits(matrix.shape[0], structure.link) if structure.link else None
    code_positions(coder, diagonals, structure.even, structure.neighbours, link)
    if codebook:
        levels, model = codebook
        code_levels(coder, model, levels, matrix, diagonals, structure.neighbours)
    else:
        _code_raw_values(coder, raw, matrix, diagonals)
    profiles.add(*_column_counts(diagonals, structure.transposed))


def _code_raw_values(
    coder: Coder, raw: RawSection, matrix: np.ndarray, diagonals: np.ndarray
) -> None:
    """Code the non-zeros of a matrix as byte planes."""
    values = np.zeros(np.count_nonzero(diagonals), matrix.dtype)
    start = 0
    if coder.writes:
        for row, column in places(diagonals):
            values[start : start + row.size] = matrix[row, column]
            start += row.size
    code_planes(coder, raw, values)
    if not coder.writes:
        for row, column in places(diagonals):
            matrix[row, column] = values[start : start + row.size]
            start += row.size


def _classify(leaf: _Leaf) -> _Leaf:
    """Choose the cheapest kind for a leaf alone, by the entropies of its positions and values."""
    nonzero = int(np.count_nonzero(leaf.bits))
    if nonzero == 0:
        return leaf
    size, width = leaf.bits.size, 8 * leaf.bits.dtype.itemsize
    positions = entropy_q16([nonzero, size - nonzero])
    costs = {
        _DENSE_RAW: size * width * _BIT_Q16,
        _SPARSE_RAW: nonzero * width * _BIT_Q16 + positions,
    }
    levels = levels_of(leaf.bits, MAX_LEVELS)
    values = 0
    if levels is not None:
        counts = np.zeros(levels.size, np.int64)
        for start in range(0, size, _CHUNK):
            part = leaf.bits[start : start + _CHUNK]
            counts += np.bincount(np.searchsorted(levels, part[part != 0]), minlength=levels.size)
        values = positions + entropy_q16(counts)
        costs[_CODEBOOK] = values + codebook_bits(levels, width) * _BIT_Q16
    kind = min(costs, key=costs.__getitem__)
    return leaf._replace(kind=kind, levels=levels, cost=costs[kind], without_levels=values)


def _share(leaves: list[_Leaf], dtype: np.dtype) -> tuple[list[_Leaf], np.ndarray | None]:
    """Share a codebook among leaves of one element width if that is smaller.

    Returns:
        The leaves, and the levels of the shared codebook or None.
    """
    width = 8 * dtype.itemsize
    candidates = {
        i: leaf.levels
        for i, leaf in enumerate(leaves)
        if leaf.bits.dtype == dtype and leaf.kind != _ZERO and leaf.levels is not None
    }
    members: list[int] = []
    union = np.zeros(0, dtype)
    for i in sorted(candidates, key=lambda i: (leaves[i].kind != _CODEBOOK, -leaves[i].bits.size)):
        leaf, levels = leaves[i], candidates[i]
        joined = np.union1d(union, levels)
        # A leaf spends some bits even on a level that it does not use.
        extra = (joined.size - levels.size) * _UNUSED_LEVEL_BITS
        extra += (joined.size - union.size) * width
        cheaper = leaf.without_levels + extra * _BIT_Q16 < leaf.cost
        if (cheaper and joined.size <= MAX_LEVELS) or (not members and leaf.kind == _CODEBOOK):
            members.append(i)
            union = joined
    if len(members) < 2:
        return leaves, None
    leaves = list(leaves)
    for i in members:
        leaves[i] = leaves[i]._replace(kind=_CODEBOOK, shares=True)
    return leaves, union


def _column_counts(diagonals: np.ndarray, transposed: bool) -> tuple[np.ndarray, int]:
    """Non-zeros per column of the matrix before transposition, and its number of rows."""
    columns, rows = diagonals.shape
    if transposed:
        return diagonals.sum(axis=0, dtype=np.int64), columns
    counts = np.zeros(columns, np.int64)
    for _, column in places(diagonals):
        counts += np.bincount(column, minlength=columns)
    return counts, rows
