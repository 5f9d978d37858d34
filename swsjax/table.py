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

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.grid import REFINE, Grid, Place, grid_over, place_on
from swsjax.prior import (
    LOG_SQRT_2PI,
    GaussianMixture,
    component_log_probs,
    component_means,
    log_mixing,
    log_prob,
)

__all__ = ["error_with", "lookup_error", "refined", "straight_through", "sum_log_prob"]

_SHARE_BITS = 20
# `place_on` clips: no second check of every index, and none of them is negative.
_UNCHECKED: dict[str, Any] = {"mode": "promise_in_bounds", "wrap_negative_indices": False}


def sum_log_prob(
    mixture: GaussianMixture,
    leaves: Sequence[Array],
    grid: Grid,
    places: Sequence[Place] | None = None,
) -> Array:
    """Sum of log p(w) over all weights, looked up (nats), a float32 scalar.

    Differentiable once in the weights and the mixture. ``exact.sum_log_prob`` is the same
    sum without a table.

    Args:
        mixture: the prior.
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights, as ``grid_over(leaves, nodes)`` does.
        places: ``places_on(leaves, grid)``, where they are known.

    >>> mixture, w = GaussianMixture(*(jnp.zeros(n) for n in [1, 2, 1, ()])), jnp.array([0.5, 2.0])
    >>> print(np.asarray(sum_log_prob(mixture, [w], grid_over([w], 256))).round(3))
    -3.963
    """
    values, slopes = _lookup_table(mixture, grid)
    return _sum_over(values, slopes, list(leaves), _known(places, leaves, grid))


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


def straight_through(
    mixture: GaussianMixture,
    leaves: Sequence[Array],
    grid: Grid,
    places: Sequence[Place] | None = None,
) -> list[Array]:
    """Assigned means in the forward pass, identity and codebook gradients in the backward pass.

    Args:
        mixture: the prior.
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights. Boundaries between components are placed to within a
            ``REFINE``-th of its step; a component that rules less than a step is not seen.
        places: ``places_on(leaves, grid)``, where they are known.

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
    rule = _Rule(left, right, before)
    return _cell_means(component_means(mixture), rule, list(leaves), _known(places, leaves, grid))


class _Rule(NamedTuple):
    """Which component the cells of the lookup table belong to."""

    left: Array
    """(G - 1,) the component of the first cells of each interval."""
    right: Array
    """(G - 1,) that of its last cells."""
    before: Array
    """(G - 1, REFINE) whether a cell is among the first."""


@jax.custom_vjp
def _cell_means(means: Array, rule: _Rule, leaves: list[Array], places: list[Place]) -> list[Array]:
    return _cell_means_forward(means, rule, leaves, places)[0]


def _cell_means_forward(
    means: Array, rule: _Rule, leaves: list[Array], places: list[Place]
) -> tuple[list[Array], Any]:
    components = jnp.where(rule.before, rule.left[:, None], rule.right[:, None])
    of_cell = means[components.ravel()]
    assigned = [
        of_cell.at[place.cell].get(**_UNCHECKED).astype(leaf.dtype)
        for leaf, place in zip(leaves, places, strict=True)
    ]
    return assigned, (jnp.zeros_like(means), rule, places, assigned)


def _cell_means_backward(
    saved: Any, cotangents: list[Array]
) -> tuple[Array, None, list[Array], None]:
    to_means, rule, places, assigned = saved
    sums = jnp.zeros(rule.before.size, to_means.dtype)
    for place, cotangent, value in zip(places, cotangents, assigned, strict=True):
        # Most weights: the zero component's mean is fixed and asks for no gradient.
        cell = jnp.where(value == 0, sums.size, place.cell)
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
def _sum_over(values: Array, slopes: Array, leaves: list[Array], places: list[Place]) -> Array:
    return _sum_forward(values, slopes, leaves, places)[0]


def _sum_forward(
    values: Array, slopes: Array, leaves: list[Array], places: list[Place]
) -> tuple[Array, Any]:
    histogram = _histogram(places, values.size)
    return jnp.vdot(histogram, values), (slopes, leaves, places, histogram)


def _sum_backward(saved: Any, cotangent: Array) -> tuple[Array, None, list[Array], None]:
    slopes, leaves, places, histogram = saved

    # A slope and its change as one complex number: one gather is cheaper than two.
    lines = jax.lax.complex(slopes[:-1], slopes[1:] - slopes[:-1])

    def to_leaf(leaf: Array, place: Place) -> Array:
        line = lines.at[place.cell].get(**_UNCHECKED)
        return (cotangent * (line.real + place.fraction * line.imag)).astype(leaf.dtype)

    return cotangent * histogram, None, list(map(to_leaf, leaves, places)), None


_sum_over.defvjp(_sum_forward, _sum_backward)


def _histogram(places: list[Place], points: int) -> Array:
    """Each weight shared out between the points of the table beside it, in float32.

    Shares are summed in fixed point, as fine as the number of weights leaves bits for: a float32
    sum would stand still at 2^24 weights in a cell, and integers have one sum in every order, on
    one device or many.
    """
    size = sum(place.cell.size for place in places)
    unit = 2.0 ** min(31 - size.bit_length(), _SHARE_BITS)
    # A number and a share in one scatter: indices are dear, and it runs on one core.
    sums = jnp.zeros((points - 1, 2), jnp.int32)
    # The largest last: a processor scatters the others beside lookups that are ready by then.
    for cell, fraction in sorted(places, key=lambda place: place.cell.size):
        share = jnp.round(unit * fraction).astype(jnp.int32)
        sums = sums.at[cell].add(jnp.stack([jnp.ones_like(share), share], -1), **_UNCHECKED)
    counts, to_right = sums.astype(jnp.float32).T
    return jnp.append(counts, 0) + jnp.diff(-to_right / unit, prepend=0, append=0)


def _known(places: Sequence[Place] | None, leaves: Sequence[Array], grid: Grid) -> list[Place]:
    return [place_on(leaf, grid) for leaf in leaves] if places is None else list(places)
