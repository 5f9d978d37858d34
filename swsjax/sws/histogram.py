"""The weights as counts at the points of the lookup table: all of them, or a sample in turn.

A scatter runs on one core of a processor and takes longer than all other work of the prior. What it
serves is the gradient of the mixture, a sum over all weights, which a sample tells well enough. The
gradient of each weight does not depend on it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from swsjax.sws.grid import UNCHECKED, Cell

__all__ = ["Sample", "histogram"]

_FRACTION_BITS = 20


class Sample(NamedTuple):
    """Which weights are counted, for all: every n-th of an array, beginning with another each step.

    In n steps each weight is counted once. The paper's appendix C takes a random sample instead.
    """

    weights: int
    """Of an array: n is the least number with which no more than these are counted."""
    turn: Array
    """() number of the step."""


def histogram(cells: Sequence[Cell], points: int, sample: Sample | None = None) -> Array:
    """Divide each weight between the two table points next to it, (points,) float32.

    Fractions are summed in fixed point, with as many bits as the number of weights leaves: a
    float32 sum would stop growing at 2^24 weights in a cell, and integer sums do not depend on the
    order, on one device or many.

    Args:
        cells: of each array of weights.
        points: of the table.
        sample: None counts all weights.

    >>> cells = Cell(jnp.array([0, 0, 1, 1]), jnp.array([0.0, 0.5, 0.25, 0.5]))
    >>> print(histogram([cells], 3), histogram([cells], 3, Sample(2, jnp.int32(7))))
    [1.5  1.75 0.75] [1. 2. 1.]
    """
    size = sum(cell.number.size for cell in cells)
    unit = 2.0 ** min(31 - size.bit_length(), _FRACTION_BITS)
    # A count and a fraction in one scatter: indices are expensive.
    sums = jnp.zeros((points - 1, 2), jnp.int32)
    # The largest last: a processor overlaps the other scatters with lookups that are ready by then.
    for cell in sorted(cells, key=lambda cell: cell.number.size):
        for (number, fraction), times in _counted(cell, sample):
            parts = jnp.round(unit * fraction).astype(jnp.int32)
            both = jnp.stack([jnp.ones_like(parts), parts], -1)
            sums = sums.at[number].add(times * both, **UNCHECKED)
    counts, to_right = sums.astype(jnp.float32).T
    return jnp.append(counts, 0) + jnp.diff(-to_right / unit, prepend=0, append=0)


def _counted(cell: Cell, sample: Sample | None) -> list[tuple[Cell, int]]:
    """Weights to count, and how often each of them."""
    size = cell.number.size
    if sample is None or size <= sample.weights:
        return [(cell, 1)]
    stride = -(-size // sample.weights)
    whole, first = size // stride * stride, sample.turn % stride

    def every(array: Array) -> Array:
        rows = array.ravel()[:whole].reshape(-1, stride)
        return jax.lax.dynamic_index_in_dim(rows, first, axis=1, keepdims=False)

    rest = jax.tree.map(lambda array: array.ravel()[whole:], cell)
    return [(jax.tree.map(every, cell), stride), (rest, 1)]
