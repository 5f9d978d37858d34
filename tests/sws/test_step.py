"""One step: the gradients of its objective against finite differences, and what it keeps fixed."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

from swsjax.sws import exact
from swsjax.sws.prior import Beta, Gamma, GaussianMixture, HyperPriors, hyper_log_prob
from swsjax.sws.rates import LearningRates
from swsjax.sws.step import hand_over, hard, init, make_step, soft
from swsjax.training import take_apart

RNG = np.random.default_rng(0)
SIZE, TAU = 50, 0.06
HYPER = HyperPriors(Gamma(30.0, 0.5), Gamma(8.0, 0.3), Beta(9.0, 3.0))
WEIGHTS = {"w": RNG.normal(0, 0.5, (4, 5)), "b": RNG.normal(0, 0.5, 5)}
INPUTS, TARGETS = RNG.normal(size=(8, 4)), RNG.normal(size=(8, 5))
BATCH = {"x": jnp.asarray(INPUTS), "y": jnp.asarray(TARGETS)}
MEANS, STDS, SHARES = [-0.6, 0.5], [0.2, 0.25, 0.3], [0.6, 0.15, 0.25]

# Keeps the gradients as the optimiser's state, and updates nothing.
RECORDER = optax.GradientTransformation(
    init=lambda trained: jax.tree.map(jnp.zeros_like, trained),
    update=lambda gradients, _, __=None: (jax.tree.map(jnp.zeros_like, gradients), gradients),
)


@jax.jit
def assigned(mixture, weights):
    return jax.tree.map(lambda leaf: exact.assigned_means(mixture, leaf), weights)


def params():
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), WEIGHTS)


@cache
def net_of_params():
    return take_apart(params())


def loss_fn(params, batch):
    return ((batch["x"] @ params["w"] + params["b"][None] - batch["y"]) ** 2).mean()


@pytest.fixture
def mixture(mixture_of):
    return mixture_of(MEANS, STDS, SHARES)


def start(mixture, optimizer=RECORDER):
    return init(net_of_params(), {"weights": mixture}, optimizer, jax.random.key(0))


def step_on(net, optimizer=RECORDER, *, loss=loss_fn, **settings):
    settings = {"forward": soft, "tau": TAU, "hyper": HYPER, "nodes": 4096} | settings
    return jax.jit(make_step(net.loss(loss), optimizer, **settings))


@cache  # the same step for all tests, compiled once
def step_of(*arguments, **settings):
    return step_on(net_of_params(), *arguments, **settings)


def recorded(state, net=None):
    """Gradients of the parameters, in the form of the caller's net, and of the mixtures."""
    net = net_of_params() if net is None else net
    return net.rebuild(state.opt_state.weights, net.carried)[0], state.opt_state.mixtures


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
    a, b = HYPER.pi_zero.a, HYPER.pi_zero.b
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
        return numpy_loss(params) - TAU * log_prior(params, mixture)

    expected = numerical_gradient(objective, (WEIGHTS, in_float64(mixture)))
    by_params, by_mixtures = recorded(state)
    assert_close((by_params, by_mixtures["weights"]), expected, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(info.loss, numpy_loss(WEIGHTS), rtol=1e-5)
    np.testing.assert_allclose(info.log_prior, log_prior(WEIGHTS, in_float64(mixture)), rtol=1e-5)


def test_gradient_of_the_hard_objective(mixture):
    """The loss's gradient at the assigned means goes to the weights, and summed to the means."""
    state, info = step_of(forward=hard)(start(mixture), BATCH)
    by_params, by_mixtures = recorded(state)
    quantised = jax.tree.map(np.float64, assigned(mixture, params()))
    (of_loss,) = numerical_gradient(numpy_loss, (quantised,))
    of_prior, mixture_of_prior = numerical_gradient(log_prior, (WEIGHTS, in_float64(mixture)))
    expected = jax.tree.map(lambda x, y: x - TAU * y, of_loss, of_prior)
    assert_close(by_params, expected, rtol=2e-3, atol=1e-3)

    values, gradient = ravel_pytree(quantised)[0], ravel_pytree(of_loss)[0]
    sums = [gradient[values == mean].sum() for mean in mixture.means]
    assert np.abs(sums).min() > 0.01
    expected = jax.tree.map(lambda x: -TAU * x, mixture_of_prior)
    expected = expected._replace(means=expected.means + sums)
    assert_close(by_mixtures["weights"], expected, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(info.loss, numpy_loss(quantised), rtol=1e-5)


@pytest.mark.parametrize("forward", [soft, hard])
def test_exact_step_agrees_with_the_tabulated_one(forward, mixture):
    """The gradients of the tabulated one are tested against finite differences."""
    ours, _ = step_of(forward=forward, nodes=None)(start(mixture), BATCH)
    expected, _ = step_of(forward=forward)(start(mixture), BATCH)
    assert_close(ours.opt_state, expected.opt_state, rtol=1e-4, atol=1e-4)


def test_forward_passes(mixture):
    weights = params()
    assert soft(weights, None, 0) is weights
    means = assigned(mixture, weights)
    assert hard(weights, lambda: means, 0) is means


def test_a_hand_over_begins_soft_and_ends_hard_to_the_last_bit(mixture):
    between = step_of(forward=hand_over(8))
    for forward, number in {soft: 0, hard: 8}.items():
        given = start(mixture)._replace(step=jnp.int32(number))
        ours = between(given, BATCH)
        expected = step_of(forward=forward)(given, BATCH)
        assert_close(ours[1], expected[1], rtol=0)
        assert_close(recorded(ours[0])[0], recorded(expected[0])[0], rtol=1e-6)


def test_gradients_on_the_way_of_a_hand_over(mixture):
    """The loss's gradient half-way goes to the weights whole, and to the means by half."""
    given = start(mixture)._replace(step=jnp.int32(4))
    state, info = step_of(forward=hand_over(8), tau=0.0)(given, BATCH)
    means = assigned(mixture, params())
    half = jax.tree.map(lambda x, y: (x + y) / 2, params(), means)
    gradient = jax.grad(loss_fn)(half, BATCH)
    by_params, by_mixtures = recorded(state)
    np.testing.assert_allclose(info.loss, loss_fn(half, BATCH), rtol=1e-6)
    assert_close(by_params, gradient, rtol=1e-5)
    values, gradient = ravel_pytree(means)[0], ravel_pytree(gradient)[0]
    sums = [gradient[values == mean].sum() / 2 for mean in mixture.means]
    np.testing.assert_allclose(by_mixtures["weights"].means, sums, rtol=1e-4)


@pytest.mark.parametrize("nodes", [None, 4096])
def test_a_pull_moves_weights_towards_their_means(nodes, mixture):
    """By the share that the schedule has at the step, besides the update of the optimiser."""
    optimizer = LearningRates(weights=optax.sgd(0.1)).optimizer(1, 1)
    given = start(mixture, optimizer)._replace(step=jnp.int32(3))
    settings = {"forward": hard, "nodes": nodes}
    plain, _ = step_of(optimizer, **settings)(given, BATCH)
    pulled, _ = step_of(optimizer, pull=lambda step: step / 10, **settings)(given, BATCH)
    means, before = assigned(mixture, params()), params()
    assert {float(mean) for mean in ravel_pytree(means)[0]} == {0.0, *map(np.float32, MEANS)}
    moved = jax.tree.map(lambda mean, x: 0.3 * (mean - x), means, before)
    net = net_of_params()
    without, with_pull = (
        net.rebuild(state.params.weights, net.carried)[0] for state in (plain, pulled)
    )
    assert_close(jax.tree.map(jnp.subtract, with_pull, without), moved, rtol=1e-4, atol=1e-6)
    assert_close(pulled.params.mixtures, plain.params.mixtures, rtol=0)


@pytest.mark.parametrize("forward", [soft, hard])
def test_no_implicit_promotion_of_dtypes(forward, mixture):
    """Except in the optimisers of optax, which rely on it."""
    mixture = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), mixture)
    step, given = step_of(forward=forward, pull=lambda step: step / 8), start(mixture)
    with jax.numpy_dtype_promotion("strict"):
        state, info = jax.eval_shape(step, given, BATCH)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.opt_state, info))} == {
        np.dtype("float32")
    }


