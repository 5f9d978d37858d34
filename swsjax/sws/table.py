r"""The prior over all weights of a net for a few gathers per weight.

All weights share one one-dimensional density, so a step evaluates the mixture at the G *nodes* of a
grid only, G x J exponentials, and the log-density of each weight is looked up: between nodes it is
the quintic Hermite polynomial with the exact values, slopes and curvatures at both ends, sampled at
``REFINE`` points per interval, with linear interpolation between those. Exponentials are expensive,
so there are few nodes; a lookup in a fine linear table is cheaper than a quintic per weight.

The sum over the weights is computed from a histogram: each weight is divided between the two table
points next to it, and the product of histogram and table is the sum of the interpolated
log-densities. Its gradient with respect to the table, and through it to the mixture, is the
histogram, at no further cost. The gradient with respect to a weight is the tabulated slope of the
log-density, interpolated in the same way; the slope of the interpolation itself would have an
error of first order in the step. All errors fall as the square of the step or faster;
``lookup_error`` measures them, ``node_count`` chooses the grid.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from swsjax.sws.grid import REFINE, UNCHECKED, Cell, Grid, cell_on, grid_over
from swsjax.sws.histogram import Sample, histogram
from swsjax.sws.prior import (
    LOG_SQRT_2PI,
    GaussianMixture,
    component_means,
    log_mixing,
    log_prob,
)

__all__ = ["error_with", "lookup_error", "refined", "straight_through", "sum_log_prob"]


def sum_log_prob(
    mixture: GaussianMixture,
    leaves: Sequence[Array],
    grid: Grid,
    cells: Sequence[Cell] | None = None,
    sample: Sample | None = None,
) -> Array:
    """Sum of log p(w) over all weights, from the table (nats), a float32 scalar.

    Differentiable once in the weights and the mixture. ``exact.sum_log_prob`` is the same sum
    without a table.

    Args:
        mixture: the prior.
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights, as ``grid_over(leaves, nodes)`` does.
        cells: ``cells_on(leaves, grid)``, if already computed.
        sample: of which weights the sum, and with it the gradient of the mixture, is estimated;
            None counts all. The gradient of each weight is the same.

    >>> mixture, w = GaussianMixture(*(jnp.zeros(n) for n in [1, 2, 1, ()])), jnp.array([0.5, 2.0])
    >>> print(np.asarray(sum_log_prob(mixture, [w], grid_over([w], 256))).round(3))
    -3.963
    """
    values, slopes = _lookup_table(mixture, grid)
    found = _known(cells, leaves, grid)
    return _sum_over(values, slopes, list(leaves), found, histogram(found, values.size, sample))


def lookup_error(
    mixture: GaussianMixture, leaves: Sequence[Array], grid: Grid, *, sample: int = 2**14
) -> Array:
    """Measure the relative error of the lookup on a sample of the weights, a scalar.

    The larger of two errors: that of the mean log-density, and that of the gradient with respect to
    the weights, as the norm of the difference over the norm. The sample is every n-th weight of
    each leaf.

    >>> from swsjax.sws.prior import init_mixture
    >>> w = jnp.linspace(-1.0, 1.0, 5000)
    >>> bool(lookup_error(init_mixture(-1.0, 1.0), [w], grid_over([w], 256)) < 1e-4)
    True
    """
    return _error_on(mixture, _sampled(list(leaves), sample), grid)


@partial(jax.jit, static_argnums=1)
def _sampled(leaves: list[Array], sample: int) -> Array:
    """A sample of all weights in one array: with one per leaf, the error takes long to compile.

    A program of its own: within that of the error, XLA mistakes the end of leaves that are sharded.
    """
    stride = max(1, -(-sum(leaf.size for leaf in leaves) // sample))
    return jnp.concatenate([leaf.ravel()[::stride].astype(jnp.float32) for leaf in leaves])


@jax.jit
def _error_on(mixture: GaussianMixture, weights: Array, grid: Grid) -> Array:
    ours = jax.value_and_grad(lambda weights: sum_log_prob(mixture, [weights], grid))(weights)
    exact = jax.value_and_grad(lambda weights: jnp.sum(log_prob(mixture, weights)))(weights)

    def error(ours: Any, exact: Any) -> Array:
        return optax.tree.norm(optax.tree.sub(ours, exact)) / optax.tree.norm(exact)

    return jnp.maximum(*map(error, ours, exact))


def refined(mixture: GaussianMixture, leaves: Sequence[Array], nodes: int, target: float) -> int:
    """Double the nodes until ``lookup_error`` is below the target, or doubling no longer helps.

    The remaining error is then the rounding of float32.

    >>> from swsjax.sws.prior import init_mixture
    >>> w = jnp.linspace(-1.0, 1.0, 5000)
    >>> refined(init_mixture(-1.0, 1.0, std=0.05), [w], 64, target=1e-4)
    256
    """
    error = error_with(nodes, mixture, leaves)
    while error > target and (finer := error_with(2 * nodes, mixture, leaves)) < error / 2:
        nodes, error = 2 * nodes, finer
    return nodes


def error_with(nodes: int, mixture: GaussianMixture, leaves: Sequence[Array]) -> Array:
    """Measure ``lookup_error`` on a grid of this many nodes, compiled once per number of nodes.

    >>> from swsjax.sws.prior import init_mixture
    >>> w = jnp.linspace(-1.0, 1.0, 5000)
    >>> bool(error_with(256, init_mixture(-1.0, 1.0), [w]) < 1e-4)
    True
    """
    return lookup_error(mixture, leaves, _grid(list(leaves), nodes))


_grid = jax.jit(grid_over, static_argnums=1)


class _Components(NamedTuple):
    """Parameters of all components, zero component first, (J + 1,) each."""

    means: Array
    precisions: Array
    log_scales: Array
    """Log-density at the mean, but for the constant ``LOG_SQRT_2PI``."""


def _components(mixture: GaussianMixture) -> _Components:
    log_scales = log_mixing(mixture) + 0.5 * mixture.log_precisions
    return _Components(component_means(mixture), jnp.exp(mixture.log_precisions), log_scales)


def _joint(components: _Components, nodes: Array) -> tuple[Array, Array]:
    """Joint log-density of each component and node, and its slope at the node, (J + 1, G).

    Components first: sums over them are then vectorised along the nodes.
    """
    means, precisions, log_scales = (parameter[:, None] for parameter in components)
    pulls = precisions * (means - nodes[None])
    return log_scales - 0.5 * pulls**2 / precisions, pulls


def straight_through(
    mixture: GaussianMixture,
    leaves: Sequence[Array],
    grid: Grid,
    cells: Sequence[Cell] | None = None,
) -> list[Array]:
    """Assigned means in the forward pass, identity and codebook gradients in the backward pass.

    Args:
        mixture: the prior.
        leaves: arrays of weights, any shapes and floating dtypes.
        grid: covers all weights. Boundaries between components are located to within 1 /
            ``REFINE`` of its step; a component that is the most responsible one over less than a
            step may be missed.
        cells: ``cells_on(leaves, grid)``, if already computed.

    Returns:
        Each weight's assigned mean, in the shapes and dtypes of ``leaves``. Its gradient is passed
        unchanged to the weight (the straight-through estimator: Bengio, Leonard, Courville,
        arXiv 1308.3432) and, summed over the weights of a component, to the mean of that
        component, unless that is the zero component.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> w = jnp.array([0.1, 0.8, 1.3])
    >>> print(*straight_through(mixture, [w], grid_over([w], 256)))
    [0. 1. 1.]
    """
    components = _components(jax.lax.stop_gradient(mixture))
    joint, _ = _joint(components, grid.nodes)
    numbers = jnp.arange(joint.shape[0], dtype=jnp.int32)[:, None]
    # argmax as two reductions, which XLA vectorises on processors
    is_best = joint == jnp.max(joint, axis=0, keepdims=True)
    best = jnp.min(jnp.where(is_best, numbers, numbers[-1:]), axis=0)
    left, right = best[:-1], best[1:]
    centres = (jnp.arange(REFINE, dtype=jnp.float32) + 0.5) / REFINE
    before = centres[None] < _crossing(components, left, right, grid)[:, None]
    owners = _Owners(left, right, before)
    return _cell_means(component_means(mixture), owners, list(leaves), _known(cells, leaves, grid))


class _Owners(NamedTuple):
    """The component that each cell of the lookup table is assigned to."""

    left: Array
    """(G - 1,) component of the first cells of each interval."""
    right: Array
    """(G - 1,) component of the last cells of each interval."""
    before: Array
    """(G - 1, REFINE) whether a cell is among the first."""


@jax.custom_vjp
def _cell_means(
    means: Array, owners: _Owners, leaves: list[Array], cells: list[Cell]
) -> list[Array]:
    return _cell_means_forward(means, owners, leaves, cells)[0]


def _cell_means_forward(
    means: Array, owners: _Owners, leaves: list[Array], cells: list[Cell]
) -> tuple[list[Array], Any]:
    components = jnp.where(owners.before, owners.left[:, None], owners.right[:, None])
    of_cell = means.at[components.ravel()].get(**UNCHECKED)
    assigned = [
        of_cell.at[cell.number].get(**UNCHECKED).astype(leaf.dtype)
        for leaf, cell in zip(leaves, cells, strict=True)
    ]
    return assigned, (jnp.zeros_like(means), owners, cells, assigned)


def _cell_means_backward(
    saved: Any, cotangents: list[Array]
) -> tuple[Array, None, list[Array], None]:
    to_means, owners, cells, assigned = saved
    sums = jnp.zeros(owners.before.size, to_means.dtype)
    for cell, cotangent, value in zip(cells, cotangents, assigned, strict=True):
        # Most weights: the mean of the zero component is fixed and needs no gradient.
        index = jnp.where(value == 0, sums.size, cell.number)
        sums = sums.at[index].add(
            cotangent.astype(sums.dtype), mode="drop", wrap_negative_indices=False
        )
    # Summed per interval before the scatter: there are far fewer intervals than cells.
    sums = sums.reshape(owners.before.shape)
    of_left = jnp.sum(jnp.where(owners.before, sums, 0), axis=1)
    of_right = jnp.sum(jnp.where(owners.before, 0, sums), axis=1)
    for component, of_side in ((owners.left, of_left), (owners.right, of_right)):
        to_means = to_means.at[component].add(of_side, **UNCHECKED)
    return to_means, None, cotangents, None


_cell_means.defvjp(_cell_means_forward, _cell_means_backward)


def _crossing(components: _Components, left: Array, right: Array, grid: Grid) -> Array:
    """Boundary in each interval between the left and the right node's component, from 0 to 1.

    The difference of their log-densities is a quadratic, positive at the left node and negative at
    the right one, so it has one root between them. If both are the same component, any value will
    do.
    """
    parameters = jnp.stack(components)

    def joint(component: Array) -> tuple[Array, Array, Array]:
        """Coefficients of a component's log-density around the left node, in units of the step."""
        mean, precision, log_scale = parameters.at[:, component].get(**UNCHECKED)
        pull = precision * (mean - grid.nodes[:-1])
        constant = log_scale - 0.5 * pull**2 / precision
        return constant, grid.step * pull, -0.5 * grid.step**2 * precision

    c, b, a = (x - y for x, y in zip(joint(left), joint(right), strict=True))
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0))
    return 2 * c / jnp.maximum(root - b, jnp.finfo(jnp.float32).tiny)


