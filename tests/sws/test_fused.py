"""The kernels of the prior, interpreted on a processor, against SciPy in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from swsjax.sws import exact, fused
from swsjax.sws.prior import component_log_probs, component_means, init_mixture

RNG = np.random.default_rng(0)


@pytest.fixture
def mixture(mixture_of):
    """One component is far from all weights."""
    given = [-0.5, 0.4, 90.0], [0.05, 0.1, 0.2, 0.1], [6, 1, 2, 1]
    return jax.tree.map(jnp.float32, mixture_of(*given))


@pytest.fixture
def few_programs(monkeypatch):
    """Several weights for each thread, in an array that can be interpreted in a second."""
    monkeypatch.setattr(fused, "_PROGRAMS", 2)


def expected(mixture, weights):
    """Sum, and its gradients to means and log precisions, and to weights, in float64."""
    means, log_precisions = np.float64(mixture.means), np.float64(mixture.log_precisions)
    means = np.append(0.0, means)
    zero = special.expit(np.float64(mixture.zero_logit))
    shares = np.append(zero, (1 - zero) * special.softmax(np.float64(mixture.mixing_logits)))
    apart = np.float64(weights)[..., None] - means
    precisions = np.exp(log_precisions)
    joint = np.log(shares * np.sqrt(precisions / (2 * np.pi))) - 0.5 * precisions * apart**2
    log_p = special.logsumexp(joint, axis=-1, keepdims=True)
    posterior = np.exp(joint - log_p)
    every = tuple(range(weights.ndim))
    return (
        log_p.sum(),
        (posterior * precisions * apart).sum(every)[1:],
        (0.5 * posterior * (1 - precisions * apart**2)).sum(every),
        -(posterior * precisions * apart).sum(-1),
    )


@pytest.mark.parametrize("shape", [(), (256,), (7, 10, 19)])
def test_one_pass_is_the_density_in_float64(shape, mixture, few_programs):
    weights = jnp.asarray(RNG.normal(0, 0.5, shape).astype(np.float32))
    one_pass = jax.jit(partial(fused.one_pass, interpret=True))
    total, (to_mixture, to_weights) = one_pass(mixture, weights)
    ours = total, to_mixture.means, to_mixture.log_precisions, to_weights
    for got, wanted in zip(ours, expected(mixture, weights), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=3e-6, atol=3e-6 * np.abs(wanted).max())


def test_gradients_and_numbers_are_those_of_the_blocks(mixture, few_programs):
    """Of the logits, too, and the same with numbers as without."""
    weights = jnp.asarray(RNG.normal(0, 0.5, 1300).astype(np.float32))
    found, numbers = fused.one_pass_with_numbers(mixture, weights, interpret=True)
    jax.tree.map(
        np.testing.assert_array_equal, found, fused.one_pass(mixture, weights, interpret=True)
    )
    in_blocks = jax.jit(jax.value_and_grad(lambda m, w: exact.sum_log_prob(m, [w]), (0, 1)))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-4),
        found,
        in_blocks(mixture, weights),
    )
    most = component_log_probs(mixture, weights).argmax(axis=-1)
    np.testing.assert_array_equal(numbers, most)
    assert numbers.dtype == jnp.uint8


def test_weights_of_half_precision(mixture):
    weights = jnp.asarray(RNG.normal(0, 0.5, 300), jnp.bfloat16)
    total, (_, to_weights) = fused.one_pass(mixture, weights, interpret=True)
    wide, (_, exactly) = fused.one_pass(mixture, weights.astype(jnp.float32), interpret=True)
    assert total == wide
    np.testing.assert_array_equal(to_weights, exactly.astype(jnp.bfloat16))


def test_sums_by_component(few_programs):
    numbers = RNG.integers(0, 4, (30, 50)).astype(np.uint8)
    values = RNG.normal(size=(30, 50)).astype(np.float32)
    ours = fused.sums_by_component(numbers, values, 5, interpret=True)
    np.testing.assert_allclose(
        ours, np.bincount(numbers.ravel(), np.float64(values).ravel(), 5), rtol=2e-6, atol=2e-5
    )


def test_kernels_take_the_place_of_blocks_on_cuda_alone(mixture, monkeypatch):
    """Without a GPU, the program for one can be made, but not run."""
    monkeypatch.setattr(exact, "has_kernel", lambda components: components <= 32)

    def objective(mixture, weights):
        total, (means,) = exact.sum_and_means(mixture, [weights])
        return exact.sum_log_prob(mixture, [weights]) + total + jnp.sum(means**2)

    def program(mixture, platform):
        traced = jax.jit(jax.grad(objective, argnums=(0, 1))).trace(mixture, jnp.ones(300))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    on_gpu = program(mixture, "cuda")
    assert on_gpu.count("mixture_prior") >= 2
    assert "sums_by_component" in on_gpu
    assert "stablehlo.while" not in on_gpu
    assert "mixture_prior" not in program(mixture, "cpu")
    assert "mixture_prior" not in program(init_mixture(-1.0, 1.0, components=32), "cuda")


def test_blocks_stand_in_for_kernels_on_a_processor(mixture, monkeypatch):
    weights = jnp.asarray(RNG.normal(0, 0.5, 300).astype(np.float32))

    def gradients():
        def objective(mixture, weights):
            total, (means,) = exact.sum_and_means(mixture, [weights])
            return total + jnp.sum(means**2)

        return jax.jit(jax.grad(objective, argnums=(0, 1)))(mixture, weights)

    in_blocks = gradients()
    monkeypatch.setattr(exact, "has_kernel", lambda components: True)
    jax.tree.map(np.testing.assert_array_equal, in_blocks, gradients())
    _, (means,) = jax.jit(exact.sum_and_means)(mixture, [weights])
    np.testing.assert_array_equal(
        means,
        component_means(mixture)[component_log_probs(mixture, weights).argmax(axis=-1)],
    )
