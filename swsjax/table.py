r"""The prior over all weights of a net at a few gathers a weight.

All weights share one one-dimensional density, so a step evaluates the mixture at the G *nodes* of a
grid only, G x J exponentials, and each weight looks its log-density up: between nodes it is the
quintic with the exact values, slopes and curvatures at both ends (Hermite), sampled at ``REFINE``
points an interval, with linear interpolation between those. Exponentials are dear, so there are
few nodes; a lookup in a fine linear table is cheaper than a quintic a weight.

The sum over the weights is that of a histogram: each weight is shared out between the two points
beside it, and the histogram's product with the table is the sum of the interpolated log-densities.
So its gradient to the table, and through it to the mixture, is the histogram, at no further cost.
The gradient to a weight is the tabulated slope of the log-density, interpolated in the same way,
and not the slope of a chord, which would err in the first order of the step. All errors fall as
the square of the step or faster; ``lookup_error`` measures them, ``node_count`` chooses the grid.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.prior import (
    LOG_SQRT_2PI,
    GaussianMixture,
    component_log_probs,
    component_means,
    log_mixing,
    log_prob,
)

__all__ = [
    "Grid",
    "error_with",
    "grid_over",
    "lookup_error",
    "node_count",
    "refined",
    "straight_through",
    "sum_log_prob",
]

REFINE = 32
"""Points of the lookup table in an interval between nodes."""

# Where two components change hands the slope turns over about a fifth of the narrower one's
# standard deviation; so many nodes a standard deviation keep errors at 1e-5.
_NODES_PER_SIGMA = 4
_LEAST_NODES, _MOST_NODES = 64, 2**16
_SHARE_BITS = 20
# `_position` clips: no second check of every index, and none of them is negative.
_UNCHECKED: dict[str, Any] = {"mode": "promise_in_bounds", "wrap_negative_indices": False}


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
    mixture: GaussianMixture, leaves: Sequence[Array], grid: Grid, *, sample: int = 2**14
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
    # Leaf by leaf: they may lie on devices in different ways.
    picked = [leaf.ravel()[::stride].astype(jnp.float32) for leaf in leaves if leaf.size]
    ours = jax.value_and_grad(lambda leaves: sum_log_prob(mixture, leaves, grid))(picked)
    exact = jax.value_and_grad(
        lambda leaves: sum(jnp.sum(log_prob(mixture, leaf)) for leaf in leaves)
    )(picked)

    def error(ours: Any, exact: Any) -> Array:
        return optax.tree.norm(optax.tree.sub(ours, exact)) / optax.tree.norm(exact)

    return jnp.maximum(*map(error, ours, exact))


def refined(mixture: GaussianMixture, leaves: Sequence[Array], nodes: int, target: float) -> int:
    """Double the nodes until ``lookup_error`` is at the target, or doubling helps no further.

    Past that the error is the rounding of float32.

    >>> from swsjax.prior import init_mixture
    >>> w = jnp.linspace(-1.0, 1.0, 5000)
    >>> refined(init_mixture(-1.0, 1.0, std=0.05), [w], 64, target=1e-4)
    256
    """
    error = error_with(nodes, mixture, leaves)
    while error > target and (finer := error_with(2 * nodes, mixture, leaves)) < error / 2:
        nodes, error = 2 * nodes, finer
    return nodes


@partial(jax.jit, static_argnums=0)
def error_with(nodes: int, mixture: GaussianMixture, leaves: Sequence[Array]) -> Array:
    """``lookup_error`` on a grid of so many nodes, compiled once for each number of them.

    >>> from swsjax.prior import init_mixture
    >>> w = jnp.linspace(-1.0, 1.0, 5000)
    >>> bool(error_with(256, init_mixture(-1.0, 1.0), [w]) < 1e-4)
    True
    """
    return lookup_error(mixture, leaves, grid_over(leaves, nodes))


def straight_through(mixture: GaussianMixture, leaves: Sequence[Array], grid: Grid) -> list[Array]:
    """Assigned means in the forward pass, identity and codebook gradients in the backward pass.

    Args:
        mixture: the prior.
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights. Boundaries between components are placed to within a
            ``REFINE``-th of its step; a component that rules less than a step is not seen.

    Returns:
        Each weight's assigned mean, in the shapes and dtypes of ``leaves``. Its gradient goes
        unchanged to the weight (the straight-through estimator: Bengio, Leonard, Courville,
        arXiv 1308.3432) and, summed over the weights of a component, to that component's mean
        if it is not zero.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> w = jnp.array([0.1, 0.8, 1.3])
    >>> print(*straight_through(mixture, [w], grid_over([w], 256)))
    [0. 1. 1.]
    """
    fixed = jax.lax.stop_gradient(mixture)
    joint = component_log_probs(fixed, grid.nodes).T
    numbers = jnp.arange(joint.shape[0], dtype=jnp.int32)[:, None]
    # argmax, as two reductions that processors do in vectors
    best = jnp.min(jnp.where(joint == jnp.max(joint, axis=0), numbers, numbers[-1]), axis=0)
    left, right = best[:-1], best[1:]
    centres = (jnp.arange(REFINE, dtype=jnp.float32) + 0.5) / REFINE
    before = centres < _crossing(fixed, left, right, grid)[:, None]
    return _cell_means(component_means(mixture), _Rule(left, right, before), leaves, grid)


class _Rule(NamedTuple):
    """Which component the cells of the lookup table belong to."""

    left: Array
    """(G - 1,) the component of the first cells of each interval."""
    right: Array
    """(G - 1,) that of its last cells."""
    before: Array
    """(G - 1, REFINE) whether a cell is among the first."""


@jax.custom_vjp
def _cell_means(means: Array, rule: _Rule, leaves: Sequence[Array], grid: Grid) -> list[Array]:
    return _cell_means_forward(means, rule, leaves, grid)[0]


def _cell_means_forward(
    means: Array, rule: _Rule, leaves: Sequence[Array], grid: Grid
) -> tuple[list[Array], Any]:
    components = jnp.where(rule.before, rule.left[:, None], rule.right[:, None])
    of_cell = means[components.ravel()]
    assigned = [
        of_cell.at[_position(leaf, grid, of_cell.size + 1)[0]].get(**_UNCHECKED).astype(leaf.dtype)
        for leaf in leaves
    ]
    return assigned, (jnp.zeros_like(means), rule, leaves, grid, assigned)


def _cell_means_backward(saved: Any, cotangents: list[Array]) -> tuple[Array, None, Any, None]:
    to_means, rule, leaves, grid, assigned = saved
    sums = jnp.zeros(rule.before.size, to_means.dtype)
    for leaf, cotangent, value in zip(leaves, cotangents, assigned, strict=True):
        cell, _ = _position(leaf, grid, sums.size + 1)
        # Most weights: the zero component's mean is fixed and asks for no gradient.
        cell = jnp.where(value == 0, sums.size, cell)
        sums = sums.at[cell].add(
            cotangent.astype(sums.dtype), mode="drop", wrap_negative_indices=False
        )
    # By interval first: few of those to scatter, and many cells.
    sums = sums.reshape(rule.before.shape)
    of_left = jnp.sum(jnp.where(rule.before, sums, 0), axis=1)
    of_right = jnp.sum(jnp.where(rule.before, 0, sums), axis=1)
    to_means = to_means.at[rule.left].add(of_left).at[rule.right].add(of_right)
    return to_means, None, cotangents, None


_cell_means.defvjp(_cell_means_forward, _cell_means_backward)


def _crossing(mixture: GaussianMixture, left: Array, right: Array, grid: Grid) -> Array:
    """Where in each interval the left node's component hands over to the right one's, from 0 to 1.

    How far the one is ahead of the other is a quadratic, positive at the left node and negative
    at the right one, so it has one root between. Any value serves where both are the same.
    """
    means, precisions = component_means(mixture), jnp.exp(mixture.log_precisions)
    heights = log_mixing(mixture) + 0.5 * mixture.log_precisions

    def joint(component: Array) -> tuple[Array, Array, Array]:
        """Coefficients of a component's log-density about the left node, the step as unit."""
        pull = precisions[component] * (means[component] - grid.nodes[:-1])
        constant = heights[component] - 0.5 * pull**2 / precisions[component]
        return constant, grid.step * pull, -0.5 * grid.step**2 * precisions[component]

    c, b, a = (x - y for x, y in zip(joint(left), joint(right), strict=True))
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0))
    return 2 * c / jnp.maximum(root - b, jnp.finfo(jnp.float32).tiny)