def _lookup_table(mixture: GaussianMixture, grid: Grid) -> tuple[Array, Array]:
    """Log-density and its slope at the points of the refined grid, (REFINE (G - 1) + 1,) each."""
    value, slope, curvature, change = _jet(_components(mixture), grid.nodes)
    values = _hermite(value, grid.step * slope, grid.step**2 * curvature)
    fixed = jax.lax.stop_gradient((slope, grid.step * curvature, grid.step**2 * change))
    return values - LOG_SQRT_2PI, _hermite(*fixed)


_Jet = tuple[Array, Array, Array, Array]
"""A function and its first three derivatives at the nodes, (G,) each."""


@jax.custom_vjp
def _jet(components: _Components, nodes: Array) -> _Jet:
    """Log of a sum of exp(log_scales - deviation^2 / 2) and its first three derivatives, (G,) each.

    With responsibilities r and u = lambda (mu - w), the derivatives are the mean of u, and with
    c = u - mean(u) the means of c^2 - lambda and of c^3 - 3 lambda c. The gradient is written out
    so that it reuses the responsibilities: the exponentials dominate the cost. The third derivative
    is not differentiated further.
    """
    return _jet_forward(components, nodes)[0]


def _jet_forward(components: _Components, nodes: Array) -> tuple[_Jet, Any]:
    joint, pulls = _joint(components, nodes)
    most = jnp.max(joint, axis=0)
    scaled = jnp.exp(joint - most[None])
    total = jnp.sum(scaled, axis=0)
    posterior = scaled / total[None]
    slope = jnp.sum(posterior * pulls, axis=0)
    centred = pulls - slope[None]
    squares, precisions = centred**2, components.precisions[:, None]
    curvature = jnp.sum(posterior * (squares - precisions), axis=0)
    change = jnp.sum(posterior * centred * (squares - 3 * precisions), axis=0)
    jet = most + jnp.log(total), slope, curvature, change
    return jet, (components, nodes, posterior, slope, curvature)


