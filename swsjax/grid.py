"""The grid on which the prior is tabulated, and where the weights lie on it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["REFINE", "Grid", "Place", "grid_over", "node_count", "place_on", "places_on"]

REFINE = 32
"""Points of the lookup table in an interval between nodes."""

# Where two components change hands the slope turns over about a fifth of the narrower one's
# standard deviation; so many nodes a standard deviation keep errors at 1e-5.
_NODES_PER_SIGMA = 4
_LEAST_NODES, _MOST_NODES = 64, 2**16


class Grid(NamedTuple):
    """Evenly spaced nodes over a range of weights; the step is a power of two and divides them.

    So every node is a float32, and a weight's place between nodes is found without rounding.
    """

    low: Array
    """() the first node."""
    step: Array
    """() the distance between nodes, a power of two."""
    nodes: Array
    """(G,) the nodes, in increasing order."""


class Place(NamedTuple):
    """Where each of an array of weights lies between the points of the lookup table."""

    cell: Array
    """The number of the point under it, int32, in the shape of the weights."""
    fraction: Array
    """How far it is on the way to the next point, from 0 to 1, in float32."""


def node_count(low: float, high: float, sigma: float) -> int:
    """Choose the number of nodes for a range of weights and the narrowest standard deviation.

    The range may grow by a quarter before ``grid_over`` must double the step. Between 64 and
    2^16, where the table outgrows a processor's cache.

    >>> node_count(-1.0, 1.0, 0.02)
    642
    """
    step = 2.0 ** math.floor(math.log2(sigma / _NODES_PER_SIGMA))
    return min(max(math.ceil(1.25 * (high - low) / step) + 2, _LEAST_NODES), _MOST_NODES)


def grid_over(leaves: Sequence[Array], nodes: int) -> Grid:
    """Lay a grid over the range of all weights, so that none lies outside.

    Args:
        leaves: arrays of weights, any shapes, at least one weight in all.
        nodes: number of nodes G, at least 3.

    Returns:
        A grid in float32 from just under the smallest weight, with the least step with which it
        goes up to the largest.

    >>> grid = grid_over([jnp.array([1.1, 4.5]), jnp.array([[2.0]])], nodes=6)
    >>> print(grid.nodes)
    [1. 2. 3. 4. 5. 6.]
    """
    leaves = [leaf for leaf in leaves if leaf.size]
    low = jnp.min(jnp.stack([jnp.min(leaf).astype(jnp.float32) for leaf in leaves]))
    high = jnp.max(jnp.stack([jnp.max(leaf).astype(jnp.float32) for leaf in leaves]))
    low, high = jax.lax.stop_gradient((low, high))
    # Constant weights have no range; a step far under their own rounding would serve nobody.
    least = 1e-6 * jnp.maximum(jnp.maximum(jnp.abs(low), jnp.abs(high)), 1e-3)
    _, exponent = jnp.frexp(jnp.maximum(high - low, least) / (nodes - 2))
    step = jnp.ldexp(jnp.float32(1), exponent)
    low = jnp.floor(low / step) * step
    return Grid(low, step, low + step * jnp.arange(nodes, dtype=jnp.float32))


def place_on(weights: Array, grid: Grid) -> Place:
    """Find the places of one array of weights, to be looked up once.

    >>> w = jnp.array([1.125, 4.53125])
    >>> print(*place_on(w, grid_over([w], nodes=6)))
    [  4 113] [0. 0.]
    """
    cell = grid.step / REFINE
    # A division: a product would be worked out again, with the grid, inside every lookup.
    scaled = weights.astype(jnp.float32) / cell
    below = jnp.floor(scaled)
    last = REFINE * (grid.nodes.size - 1) - 1
    number = jnp.clip((below - grid.low / cell).astype(jnp.int32), 0, last)
    return Place(number, scaled - below)


def places_on(leaves: Sequence[Array], grid: Grid) -> list[Place]:
    """Find the weights' places on a grid, once for all that is looked up there in a step.

    Args:
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights, as ``grid_over(leaves, nodes)`` does.

    >>> w = jnp.array([1.125, 4.5])
    >>> print(places_on([w], grid_over([w], nodes=6))[0].cell / REFINE)
    [0.125 3.5  ]
    """

    def nowhere(leaf: Array, grid: Grid) -> Place:
        return Place(jnp.zeros(leaf.shape, jnp.int32), jnp.zeros(leaf.shape, jnp.float32))

    def once(leaf: Array) -> Place:
        # XLA on processors would work a place out again inside each lookup that uses it, which
        # costs more than the lookup; only into a conditional it does not look.
        return jax.lax.platform_dependent(
            leaf,
            grid,
            cpu=lambda leaf, grid: jax.lax.cond(grid.step > 0, place_on, nowhere, leaf, grid),
            default=place_on,
        )

    return [once(jax.lax.stop_gradient(leaf)) for leaf in leaves]