def _lookup_table(mixture: GaussianMixture, grid: Grid) -> tuple[Array, Array]:
    """Log-density and its slope at the points of the refined grid, (REFINE (G - 1) + 1,) each."""
    log_scales = log_mixing(mixture) + 0.5 * mixture.log_precisions
    jet = _jet(component_means(mixture), mixture.log_precisions, log_scales, grid.nodes)
    value, slope, curvature, change = jet
    values = _hermite(value, grid.step * slope, grid.step**2 * curvature)
    fixed = jax.lax.stop_gradient((slope, grid.step * curvature, grid.step**2 * change))
    return values - LOG_SQRT_2PI, _hermite(*fixed)


_Jet = tuple[Array, Array, Array, Array]
"""A function and its first three derivatives at the nodes, (G,) each."""


@jax.custom_vjp
def _jet(means: Array, log_precisions: Array, log_scales: Array, nodes: Array) -> _Jet:
    """Log of a sum of exp(log_scales - deviation^2 / 2) and its first three derivatives, (G,) each.

    With shares r of the components and their pulls u = lambda (mu - w), the derivatives are the
    mean of u, and with c = u less its mean the means of c^2 - lambda and of c^3 - 3 lambda c. The
    gradient is written out to use the shares again: exponentials are what costs here. The third
    derivative is not differentiated further.
    """
    return _jet_forward(means, log_precisions, log_scales, nodes)[0]