def _jet_backward(saved: Any, cotangents: _Jet) -> tuple[_Components, None]:
    components, nodes, posterior, *of_nodes = saved
    slope, curvature = (x[None] for x in of_nodes)
    by_value, by_slope, by_curvature = (x[None] for x in cotangents[:3])
    means, precisions, _ = (parameter[:, None] for parameter in components)
    deviations = means - nodes[None]
    pulls = precisions * deviations
    centred = pulls - slope
    to_joint = posterior * (
        by_value + by_slope * centred + by_curvature * (centred**2 - precisions - curvature)
    )
    to_pulls = posterior * (by_slope + 2 * by_curvature * centred)
    to_means = jnp.sum(to_pulls * precisions - to_joint * pulls, axis=1)
    to_precisions = jnp.sum(
        to_pulls * deviations - 0.5 * to_joint * deviations**2 - posterior * by_curvature, axis=1
    )
    return _Components(to_means, to_precisions, jnp.sum(to_joint, axis=1)), None


_jet.defvjp(_jet_forward, _jet_backward)


def _hermite(values: Array, slopes: Array, curvatures: Array) -> Array:
    """Quintic Hermite interpolation between nodes at distance 1, REFINE points per interval."""
    of_node = jnp.stack([values, slopes, curvatures], axis=-1)
    ends = jnp.concatenate([of_node[:-1], of_node[1:]], axis=-1)
    basis = _BASIS.astype(values.dtype)
    return jnp.append(jnp.matmul(ends, basis, precision="highest").ravel(), values[-1])


