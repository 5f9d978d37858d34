"""How each leaf is written in the Han format: its orientation, its differences, its codebook."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from swsjax.codec.bits import levels_of
from swsjax.codec.csr import MAX_SPAN_BITS, Counts, Nonzeros, count_entries, layout_bits
from swsjax.codec.header import Shape, matrix_shape
from swsjax.codec.units import ONE, WITH_UNITS, divided, find_units, multiplied

__all__ = [
    "COLUMNS",
    "LEVEL_COUNT_BITS",
    "MODE_BITS",
    "RAW",
    "ROWS",
    "UNIT_FIELD",
    "HanBits",
    "HanPlan",
    "LeafPlan",
    "oriented",
    "plan_han",
    "widths_of",
]

RAW = 0
"""Mode of a leaf that is stored as its bit patterns."""
ROWS = 1
"""Mode of a leaf that is stored as the rows of its matrix."""
COLUMNS = 2
"""Mode of a leaf that is stored as the columns of its matrix."""
MODE_BITS = 2
"""Bits of a mode."""
LEVEL_COUNT_BITS = 16
"""Bits of the number of levels of a codebook."""
UNIT_FIELD = 32
"""Bits of a unit."""
_MAX_LEVELS = 2**LEVEL_COUNT_BITS - 1


class HanBits(NamedTuple):
    """Bits that one leaf takes in the Han format, by purpose.

    ``header`` counts fields of fixed size, ``pointers`` the row ends, ``positions`` and ``values``
    the entries that stand for weights, and ``fillers`` the other entries. Each ``codebook`` level
    is charged to the first leaf that uses it if the codebook is shared; the unit of a leaf, if
    leaves have units, counts as ``codebook`` as well. ``raw`` counts the bits of a leaf stored
    without a codebook.
    """

    header: int = 0
    pointers: int = 0
    positions: int = 0
    fillers: int = 0
    values: int = 0
    codebook: int = 0
    raw: int = 0

    @property
    def total(self) -> int:
        """Total bits of the leaf."""
        return sum(self)


class LeafPlan(NamedTuple):
    """How one leaf will be written."""

    mode: int
    """``RAW``, ``ROWS`` or ``COLUMNS``."""
    size: HanBits
    """What it takes."""
    levels: np.ndarray
    """The levels that it uses; none if it is raw."""
    span_bits: int = 0
    """p, the bits of a difference."""
    unit: int = ONE
    """Bit pattern of its unit."""


class _Leaves(NamedTuple):
    """All leaves, and what their layouts depend on."""

    shapes: Sequence[Shape]
    bits: Sequence[np.ndarray]
    levels: list[np.ndarray | None]  # None for a leaf that must be raw
    counts: dict[int, Counts]  # of each orientation; none with Huffman codes
    huffman: bool


class HanPlan(NamedTuple):
    """How all leaves will be written."""

    leaves: list[LeafPlan]
    """The plan of each leaf."""
    shared: dict[int, np.ndarray]
    """The shared codebooks, by element width in bytes."""
    has_units: bool = False
    """Whether the leaves that share the codebook of 32-bit patterns have units."""


def widths_of(dtypes: Iterable[np.dtype]) -> list[int]:
    """Return the distinct element widths in bytes, in order of first appearance.

    Example:
        >>> widths_of([np.dtype("u4"), np.dtype("u1"), np.dtype("u4")])
        [4, 1]
    """
    return list(dict.fromkeys(dtype.itemsize for dtype in dtypes))


def oriented(leaf: np.ndarray, shape: Shape, mode: int) -> np.ndarray:
    """Return the matrix of a leaf in an orientation.

    Example:
        >>> oriented(np.arange(6), (2, 3), COLUMNS).tolist()
        [[0, 3], [1, 4], [2, 5]]
    """
    matrix = leaf.reshape(matrix_shape(shape))
    return matrix.T if mode == COLUMNS else matrix


def plan_han(shapes: Sequence[Shape], bits: Sequence[np.ndarray], huffman: bool) -> HanPlan:
    """Plan every leaf with its own codebook and with a shared one; keep the smallest plan.

    Args:
        shapes: shape of every leaf.
        bits: flat bit patterns of every leaf.
        huffman: whether to Huffman code differences and values.

    Example:
        >>> (plan,), *_ = plan_han([(20, 3)], [np.eye(60, dtype=np.uint32)[7]], huffman=False)
        >>> plan.mode == COLUMNS, plan.span_bits, plan.levels.tolist()
        (True, 2, [1])
    """
    leaves = _measured(shapes, bits, huffman)
    known = {i: levels for i, levels in enumerate(leaves.levels) if levels is not None}
    plans = [_raw(leaf) for leaf in bits]
    for i, plan in _plan_leaves(leaves, known, is_shared=False).items():
        plans[i] = plan
    shared, has_units = {}, False
    for width in widths_of(leaf.dtype for leaf in bits):
        alone = {
            i: plan
            for i, plan in enumerate(plans)
            if plan.mode != RAW and bits[i].dtype.itemsize == width
        }
        smallest = sum(plan.size.total for plan in alone.values())
        found = None
        if width == WITH_UNITS.itemsize:
            found = find_units([plan.levels for plan in alone.values()])
        for units in [None] if found is None else [None, found]:
            union, sharing = _share(leaves, alone, units)
            together = LEVEL_COUNT_BITS + union.size * 8 * width
            together += sum(plan.size.total for plan in sharing.values())
            if sharing and together < smallest:
                smallest, shared[width], has_units = together, union, units is not None
                for i, plan in sharing.items():
                    plans[i] = plan
    return HanPlan(_charge(plans, bits, shared), shared, has_units)


def _measured(shapes: Sequence[Shape], bits: Sequence[np.ndarray], huffman: bool) -> _Leaves:
    levels = [levels_of(leaf, _MAX_LEVELS) if leaf.size else None for leaf in bits]
    masks = {
        mode: [oriented(leaf, shape, mode) != 0 for shape, leaf in zip(shapes, bits, strict=True)]
        for mode in ([] if huffman else [ROWS, COLUMNS])
    }
    counts = {mode: count_entries(of_mode) for mode, of_mode in masks.items()}
    return _Leaves(shapes, bits, levels, counts, huffman)


def _share(
    leaves: _Leaves, alone: Mapping[int, LeafPlan], units: Sequence[int] | None
) -> tuple[np.ndarray, dict[int, LeafPlan]]:
    """Plan leaves with a shared codebook.

    Args:
        leaves: all leaves.
        alone: the plans of leaves of one element width with codebooks of their own, by index.
        units: the unit of each of them, or None for no units.

    Returns:
        The codebook and the plans; no plans if a shared codebook is impossible.
    """
    of_leaf = dict(zip(alone, units or [ONE] * len(alone), strict=True))
    used = [divided(plan.levels, of_leaf[i]) for i, plan in alone.items()]
    union = np.unique(np.concatenate(used)) if used else np.zeros(0)
    if union.size > _MAX_LEVELS:
        return union, {}
    books = {i: multiplied(union, unit) if leaves.huffman else union for i, unit in of_leaf.items()}
    plans = _plan_leaves(leaves, books, is_shared=True)
    if any(plan.mode == RAW for plan in plans.values()):
        return union, {}
    if units:
        for i, plan in plans.items():
            size = plan.size._replace(codebook=UNIT_FIELD)
            plans[i] = plan._replace(unit=of_leaf[i], size=size)
    return union, plans


def _charge(
    plans: Sequence[LeafPlan], bits: Sequence[np.ndarray], shared: dict[int, np.ndarray]
) -> list[LeafPlan]:
    """Charge the fields of the stream and the shared codebooks to the leaves."""
    plans = list(plans)
    widths: set[int] = set()
    seen: dict[int, set[int]] = {}
    for i, leaf in enumerate(bits):
        width = leaf.dtype.itemsize
        header, codebook = 0, 0
        if width not in widths:
            widths.add(width)
            header += 1
        if width in shared and plans[i].mode != RAW:
            if width not in seen:
                seen[width] = set()
                header += LEVEL_COUNT_BITS
            new = set(divided(plans[i].levels, plans[i].unit).tolist()) - seen[width]
            codebook = len(new) * 8 * width
            seen[width] |= new
        size = plans[i].size
        size = size._replace(header=size.header + header, codebook=size.codebook + codebook)
        plans[i] = plans[i]._replace(size=size)
    return plans


def _raw(leaf: np.ndarray) -> LeafPlan:
    return LeafPlan(RAW, HanBits(header=MODE_BITS, raw=8 * leaf.nbytes), leaf[:0])


def _plan_leaves(
    leaves: _Leaves, books: Mapping[int, np.ndarray], is_shared: bool
) -> dict[int, LeafPlan]:
    """Choose orientation and p for some leaves, or raw where that is smaller.

    Args:
        leaves: all leaves.
        books: codebook of each leaf to be planned, by index.
        is_shared: whether the codebooks are stored elsewhere.
    """
    header = MODE_BITS + LEVEL_COUNT_BITS * (not is_shared)
    out = {}
    best = _best_huffman if leaves.huffman else _best_plain
    for (i, book), (mode, span_bits, fields) in zip(
        books.items(), best(leaves, books), strict=True
    ):
        out[i] = _raw(leaves.bits[i])
        codebook = 0 if is_shared else 8 * book.nbytes
        size = HanBits._make([header + fields[0], *fields[1:], codebook, 0])
        levels = leaves.levels[i]
        if levels is not None and size.total < out[i].size.total:
            out[i] = LeafPlan(mode, size, levels, span_bits)
    return out


_Best = list[tuple[int, int, Sequence[int]]]  # orientation, p and the fields of the layout


def _best_plain(leaves: _Leaves, books: Mapping[int, np.ndarray]) -> _Best:
    if not books:
        return []
    index = list(books)
    rows = np.array([matrix_shape(leaves.shapes[i]) for i in index])[:, :, None]
    nonzeros = leaves.counts[ROWS].nonzeros[index, None, None]
    fillers = np.stack([leaves.counts[mode].fillers[index] for mode in (ROWS, COLUMNS)], axis=1)
    level_counts = np.array([book.size for book in books.values()])[:, None, None]
    fields = layout_bits(rows, nonzeros, fillers, level_counts, np.arange(MAX_SPAN_BITS + 1))
    every = np.stack(fields, axis=-1).reshape(len(books), -1, len(fields))
    best = every.sum(axis=-1).argmin(axis=1)
    mode, span_bits = np.divmod(best, MAX_SPAN_BITS + 1)
    smallest = every[np.arange(len(books)), best].tolist()
    return list(zip((mode + ROWS).tolist(), span_bits.tolist(), smallest, strict=True))


def _best_huffman(leaves: _Leaves, books: Mapping[int, np.ndarray]) -> _Best:
    out: _Best = []
    for i, book in books.items():
        candidates = []
        for mode in (ROWS, COLUMNS):
            nonzeros = Nonzeros(oriented(leaves.bits[i], leaves.shapes[i], mode), book)
            for span_bits in range(nonzeros.most_span_bits + 1):
                size = nonzeros.lay_out(span_bits).size(book.size, huffman=True)
                candidates.append((mode, span_bits, size))
        out.append(min(candidates, key=lambda candidate: sum(candidate[2])))
    return out