def no_loss(params, batch):
    return 0.0


def prior_gradient(mixture, steps=1, **settings):
    """Gradients of the weights at each step, of the prior alone."""
    step, state = step_of(loss=no_loss, **settings), start(mixture)
    gradients = []
    for _ in range(steps):
        state, _ = step(state, BATCH)
        gradients.append(recorded(state)[0]["w"])
    return gradients


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
    "optimizer", [optax.adamw(1e-2, weight_decay=1.0), LearningRates().optimizer(1, 3)]
)
def test_pi_zero_is_fixed_without_a_hyper_prior(optimizer, mixture):
    for hyper, fixed in ((replace(HYPER, pi_zero=None), True), (HYPER, False)):
        step, state = step_of(optimizer, hyper=hyper), start(mixture, optimizer)
        for _ in range(3):
            state, _ = step(state, BATCH)
        trained = state.params.mixtures["weights"]
        assert (trained.zero_logit == mixture.zero_logit) == fixed
        assert not jnp.array_equal(trained.means, mixture.means)


def test_gradient_of_a_fixed_pi_zero_is_zero(mixture):
    state, _ = step_of(hyper=replace(HYPER, pi_zero=None))(start(mixture), BATCH)
    assert recorded(state)[1]["weights"].zero_logit == 0


