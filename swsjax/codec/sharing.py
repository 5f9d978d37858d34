"""Which kind each leaf gets, and which leaves share a codebook, with units or without."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from swsjax.codec.bits import levels_of
from swsjax.codec.codebook import MAX_LEVELS, codebook_bits
from swsjax.codec.header import Shape
from swsjax.codec.planes import entropy_q16
from swsjax.codec.units import (
    ONE,
    SHIFT_BITS,
    UNIT_BITS,
    WITH_UNITS,
    divided,
    find_units,
    may_have_unit,
    unit_shift,
)

__all__ = [
    "CODEBOOK",
    "DENSE_RAW",
    "SPARSE_RAW",
    "ZERO",
    "Leaf",
    "Plan",
    "classify",
    "cost_alone",
    "make_plans",
]

CODEBOOK = 0
"""Kind of a leaf that is coded as numbers of its levels."""
SPARSE_RAW = 1
"""Kind of a leaf that is coded as bit patterns of its non-zeros."""
DENSE_RAW = 2
"""Kind of a leaf that is coded as bit patterns of all entries."""
ZERO = 3
"""Kind of a leaf whose bits are all zero."""
_BIT_Q16 = 45426  # ln 2 in units of 2**-16
_UNUSED_LEVEL_BITS = 6
_LEAF_BITS = 8  # that a leaf spends on its kind and structure
_CHUNK = 1 << 20
# Estimated bits by which units must make a file smaller: to be considered, and to be used without
# encoding the leaves in both ways to see which is smaller.
_LEAST_GAIN, _CERTAIN_GAIN = 64, 2048


class Leaf(NamedTuple):
    """A leaf and what the encoder decided about it."""

    name: object
    """Of the leaf, for messages."""
    shape: Shape
    """Of the leaf, as the header has it."""
    bits: np.ndarray
    """Its bit patterns, without those of negative zeros if these are coded apart."""
    negative: np.ndarray | None = None
    """Where its negative zeros are, if they are coded apart and it has any."""
    kind: int = ZERO
    """``CODEBOOK``, ``SPARSE_RAW``, ``DENSE_RAW`` or ``ZERO``."""
    levels: np.ndarray | None = None
    """Its distinct bit patterns; None if they are too many for a codebook."""
    cost: int = 0
    """Estimate, in nats * 2**16."""
    without_levels: int = 0
    """The same with a codebook, excluding its levels."""
    shares: bool = False
    """Whether it uses the shared codebook."""
    unit: int = ONE
    """Bit pattern of its unit."""


class Plan(NamedTuple):
    """How all leaves are coded."""

    leaves: list[Leaf]
    """The leaves, with their kinds."""
    shared: dict[np.dtype, np.ndarray | None]
    """The shared codebook of each pattern type, or None."""
    has_units: bool = False
    """Whether the leaves that share the codebook of 32-bit patterns have units."""


def make_plans(leaves: Sequence[Leaf]) -> list[Plan]:
    """Return the plans of which the smallest file results, usually one.

    Args:
        leaves: every leaf, classified, in coding order.

    Example:
        >>> leaf = classify(Leaf("w", (64,), np.tile(np.array([0, 5], np.uint32), 32)))
        >>> [(plan.leaves[0].kind, plan.has_units) for plan in make_plans([leaf])]
        [(0, False)]
    """
    plain = list(leaves)
    shared: dict[np.dtype, np.ndarray | None] = dict.fromkeys(leaf.bits.dtype for leaf in leaves)
    for dtype in shared:
        plain, shared[dtype] = _share(plain, dtype)
    plan = Plan(plain, shared)
    units = _units(leaves)
    if not units:
        return [plan]
    dtype = WITH_UNITS
    others = [
        old if old.bits.dtype != dtype else new for old, new in zip(plain, leaves, strict=True)
    ]
    scaled, union = _share(others, dtype, units)
    if union is None:
        return [plan]
    with_units = Plan(scaled, {**shared, dtype: union}, has_units=True)
    gain = _estimate(plan, dtype) - _estimate(with_units, dtype)
    if gain < _LEAST_GAIN * _BIT_Q16:
        return [plan]
    return [with_units] if gain > _CERTAIN_GAIN * _BIT_Q16 else [with_units, plan]


def _units(leaves: Sequence[Leaf]) -> dict[int, int]:
    """Units of the leaves that could share a codebook, by index; empty if there are none."""
    candidates = _candidates(leaves, WITH_UNITS)
    units = find_units(list(candidates.values()))
    return dict(zip(candidates, units, strict=True)) if units else {}


def _candidates(leaves: Sequence[Leaf], dtype: np.dtype) -> dict[int, np.ndarray]:
    """Levels of the leaves of one element width that have few, by index."""
    return {
        i: leaf.levels
        for i, leaf in enumerate(leaves)
        if leaf.bits.dtype == dtype and leaf.kind != ZERO and leaf.levels is not None
    }


def _share(
    leaves: list[Leaf], dtype: np.dtype, units: Mapping[int, int] | None = None
) -> tuple[list[Leaf], np.ndarray | None]:
    """Share a codebook among leaves of one element width if that is smaller.

    Args:
        leaves: all leaves.
        dtype: the pattern type.
        units: the unit of every candidate, by index; None for a codebook without units, which is
            used by two leaves or more.

    Returns:
        The leaves, and the levels of the shared codebook or None.
    """
    width = 8 * dtype.itemsize
    members: list[int] = []
    union = np.zeros(0, dtype)
    candidates = _candidates(leaves, dtype)

    def rank(i: int) -> tuple[bool, bool, int]:
        # Levels that are not in units have more bits, and come last.
        without_unit = units is not None and units[i] == ONE
        return without_unit, leaves[i].kind != CODEBOOK, -leaves[i].bits.size

    for i in sorted(candidates, key=rank):
        leaf, levels = leaves[i], candidates[i]
        joined = np.union1d(union, divided(levels, units[i]) if units else levels)
        # A leaf spends some bits even on a level that it does not use.
        extra = (joined.size - levels.size) * _UNUSED_LEVEL_BITS
        if units is None:
            extra += (joined.size - union.size) * width
        else:
            extra += codebook_bits(joined, width) - codebook_bits(union, width) + UNIT_BITS
        cheaper = leaf.without_levels + extra * _BIT_Q16 < leaf.cost
        if (cheaper and joined.size <= MAX_LEVELS) or (not members and leaf.kind == CODEBOOK):
            members.append(i)
            union = joined
    if len(members) < (2 if units is None else 1):
        return leaves, None
    leaves = list(leaves)
    for i in members:
        unit = units[i] if units else ONE
        leaves[i] = leaves[i]._replace(kind=CODEBOOK, shares=True, unit=unit)
    return leaves, union


def _estimate(plan: Plan, dtype: np.dtype) -> int:
    """Estimated size of the leaves of one element width, in nats * 2**16."""
    width, levels = 8 * dtype.itemsize, plan.shared[dtype]
    leaves = [leaf for leaf in plan.leaves if leaf.bits.dtype == dtype]
    members = [leaf for leaf in leaves if leaf.shares]
    cost = sum(leaf.cost for leaf in leaves if not leaf.shares)
    cost += sum(leaf.without_levels for leaf in members)
    if levels is None:
        return cost
    unused = sum(levels.size - leaf.levels.size for leaf in members if leaf.levels is not None)
    bits = codebook_bits(levels, width) + unused * _UNUSED_LEVEL_BITS
    if plan.has_units:
        units = {leaf.unit for leaf in members}
        bits += SHIFT_BITS + len(members) + len(units) * (UNIT_BITS - unit_shift([*units]))
    return cost + bits * _BIT_Q16


def cost_alone(leaf: Leaf) -> int:
    """Estimate the cost of a classified leaf that uses no codebook of other leaves' levels.

    Example:
        >>> leaf = classify(Leaf("w", (64,), np.tile(np.array([0, 5], np.uint32), 32)))
        >>> cost_alone(leaf) >= leaf.cost
        True
    """
    cost = leaf.cost
    if leaf.bits.dtype == WITH_UNITS and leaf.levels is not None and may_have_unit(leaf.levels):
        cost = min(cost, leaf.without_levels + UNIT_BITS * _BIT_Q16)
    return cost + _LEAF_BITS * _BIT_Q16


def classify(leaf: Leaf) -> Leaf:
    """Choose the cheapest kind for a leaf alone, by the entropies of its positions and values.

    Example:
        >>> classify(Leaf("w", (64,), np.arange(64, dtype=np.uint32))).kind == SPARSE_RAW
        True
    """
    nonzero = int(np.count_nonzero(leaf.bits))
    if nonzero == 0:
        return leaf
    size, width = leaf.bits.size, 8 * leaf.bits.dtype.itemsize
    positions = entropy_q16([nonzero, size - nonzero])
    costs = {
        DENSE_RAW: size * width * _BIT_Q16,
        SPARSE_RAW: nonzero * width * _BIT_Q16 + positions,
    }
    levels = levels_of(leaf.bits, MAX_LEVELS)
    values = 0
    if levels is not None:
        counts = np.zeros(levels.size, np.int64)
        for start in range(0, size, _CHUNK):
            part = leaf.bits[start : start + _CHUNK]
            counts += np.bincount(np.searchsorted(levels, part[part != 0]), minlength=levels.size)
        values = positions + entropy_q16(counts)
        costs[CODEBOOK] = values + codebook_bits(levels, width) * _BIT_Q16
    kind = min(costs, key=costs.__getitem__)
    return leaf._replace(kind=kind, levels=levels, cost=costs[kind], without_levels=values)