def _jet_forward(
    means: Array, log_precisions: Array, log_scales: Array, nodes: Array
) -> tuple[_Jet, Any]:
    # (J + 1, G), components first: sums over the components then run in vectors along the nodes.
    precisions = jnp.exp(log_precisions)[:, None]
    pulls = precisions * (means[:, None] - nodes)
    joint = log_scales[:, None] - 0.5 * pulls**2 / precisions
    most = jnp.max(joint, axis=0)
    scaled = jnp.exp(joint - most)
    total = jnp.sum(scaled, axis=0)
    shares = scaled / total
    slope = jnp.sum(shares * pulls, axis=0)
    centred = pulls - slope
    curvature = jnp.sum(shares * (centred**2 - precisions), axis=0)
    change = jnp.sum(shares * centred * (centred**2 - 3 * precisions), axis=0)
    jet = most + jnp.log(total), slope, curvature, change
    return jet, (shares, means, precisions, nodes, slope, curvature)


def _jet_backward(saved: Any, cotangents: _Jet) -> tuple[Array, Array, Array, None]:
    shares, means, precisions, nodes, slope, curvature = saved
    by_value, by_slope, by_curvature, _ = cotangents
    pulls = precisions * (means[:, None] - nodes)
    centred = pulls - slope
    to_joint = shares * (
        by_value + by_slope * centred + by_curvature * (centred**2 - precisions - curvature)
    )
    to_pulls = shares * (by_slope + 2 * by_curvature * centred)
    to_means = jnp.sum(to_pulls * precisions - to_joint * pulls, axis=1)
    to_log_precisions = jnp.sum(
        to_pulls * pulls
        - 0.5 * to_joint * pulls**2 / precisions
        - shares * by_curvature * precisions,
        axis=1,
    )
    return to_means, to_log_precisions, jnp.sum(to_joint, axis=1), None