@pytest.mark.parametrize("forward", [soft, hard])
def test_without_tau_only_the_loss_has_gradients_but_the_prior_is_reported(forward, mixture):
    state, info = step_of(forward=forward, tau=0.0)(start(mixture), BATCH)
    _, with_prior = step_of(forward=forward, tau=TAU)(start(mixture), BATCH)
    assert info.log_prior == with_prior.log_prior
    by_params, by_mixtures = recorded(state)
    at = params() if forward is soft else assigned(mixture, params())
    assert_close(by_params, jax.grad(loss_fn)(at, BATCH), rtol=1e-5)
    assert not by_mixtures["weights"].log_precisions.any()
    assert by_mixtures["weights"].means.any() == (forward is hard)


OPTIMIZERS = {
    "a state that holds the weights": optax.contrib.prodigy(0.5, estim_lr0=0.1),
    "a state that holds averages of the weights": optax.contrib.schedule_free_adamw(0.05),
    "a schedule that depends on the value": optax.chain(
        optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1, rtol=0.5)
    ),
    "a step that depends on the value": optax.polyak_sgd(),
    "a line search": optax.chain(optax.sgd(0.5), optax.scale_by_backtracking_linesearch(8)),
    "a line search with memory": optax.lbfgs(memory_size=3),
}


