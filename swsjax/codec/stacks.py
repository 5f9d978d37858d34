"""Small leaves of one size, coded together: each is a row of one matrix.

A leaf costs the time of a hundred vector operations, however small it is, and its models have seen
nothing when it ends. So where a tree has hundreds of leaves of one size, they share models.
"""

import math
from collections.abc import Sequence

import numpy as np

from swsjax.codec.header import Shape
from swsjax.codec.planes import entropy_q16, planes_q16
from swsjax.codec.sharing import Leaf, cost_alone

__all__ = ["Group", "groups_of", "pays", "stack", "stackable"]

_MOST_ENTRIES = 256  # of a leaf
_LEAST_LEAVES = 256  # of a stack

Group = list[int]
"""Indexes of the leaves that are coded as one: those of a stack, or a single one."""


def stackable(shapes: Sequence[Shape], dtypes: Sequence[np.dtype]) -> list[Group]:
    """Return the sets of leaves that may be stacked, in the order of their first leaves.

    Args:
        shapes: shape of every leaf's bit patterns.
        dtypes: unsigned type of every leaf's bit patterns.

    Example:
        >>> sets = stackable([(2, 3), (6,), (7,)] * 300, [np.dtype("u4")] * 900)
        >>> [(len(group), group[:3]) for group in sets]
        [(600, [0, 1, 3]), (300, [2, 5, 8])]
    """
    sets: dict[tuple[int, np.dtype], Group] = {}
    for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True)):
        size = math.prod(shape)
        if 0 < size <= _MOST_ENTRIES:
            sets.setdefault((size, dtype), []).append(i)
    return [group for group in sets.values() if len(group) >= _LEAST_LEAVES]


def groups_of(count: int, stacks: Sequence[Group]) -> list[Group]:
    """Return the leaves in groups; a stack is at the place of its first leaf.

    Example:
        >>> groups_of(5, [[1, 3]])
        [[0], [1, 3], [2], [4]]
    """
    stacked = {i: group for group in stacks for i in group}
    every = [stacked.get(i, [i]) for i in range(count)]
    return [group for i, group in enumerate(every) if group[0] == i]


def stack(leaves: Sequence[Leaf]) -> Leaf:
    """Return leaves of one size as the rows of one leaf.

    Example:
        >>> leaves = [Leaf(f"w{i}", (2,), np.array([0, i], np.uint32)) for i in range(3)]
        >>> stacked = stack(leaves)
        >>> stacked.name, stacked.shape, stacked.bits.tolist()
        ('w0 and 2 others', (3, 2), [0, 0, 0, 1, 0, 2])
    """
    negative = None
    if any(leaf.negative is not None for leaf in leaves):
        negative = np.concatenate(
            [
                np.zeros(leaf.bits.size, bool) if leaf.negative is None else leaf.negative
                for leaf in leaves
            ]
        )
    return Leaf(
        f"{leaves[0].name} and {len(leaves) - 1} others",
        (len(leaves), leaves[0].bits.size),
        np.concatenate([leaf.bits for leaf in leaves]),
        negative,
    )


def pays(stacked: Leaf, leaves: Sequence[Leaf]) -> bool:
    """Return whether a stack is estimated to take fewer bytes than its leaves one by one.

    Args:
        stacked: the stack, classified.
        leaves: its leaves, classified.

    Example:
        >>> from swsjax.codec.sharing import classify
        >>> leaves = [classify(Leaf(i, (2,), np.array([i, 5], np.uint32))) for i in range(9)]
        >>> pays(classify(stack(leaves)), leaves)
        True
    """
    nonzero = stacked.bits[stacked.bits != 0]
    positions = entropy_q16([nonzero.size, stacked.bits.size - nonzero.size])
    as_planes = min(planes_q16(stacked.bits), planes_q16(nonzero) + positions)
    return min(stacked.cost, as_planes) < sum(map(cost_alone, leaves))
