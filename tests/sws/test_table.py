"""The tabulated density and assignment against the exact ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swsjax.sws import exact, table
from swsjax.sws.grid import cells_on, grid_over, node_count
from swsjax.sws.prior import assign, component_log_probs, component_means, log_prob

NODES = 2048
RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.uniform(-1.5, 1.5, 300).astype(np.float32))


def floats(low, high, size):
    element = st.floats(low, high, allow_subnormal=False)
    return st.lists(element, min_size=size, max_size=size).map(np.array)


MIXTURES = st.tuples(floats(-1, 1, 3), floats(0.05, 1, 4), floats(0.01, 1, 4))


on_grid = jax.jit(grid_over, static_argnums=1)
straight_through = jax.jit(table.straight_through)


@pytest.fixture(scope="module")
def grid():
    return on_grid([WEIGHTS], NODES)


@partial(jax.jit, static_argnums=2)
def of_table(mixture, weights, nodes=NODES):
    return table.sum_log_prob(mixture, [weights], grid_over([weights], nodes))


@jax.jit
def reference(mixture, weights):
    return jax.value_and_grad(lambda m, w: log_prob(m, w).sum(), argnums=(0, 1))(mixture, weights)


def errors(mixture, weights, nodes=NODES):
    """Relative errors of value and of the gradients to each parameter and the weights."""
    ours = jax.value_and_grad(of_table, argnums=(0, 1))(mixture, weights, nodes)
    with jax.enable_x64(True):
        mixture, weights = jax.tree.map(lambda x: jnp.asarray(np.float64(x)), (mixture, weights))
        expected = jax.tree.map(np.asarray, reference(mixture, weights))
    return [
        np.linalg.norm(np.float64(a) - b) / (np.linalg.norm(b) + 0.1)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True)
    ]


@given(MIXTURES)
# The same examples in every run: if the terms of a gradient cancel, its relative error means
# nothing, and such draws are rare.
@settings(derandomize=True, max_examples=40, deadline=None)
def test_lookup_is_the_exact_density(mixture_of, drawn):
    """Drawn widths go down to 0.05: 30 nodes per standard deviation."""
    mixture = jax.tree.map(jnp.float32, mixture_of(*drawn))
    assert max(errors(mixture, WEIGHTS)) < 1e-3


@pytest.mark.parametrize("sigma", [0.25, 0.05, 0.02, 0.005])
def test_chosen_grid_keeps_errors_small(sigma, mixture_of):
    """A spike and its neighbours at every width that a training passes through."""
    means = np.linspace(-1, 1, 8) + 0.003
    mixture = jax.tree.map(jnp.float32, mixture_of(means, [sigma] * 9, [100] + [1] * 8))
    # Weights around the components, as in a retrained net.
    rng = np.random.default_rng(0)
    weights = jnp.float32(rng.choice([0, *means], 4000) + rng.normal(0, sigma, 4000))
    nodes = node_count(weights.min().item(), weights.max().item(), sigma)
    assert max(errors(mixture, weights, nodes)) < 1e-4


def test_gradient_to_the_mixture_is_that_of_the_interpolated_sum(mixture_of):
    """Even where the grid is far too coarse to be near the density itself."""
    with jax.enable_x64(True):
        mixture = mixture_of([-0.4, 0.5], [0.05, 0.1, 0.1], [0.8, 0.1, 0.1])
        weights = jnp.asarray(np.float64(WEIGHTS))
        gradient = jax.grad(of_table)(mixture, weights, 16)
        for name in mixture._fields:
            leaf = getattr(mixture, name)
            direction = jnp.asarray(np.random.default_rng(1).normal(size=leaf.shape))
            up, down = (
                of_table(mixture._replace(**{name: leaf + shift * direction}), weights, 16)
                for shift in (1e-5, -1e-5)
            )
            ours = jnp.vdot(getattr(gradient, name), direction)
            np.testing.assert_allclose(ours, (up - down) / 2e-5, rtol=1e-6)


def test_sums_keep_growing_in_a_crowded_cell(mixture_of):
    """More weights in one cell than the 2^24 at which a float32 that counts by ones stops."""
    mixture = jax.tree.map(jnp.float32, mixture_of([0.6], [0.1, 0.1], [0.9, 0.1]))
    size = 2**24 + 2**22
    weights = jnp.full(size, 0.123456).at[0].set(0.7)
    ours = jax.value_and_grad(of_table)(mixture, weights, 64)
    exactly = jax.jit(jax.value_and_grad(log_prob))
    most, other = (exactly(mixture, weight) for weight in (0.123456, 0.7))
    expected = jax.tree.map(lambda a, b: (size - 1) * a + b, most, other)
    np.testing.assert_allclose(ours[0], expected[0], rtol=2e-4)
    np.testing.assert_allclose(ours[1].means, expected[1].means, rtol=1e-3)


def test_measured_error_is_of_the_size_of_the_true_one(mixture_of):
    mixture = jax.tree.map(jnp.float32, mixture_of([-0.4, 0.5], [0.02] * 3, [0.8, 0.1, 0.1]))
    for nodes in (64, 512, 1024):
        grid = on_grid([WEIGHTS], nodes)
        measured = table.lookup_error(mixture, [WEIGHTS], grid)
        value, *_, by_weights = errors(mixture, WEIGHTS, nodes)
        np.testing.assert_allclose(measured, max(value, by_weights), rtol=0.1, atol=2e-6)


def test_refined_doubles_until_the_target_or_the_rounding_of_float32(mixture_of):
    mixture = jax.tree.map(jnp.float32, mixture_of([-0.4, 0.5], [0.02] * 3, [0.8, 0.1, 0.1]))

    def error(nodes):
        return table.lookup_error(mixture, [WEIGHTS], on_grid([WEIGHTS], nodes))

    nodes = table.refined(mixture, [WEIGHTS], 64, 1e-4)
    assert error(nodes) <= 1e-4 < error(nodes // 2)
    assert table.refined(mixture, [WEIGHTS], nodes, 1e-4) == nodes
    finest = table.refined(mixture, [WEIGHTS], 64, 0.0)  # which no grid reaches
    assert error(2 * finest) > error(finest) / 2


def test_bfloat16_weights_have_a_float32_sum(mixture_of, grid):
    mixture = mixture_of([1.0], [0.2, 0.3], [0.9, 0.1])
    weights = WEIGHTS[:50].astype(jnp.bfloat16)
    total = jax.jit(table.sum_log_prob)(mixture, [weights], grid)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, jax.jit(log_prob)(mixture, weights).sum(), rtol=1e-6)


def test_errors_fall_with_the_square_of_the_step_or_faster(mixture_of):
    mixture = jax.tree.map(jnp.float32, mixture_of([-0.4, 0.5], [0.02] * 3, [0.8, 0.1, 0.1]))
    coarse, fine = (errors(mixture, WEIGHTS, nodes) for nodes in (512, 1024))
    for before, after in zip(coarse, fine, strict=True):
        assert after < max(before / 3, 2e-5)


@given(MIXTURES)
@settings(max_examples=60, deadline=None)
def test_forward_is_the_quantised_net(mixture_of, grid, drawn):
    mixture = mixture_of(*drawn)
    (ours,) = straight_through(mixture, [WEIGHTS], grid)
    chosen = ours[:, None] == component_means(mixture)[None]
    assert chosen.any(axis=-1).all()
    # Of the chosen component against the best one, at each weight and slightly beside it.
    shortfalls = []
    for weights in (WEIGHTS, WEIGHTS - 0.1 * grid.step, WEIGHTS + 0.1 * grid.step):
        joint = component_log_probs(mixture, weights)
        shortfalls.append(joint.max(axis=-1) - jnp.where(chosen, joint, -jnp.inf).max(axis=-1))
    assert jnp.min(jnp.stack(shortfalls), axis=0).max() < 1e-3


@pytest.mark.parametrize("size", [500, 600, 700])
def test_forward_is_the_quantised_net_away_from_boundaries(size, mixture_of):
    grid = on_grid([WEIGHTS], size)
    mixture = mixture_of([-0.8, 0.6, 1.2], [0.1, 0.2, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1])
    weights = jnp.linspace(WEIGHTS.min(), WEIGHTS.max(), 50_000)
    best = jax.jit(assign)
    assigned = [best(mixture, weights + shift * grid.step) for shift in (-0.05, 0, 0.05)]
    away = np.asarray((assigned[0] == assigned[1]) & (assigned[1] == assigned[2]))
    assert 0.999 < away.mean() < 1
    (ours,) = straight_through(mixture, [weights], grid)
    expected = jax.jit(exact.assigned_means)(mixture, weights)
    np.testing.assert_array_equal(np.asarray(ours)[away], np.asarray(expected)[away])


def test_assigned_means_are_exact_for_large_weights(mixture_of):
    weights = jnp.asarray([1e6, -3e5, 0.0, 1.0])
    mixture = mixture_of([1e6, 0.1], [1.0, 1.0, 1.0], [1, 1, 1])
    grid = on_grid([weights], 1024)
    (ours,) = straight_through(mixture, [weights], grid)
    assert set(ours.tolist()) <= set(component_means(mixture).tolist())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_pass_straight_through(dtype, mixture_of):
    mixture = mixture_of([-0.8, 0.6, 9.0], [0.1, 0.2, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1])
    weights = WEIGHTS.astype(dtype).reshape(3, 100)
    grid = on_grid([weights], NODES)
    cotangent = jnp.asarray(RNG.integers(-8, 9, weights.shape)).astype(dtype)
    leaves = [weights[:1], weights[1:]]  # their gradients add up

    @jax.jit
    def both_ways(mixture, leaves, cotangents):
        ours, backward = jax.vjp(lambda m, w: table.straight_through(m, w, grid), mixture, leaves)
        return ours, backward(cotangents)

    ours, (by_mixture, by_weight) = both_ways(mixture, leaves, [cotangent[:1], cotangent[1:]])
    ours, by_weight = np.concatenate(ours), np.concatenate(by_weight)
    assert ours.dtype == by_weight.dtype == dtype
    np.testing.assert_array_equal(by_weight, cotangent)
    component = jax.jit(assign)(mixture, weights)
    sums = [np.float64(cotangent)[component == j].sum() for j in (1, 2, 3)]
    assert min(abs(sums[0]), abs(sums[1])) > 0
    assert sums[2] == 0  # no weight is assigned to it
    np.testing.assert_array_equal(by_mixture.means, sums)
    for leaf in (by_mixture.log_precisions, by_mixture.mixing_logits, by_mixture.zero_logit):
        np.testing.assert_array_equal(leaf, 0)


def test_cells_found_once_give_the_same_lookups(mixture_of):
    mixture = mixture_of([-0.8, 0.6], [0.1, 0.2, 0.2], [0.7, 0.2, 0.1])
    leaves = [WEIGHTS[:100].astype(jnp.bfloat16), WEIGHTS[:0], WEIGHTS[100:].reshape(20, 10)]

    def objective(mixture, leaves, known):
        grid = grid_over(leaves, 64)
        cells = cells_on(leaves, grid) if known else None
        means = table.straight_through(mixture, leaves, grid, cells)
        means = jnp.concatenate([leaf.ravel().astype(jnp.float32) for leaf in means])
        return table.sum_log_prob(mixture, leaves, grid, cells) + jnp.sum(means**3), means

    step = jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True), static_argnums=2)
    ours, expected = (step(mixture, leaves, known) for known in (True, False))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), ours, expected)
    assert ours[0][1].any()