@pytest.mark.parametrize(
    ("name", "rules"),
    [*((name, [("b", None)]) for name in OPTIMIZERS), ("a line search", [])],
)
def test_any_optimizer_of_the_weights(name, rules, mixture):
    """It moves them as it does alone, under the same objective with the mixture held."""
    optimizer = LearningRates(weights=OPTIMIZERS[name], means=0, precisions=0, mixing=0)
    optimizer = optimizer.optimizer(1, 4)
    net = take_apart(params(), rules=rules)
    state = init(net, {"weights": mixture}, optimizer, jax.random.key(0))
    step = step_on(net, optimizer, nodes=None)

    def objective(weights):
        loss, _ = net.loss(loss_fn)(weights, net.carried, BATCH)
        log_prior = exact.sum_log_prob(mixture, weights.groups["weights"])
        return loss - TAU * (log_prior + hyper_log_prob(mixture, HYPER))

    alone = optax.with_extra_args_support(OPTIMIZERS[name])

    @jax.jit
    def step_alone(weights, states):
        value, gradient = jax.value_and_grad(objective)(weights)
        parts, states = [], [*states]
        # Weights that are compressed, and free ones: each has an optimiser of its own.
        for number, (part, field) in enumerate(zip(weights, weights._fields, strict=True)):
            if not jax.tree.leaves(part):
                parts.append(part)
                continue
            by_part = getattr(gradient, field)

            def of_part(part, field=field):
                return objective(weights._replace(**{field: part}))

            updates, states[number] = alone.update(
                by_part, states[number], part, value=value, grad=by_part, value_fn=of_part
            )
            parts.append(optax.apply_updates(part, updates))
        return type(weights)(*parts), states

    weights = net.weights
    states = [alone.init(part) if jax.tree.leaves(part) else None for part in weights]
    for _ in range(4):
        state, _ = step(state, BATCH)
        weights, states = step_alone(weights, states)
    assert_close(state.params.weights, weights, rtol=1e-3, atol=1e-4)
    assert not np.allclose(ravel_pytree(weights)[0], ravel_pytree(net.weights)[0], atol=1e-5)


def loss_with_free(params, batch):
    return loss_fn(params, batch) + jnp.sum(params["free"])


@jax.jit
@partial(jax.value_and_grad, argnums=(0, 1))
def exact_log_prior(leaf, mixture):
    return exact.sum_log_prob(mixture, [leaf]) + hyper_log_prob(mixture, HYPER)


def expected_of_group(mixture, leaf, forward, of_loss):
    """Gradients of a leaf and its mixture, and the log-prior of both, by the exact prior."""
    value, (to_leaf, to_mixture) = exact_log_prior(leaf, mixture)
    to_mixture = jax.tree.map(lambda x: -TAU * x, to_mixture)
    if forward is hard:
        means = exact.assigned_means(mixture, leaf)
        sums = jnp.stack([of_loss[means == mean].sum() for mean in mixture.means])
        to_mixture = to_mixture._replace(means=to_mixture.means + sums)
    return of_loss - TAU * to_leaf, to_mixture, value


@pytest.mark.parametrize(
    ("forward", "nodes"),
    [(soft, None), (hard, None), (soft, 4096), (hard, {"weights": 4096, "other": 4096})],
)
def test_each_leaf_has_its_own_mixture_or_none(forward, nodes, mixture):
    """Two mixtures act on two leaves as each acts on its own; the third leaf has no prior."""
    other = mixture._replace(means=mixture.means + 0.05, log_precisions=mixture.log_precisions + 1)
    given = params() | {"free": jnp.float32([0.1, 0.2])}
    net = take_apart(given, rules=[("b", "other"), ("free", None)])
    mixtures = {"weights": mixture, "other": other}
    state = init(net, mixtures, RECORDER, jax.random.key(0))
    step = step_on(net, loss=loss_with_free, forward=forward, nodes=nodes)
    state, info = step(state, BATCH)
    by_params, by_mixtures = recorded(state, net)

    means = {"w": assigned(mixture, given["w"]), "b": assigned(other, given["b"])}
    of_loss = jax.grad(loss_with_free)(given if forward is soft else given | means, BATCH)
    total = 0.0
    for group, name in (("weights", "w"), ("other", "b")):
        to_leaf, to_mixture, value = expected_of_group(
            mixtures[group], given[name], forward, of_loss[name]
        )
        assert_close(by_params[name], to_leaf, rtol=2e-3, atol=1e-3)
        assert_close(by_mixtures[group], to_mixture, rtol=2e-3, atol=1e-3)
        total += value
    np.testing.assert_array_equal(by_params["free"], [1, 1])
    np.testing.assert_allclose(info.log_prior, total, rtol=1e-5)


