"""The objective's gradients against finite differences, the rates, and what is held."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

from swsjax import exact
from swsjax.sws.prior import Beta, Gamma, GaussianMixture, HyperPriors, hyper_log_prob
from swsjax.sws.step import Rates, hard, init, make_step, soft

RNG = np.random.default_rng(0)
SIZE, TAU = 50, 3.0
HYPER = HyperPriors(Gamma(30.0, 0.5), Gamma(8.0, 0.3), Beta(9.0, 3.0))
WEIGHTS = {"w": RNG.normal(0, 0.5, (4, 5)), "b": RNG.normal(0, 0.5, 5)}
INPUTS, TARGETS = RNG.normal(size=(8, 4)), RNG.normal(size=(8, 5))
BATCH = {"x": jnp.asarray(INPUTS), "y": jnp.asarray(TARGETS)}
MEANS, STDS, SHARES = [-0.6, 0.5], [0.2, 0.25, 0.3], [0.6, 0.15, 0.25]

# Passes the gradients on as the optimiser's state, and moves nothing.
RECORDER = optax.GradientTransformation(
    init=lambda trained: jax.tree.map(jnp.zeros_like, trained),
    update=lambda gradients, _, __=None: (jax.tree.map(jnp.zeros_like, gradients), gradients),
)


def assigned(mixture, weights):
    return jax.tree.map(lambda leaf: exact.assigned_means(mixture, leaf), weights)


def params():
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), WEIGHTS)


def loss_fn(params, batch):
    return ((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2).mean()


@pytest.fixture
def mixture(mixture_of):
    return mixture_of(MEANS, STDS, SHARES)


def start(mixture, optimizer=RECORDER):
    return init(params(), {"weights": mixture}, optimizer, jax.random.key(0))


def step_of(optimizer=RECORDER, *, loss=loss_fn, size=SIZE, **settings):
    settings = {"forward": soft, "tau": TAU, "hyper": HYPER} | settings
    return jax.jit(make_step(loss, optimizer, train_size=size, **settings))


def log_prior(params, mixture):
    """Exact, in float64, by SciPy."""
    precisions = np.exp(mixture.log_precisions)
    pi_zero = 1 / (1 + np.exp(-mixture.zero_logit))
    free = np.exp(mixture.mixing_logits) / np.exp(mixture.mixing_logits).sum()
    shares, means = np.array([pi_zero, *(1 - pi_zero) * free]), np.array([0, *mixture.means])
    total = 0.0
    for weights in params.values():
        density = stats.norm.pdf(weights[..., None], means, precisions**-0.5)
        total += np.log(density @ shares).sum()
    for gamma, of in ((HYPER.zero_precision, slice(1)), (HYPER.precision, slice(1, None))):
        kernel = (gamma.shape - 1) * np.log(precisions[of]) - gamma.rate * precisions[of]
        total += kernel.sum()
    a, b = HYPER.pi_zero
    return total + (a - 1) * np.log(pi_zero) + (b - 1) * np.log(1 - pi_zero)


def numerical_gradient(function, tree, step=1e-6):
    """Central differences of a function of a pytree of float64 arrays."""
    leaves, structure = jax.tree.flatten(tree)
    flat = np.concatenate([np.ravel(x) for x in leaves])
    ends = np.cumsum([np.size(x) for x in leaves])[:-1]

    def at(flat):
        parts = [p.reshape(np.shape(x)) for p, x in zip(np.split(flat, ends), leaves, strict=True)]
        return function(*jax.tree.unflatten(structure, parts))

    gradient = [(at(flat + step * e) - at(flat - step * e)) / (2 * step) for e in np.eye(flat.size)]
    parts = np.split(np.array(gradient), ends)
    return jax.tree.unflatten(structure, parts)


def in_float64(mixture):
    return GaussianMixture(*(np.float64(leaf) for leaf in mixture))


def assert_close(ours, expected, **tolerance):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.ravel(x), np.ravel(y), **tolerance)


def numpy_loss(params):
    return ((INPUTS @ params["w"] + params["b"] - TARGETS) ** 2).mean()


def test_gradient_of_the_soft_objective(mixture):
    state, info = step_of()(start(mixture), BATCH)

    def objective(params, mixture):
        return numpy_loss(params) - TAU / SIZE * log_prior(params, mixture)

    expected = numerical_gradient(objective, (WEIGHTS, in_float64(mixture)))
    assert_close(state.opt_state, expected, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(info.loss, numpy_loss(WEIGHTS), rtol=1e-5)
    np.testing.assert_allclose(info.log_prior, log_prior(WEIGHTS, in_float64(mixture)), rtol=1e-5)


def test_gradient_of_the_hard_objective(mixture):
    """The loss's gradient at the assigned means goes to the weights, and summed to the means."""
    state, info = step_of(forward=hard)(start(mixture), BATCH)
    by_params, by_mixture = state.opt_state[0], state.opt_state[1]["weights"]
    quantised = jax.tree.map(np.float64, assigned(mixture, params()))
    (of_loss,) = numerical_gradient(numpy_loss, (quantised,))
    of_prior, mixture_of_prior = numerical_gradient(log_prior, (WEIGHTS, in_float64(mixture)))
    expected = jax.tree.map(lambda x, y: x - TAU / SIZE * y, of_loss, of_prior)
    assert_close(by_params, expected, rtol=2e-3, atol=1e-3)

    values, gradient = ravel_pytree(quantised)[0], ravel_pytree(of_loss)[0]
    sums = [gradient[values == mean].sum() for mean in mixture.means]
    assert np.abs(sums).min() > 0.01
    expected = jax.tree.map(lambda x: -TAU / SIZE * x, mixture_of_prior)
    expected = expected._replace(means=expected.means + sums)
    assert_close(by_mixture, expected, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(info.loss, numpy_loss(quantised), rtol=1e-5)


@pytest.mark.parametrize("forward", [soft, hard])
def test_exact_step_agrees_with_the_tabulated_one(forward, mixture):
    """The tabulated one is the one that is held against finite differences."""
    ours, _ = step_of(forward=forward, nodes=None)(start(mixture), BATCH)
    expected, _ = step_of(forward=forward, nodes=4096)(start(mixture), BATCH)
    assert_close(ours.opt_state, expected.opt_state, rtol=1e-4, atol=1e-4)


def test_forward_passes(mixture):
    weights = params()
    assert soft(weights, None) is weights
    means = assigned(mixture, weights)
    assert hard(weights, lambda: means) is means


@pytest.mark.parametrize("forward", [soft, hard])
def test_no_implicit_promotion_of_dtypes(forward, mixture):
    """But for the optimisers of optax, which rely on it."""
    mixture = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), mixture)
    with jax.numpy_dtype_promotion("strict"):
        state, info = step_of(forward=forward)(start(mixture), BATCH)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.opt_state, info))} == {
        np.dtype("float32")
    }


