"""The grid on which the prior is tabulated, and the cells of it that the weights lie in."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["REFINE", "Cell", "Grid", "cell_on", "cells_on", "grid_over", "node_count", "range_of"]

REFINE = 32
"""Points of the lookup table per interval between nodes."""
# `cell_on` clips its indices, so they need no second check and are never negative.
UNCHECKED: dict[str, Any] = {"mode": "promise_in_bounds", "wrap_negative_indices": False}
"""How to look up and add up by the numbers of cells."""

# Between two components the slope changes sign over about a fifth of the narrower one's standard
# deviation; this many nodes per standard deviation keep errors at 1e-5.
_NODES_PER_SIGMA = 4
_LEAST_NODES, _MOST_NODES = 64, 2**16


class Grid(NamedTuple):
    """Evenly spaced nodes over a range of weights, all multiples of a step that is a power of two.

    Every node is therefore a float32, and the position of a weight between nodes is exact.
    """

    low: Array
    """() the first node."""
    step: Array
    """() the distance between nodes, a power of two."""
    nodes: Array
    """(G,) the nodes, in increasing order."""


class Cell(NamedTuple):
    """The cell of the lookup table that each of an array of weights lies in."""

    number: Array
    """Number of the table point below the weight, int32, in the shape of the weights."""
    fraction: Array
    """Position between that point and the next, from 0 to 1, float32."""


def node_count(low: float, high: float, sigma: float) -> int:
    """Choose the number of nodes for a range of weights and the smallest standard deviation.

    The range may grow by a quarter before ``grid_over`` must double the step. The number is between
    64 and 2^16, beyond which the table outgrows a processor's cache, and two or three times a power
    of two, so that runs over nearly the same range share what is compiled for it.

    >>> node_count(-1.0, 1.0, 0.02), node_count(-1.3, 1.0, 0.02)
    (768, 768)
    """
    step = 2.0 ** math.floor(math.log2(sigma / _NODES_PER_SIGMA))
    enough = math.ceil(1.25 * (high - low) / step) + 2
    power = 2 ** math.ceil(math.log2(enough))
    least = 3 * power // 4 if enough <= 3 * power // 4 else power
    return min(max(least, _LEAST_NODES), _MOST_NODES)


def range_of(leaves: Sequence[Array]) -> tuple[float, float]:
    """Smallest and largest weight.

    >>> range_of([jnp.array([1.0, -2.0]), jnp.zeros(0)])
    (-2.0, 1.0)
    """
    low, high = _range_of([leaf for leaf in leaves if leaf.size])
    return low.item(), high.item()


@jax.jit
def _range_of(leaves: list[Array]) -> tuple[Array, Array]:
    smallest, largest = ([end(leaf) for leaf in leaves] for end in (jnp.min, jnp.max))
    return jnp.min(jnp.stack(smallest)), jnp.max(jnp.stack(largest))


def grid_over(leaves: Sequence[Array], nodes: int) -> Grid:
    """Lay a grid over the range of all weights.

    Args:
        leaves: arrays of weights, any shapes, with at least one weight.
        nodes: number of nodes G, at least 3.

    Returns:
        A float32 grid that starts just below the smallest weight and has the smallest step with
        which it reaches the largest.

    >>> grid = grid_over([jnp.array([1.1, 4.5]), jnp.array([[2.0]])], nodes=6)
    >>> print(grid.nodes)
    [1. 2. 3. 4. 5. 6.]
    """
    leaves = [leaf for leaf in leaves if leaf.size]
    low = jnp.min(jnp.stack([jnp.min(leaf).astype(jnp.float32) for leaf in leaves]))
    high = jnp.max(jnp.stack([jnp.max(leaf).astype(jnp.float32) for leaf in leaves]))
    low, high = jax.lax.stop_gradient((low, high))
    # Constant weights have no range; a step far below their rounding error would be useless.
    least = 1e-6 * jnp.maximum(jnp.maximum(jnp.abs(low), jnp.abs(high)), 1e-3)
    step = _power_of_two_above(jnp.maximum(high - low, least) / (nodes - 2))
    low = jnp.floor(low / step) * step
    return Grid(low, step, low + step * jnp.arange(nodes, dtype=jnp.float32))


def _power_of_two_above(x: Array) -> Array:
    """The least power of two above a positive float32: its exponent, raised by one, alone."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    mantissa = jnp.finfo(jnp.float32).nmant
    return jax.lax.bitcast_convert_type((bits >> mantissa) + 1 << mantissa, jnp.float32)


def cell_on(weights: Array, grid: Grid) -> Cell:
    """Find the cells of one array of weights.

    >>> w = jnp.array([1.125, 4.53125])
    >>> print(*cell_on(w, grid_over([w], nodes=6)))
    [  4 113] [0. 0.]
    """
    width = grid.step / REFINE
    # A division: XLA would recompute a product, with the grid, inside every lookup.
    scaled = weights.astype(jnp.float32) / width
    below = jnp.floor(scaled)
    last = REFINE * (grid.nodes.size - 1) - 1
    number = jnp.clip((below - grid.low / width).astype(jnp.int32), 0, last)
    return Cell(number, scaled - below)


def cells_on(leaves: Sequence[Array], grid: Grid) -> list[Cell]:
    """Find the cells of the weights once, for all lookups of a step.

    Args:
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights, as ``grid_over(leaves, nodes)`` does.

    >>> w = jnp.array([1.125, 4.5])
    >>> print(cells_on([w], grid_over([w], nodes=6))[0].number / REFINE)
    [0.125 3.5  ]
    """

    def unused(leaf: Array, grid: Grid) -> Cell:
        return Cell(jnp.zeros(leaf.shape, jnp.int32), jnp.zeros(leaf.shape, jnp.float32))

    def once(leaf: Array) -> Cell:
        # XLA on processors would recompute a cell inside each lookup that uses it, which costs
        # more than the lookup. It does not fuse across a conditional, so there is one.
        return jax.lax.platform_dependent(
            leaf,
            grid,
            cpu=lambda leaf, grid: jax.lax.cond(grid.step > 0, cell_on, unused, leaf, grid),
            default=cell_on,
        )

    return [once(jax.lax.stop_gradient(leaf)) for leaf in leaves]
