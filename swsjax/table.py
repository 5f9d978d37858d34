r"""The prior's log-density and its assignments, tabulated: one gather a weight.

All weights share one one-dimensional density, so a training step evaluates the mixture on a grid
of G points only, G x J exponentials, and looks each weight up by linear interpolation. With grid
step h the error of the log-density is at most about

.. math:: h^2 / 8 \cdot \max_w |\partial^2 \log p / \partial w^2|,

which is (h / sigma)^2 / 8 inside a component of standard deviation sigma, and more where two
components meet; ``interpolation_error`` measures it.
Differentiating through the lookup gives the exact gradient of the interpolated objective.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from swsjax.prior import GaussianMixture, assign, component_means, log_prob

__all__ = ["Grid", "grid_over", "interpolation_error", "straight_through", "sum_log_prob"]


class Grid(NamedTuple):
    """Evenly spaced points over a range of weights."""

    low: Array
    """() the first point."""
    step: Array
    """() the distance between points, positive."""
    points: Array
    """(G,) the points, in increasing order."""


def grid_over(leaves: list[Array], size: int) -> Grid:
    """Lay a grid of ``size`` points over the range of all weights, so that none lies outside.

    Args:
        leaves: arrays of weights, any shapes, at least one weight in all.
        size: number of points G.

    Returns:
        A grid in float32 whose ends are the smallest and the largest weight, a little widened.

    >>> grid = grid_over([jnp.array([1.0, 5.0]), jnp.array([[2.0]])], size=5)
    >>> print(np.asarray(grid.points).round(3))
    [1. 2. 3. 4. 5.]
    """
    leaves = [leaf.astype(jnp.float32) for leaf in leaves if leaf.size]
    low = jnp.min(jnp.stack([jnp.min(leaf) for leaf in leaves]))
    high = jnp.max(jnp.stack([jnp.max(leaf) for leaf in leaves]))
    # Widened by a relative 1e-6 so that rounding puts no weight past the last interval, and never
    # to a zero step, which constant weights would give.
    margin = 1e-6 * jnp.maximum(jnp.maximum(jnp.abs(low), jnp.abs(high)), 1e-3)
    low, high = jax.lax.stop_gradient((low - margin, high + margin))
    step = (high - low) / (size - 1)
    return Grid(low, step, low + step * jnp.arange(size, dtype=jnp.float32))


def sum_log_prob(mixture: GaussianMixture, leaves: list[Array], grid: Grid) -> Array:
    """Sum of log p(w) over all weights by linear interpolation in a table (nats), a scalar.

    Args:
        mixture: the prior.
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights, as ``grid_over(leaves, size)`` does.

    >>> mixture, w = GaussianMixture(*(jnp.zeros(n) for n in [1, 2, 1, ()])), jnp.array([0.5, 2.0])
    >>> print(np.asarray(sum_log_prob(mixture, [w], grid_over([w], 4096))).round(3))
    -3.963
    """
    table = log_prob(mixture, grid.points)
    slopes = jnp.diff(table)
    total = jnp.zeros((), jnp.float32)
    for leaf in leaves:
        index, fraction = _position(grid, leaf.astype(jnp.float32))
        total += jnp.sum(table[index] + fraction * slopes[index])
    return total


def straight_through(mixture: GaussianMixture, weights: Array, grid: Grid) -> Array:
    """Assigned means in the forward pass, identity and codebook gradients in the backward pass.

    Args:
        mixture: the prior.
        weights: any shape and floating dtype.
        grid: covers all weights; a boundary between components is placed to within its step.

    Returns:
        Each weight's assigned mean, in the shape and dtype of ``weights``. Its gradient goes
        unchanged to the weight (the straight-through estimator: Bengio, Leonard, Courville,
        arXiv 1308.3432) and, summed over the weights of a component, to that component's mean.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> w = jnp.array([0.1, 0.8, 1.3])
    >>> print(straight_through(mixture, w, grid_over([w], 1024)))
    [0. 1. 1.]
    """
    component = assign(mixture, grid.points)
    index, fraction = _position(grid, weights.astype(jnp.float32))
    nearest = component[jnp.where(fraction > 0.5, index + 1, index)]
    quantised = component_means(mixture)[nearest].astype(weights.dtype)
    # Exactly the assigned means in value: (w - w) would not be where w is large.
    return _pass_through(weights, quantised)


@jax.custom_vjp
def _pass_through(weights: Array, quantised: Array) -> Array:
    return quantised


_pass_through.defvjp(
    lambda weights, quantised: (quantised, None), lambda _, cotangent: (cotangent, cotangent)
)


def interpolation_error(mixture: GaussianMixture, grid: Grid) -> Array:
    """Largest error of the tabulated log-density (nats a weight), from its second differences.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> bool(interpolation_error(mixture, grid_over([jnp.array([-1.0, 1.0])], 1024)) < 1e-6)
    True
    """
    return jnp.max(jnp.abs(jnp.diff(log_prob(mixture, grid.points), 2))) / 8


def _position(grid: Grid, weights: Array) -> tuple[Array, Array]:
    """Interval of the grid that each weight lies in, and where in it, from 0 to 1."""
    scaled = (weights - grid.low) / grid.step
    index = jnp.clip(scaled.astype(jnp.int32), 0, grid.points.size - 2)
    return index, scaled - index.astype(jnp.float32)
