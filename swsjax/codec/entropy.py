"""The entropy encoding: all leaves of a file in one range-coded string."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swsjax.codec.codebook import code_codebook
from swsjax.codec.diagonals import places, to_diagonals
from swsjax.codec.header import Shape, matrix_shape
from swsjax.codec.planes import RawSection, code_planes
from swsjax.codec.positions import code_positions
from swsjax.codec.rangecoder import Coder, Decoder, Encoder
from swsjax.codec.sharing import CODEBOOK, DENSE_RAW, ZERO, Leaf, Plan, make_plans
from swsjax.codec.structure import Profiles, code_structure, find_structure
from swsjax.codec.units import (
    ONE,
    SHIFT_BITS,
    UNIT_BITS,
    WITH_UNITS,
    checked_unit,
    multiplied,
    unit_shift,
)
from swsjax.codec.values import LevelModel, code_levels
from swsjax.errors import FormatError

__all__ = ["Encoded", "decode_entropy", "encode_entropy"]

_KIND_BITS = 2


class Encoded(NamedTuple):
    """What :func:`encode_entropy` returns.

    ``coded`` is the range-coded string and ``raw`` the bytes stored without coding. ``leaf_bits``
    has the fractional number of bits of every leaf; all shared codebooks are charged to the leaf
    that is coded first. ``has_units`` is whether the shared codebook has units.
    """

    coded: bytes
    raw: bytes
    leaf_bits: list[float]
    has_units: bool = False


def encode_entropy(shapes: Sequence[Shape], bits: Sequence[np.ndarray]) -> Encoded:
    """Return the range-coded bytes, the raw bytes, and the number of bits of every leaf.

    Args:
        shapes: shape of every leaf's bit patterns.
        bits: flat bit patterns of every leaf.

    Example:
        >>> leaf = np.tile(np.array([0, 0, 0, 7, 0], np.uint32), 100)
        >>> coded, raw, leaf_bits, has_units = encode_entropy([(20, 25)], [leaf])
        >>> len(coded) < 30, raw, 8 * len(coded) - sum(leaf_bits) < 8, has_units
        (True, b'', True, False)
        >>> bool((decode_entropy(coded, raw, [(20, 25)], ["u4"])[0] == leaf).all())
        True
    """
    order = _order(shapes)
    plans = make_plans([Leaf(i, tuple(shapes[i]), bits[i]) for i in order])
    return min((_encode(plan, order) for plan in plans), key=lambda e: len(e.coded) + len(e.raw))


def decode_entropy(
    coded: bytes,
    raw: bytes,
    shapes: Sequence[Shape],
    dtypes: Sequence[npt.DTypeLike],
    names: Sequence[object] | None = None,
    where: int = 0,
    has_units: bool = False,
) -> list[np.ndarray]:
    """Return the flat bit patterns of every leaf.

    Args:
        coded, raw: what :func:`encode_entropy` returned.
        shapes: shape of every leaf's bit patterns.
        dtypes: unsigned type of every leaf's bit patterns.
        names: name of every leaf for messages; by default its index.
        where: file offset of ``coded``, for messages; ``raw`` follows it.
        has_units: whether the shared codebook of 32-bit patterns has units.

    Raises:
        FormatError: ``coded`` or ``raw`` is damaged.

    Example:
        >>> coded, raw, *_ = encode_entropy([(3,)], [np.array([0, 9, 9], np.uint8)])
        >>> decode_entropy(coded, raw, [(3,)], ["u1"])
        [array([0, 9, 9], dtype=uint8)]
    """
    section = RawSection(raw, where + len(coded))
    bits = [np.zeros(math.prod(s), t) for s, t in zip(shapes, dtypes, strict=True)]
    names = names or range(len(bits))
    leaves = [Leaf(names[i], tuple(shapes[i]), bits[i]) for i in _order(shapes)]
    shared = dict.fromkeys(leaf.bits.dtype for leaf in leaves)
    for _ in _code_leaves(Decoder(coded, where), section, Plan(leaves, shared, has_units)):
        pass
    if section.left:
        raise FormatError(f"{section.left} bytes are left after the raw values")
    return bits


def _order(shapes: Sequence[Shape]) -> list[int]:
    """Coding order: two or more axes first, so that the models of biases have seen the kernels."""
    return sorted(range(len(shapes)), key=lambda i: len(shapes[i]) < 2)


def _encode(plan: Plan, order: Sequence[int]) -> Encoded:
    coder, raw = Encoder(), RawSection()
    leaf_bits = [0.0] * len(order)
    before = 0.0
    for i, after in zip(order, _code_leaves(coder, raw, plan), strict=True):
        leaf_bits[i], before = after - before, after
    return Encoded(coder.getvalue(), b"".join(raw.parts), leaf_bits, plan.has_units)


class _Shared:
    """The shared codebook of a pattern type, its model, and the unit of the latest leaf."""

    def __init__(self, coder: Coder, levels: np.ndarray | None, dtype: np.dtype) -> None:
        self.levels = code_codebook(coder, levels, dtype)
        self.model = LevelModel(self.levels)
        self._shift: int | None = None  # trailing zero bits of all units; None without units
        self._unit = ONE

    def expect_units(self, coder: Coder, leaves: Sequence[Leaf]) -> None:
        """Code what the units have in common; from here on every leaf has a unit."""
        units = [leaf.unit for leaf in leaves if leaf.shares and leaf.unit != ONE]
        self._shift = coder.integer(unit_shift(units), SHIFT_BITS)

    def levels_of(self, coder: Coder, leaf: Leaf) -> np.ndarray:
        """Code the unit of a leaf, if leaves have units; return the levels times it."""
        if self._shift is None:
            return self.levels
        if coder.integer(int(leaf.unit != self._unit), 1):
            unit = coder.integer(leaf.unit >> self._shift, UNIT_BITS - self._shift)
            self._unit = checked_unit(unit << self._shift)
        return multiplied(self.levels, self._unit)


def _code_leaves(coder: Coder, raw: RawSection, plan: Plan) -> Iterator[float]:
    """Code all leaves; yield the number of bits so far after each leaf, when writing."""
    shared = {}
    for dtype, levels in plan.shared.items():
        with _located("shared codebook", coder):
            if coder.integer(int(levels is not None), 1):
                shared[dtype] = _Shared(coder, levels, dtype)
                if plan.has_units and dtype == WITH_UNITS:
                    shared[dtype].expect_units(coder, plan.leaves)
    profiles = Profiles()
    for leaf in plan.leaves:
        with _located(f"leaf {leaf.name}", coder):
            _code_leaf(coder, raw, leaf, shared.get(leaf.bits.dtype), profiles)
        yield coder.bits + 8 * raw.size if coder.writes else 0.0


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
    leaf: Leaf,
    shared: _Shared | None,
    profiles: Profiles,
) -> None:
    """Code one leaf; ``shared`` is the shared codebook of its element width, or None."""
    kind = coder.integer(leaf.kind, _KIND_BITS)
    if kind == ZERO:
        return
    if leaf.bits.size == 0:
        raise FormatError(f"shape {leaf.shape} is empty, but data is coded for it")
    if kind == DENSE_RAW:
        code_planes(coder, raw, leaf.bits)
        return
    codebook = None
    if kind == CODEBOOK:
        if shared and coder.integer(int(leaf.shares), 1):
            codebook = shared.levels_of(coder, leaf), shared.model
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


def _column_counts(diagonals: np.ndarray, transposed: bool) -> tuple[np.ndarray, int]:
    """Non-zeros per column of the matrix before transposition, and its number of rows."""
    columns, rows = diagonals.shape
    if transposed:
        return diagonals.sum(axis=0, dtype=np.int64), columns
    counts = np.zeros(columns, np.int64)
    for _, column in places(diagonals):
        counts += np.bincount(column, minlength=columns)
    return counts, rows