def _basis() -> np.ndarray:
    """Value, slope and curvature of the left and the right node at each point, (6, REFINE)."""
    t = np.arange(REFINE) / REFINE
    s = 1 - t
    return np.stack(
        [
            s**3 * (1 + 3 * t + 6 * t**2),
            t * s**3 * (1 + 3 * t),
            0.5 * t**2 * s**3,
            t**3 * (1 + 3 * s + 6 * s**2),
            -s * t**3 * (1 + 3 * s),
            0.5 * s**2 * t**3,
        ]
    )


_BASIS = _basis()


@jax.custom_vjp
def _sum_over(
    values: Array, slopes: Array, leaves: list[Array], cells: list[Cell], counts: Array
) -> Array:
    return jnp.vdot(counts, values)


def _sum_forward(
    values: Array, slopes: Array, leaves: list[Array], cells: list[Cell], counts: Array
) -> tuple[Array, Any]:
    return jnp.vdot(counts, values), (slopes, leaves, cells, counts)


def _sum_backward(saved: Any, cotangent: Array) -> tuple[Array, None, list[Array], None, None]:
    slopes, leaves, cells, counts = saved

    # A slope and its difference as one complex number: one gather is cheaper than two.
    lines = jax.lax.complex(slopes[:-1], slopes[1:] - slopes[:-1])

    def to_leaf(leaf: Array, cell: Cell) -> Array:
        line = lines.at[cell.number].get(**UNCHECKED)
        return (cotangent * (line.real + cell.fraction * line.imag)).astype(leaf.dtype)

    return cotangent * counts, None, list(map(to_leaf, leaves, cells)), None, None


_sum_over.defvjp(_sum_forward, _sum_backward)


def _known(cells: Sequence[Cell] | None, leaves: Sequence[Array], grid: Grid) -> list[Cell]:
    return [cell_on(leaf, grid) for leaf in leaves] if cells is None else list(cells)
