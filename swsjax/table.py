r"""The prior over all weights of a net at a few gathers a weight.

All weights share one one-dimensional density, so a step evaluates the mixture at the G *nodes* of a
grid only, G x J exponentials, and each weight looks its log-density up: between nodes it is the
cubic with the exact values and slopes at both ends (Hermite), sampled at ``REFINE`` points an
interval, with linear interpolation between those. Exponentials are dear and few; a lookup in a
fine linear table is cheaper than a cubic a weight.

The gradient to a weight is the tabulated slope of the log-density, interpolated in the same way,
and not the slope of a chord, which would err in the first order of the step. The gradient to the
mixture is the exact one of the interpolated sum. All errors fall as the square of the step or
faster; ``lookup_error`` measures them on a sample, ``node_count`` chooses the grid.
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
    total = jnp.zeros((), jnp.float32)
    for leaf in leaves:
        total += _lookup_sum(values, slopes, leaf, grid)
    return total


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
        grid: covers all weights. Boundaries between components are placed between nodes, far
            more finely than the grid; a component that rules less than an interval is not seen.

    Returns:
        Each weight's assigned mean, in the shape and dtype of ``weights``. Its gradient goes
        unchanged to the weight (the straight-through estimator: Bengio, Leonard, Courville,
        arXiv 1308.3432) and, summed over the weights of a component, to that component's mean.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> w = jnp.array([0.1, 0.8, 1.3])
    >>> print(straight_through(mixture, w, grid_over([w], 256)))
    [0. 1. 1.]
    """
    joint = jax.lax.stop_gradient(component_log_probs(mixture, grid.nodes))
    best = jnp.argmax(joint, axis=-1)
    left, right = best[:-1], best[1:]
    ends = joint[:-1], joint[1:]
    # By how much the left end's component leads at either end: at least 0 there, at most 0 here.
    lead, lag = (
        jnp.take_along_axis(end, left[:, None], -1) - jnp.take_along_axis(end, right[:, None], -1)
        for end in ends
    )
    change = jnp.where(left == right, jnp.inf, (lead / (lead - lag))[:, 0])
    index, fraction = _position(weights, grid.low, 1 / grid.step, grid.nodes.size)
    component = jnp.where(
        fraction < change.at[index].get(mode=_IN_BOUNDS),
        left.at[index].get(mode=_IN_BOUNDS),
        right.at[index].get(mode=_IN_BOUNDS),
    )
    quantised = component_means(mixture).at[component].get(mode=_IN_BOUNDS)
    return pass_through(weights, quantised.astype(weights.dtype))


def _lookup_table(mixture: GaussianMixture, grid: Grid) -> tuple[Array, Array]:
    """Log-density and its slope at the points of the refined grid, (REFINE (G - 1) + 1,) each."""
    joint = component_log_probs(mixture, grid.nodes)
    value = jax.nn.logsumexp(joint, axis=-1)
    shares = jnp.exp(joint - value[:, None])
    precisions = jnp.exp(mixture.log_precisions)
    pulls = precisions * (component_means(mixture) - grid.nodes[:, None])
    slope = jnp.sum(shares * pulls, axis=-1)
    curvature = jnp.sum(shares * ((pulls - slope[:, None]) ** 2 - precisions), axis=-1)
    values = _hermite(value, grid.step * slope)
    return values, _hermite(*jax.lax.stop_gradient((slope, grid.step * curvature)))


def _hermite(values: Array, slopes: Array) -> Array:
    """Cubic Hermite interpolation between nodes at distance 1, REFINE points an interval."""
    t = jnp.arange(REFINE, dtype=values.dtype) / REFINE
    basis = jnp.stack(
        [(1 + 2 * t) * (1 - t) ** 2, t * (1 - t) ** 2, t**2 * (3 - 2 * t), -(t**2) * (1 - t)]
    )
    ends = jnp.stack([values[:-1], slopes[:-1], values[1:], slopes[1:]], axis=-1)
    return jnp.append(jnp.matmul(ends, basis, precision="highest").ravel(), values[-1])


@jax.custom_vjp
def _lookup_sum(values: Array, slopes: Array, weights: Array, grid: Grid) -> Array:
    return jnp.sum(_interpolate(values, *_fine_position(values, weights, grid)))


def _lookup_forward(values: Array, slopes: Array, weights: Array, grid: Grid):
    return _lookup_sum(values, slopes, weights, grid), (values, slopes, weights, grid)


def _lookup_backward(saved, cotangent: Array):
    values, slopes, weights, grid = saved
    index, fraction = _fine_position(values, weights, grid)
    to_weights = (cotangent * _interpolate(slopes, index, fraction)).astype(weights.dtype)
    to_values = jnp.zeros_like(values).at[index].add(1 - fraction, mode=_IN_BOUNDS)
    to_values = to_values.at[index + 1].add(fraction, mode=_IN_BOUNDS)
    return cotangent * to_values, None, to_weights, None


_lookup_sum.defvjp(_lookup_forward, _lookup_backward)


def _interpolate(table: Array, index: Array, fraction: Array) -> Array:
    left = table.at[index].get(mode=_IN_BOUNDS)
    right = table.at[index + 1].get(mode=_IN_BOUNDS)
    return left + fraction * (right - left)


def _fine_position(values: Array, weights: Array, grid: Grid) -> tuple[Array, Array]:
    return _position(weights, grid.low, REFINE / grid.step, values.size)


def _position(weights: Array, low: Array, per_unit: Array, size: int) -> tuple[Array, Array]:
    """Interval of a table of ``size`` points that each weight lies in, and where in it, 0 to 1."""
    scaled = (weights.astype(jnp.float32) - low) * per_unit
    index = jnp.clip(scaled.astype(jnp.int32), 0, size - 2)
    return index, scaled - index.astype(scaled.dtype)
