"""The prior against SciPy, in float64 and float32."""

import re
from dataclasses import FrozenInstanceError, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special, stats

from swsjax.errors import ConfigError
from swsjax.sws import prior
from swsjax.sws.prior import Beta, Gamma, HyperPriors

MEANS = np.array([-0.7, 0.2, 1.1])
STDS = np.array([0.05, 0.3, 0.02, 0.6])
SHARES = np.array([0.6, 0.1, 0.25, 0.05])
WEIGHTS = np.linspace(-1.5, 2.0, 60).reshape(3, 20)
component_log_probs = jax.jit(prior.component_log_probs)
log_prob = jax.jit(prior.log_prob)
responsibilities = jax.jit(prior.responsibilities)
hyper_log_prob = jax.jit(prior.hyper_log_prob, static_argnums=1)
hyper_gradient = jax.jit(jax.grad(prior.hyper_log_prob), static_argnums=1)
HYPER = HyperPriors(Gamma(30.0, 0.1), Gamma(7.0, 0.2), Beta(90.0, 12.0))


def joint(weights):
    """Log of share times density of every component, by SciPy."""
    density = stats.norm.logpdf(np.asarray(weights)[..., None], [0, *MEANS], STDS)
    return np.log(SHARES) + density


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def x64(request):
    with jax.enable_x64(request.param):
        yield request.param