def prior_gradient(mixture, steps=1, **settings):
    """Gradients of the weights at each step, of the prior alone."""
    step, state = step_of(loss=lambda *_: 0.0, **settings), start(mixture)
    gradients = []
    for _ in range(steps):
        state, _ = step(state, BATCH)
        gradients.append(state.opt_state[0]["w"])
    return gradients


def test_prior_is_divided_by_the_number_of_examples(mixture):
    (once,), (half,) = prior_gradient(mixture), prior_gradient(mixture, size=2 * SIZE)
    np.testing.assert_allclose(half, once / 2, rtol=1e-5)


def test_tau_follows_its_schedule(mixture):
    def schedule(step):
        return TAU * (1.0 + step) ** 2

    (constant,) = prior_gradient(mixture)
    for step, gradient in enumerate(prior_gradient(mixture, steps=4, tau=schedule)):
        np.testing.assert_allclose(gradient, constant * (1 + step) ** 2, rtol=1e-5)


def test_steps_are_counted(mixture):
    state = start(mixture)
    assert state.step == 0
    for expected in (1, 2):
        state, _ = step_of()(state, BATCH)
        assert state.step == expected
        assert state.step.dtype == jnp.int32


@pytest.mark.parametrize(
    "optimizer", [optax.adamw(1e-2, weight_decay=1.0), Rates().optimizer(1, 3)]
)
def test_pi_zero_is_held_without_a_hyper_prior(optimizer, mixture):
    for hyper, held in ((HYPER._replace(pi_zero=None), True), (HYPER, False)):
        step, state = step_of(optimizer, hyper=hyper), start(mixture, optimizer)
        for _ in range(3):
            state, _ = step(state, BATCH)
        assert (state.mixtures["weights"].zero_logit == mixture.zero_logit) == held
        assert not jnp.array_equal(state.mixtures["weights"].means, mixture.means)