def test_each_grid_has_the_nodes_asked_for(mixture_of):
    """Few nodes are too few for narrow components, in the group that has few."""
    narrow = mixture_of(MEANS, [0.02] * 3, SHARES)
    net = take_apart(params(), rules=[("b", "other")])

    def by_prior(nodes):
        state = init(net, {"weights": narrow, "other": narrow}, RECORDER, jax.random.key(0))
        step = step_on(net, loss=no_loss, nodes=nodes)
        return recorded(step(state, BATCH)[0], net)[0]

    exact_gradients = by_prior(None)

    def errors(nodes):
        return jax.tree.map(
            lambda ours, expected: np.linalg.norm(ours - expected) / np.linalg.norm(expected),
            by_prior(nodes),
            exact_gradients,
        )

    one, other = errors({"weights": 16, "other": 2048}), errors({"weights": 2048, "other": 16})
    few, many = [one["w"], other["b"]], [one["b"], other["w"]]
    assert min(few) > 100 * max(many)
    assert max(many) < 1e-4


def test_aux_is_carried_from_step_to_step(mixture):
    def loss(params, aux, batch):
        return loss_fn(params, batch) * aux["scale"], {"scale": aux["scale"] + 1}

    net = take_apart(params(), {"scale": jnp.float32(2)})
    state = init(net, {"weights": mixture}, RECORDER, jax.random.key(0))
    step = step_on(net, loss=loss)
    _, plain = step_of()(start(mixture), BATCH)
    for scale in (2, 3):
        state, info = step(state, BATCH)
        np.testing.assert_allclose(info.loss, scale * plain.loss, rtol=1e-6)
    assert net.rebuild(state.params.weights, state.aux)[1] == {"scale": 4}


def test_a_step_counts_a_sample_for_the_mixture_alone(mixture):
    """Of the 20 weights of a kernel 10, each second one, and of 5 biases all."""
    whole, sampled = (step_of(sample=sample)(start(mixture), BATCH) for sample in (None, 10))
    by_weights = [state.opt_state.weights for state, _ in (whole, sampled)]
    jax.tree.map(np.testing.assert_array_equal, *by_weights)
    moves = [state.opt_state.mixtures["weights"].means for state, _ in (whole, sampled)]
    assert not np.allclose(*moves)


@pytest.mark.parametrize("tau", [0.0, TAU])
def test_at_or_below_the_floor_only_the_prior_acts(tau, mixture):
    @jax.jit
    def floored(floor, state, batch):
        return step_on(net_of_params(), tau=tau, floor=floor)(state, batch)

    def gradients(step):
        state, info = step(start(mixture), BATCH)
        assert info.loss == loss_fn(params(), BATCH)  # as it is, whatever acts
        return state.opt_state

    loss = float(loss_fn(params(), BATCH))
    whole, above = gradients(step_of(tau=tau)), gradients(partial(floored, 0.9 * loss))
    jax.tree.map(np.testing.assert_array_equal, above, whole)
    state, _ = step_of(tau=tau, loss=no_loss)(start(mixture), BATCH)
    below = gradients(partial(floored, 1.1 * loss))
    jax.tree.map(np.testing.assert_array_equal, below, state.opt_state)
    assert np.any(below.weights.groups["weights"][0]) == (tau > 0)
    assert np.any(whole.weights.groups["weights"][0] != below.weights.groups["weights"][0])


@pytest.mark.parametrize("tau", [0.0, TAU])
def test_the_objective_is_divided_by_the_unit(tau, mixture):
    whole, info = step_of(tau=tau)(start(mixture), BATCH)
    parts, same = step_of(tau=tau, unit=4.0)(start(mixture), BATCH)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(4 * a, b), parts.opt_state, whole.opt_state
    )
    assert (same.loss, same.log_prior) == (info.loss, info.log_prior)
    assert np.any(whole.opt_state.weights.groups["weights"][0])
