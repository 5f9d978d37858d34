"""The tabulated density and assignment against the exact ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swsjax import table
from swsjax.prior import assign, component_log_probs, component_means, log_prob
from swsjax.quantize import quantize

SIZE = 8192
RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.uniform(-1.5, 1.5, 300).astype(np.float32))


def floats(low, high, size):
    element = st.floats(low, high, allow_subnormal=False)
    return st.lists(element, min_size=size, max_size=size).map(np.array)


MIXTURES = st.tuples(floats(-1, 1, 3), floats(0.05, 1, 4), floats(0.01, 1, 4))


@pytest.fixture(scope="module")
def grid():
    return table.grid_over([WEIGHTS], SIZE)


def inside(grid, leaves):
    scaled = np.concatenate([(np.float32(x).ravel() - grid.low) / grid.step for x in leaves])
    return scaled.min() >= 0 and scaled.max() <= grid.points.size - 1


@example(np.zeros(3, np.float32))
@example(np.full(3, 1e6, np.float32))
@example(np.full(3, -1e-30, np.float32))
@example(np.float32([1.0, np.nextafter(np.float32(1), np.float32(2)), 1.0]))
@given(hnp.arrays(np.float32, 3, elements=st.floats(-(2**40), 2**40, width=32)))
@settings(max_examples=100, deadline=None)
def test_no_weight_is_outside(weights):
    grid = table.grid_over([jnp.asarray(weights)], 8)
    assert grid.step > 0
    assert inside(grid, [weights])


def test_grid_is_over_all_leaves():
    leaves = [jnp.ones((2, 2)), jnp.asarray(-3.0), jnp.zeros((0, 4)), jnp.bfloat16([5, 7])]
    grid = table.grid_over(leaves, 11)
    assert inside(grid, [x for x in leaves if x.size])
    np.testing.assert_allclose(grid.points, np.linspace(-3, 7, 11), atol=1e-4)
    np.testing.assert_allclose(grid.step, 1, rtol=1e-4)
    assert all(x.dtype == jnp.float32 for x in grid)


def test_grid_passes_no_gradient():
    gradient = jax.grad(lambda w: sum(x.sum() for x in table.grid_over([w], 8)))(WEIGHTS)
    np.testing.assert_array_equal(gradient, 0)


@jax.jit
def both(mixture, grid):
    """Value and gradients from the table and exactly, and the size of the exact terms."""
    ours = jax.value_and_grad(
        lambda mixture, w: table.sum_log_prob(mixture, [w[:100], w[100:].reshape(2, 100)], grid),
        argnums=(0, 1),
    )(mixture, WEIGHTS)
    values = log_prob(mixture, WEIGHTS)
    per_weight = jax.jacrev(log_prob)(mixture, WEIGHTS)
    slopes = jax.grad(lambda w: log_prob(mixture, w).sum())(WEIGHTS)
    return ours, values, per_weight, slopes, table.interpolation_error(mixture, grid)


@given(MIXTURES)
@settings(max_examples=100, deadline=None)
def test_lookup_is_the_exact_density(mixture_of, grid, drawn):
    mixture = mixture_of(*drawn)
    (value, (by_mixture, by_weight)), values, per_weight, slopes, error = both(mixture, grid)
    # Interpolation, and the float32 rounding of table entries of this size.
    rounding = 4 * np.finfo(np.float32).eps * np.abs(log_prob(mixture, grid.points)).max()
    assert abs(value - values.sum()) <= WEIGHTS.size * (1.5 * error + rounding)
    np.testing.assert_allclose(by_weight, slopes, atol=(6 * error + rounding) / grid.step)
    for ours, exact in zip(by_mixture, per_weight, strict=True):
        tolerance = 1e-2 * jnp.abs(exact).sum(axis=0) + 1e-2
        assert (jnp.abs(ours - exact.sum(axis=0)) <= tolerance).all()


def test_lookup_is_accurate_for_wide_components(mixture_of, grid):
    mixture = mixture_of([-1.0, 0.3, 1.0], [0.25] * 4, [0.9, 0.05, 0.02, 0.03])
    (value, (by_mixture, by_weight)), values, per_weight, slopes, _ = both(mixture, grid)
    np.testing.assert_allclose(value, values.sum(), rtol=1e-6)
    np.testing.assert_allclose(by_weight, slopes, rtol=1e-2, atol=2e-2)
    for ours, exact in zip(by_mixture, per_weight, strict=True):
        np.testing.assert_allclose(ours, exact.sum(axis=0), rtol=1e-4, atol=1e-3)


def test_bfloat16_weights_have_a_float32_sum(mixture_of, grid):
    mixture = mixture_of([1.0], [0.2, 0.3], [0.9, 0.1])
    weights = WEIGHTS[:50].astype(jnp.bfloat16)
    total = table.sum_log_prob(mixture, [weights], grid)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, log_prob(mixture, weights).sum(), rtol=1e-6)


@partial(jax.jit, static_argnames="size")
def largest_error(mixture, size):
    ends = jnp.asarray([-1.0, 1.0])
    between = jnp.linspace(-1, 1, 20_001)
    grid = table.grid_over([ends], size)
    lookup = jax.vmap(lambda w: table.sum_log_prob(mixture, [w], grid))
    error = jnp.abs(lookup(between) - log_prob(mixture, between)).max()
    return error, table.interpolation_error(mixture, grid)


def test_halving_the_step_quarters_the_error(mixture_of):
    mixture = mixture_of([-0.4, 0.5], [0.1, 0.15, 0.2], [0.8, 0.1, 0.1])
    errors = [largest_error(mixture, size)[0] for size in (65, 129, 257, 513)]
    ratios = np.divide(errors[:-1], errors[1:])
    np.testing.assert_allclose(ratios, 4, rtol=0.2)


@pytest.mark.parametrize("means", [[0.1, 0.5], [-0.9, 0.9]])
def test_stated_error_is_the_measured_one(means, mixture_of):
    """The second are far apart: most of the error is where two components meet."""
    mixture = mixture_of(means, [0.05, 0.05, 0.05], [0.8, 0.1, 0.1])
    measured, stated = largest_error(mixture, 2048)
    np.testing.assert_allclose(stated, measured, rtol=0.1)


@given(MIXTURES)
@settings(max_examples=60, deadline=None)
def test_forward_is_the_quantised_net(mixture_of, grid, drawn):
    mixture = mixture_of(*drawn)
    ours = jax.jit(table.straight_through)(mixture, WEIGHTS, grid)
    chosen = ours[:, None] == component_means(mixture)
    assert chosen.any(axis=-1).all()
    shortfalls = []  # of the chosen component against the best one, here and half a grid step away
    for weights in (WEIGHTS, WEIGHTS - 0.55 * grid.step, WEIGHTS + 0.55 * grid.step):
        joint = component_log_probs(mixture, weights)
        shortfalls.append(joint.max(axis=-1) - jnp.where(chosen, joint, -jnp.inf).max(axis=-1))
    assert jnp.min(jnp.stack(shortfalls), axis=0).max() < 1e-3


def test_forward_is_the_quantised_net_away_from_boundaries(mixture_of, grid):
    mixture = mixture_of([-0.8, 0.6, 1.2], [0.1, 0.2, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1])
    weights = jnp.linspace(WEIGHTS.min(), WEIGHTS.max(), 50_000)
    assigned = [assign(mixture, weights + shift * grid.step) for shift in (-0.55, 0, 0.55)]
    away = (assigned[0] == assigned[1]) & (assigned[1] == assigned[2])
    assert 0.99 < away.mean() < 1
    ours = table.straight_through(mixture, weights, grid)
    np.testing.assert_array_equal(ours[away], quantize(mixture, weights)[away])


def test_assigned_means_are_exact_for_large_weights(mixture_of):
    weights = jnp.asarray([1e6, -3e5, 0.0, 1.0])
    mixture = mixture_of([1e6, 0.1], [1.0, 1.0, 1.0], [1, 1, 1])
    grid = table.grid_over([weights], 1024)
    ours = table.straight_through(mixture, weights, grid)
    assert set(ours.tolist()) <= set(component_means(mixture).tolist())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_pass_straight_through(dtype, mixture_of):
    mixture = mixture_of([-0.8, 0.6, 9.0], [0.1, 0.2, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1])
    weights = WEIGHTS.astype(dtype).reshape(3, 100)
    grid = table.grid_over([weights], SIZE)
    cotangent = jnp.asarray(RNG.integers(-8, 9, weights.shape)).astype(dtype)
    ours, backward = jax.vjp(lambda m, w: table.straight_through(m, w, grid), mixture, weights)
    by_mixture, by_weight = backward(cotangent)
    assert ours.dtype == by_weight.dtype == dtype
    np.testing.assert_array_equal(by_weight, cotangent)
    component = assign(mixture, grid.points)[
        np.rint((np.float32(weights) - grid.low) / grid.step).astype(int)
    ]
    sums = [np.float64(cotangent)[component == j].sum() for j in (1, 2, 3)]
    assert min(abs(sums[0]), abs(sums[1])) > 0
    assert sums[2] == 0  # nobody's component
    np.testing.assert_array_equal(by_mixture.means, sums)
    for leaf in (by_mixture.log_precisions, by_mixture.mixing_logits, by_mixture.zero_logit):
        np.testing.assert_array_equal(leaf, 0)