def test_gradient_of_a_held_pi_zero_is_zero(mixture):
    state, _ = step_of(hyper=HYPER._replace(pi_zero=None))(start(mixture), BATCH)
    assert state.opt_state[1]["weights"].zero_logit == 0


def updates_of(rates, epochs, steps_per_epoch, gradient=1.0, steps=None):
    """Sizes of the updates of one entry of every group; Adam's are its rate for a constant one."""
    optimizer = rates.optimizer(epochs, steps_per_epoch)
    mixture = GaussianMixture(*(jnp.zeros(n) for n in (1, 2, 1, ())))
    trained = ({"w": jnp.zeros(2)}, {"weights": mixture})
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), trained)

    def body(state, _):
        updates, state = optimizer.update(gradients, state, trained)
        return state, updates

    _, (params, mixtures) = jax.lax.scan(
        body, optimizer.init(trained), length=steps or epochs * steps_per_epoch
    )
    mixture = mixtures["weights"]
    assert jnp.array_equal(mixture.mixing_logits[:, 0], mixture.zero_logit)
    assert jnp.array_equal(mixture.log_precisions[:, 0], mixture.log_precisions[:, 1])
    groups = (params["w"], mixture.means, mixture.log_precisions, mixture.mixing_logits)
    return -np.stack([group[:, 0] for group in groups])


PEAKS = np.array([1e-3, 2e-4, 3e-3, 4e-2])


def rates(**settings):
    return Rates(*PEAKS, **settings)


def test_each_group_has_its_constant_rate():
    expected = np.repeat(PEAKS[:, None], 12, axis=1)
    np.testing.assert_allclose(updates_of(rates(), 3, 4), expected, rtol=1e-4)


@pytest.mark.parametrize("final", [0.0, 0.25])
def test_warm_up_and_half_cosine(final):
    ours = updates_of(rates(warmup_epochs=1.5, final=final), 5, 4, steps=25)
    warmup, total = 6, 20
    rising = np.arange(warmup) / warmup
    after = np.minimum(np.arange(25 - warmup) / (total - warmup), 1)
    falling = final + (1 - final) * (1 + np.cos(np.pi * after)) / 2
    expected = PEAKS[:, None] * np.concatenate([rising, falling])
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-9)


def test_cosine_without_warm_up_starts_at_the_peak():
    ours = updates_of(rates(final=0.0), 2, 5)
    expected = PEAKS[:, None] * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-9)


def test_warm_up_may_be_longer_than_the_stage():
    ours = updates_of(rates(warmup_epochs=10.0), 1, 4)
    np.testing.assert_allclose(ours, PEAKS[:, None] * np.arange(4) / 40, rtol=1e-4, atol=1e-9)


def test_epsilon_calms_the_weights_only():
    ours = updates_of(rates(epsilon=1e-5), 1, 1, gradient=1e-5)[:, 0]
    np.testing.assert_allclose(ours, PEAKS * [0.5, 1, 1, 1], rtol=2e-3)