_jet.defvjp(_jet_forward, _jet_backward)


def _hermite(values: Array, slopes: Array, curvatures: Array) -> Array:
    """Quintic Hermite interpolation between nodes at distance 1, REFINE points an interval."""
    t = jnp.arange(REFINE, dtype=values.dtype) / REFINE
    s = 1 - t
    basis = jnp.stack(
        [
            s**3 * (1 + 3 * t + 6 * t**2),
            t * s**3 * (1 + 3 * t),
            0.5 * t**2 * s**3,
            t**3 * (1 + 3 * s + 6 * s**2),
            -s * t**3 * (1 + 3 * s),
            0.5 * s**2 * t**3,
        ]
    )
    of_node = jnp.stack([values, slopes, curvatures], axis=-1)
    ends = jnp.concatenate([of_node[:-1], of_node[1:]], axis=-1)
    return jnp.append(jnp.matmul(ends, basis, precision="highest").ravel(), values[-1])


@jax.custom_vjp
def _sum_over(values: Array, slopes: Array, leaves: list[Array], grid: Grid) -> Array:
    return _sum_forward(values, slopes, leaves, grid)[0]


def _sum_forward(
    values: Array, slopes: Array, leaves: list[Array], grid: Grid
) -> tuple[Array, Any]:
    histogram = _histogram(leaves, grid, values.size)
    return jnp.vdot(histogram, values), (slopes, leaves, grid, histogram)


def _sum_backward(saved: Any, cotangent: Array) -> tuple[Array, None, list[Array], None]:
    slopes, leaves, grid, histogram = saved

    # A slope and its change as one complex number: one gather is cheaper than two.
    lines = jax.lax.complex(slopes[:-1], slopes[1:] - slopes[:-1])

    def to_leaf(leaf: Array) -> Array:
        index, fraction = _position(leaf, grid, slopes.size)
        line = lines.at[index].get(**_UNCHECKED)
        return (cotangent * (line.real + fraction * line.imag)).astype(leaf.dtype)

    return cotangent * histogram, None, [to_leaf(leaf) for leaf in leaves], None


_sum_over.defvjp(_sum_forward, _sum_backward)


def _histogram(leaves: list[Array], grid: Grid, points: int) -> Array:
    """Each weight shared out between the points of the table beside it, in float32.

    Shares are summed in fixed point, as fine as the number of weights leaves bits for: a float32
    sum would stand still at 2^24 weights in a cell, and integers have one sum in every order, on
    one device or many.
    """
    size = sum(leaf.size for leaf in leaves)
    unit = 2.0 ** min(31 - size.bit_length(), _SHARE_BITS)
    # A number and a share in one scatter: indices are dear, and it runs on one core.
    sums = jnp.zeros((points - 1, 2), jnp.int32)
    for leaf in leaves:
        index, fraction = _position(leaf, grid, points)
        share = jnp.round(unit * fraction).astype(jnp.int32)
        sums = sums.at[index].add(jnp.stack([jnp.ones_like(share), share], -1), **_UNCHECKED)
    counts, to_right = sums.astype(jnp.float32).T
    return jnp.append(counts, 0) + jnp.diff(-to_right / unit, prepend=0, append=0)


def _position(weights: Array, grid: Grid, size: int) -> tuple[Array, Array]:
    """Interval of a table of ``size`` points that each weight lies in, and where in it, 0 to 1."""
    cell = grid.step / REFINE
    # A division: a product would be worked out again, with the grid, inside every lookup.
    scaled = weights.astype(jnp.float32) / cell
    below = jnp.floor(scaled)
    index = jnp.clip((below - grid.low / cell).astype(jnp.int32), 0, size - 2)
    return index, scaled - below
