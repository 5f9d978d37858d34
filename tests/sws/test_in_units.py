"""Weights in units: a net and its copy that stores its weights otherwise end the same."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import swsjax
from swsjax.sws import Config, LearningRates, compress, init, init_mixture
from swsjax.sws.units import in_units, measured_again, offset_of, unit_of
from swsjax.training import take_apart, train

SHORT = Config(
    soft_epochs=6, hard_epochs=4, prune_epochs=0, tau=2.5e-6, batch_size=50, least_steps=1
)


def test_the_unit_by_its_definition():
    w = np.random.default_rng(0).normal(0, 0.03, (40, 30))
    expected = (np.abs(w) ** 3).sum() / (w**2).sum()
    np.testing.assert_allclose(unit_of(jnp.asarray(w, jnp.float32)), expected, rtol=2**-15)


@settings(deadline=None)
@given(st.integers(-100, 100), st.floats(0.01, 1.0))
def test_equal_weights_among_zeros_are_the_unit_whatever_their_share(power, share):
    size = 2.0**power
    w = np.zeros(1000, np.float32)
    w[: max(1, int(1000 * share))] = size
    assert float(unit_of(jnp.asarray(w))) == size


@settings(deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=20))
def test_units_are_positive_have_16_bits_and_scale_with_the_weights(values):
    w = jnp.asarray(values, jnp.float32)
    unit = float(unit_of(w))
    assert 0 < unit < np.inf
    mantissa, _ = np.frexp(unit)
    assert mantissa * 2**16 == int(mantissa * 2**16)
    if np.any(np.abs(values) > 1e-20):
        assert float(unit_of(w * 0.5)) == 0.5 * unit


@pytest.mark.parametrize(
    ("leaf", "unit"),
    [
        (np.zeros((3, 2), np.float32), 1.0),
        (np.zeros(0, np.float32), 1.0),
        (np.array([-0.25], np.float32), 0.25),
        (np.ones(8, np.float32), 1.0),  # a scale of a normalisation
        (np.full(4, 0.5, jnp.bfloat16), 0.5),
        (np.full(4, 1e-30, np.float32), 1e-30),
    ],
)
def test_units_of_special_leaves(leaf, unit):
    np.testing.assert_allclose(float(unit_of(jnp.asarray(leaf))), unit, rtol=2**-15)


@pytest.mark.parametrize(
    ("leaf", "offset"),
    [
        (np.array([0.5, 1.0, 1.5], np.float32), 1.0),  # a spread of 0.41
        (np.array([-1.5, -0.5], np.float32), 0.0),  # of half its mean
        (np.array([-1.25, -0.75], jnp.bfloat16), -1.0),
        (np.ones(8, np.float32), 0.0),  # one level as they are
        (np.array([[0.5, 1.0, 1.5]], np.float32), 0.0),  # a matrix
        (np.array([3.0], np.float32), 0.0),
        (np.zeros(0, np.float32), 0.0),
    ],
)
def test_vectors_of_nearly_equal_weights_have_an_offset(leaf, offset):
    assert float(offset_of(jnp.asarray(leaf))) == offset


def test_scales_of_a_norm_are_as_wide_in_units_as_a_kernel():
    rng = np.random.default_rng(0)
    params = {
        "kernel": jnp.float32(rng.normal(0, 0.3, (40, 64))),
        "scale": jnp.float32(1 + rng.normal(0, 0.05, 64)),
    }
    net = in_units(take_apart(params))
    kernel, scale = map(np.asarray, net.weights.groups["weights"])
    assert abs(scale.mean()) < 1e-3
    assert scale.std() == pytest.approx(kernel.std(), rel=0.2)
    rebuilt, _ = net.rebuild(net.weights, net.carried)
    np.testing.assert_allclose(rebuilt["scale"], params["scale"], rtol=1e-6)
    weights = jax.tree.map(jnp.zeros_like, net.weights)
    rebuilt, _ = net.rebuild(weights, net.carried)
    np.testing.assert_allclose(rebuilt["scale"], params["scale"].mean(), rtol=2**-15)
    assert not rebuilt["kernel"].any()


def test_an_offset_is_measured_again():
    net = in_units(take_apart({"scale": jnp.array([0.75, 1.0, 1.25])}))
    optimizer = LearningRates().optimizer(1, 1)
    state = init(net, {"weights": init_mixture(-1.0, 1.0)}, optimizer, jax.random.key(0))
    moved = state.params.weights._replace(groups={"weights": [jnp.array([2.0, -1.0, 5.0])]})
    state = state._replace(params=state.params._replace(weights=moved))
    after = measured_again(state, 1)
    (before_net, _), (after_net, _) = (
        net.rebuild(each.params.weights, each.aux) for each in (state, after)
    )
    np.testing.assert_allclose(after_net["scale"], before_net["scale"], rtol=1e-6)
    (unit,) = after.aux.units["weights"]
    assert float(unit.offset) == pytest.approx(before_net["scale"].mean(), rel=2**-15)
    (again,) = measured_again(after, 2).aux.units["weights"]
    assert jax.tree.map(float, again) == jax.tree.map(float, unit)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_a_net_in_units_computes_the_same_in_its_own_type(dtype):
    params = {"w": np.linspace(-0.3, 0.2, 24).reshape(6, 4).astype(dtype), "b": np.ones(2, dtype)}
    plain = take_apart(params, rules=[("b", None)])
    net = in_units(plain)
    rebuilt, _ = net.rebuild(net.weights, net.carried)
    assert rebuilt["w"].dtype == dtype
    np.testing.assert_allclose(
        np.asarray(rebuilt["w"], np.float32), np.asarray(params["w"], np.float32), rtol=1e-6
    )
    assert np.asarray(rebuilt["b"]).tobytes() == params["b"].tobytes()

    def loss(params, batch):
        return jnp.sum(params["w"].astype(jnp.float32)) * batch

    ours, _ = net.loss(loss)(net.weights, net.carried, 2.0)
    theirs, _ = plain.loss(loss)(plain.weights, plain.carried, 2.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_measuring_again_keeps_the_function_and_the_next_step():
    """Adam on the rescaled weights goes on as if it had always been on them."""
    net = in_units(take_apart({"w": jnp.array([0.5, -0.25, 0.125])}))
    rates = LearningRates(weights=1e-2, epsilon=1e-30)
    optimizer = rates.optimizer(1, 1)
    mixtures = {"weights": init_mixture(-1.0, 1.0)}
    state = init(net, mixtures, optimizer, jax.random.key(0))
    gradient = jax.tree.map(jnp.ones_like, state.params)
    _, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, state.params.weights)
    state = state._replace(params=state.params._replace(weights=doubled), opt_state=opt_state)
    after = measured_again(state, 1)
    before_net, _ = net.rebuild(state.params.weights, state.aux)
    after_net, _ = net.rebuild(after.params.weights, after.aux)
    np.testing.assert_allclose(before_net["w"], after_net["w"], rtol=1e-6)
    assert float(unit_of(after.params.weights.groups["weights"][0])) == pytest.approx(1, rel=1e-4)
    # A gradient is in inverse units; Adam's step does not depend on them.
    change = after.aux.units["weights"][0].size / state.aux.units["weights"][0].size
    rescaled = jax.tree.map(lambda g: g * change, gradient)
    ours, _ = optimizer.update(rescaled, after.opt_state, after.params)
    theirs, _ = optimizer.update(gradient, state.opt_state, state.params)
    np.testing.assert_allclose(
        ours.weights.groups["weights"][0], theirs.weights.groups["weights"][0], rtol=1e-4
    )


def digits():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)
    return (
        {"x": images[:1200], "y": labels[:1200]},
        {"x": images[1200:], "y": labels[1200:]},
    )


def logits(params, x, scales=(1.0, 1.0)):
    hidden = jax.nn.relu(x @ (params["one"] / scales[0]) + params["bias"][None])
    return hidden @ (params["two"] / scales[1])


def loss_of(scales):
    def loss(params, batch):
        found = logits(params, batch["x"], scales)
        return optax.softmax_cross_entropy_with_integer_labels(found, batch["y"]).mean()

    return loss


@pytest.fixture(scope="module")
def pretrained():
    data, held_out = digits()
    keys = jax.random.split(jax.random.key(0))
    params = {
        "one": 0.15 * jax.random.normal(keys[0], (64, 60)),
        "bias": jnp.zeros(60),
        "two": 0.15 * jax.random.normal(keys[1], (60, 10)),
    }
    trained = train(params, loss_of((1.0, 1.0)), data, optax.adam(3e-3), epochs=30, batch_size=50)
    return trained.params, data, held_out


def compressed(pretrained, scales, config):
    """The net with its kernels stored in other scales, which ``loss`` divides out: compressed."""
    params, data, held_out = pretrained
    stored = params | {"one": params["one"] * scales[0], "two": params["two"] * scales[1]}
    result = compress(stored, loss_of(scales), data, config)
    found = logits(result.params, held_out["x"], scales)
    error = float(np.mean(np.argmax(found, -1) != held_out["y"]))
    return result, error, len(swsjax.dumps(result.params))


@pytest.fixture(scope="module")
def as_it_is(pretrained):
    return compressed(pretrained, (1.0, 1.0), SHORT)


@pytest.fixture(scope="module")
def otherwise(pretrained):
    return compressed(pretrained, (2.0**-7, 2.0**5), SHORT)


def test_kernels_stored_in_other_powers_of_two_end_with_the_same_levels(as_it_is, otherwise):
    """Every operation in units is then the same, to the bit."""
    plain, error, size = as_it_is
    other, same_error, same_size = otherwise
    assert error == same_error
    assert error < 0.1
    assert abs(size - same_size) <= 8  # their units are written
    for name, factor in (("one", 2.0**-7), ("two", 2.0**5), ("bias", 1.0)):
        np.testing.assert_array_equal(plain.params[name] * factor, other.params[name])


@pytest.mark.slow
@pytest.mark.parametrize("scales", [(0.01, 1.0), (0.1, 0.1), (10.0, 10.0), (100.0, 0.01)])
def test_kernels_stored_in_any_scale_end_at_the_same_error_and_size(pretrained, scales):
    config = Config(batch_size=50)
    _, error, size = compressed(pretrained, (1.0, 1.0), config)
    _, other_error, other_size = compressed(pretrained, scales, config)
    assert abs(error - other_error) <= 0.01
    assert abs(size - other_size) <= 0.15 * size


def test_what_is_written_has_one_codebook_and_a_unit_for_each_array(otherwise):
    result, _, _ = otherwise
    shared = result.history[-1].details.levels
    values = [len(np.unique(leaf)) for leaf in jax.tree.leaves(result.params)]
    assert max(values) <= shared < sum(values) - 1


def test_figures_show_weights_where_the_components_are(otherwise):
    pytest.importorskip("matplotlib")
    from swsjax.sws.plot.weights import _flat

    result, _, _ = otherwise
    drawn = np.unique(_flat(result.params, result, "weights"))
    means = np.append(np.asarray(result.mixtures["weights"].means), 0)
    assert abs(drawn[:, None] - means).min(axis=1).max() < 0.01 * abs(means).max()


def test_a_result_is_a_start_in_its_own_units(pretrained, as_it_is):
    """Units measured again would move the weights away from the components."""
    params, data, _ = pretrained
    first, _, _ = as_it_is
    still = LearningRates(weights=0.0, means=0.0, mixing=0.0)
    config = replace(SHORT, soft_epochs=0, hard_epochs=1, hard_learning_rates=still)
    again = compress(params, loss_of((1.0, 1.0)), data, config, start=first)
    for name in params:
        np.testing.assert_allclose(again.params[name], first.params[name], rtol=1e-6)