@pytest.mark.parametrize("forward", [soft, hard])
def test_without_tau_only_the_loss_pulls_and_the_prior_is_still_reported(forward, mixture):
    (gradient, to_mixture), info = _gradients(mixture, forward=forward, tau=0.0)
    _, with_prior = _gradients(mixture, forward=forward, tau=TAU)
    assert info.log_prior == with_prior.log_prior
    at = params() if forward is soft else assigned(mixture, params())
    expected = jax.grad(loss_fn)(at, BATCH)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), gradient, expected)
    assert not to_mixture.log_precisions.any()
    assert to_mixture.means.any() == (forward is hard)


def _gradients(mixture, **settings):
    state, info = step_of(**settings)(start(mixture), BATCH)
    params, mixtures = state.opt_state
    return (params, mixtures["weights"]), info


def test_any_optimiser_for_the_weights():
    ours = updates_of(Rates(optax.sgd(0.5), *PEAKS[1:]), 3, 4, gradient=2.0)
    np.testing.assert_allclose(ours[0], np.ones(12), rtol=1e-6)
    np.testing.assert_allclose(ours[1:], np.repeat(PEAKS[1:, None], 12, axis=1), rtol=1e-4)


@pytest.mark.parametrize("forward", [soft, hard])
def test_each_leaf_is_under_its_own_mixture_or_none(forward, mixture):
    """What two mixtures do to two leaves is what each does to its own; the third moves freely."""
    other = mixture._replace(means=mixture.means + 0.05, log_precisions=mixture.log_precisions + 1)
    mixtures = {"weights": mixture, "other": other}
    given = params() | {"free": jnp.float32([0.1, 0.2])}

    def loss(params, batch):
        return loss_fn(params, batch) + jnp.sum(params["free"])

    labels = {"b": "other", "w": "weights", "free": None}
    labels = [labels[name] for name in sorted(given)]
    for nodes in (4096, {"weights": 4096, "other": 4096}, None):
        step = make_step(
            loss,
            RECORDER,
            forward=forward,
            tau=TAU,
            train_size=SIZE,
            hyper=HYPER,
            nodes=nodes,
            labels=labels,
        )
        state = init(given, mixtures, RECORDER, jax.random.key(0))
        (to_params, to_mixtures), info = _recorded(step, state)
        means = {"w": assigned(mixture, given["w"]), "b": assigned(other, given["b"])}
        at = forward(given, lambda means=means: given | means)
        of_loss = jax.grad(loss)(at, BATCH)
        total = 0.0
        for name, leaf in (("weights", "w"), ("other", "b")):
            prior = jax.grad(
                lambda w, m: exact.sum_log_prob(m, [w]) + hyper_log_prob(m, HYPER), argnums=(0, 1)
            )
            to_leaf, to_mixture = prior(given[leaf], mixtures[name])
            expected = of_loss[leaf] - TAU / SIZE * to_leaf
            assert_close(to_params[leaf], expected, rtol=2e-3, atol=1e-3)
            expected = jax.tree.map(lambda x: -TAU / SIZE * x, to_mixture)
            if forward is hard:
                sums = [of_loss[leaf][at[leaf] == mean].sum() for mean in mixtures[name].means]
                expected = expected._replace(means=expected.means + jnp.stack(sums))
            assert_close(to_mixtures[name], expected, rtol=2e-3, atol=1e-3)
            total += exact.sum_log_prob(mixtures[name], [given[leaf]])
            total += hyper_log_prob(mixtures[name], HYPER)
        np.testing.assert_array_equal(to_params["free"], [1, 1])
        np.testing.assert_allclose(info.log_prior, total, rtol=1e-5)


def test_what_the_loss_carries(mixture):
    def loss(params, aux, batch):
        return loss_fn(params, batch) * aux["scale"], {"scale": aux["scale"] + 1}

    aux = {"scale": jnp.float32(2)}
    state = init(params(), {"weights": mixture}, RECORDER, jax.random.key(0), aux=aux)
    state, info = step_of(loss=loss)(state, BATCH)
    _, plain = step_of()(start(mixture), BATCH)
    np.testing.assert_allclose(info.loss, 2 * plain.loss, rtol=1e-6)
    assert state.aux == {"scale": 3}


def _recorded(step, state):
    state, info = step(state, BATCH)
    return state.opt_state, info