@pytest.fixture
def tolerance(x64):
    return {"rtol": 1e-12, "atol": 1e-12} if x64 else {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture
def mixture(x64, mixture_of):
    return mixture_of(MEANS, STDS, SHARES)


@pytest.fixture
def weights(x64):
    return jnp.asarray(WEIGHTS)


def test_joint_log_density(mixture, weights, tolerance):
    ours = component_log_probs(mixture, weights)
    assert ours.shape == (3, 20, 4)
    assert ours.dtype == weights.dtype
    np.testing.assert_allclose(ours, joint(weights), **tolerance)


def test_log_density(mixture, weights, tolerance):
    expected = np.log(np.exp(joint(weights)).sum(axis=-1))
    np.testing.assert_allclose(log_prob(mixture, weights), expected, **tolerance)


def test_density_integrates_to_one(mixture):
    points = jnp.linspace(-4, 6, 20_001)
    area = np.trapezoid(np.exp(log_prob(mixture, points)), points)
    np.testing.assert_allclose(area, 1, rtol=1e-5)


def test_responsibilities_follow_bayes(mixture, weights, tolerance):
    likelihood = np.exp(joint(weights))
    expected = likelihood / likelihood.sum(axis=-1, keepdims=True)
    ours = responsibilities(mixture, weights)
    np.testing.assert_allclose(ours, expected, **tolerance)


def test_assignment_is_the_most_responsible(mixture, weights):
    ours = prior.assign(mixture, weights)
    assert ours.dtype == jnp.int32
    np.testing.assert_array_equal(ours, joint(weights).argmax(axis=-1))
    assert set(ours.ravel().tolist()) == {0, 1, 2, 3}


def test_mixing_proportions(mixture, tolerance):
    np.testing.assert_allclose(prior.log_mixing(mixture), np.log(SHARES), **tolerance)
    np.testing.assert_array_equal(prior.component_means(mixture), jnp.asarray([0, *MEANS]))


@pytest.mark.parametrize("zero_logit", [-80.0, 80.0])
def test_extreme_shares_stay_finite(zero_logit, mixture):
    mixture = mixture._replace(zero_logit=jnp.asarray(zero_logit))
    log_shares = np.asarray(prior.log_mixing(mixture))
    np.testing.assert_allclose(log_shares[0], special.log_expit(zero_logit), rtol=1e-6)
    free = special.log_expit(-zero_logit) + np.log(SHARES[1:] / SHARES[1:].sum())
    np.testing.assert_allclose(log_shares[1:], free, rtol=1e-6)


def test_far_weights_do_not_underflow(mixture, x64):
    far = jnp.asarray([-100 * 0.6, 100 * 0.6, 1000.0, -1e4])
    expected = special.logsumexp(joint(far), axis=-1)
    assert expected.max() < -1000  # exp of it is zero even in float64
    np.testing.assert_allclose(log_prob(mixture, far), expected, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda w: log_prob(mixture, w).sum()))(far)
    np.testing.assert_allclose(gradient, -(far - MEANS[2]) / 0.6**2, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_narrow_weights_have_a_float32_density(dtype, mixture_of):
    mixture = mixture_of(MEANS, STDS, SHARES)
    weights = jnp.asarray([-0.7, 0.01, 0.2, 3.0]).astype(dtype)
    for function in (log_prob, component_log_probs, responsibilities):
        ours = function(mixture, weights)
        assert ours.dtype == jnp.float32
        np.testing.assert_array_equal(ours, function(mixture, weights.astype(jnp.float32)))


@pytest.mark.parametrize("hyper", [HYPER, replace(HYPER, pi_zero=None), HyperPriors()])
def test_hyper_priors_up_to_a_constant(hyper, mixture_of):
    beta = hyper.pi_zero

    def reference(stds, pi_zero):
        precisions = stds**-2.0
        shapes = np.array([hyper.zero_precision.shape] + [hyper.precision.shape] * 3)
        rates = np.array([hyper.zero_precision.rate] + [hyper.precision.rate] * 3)
        total = stats.gamma.logpdf(precisions, shapes, scale=1 / rates).sum()
        return total + (0.0 if beta is None else stats.beta.logpdf(pi_zero, beta.a, beta.b))

    with jax.enable_x64(True):
        first = hyper_log_prob(mixture_of(MEANS, STDS, SHARES), hyper)
        second = hyper_log_prob(mixture_of(MEANS, 2 * STDS, [9, 1, 2, 3]), hyper)
        difference = first - second
    expected = reference(STDS, 0.6) - reference(2 * STDS, 9 / 15)
    np.testing.assert_allclose(difference, expected, rtol=1e-10)


@pytest.mark.parametrize("hyper", [HYPER, HyperPriors(pi_zero=Beta(50.0, 3.0))])
def test_modes_of_the_hyper_priors(hyper, mixture_of):
    gammas = [hyper.zero_precision] + [hyper.precision] * 3
    modes = np.array([(gamma.shape - 1) / gamma.rate for gamma in gammas])
    a, b = hyper.pi_zero.a, hyper.pi_zero.b
    pi_zero = (a - 1) / (a + b - 2)
    with jax.enable_x64(True):
        at_mode = mixture_of(MEANS, modes**-0.5, [pi_zero, *np.full(3, (1 - pi_zero) / 3)])
        gradient, _ = ravel_pytree(hyper_gradient(at_mode, hyper))
        around = [
            hyper_log_prob(jax.tree.map(lambda x, step=step: x + step, at_mode), hyper)
            for step in (-0.01, 0.0, 0.01)
        ]
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    assert around[1] > max(around[0], around[2])


def test_default_modes_are_near_a_standard_deviation_of_a_fiftieth():
    for gamma in (HyperPriors().zero_precision, HyperPriors().precision):
        assert ((gamma.shape - 1) / gamma.rate) ** -0.5 == pytest.approx(0.02, rel=5e-3)


def test_pi_zero_without_hyper_prior_has_no_gradient(mixture):
    gradient = hyper_gradient(mixture, HyperPriors())
    assert gradient.zero_logit == 0
    assert hyper_gradient(mixture, HYPER).zero_logit != 0


def test_gradients_are_finite_differences(mixture_of):
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree((mixture_of(MEANS, STDS, SHARES), jnp.asarray(WEIGHTS)))

        @jax.jit
        def total(flat):
            mixture, weights = unravel(flat)
            return log_prob(mixture, weights).sum() + hyper_log_prob(mixture, HYPER)

        step = 1e-6
        numerical = [
            (total(flat + step * unit) - total(flat - step * unit)) / (2 * step)
            for unit in jnp.eye(flat.size)
        ]
        np.testing.assert_allclose(jax.jit(jax.grad(total))(flat), numerical, rtol=1e-5, atol=1e-4)


def test_initial_mixture():
    mixture = prior.init_mixture(-0.5, 1.5, components=5, pi_zero=0.99, std=0.1)
    np.testing.assert_allclose(mixture.means, [-0.5, 0.0, 0.5, 1.0, 1.5], atol=1e-7)
    np.testing.assert_allclose(mixture.log_precisions, np.full(6, np.log(100)), rtol=1e-6)
    np.testing.assert_allclose(np.exp(prior.log_mixing(mixture)), [0.99] + [0.002] * 5, rtol=1e-5)
    assert all(leaf.dtype == jnp.float32 for leaf in mixture)


@pytest.mark.parametrize("pi_zero", [1e-12, 0.999, 1 - 1e-12])
def test_initial_share_of_zero_is_exact(pi_zero):
    zero_logit = prior.init_mixture(-1.0, 1.0, pi_zero=pi_zero).zero_logit
    np.testing.assert_allclose(zero_logit, special.logit(pi_zero), rtol=1e-7)


RANGE = (
    "the range of the weights must be finite with low < high, got low={}, high={}; "
    "a net whose weights are all equal or not finite has nothing to share"
)


@pytest.mark.parametrize(
    ("low", "high", "settings", "message"),
    [
        (1.0, 1.0, {}, RANGE.format(1.0, 1.0)),
        (2.0, 1.0, {}, RANGE.format(2.0, 1.0)),
        (float("nan"), 1.0, {}, RANGE.format("nan", 1.0)),
        (0.0, float("inf"), {}, RANGE.format(0.0, "inf")),
        (0.0, 1.0, {"components": 0}, "components must be an integer of at least 1, got 0"),
        (0.0, 1.0, {"pi_zero": 0.0}, "pi_zero must lie strictly between 0 and 1, got 0.0"),
        (0.0, 1.0, {"pi_zero": 1.0}, "pi_zero must lie strictly between 0 and 1, got 1.0"),
        (0.0, 1.0, {"std": 0.0}, "std must be positive and finite, got 0.0"),
        (0.0, 1.0, {"std": float("nan")}, "std must be positive and finite, got nan"),
    ],
)
def test_settings_out_of_range(low, high, settings, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        prior.init_mixture(low, high, **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gamma(0, 1.0), "Gamma.shape must be positive and finite, got 0"),
        (lambda: Gamma(1.0, -2.5), "Gamma.rate must be positive and finite, got -2.5"),
        (lambda: Gamma(np.nan, 1.0), "Gamma.shape must be positive and finite, got nan"),
        (lambda: Gamma(1.0, np.inf), "Gamma.rate must be positive and finite, got inf"),
        (lambda: Gamma("5", 1.0), "Gamma.shape must be positive and finite, got '5'"),
        (lambda: Beta(0.0, 1.0), "Beta.a must be positive and finite, got 0.0"),
        (lambda: Beta(1.0, None), "Beta.b must be positive and finite, got None"),
        (
            lambda: HyperPriors(zero_precision=(5.0, 2.0)),
            "HyperPriors.zero_precision must be a Gamma, got (5.0, 2.0)",
        ),
        (
            lambda: HyperPriors(precision=Beta(1.0, 2.0)),
            "HyperPriors.precision must be a Gamma, got Beta(a=1.0, b=2.0)",
        ),
        (
            lambda: HyperPriors(pi_zero=Gamma(1.0, 2.0)),
            "HyperPriors.pi_zero must be a Beta or None, got Gamma(shape=1.0, rate=2.0)",
        ),
        (lambda: replace(HYPER.precision, rate=0), "Gamma.rate must be positive and finite, got 0"),
    ],
)
def test_hyper_priors_validate_themselves(make, message):
    with pytest.raises(ConfigError) as raised:
        make()
    assert str(raised.value) == message


def test_hyper_priors_cannot_be_changed_after_validation():
    for hyper_prior, name in ((Gamma(1.0, 1.0), "rate"), (Beta(1.0, 1.0), "a"), (HYPER, "pi_zero")):
        with pytest.raises(FrozenInstanceError):
            setattr(hyper_prior, name, -1.0)
