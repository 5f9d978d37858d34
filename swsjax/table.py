r"""The prior over all weights of a net at a few gathers a weight.

All weights share one one-dimensional density, so a step evaluates the mixture at the G *nodes* of a
grid only, G x J exponentials, and each weight looks its log-density up: between nodes it is the
cubic with the exact values and slopes at both ends (Hermite), sampled at ``REFINE`` points an
interval, with linear interpolation between those. Exponentials are dear and few; a lookup in a
fine linear table is cheaper than a cubic a weight.

The sum over the weights is that of a histogram: each weight is shared out between the two points
beside it, and the histogram's product with the table is the sum of the interpolated log-densities.
So its gradient to the table, and through it to the mixture, is the histogram, at no further cost.
The gradient to a weight is the tabulated slope of the log-density, interpolated in the same way,
and not the slope of a chord, which would err in the first order of the step. All errors fall as
the square of the step or faster; ``lookup_error`` measures them, ``node_count`` chooses the grid.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from swsjax.exact import pass_through
from swsjax.prior import GaussianMixture, component_log_probs, component_means, log_prob

__all__ = ["Grid", "grid_over", "lookup_error", "node_count", "straight_through", "sum_log_prob"]

REFINE = 16
"""Points of the lookup table in an interval between nodes."""

# Where two components change hands the slope turns over about a fifth of the narrower one's
# standard deviation; so many nodes a standard deviation keep errors under 1e-5.
_NODES_PER_SIGMA = 16
_LEAST_NODES, _MOST_NODES = 256, 2**18
_IN_BOUNDS = "promise_in_bounds"  # `_position` clips: no second check of every index


class Grid(NamedTuple):
    """Evenly spaced nodes over a range of weights."""

    low: Array
    """() the first node."""
    step: Array
    """() the distance between nodes, positive."""
    nodes: Array
    """(G,) the nodes, in increasing order."""


def node_count(low: float, high: float, sigma: float) -> int:
    """Choose the number of nodes for a range of weights and the narrowest standard deviation.

    A power of two, so that it changes, and the step compiles again, a few times in a training at
    most; between 256 and 2^18, where the table outgrows a processor's cache.

    >>> node_count(-1.0, 1.0, 0.02)
    2048
    """
    wanted = _NODES_PER_SIGMA * (high - low) / sigma
    return min(max(2 ** math.ceil(math.log2(max(wanted, 1))), _LEAST_NODES), _MOST_NODES)


def grid_over(leaves: Sequence[Array], nodes: int) -> Grid:
    """Lay a grid over the range of all weights, so that none lies outside.

    Args:
        leaves: arrays of weights, any shapes, at least one weight in all.
        nodes: number of nodes G, at least 2.

    Returns:
        A grid in float32 whose ends are the smallest and the largest weight, a little widened.

    >>> grid = grid_over([jnp.array([1.0, 5.0]), jnp.array([[2.0]])], nodes=5)
    >>> print(np.asarray(grid.nodes).round(3))
    [1. 2. 3. 4. 5.]
    """
    leaves = [leaf for leaf in leaves if leaf.size]
    low = jnp.min(jnp.stack([jnp.min(leaf).astype(jnp.float32) for leaf in leaves]))
    high = jnp.max(jnp.stack([jnp.max(leaf).astype(jnp.float32) for leaf in leaves]))
    # Widened by a relative 1e-6 so that rounding puts no weight past the last interval, and never
    # to a zero step, which constant weights would give.
    margin = 1e-6 * jnp.maximum(jnp.maximum(jnp.abs(low), jnp.abs(high)), 1e-3)
    low, high = jax.lax.stop_gradient((low - margin, high + margin))
    step = (high - low) / (nodes - 1)
    return Grid(low, step, low + step * jnp.arange(nodes, dtype=jnp.float32))


def sum_log_prob(mixture: GaussianMixture, leaves: Sequence[Array], grid: Grid) -> Array:
    """Sum of log p(w) over all weights, looked up (nats), a float32 scalar.

    Differentiable once in the weights and the mixture. ``exact.sum_log_prob`` is the same
    sum without a table.

    Args:
        mixture: the prior.
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights, as ``grid_over(leaves, nodes)`` does.

    >>> mixture, w = GaussianMixture(*(jnp.zeros(n) for n in [1, 2, 1, ()])), jnp.array([0.5, 2.0])
    >>> print(np.asarray(sum_log_prob(mixture, [w], grid_over([w], 256))).round(3))
    -3.963
    """
    values, slopes = _lookup_table(mixture, grid)
    return _sum_over(values, slopes, [leaf for leaf in leaves if leaf.size], grid)


def lookup_error(
    mixture: GaussianMixture, leaves: Sequence[Array], grid: Grid, *, sample: int = 1024
) -> Array:
    """Measure the relative error of the lookup on a sample of the weights, a scalar.

    The larger of two: the error of the mean log-density, and that of the gradient to the weights
    as the norm of the difference over the norm. The sample is every n-th weight of each leaf.

    >>> from swsjax.prior import init_mixture
    >>> w = jnp.linspace(-1.0, 1.0, 5000)
    >>> bool(lookup_error(init_mixture(-1.0, 1.0), [w], grid_over([w], 256)) < 1e-4)
    True
    """
    size = sum(leaf.size for leaf in leaves)
    stride = max(1, -(-size // sample))
    picked = jnp.concatenate([leaf.ravel()[::stride].astype(jnp.float32) for leaf in leaves])
    ours = jax.value_and_grad(lambda w: sum_log_prob(mixture, [w], grid))(picked)
    exact = jax.value_and_grad(lambda w: jnp.sum(log_prob(mixture, w)))(picked)
    errors = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b) / jnp.linalg.norm(b), ours, exact)
    return jnp.max(jnp.stack(errors))


def straight_through(mixture: GaussianMixture, weights: Array, grid: Grid) -> Array:
    """Assigned means in the forward pass, identity and codebook gradients in the backward pass.

    Args:
        mixture: the prior.
        weights: any shape and floating dtype.
        grid: covers all weights. Boundaries between components are placed to within a
            ``REFINE``-th of its step; a component that rules less than a step is not seen.

    Returns:
        Each weight's assigned mean, in the shape and dtype of ``weights``. Its gradient goes
        unchanged to the weight (the straight-through estimator: Bengio, Leonard, Courville,
        arXiv 1308.3432) and, summed over the weights of a component, to that component's mean.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> w = jnp.array([0.1, 0.8, 1.3])
    >>> print(straight_through(mixture, w, grid_over([w], 256)))
    [0. 1. 1.]
    """
    joint = jax.lax.stop_gradient(_joint(mixture, grid.nodes))
    numbers = jnp.arange(joint.shape[0], dtype=jnp.int32)[:, None]
    # argmax, as two reductions that processors do in vectors
    best = jnp.min(jnp.where(joint == jnp.max(joint, axis=0), numbers, numbers[-1]), axis=0)
    left, right = best[:-1], best[1:]

    def lead(ends: Array) -> Array:
        """By how much the left end's component is ahead of the right end's."""
        return jnp.sum(
            jnp.where(numbers == left, ends, 0) - jnp.where(numbers == right, ends, 0), 0
        )

    ahead, behind = lead(joint[:, :-1]), lead(joint[:, 1:])
    change = jnp.where(left == right, jnp.inf, ahead / (ahead - behind))
    # Cells as fine as the lookup table, each with one mean. That the sums over the weights of a
    # component are then first taken cell by cell is faster than over a few much used components.
    centres = (jnp.arange(REFINE, dtype=jnp.float32) + 0.5) / REFINE
    component = jnp.where(centres < change[:, None], left[:, None], right[:, None]).ravel()
    means = component_means(mixture)[component]
    index, _ = _position(weights, grid.low, REFINE / grid.step, means.size + 1)
    return pass_through(weights, means.at[index].get(mode=_IN_BOUNDS).astype(weights.dtype))


def _lookup_table(mixture: GaussianMixture, grid: Grid) -> tuple[Array, Array]:
    """Log-density and its slope at the points of the refined grid, (REFINE (G - 1) + 1,) each."""
    joint = _joint(mixture, grid.nodes)
    value = jax.nn.logsumexp(joint, axis=0)
    shares = jnp.exp(joint - value)
    precisions = jnp.exp(mixture.log_precisions)[:, None]
    pulls = precisions * (component_means(mixture)[:, None] - grid.nodes)
    slope = jnp.sum(shares * pulls, axis=0)
    curvature = jnp.sum(shares * ((pulls - slope) ** 2 - precisions), axis=0)
    values = _hermite(value, grid.step * slope)
    return values, _hermite(*jax.lax.stop_gradient((slope, grid.step * curvature)))


def _joint(mixture: GaussianMixture, nodes: Array) -> Array:
    """Log-density of each node with each component, (J + 1, G): components first.

    Sums over the components then run in vectors along the nodes.
    """
    return component_log_probs(mixture, nodes).T


def _hermite(values: Array, slopes: Array) -> Array:
    """Cubic Hermite interpolation between nodes at distance 1, REFINE points an interval."""
    t = jnp.arange(REFINE, dtype=values.dtype) / REFINE
    basis = jnp.stack(
        [(1 + 2 * t) * (1 - t) ** 2, t * (1 - t) ** 2, t**2 * (3 - 2 * t), -(t**2) * (1 - t)]
    )
    ends = jnp.stack([values[:-1], slopes[:-1], values[1:], slopes[1:]], axis=-1)
    return jnp.append(jnp.matmul(ends, basis, precision="highest").ravel(), values[-1])


@jax.custom_vjp
def _sum_over(values: Array, slopes: Array, leaves: list[Array], grid: Grid) -> Array:
    return _sum_forward(values, slopes, leaves, grid)[0]


def _sum_forward(values: Array, slopes: Array, leaves: list[Array], grid: Grid):
    histogram = sum(_histogram(leaf, grid, values.size) for leaf in leaves)
    return jnp.vdot(histogram, values), (slopes, leaves, grid, histogram)


def _sum_backward(saved, cotangent: Array):
    slopes, leaves, grid, histogram = saved

    def to_leaf(leaf: Array) -> Array:
        index, fraction = _position(leaf, grid.low, REFINE / grid.step, slopes.size)
        left = slopes.at[index].get(mode=_IN_BOUNDS)
        right = slopes.at[index + 1].get(mode=_IN_BOUNDS)
        return (cotangent * (left + fraction * (right - left))).astype(leaf.dtype)

    return cotangent * histogram, None, [to_leaf(leaf) for leaf in leaves], None


_sum_over.defvjp(_sum_forward, _sum_backward)


def _histogram(leaf: Array, grid: Grid, points: int) -> Array:
    """Each weight shared out between the points of the table beside it, in float32."""
    index, fraction = _position(leaf, grid.low, REFINE / grid.step, points)
    counts = jnp.zeros(points, jnp.int32).at[index].add(1, mode=_IN_BOUNDS)
    to_right = jnp.zeros(points, jnp.float32).at[index].add(fraction, mode=_IN_BOUNDS)
    return counts.astype(jnp.float32) - to_right + jnp.roll(to_right, 1)


def _position(weights: Array, low: Array, per_unit: Array, size: int) -> tuple[Array, Array]:
    """Interval of a table of ``size`` points that each weight lies in, and where in it, 0 to 1."""
    scaled = (weights.astype(jnp.float32) - low) * per_unit
    index = jnp.clip(scaled.astype(jnp.int32), 0, size - 2)
    return index, scaled - index.astype(scaled.dtype)
