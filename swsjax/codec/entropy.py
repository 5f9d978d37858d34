"""The entropy encoding: all leaves of a file in one range-coded string."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swsjax.codec.codebook import code_codebook
from swsjax.codec.diagonals import places, to_diagonals
from swsjax.codec.header import Shape, matrix_shape
from swsjax.codec.planes import RawSection, code_planes
from swsjax.codec.positions import code_positions
from swsjax.codec.rangecoder import Coder, Decoder, Encoder
from swsjax.codec.sharing import CODEBOOK, DENSE_RAW, ZERO, Leaf, Plan, classify, make_plans
from swsjax.codec.stacks import Group, groups_of, pays, stack, stackable
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
from swsjax.codec.zeros import code_zero_signs, negative_zeros
from swsjax.errors import FormatError

__all__ = ["LEAST_GAIN", "PLAIN", "Encoded", "Features", "decode_entropy", "encode_entropy"]

_KIND_BITS = 2


class Features(NamedTuple):
    """What a string has beyond version 1 of the format."""

    units: bool = False
    """Whether the shared codebook of 32-bit patterns has units."""
    stacks: bool = False
    """Whether small leaves of one size are stacked."""
    zero_signs: bool = False
    """Whether the signs of zeros are coded apart."""


PLAIN = Features()
"""The features of version 1."""
LEAST_GAIN = 128
"""Bytes that a feature of version 3 must save: older versions of this package cannot read it."""


class Encoded(NamedTuple):
    """What :func:`encode_entropy` returns."""

    coded: bytes
    """The range-coded string."""
    raw: bytes
    """The bytes stored without coding."""
    leaf_bits: list[float]
    """The fractional number of bits of every leaf. All shared codebooks are charged to the leaf
    that is coded first; the leaves of a stack have equal shares."""
    features: Features
    """What the decoder must be told."""


def encode_entropy(shapes: Sequence[Shape], bits: Sequence[np.ndarray]) -> Encoded:
    """Return the range-coded bytes, the raw bytes, and the number of bits of every leaf.

    Args:
        shapes: shape of every leaf's bit patterns.
        bits: flat bit patterns of every leaf.

    Example:
        >>> leaf = np.tile(np.array([0, 0, 0, 7, 0], np.uint32), 100)
        >>> coded, raw, leaf_bits, features = encode_entropy([(20, 25)], [leaf])
        >>> len(coded) < 30, raw, 8 * len(coded) - sum(leaf_bits) < 8, any(features)
        (True, b'', True, False)
        >>> bool((decode_entropy(coded, raw, [(20, 25)], ["u4"])[0] == leaf).all())
        True
    """
    leaves = [Leaf(i, tuple(shapes[i]), leaf) for i, leaf in enumerate(bits)]
    candidates = [leaves]
    apart = [_without_signs(leaf) for leaf in leaves]
    if any(leaf.negative is not None for leaf in apart):
        candidates.append(apart)
    encoded = [found for candidate in candidates for found in _encode_all(candidate)]
    return min(encoded, key=_size)


def decode_entropy(
    coded: bytes,
    raw: bytes,
    shapes: Sequence[Shape],
    dtypes: Sequence[npt.DTypeLike],
    names: Sequence[object] | None = None,
    where: int = 0,
    features: Features = PLAIN,
) -> list[np.ndarray]:
    """Return the flat bit patterns of every leaf.

    Args:
        coded, raw: what :func:`encode_entropy` returned.
        shapes: shape of every leaf's bit patterns.
        dtypes: unsigned type of every leaf's bit patterns.
        names: name of every leaf for messages; by default its index.
        where: file offset of ``coded``, for messages; ``raw`` follows it.
        features: what :func:`encode_entropy` returned.

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
    coder = Decoder(coded, where)
    leaves = [Leaf(*leaf) for leaf in zip(names, map(tuple, shapes), bits, strict=True)]
    groups = [[i] for i in range(len(leaves))]
    if features.stacks:
        sets = stackable(shapes, [leaf.dtype for leaf in bits])
        groups = groups_of(len(leaves), [group for group in sets if coder.integer(None, 1)])
    together = _ordered([(group, _as_one(group, leaves)) for group in groups])
    coded_leaves = [leaf for _, leaf in together]
    shared = dict.fromkeys(leaf.bits.dtype for leaf in coded_leaves)
    plan = Plan(coded_leaves, shared, features.units)
    for _ in _code_leaves(coder, section, plan, features.zero_signs):
        pass
    if section.left:
        raise FormatError(f"{section.left} bytes are left after the raw values")
    for group, leaf in together:
        for i, row in zip(group, leaf.bits.reshape(len(group), -1), strict=True):
            bits[i] = row
    return bits


def _without_signs(leaf: Leaf) -> Leaf:
    """Return a leaf with its negative zeros apart."""
    negative = negative_zeros(leaf.bits)
    if not negative.any():
        return leaf
    zero = leaf.bits.dtype.type(0)
    return leaf._replace(bits=np.where(negative, zero, leaf.bits), negative=negative)


def _as_one(group: Group, leaves: Sequence[Leaf]) -> Leaf:
    members = [leaves[i] for i in group]
    return members[0] if len(members) == 1 else stack(members)


def _ordered(together: list[tuple[Group, Leaf]]) -> list[tuple[Group, Leaf]]:
    """Coding order: two or more axes first, so that the models of biases have seen the kernels."""
    return sorted(together, key=lambda pair: len(pair[1].shape) < 2)


def _encode_all(leaves: Sequence[Leaf]) -> Iterator[Encoded]:
    """Encode leaves, with and without units if it is not certain which is smaller."""
    leaves = [classify(leaf) for leaf in leaves]
    sets = stackable([leaf.shape for leaf in leaves], [leaf.bits.dtype for leaf in leaves])
    stacks = [classify(_as_one(group, leaves)) for group in sets]
    chosen = [
        pays(stacked, [leaves[i] for i in group])
        for group, stacked in zip(sets, stacks, strict=True)
    ]
    as_one = {group[0]: stacked for group, stacked in zip(sets, stacks, strict=True)}
    groups = groups_of(len(leaves), [*compress(sets, chosen)])
    together = _ordered(
        [(group, as_one[group[0]] if len(group) > 1 else leaves[group[0]]) for group in groups]
    )
    has_signs = any(leaf.negative is not None for leaf in leaves)
    for plan in make_plans([leaf for _, leaf in together]):
        features = Features(plan.has_units, any(chosen), has_signs)
        coder, raw = Encoder(), RawSection()
        for choice in chosen if features.stacks else []:
            coder.integer(int(choice), 1)
        leaf_bits = [0.0] * len(leaves)
        before = 0.0
        after_each = _code_leaves(coder, raw, plan, features.zero_signs)
        for (group, _), after in zip(together, after_each, strict=True):
            for i in group:
                leaf_bits[i] = (after - before) / len(group)
            before = after
        yield Encoded(coder.getvalue(), b"".join(raw.parts), leaf_bits, features)


def _size(encoded: Encoded) -> int:
    """Return the size by which the best way to encode is chosen."""
    size = len(encoded.coded) + len(encoded.raw)
    return size + LEAST_GAIN * encoded.features.zero_signs


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


def _code_leaves(coder: Coder, raw: RawSection, plan: Plan, zero_signs: bool) -> Iterator[float]:
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
            if zero_signs and leaf.bits.size:
                form = matrix_shape(leaf.shape)
                negative = None if leaf.negative is None else leaf.negative.reshape(form)
                code_zero_signs(coder, leaf.bits.reshape(form), negative)
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
