"""The schedule of every learning rate, and the optimiser that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swsjax.sws.prior import GaussianMixture
from swsjax.sws.rates import LearningRates
from swsjax.sws.step import Joint
from swsjax.training import Weights


def updates_of(rates, epochs, steps_per_epoch, gradient=1.0, steps=None):
    """Size of each step's update of one entry of each kind: Adam's learning rate."""
    optimizer = rates.optimizer(epochs, steps_per_epoch)
    mixture = GaussianMixture(*(jnp.zeros(n) for n in (1, 2, 1, ())))
    trained = Joint(Weights({"weights": [jnp.zeros(2)]}, [jnp.zeros(2)]), {"weights": mixture})
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), trained)

    def body(state, _):
        updates, state = optimizer.update(gradients, state, trained)
        return state, updates

    _, (weights, mixtures) = jax.lax.scan(
        body, optimizer.init(trained), length=steps or epochs * steps_per_epoch
    )
    mixture = mixtures["weights"]
    assert jnp.array_equal(mixture.mixing_logits[:, 0], mixture.zero_logit)
    assert jnp.array_equal(mixture.log_precisions[:, 0], mixture.log_precisions[:, 1])
    (compressed,), (free,) = weights.groups["weights"], weights.free
    assert jnp.array_equal(compressed, free)
    kinds = (compressed, mixture.means, mixture.log_precisions, mixture.mixing_logits)
    return -np.stack([kind[:, 0] for kind in kinds])


PEAKS = np.array([1e-3, 2e-4, 3e-3, 4e-2])


def rates(**settings):
    return LearningRates(*PEAKS, **settings)


def test_each_kind_of_parameter_has_its_constant_learning_rate():
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


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 3.0])
def test_the_schedule_is_that_of_optax_also_for_a_traced_number_of_epochs(warmup_epochs):
    learning_rates = LearningRates(warmup_epochs=warmup_epochs, final=0.25)

    @jax.jit
    def values(epochs):
        return 0.5 * learning_rates._schedule(epochs, 4)(jnp.arange(24))

    for epochs in (1, 5):
        warmup = round(4 * warmup_epochs)
        theirs = optax.warmup_cosine_decay_schedule(
            0.0 if warmup else 0.5, 0.5, warmup, max(4 * epochs, warmup + 1), 0.125
        )
        expected = [theirs(step) for step in range(24)]
        np.testing.assert_allclose(values(epochs), expected, rtol=1e-5, atol=1e-9)
    assert values._cache_size() == 1


def test_cosine_without_warm_up_starts_at_the_peak():
    ours = updates_of(rates(final=0.0), 2, 5)
    expected = PEAKS[:, None] * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-9)


def test_warm_up_may_be_longer_than_the_stage():
    ours = updates_of(rates(warmup_epochs=10.0), 1, 4)
    np.testing.assert_allclose(ours, PEAKS[:, None] * np.arange(4) / 40, rtol=1e-4, atol=1e-9)


def test_epsilon_acts_on_the_weights_only():
    ours = updates_of(rates(epsilon=1e-5), 1, 1, gradient=1e-5)[:, 0]
    np.testing.assert_allclose(ours, PEAKS * [0.5, 1, 1, 1], rtol=2e-3)


def test_any_optimiser_for_the_weights():
    ours = updates_of(LearningRates(optax.sgd(0.5), *PEAKS[1:]), 3, 4, gradient=2.0)
    np.testing.assert_allclose(ours[0], np.ones(12), rtol=1e-6)
    np.testing.assert_allclose(ours[1:], np.repeat(PEAKS[1:, None], 12, axis=1), rtol=1e-4)


def test_a_pull_is_the_learning_rate_times_dampening_over_the_width_in_the_second_half():
    settings = {"warmup_epochs": 1.5, "final": 0.25}
    pull = rates(dampening=3.0, **settings).pull(5, 4, width=0.5)
    learning_rates = updates_of(rates(**settings), 5, 4)[0]
    rising = np.concatenate([np.zeros(10), (1 - np.cos(np.pi * np.arange(10) / 10)) / 2])
    ours = [float(pull(step)) for step in range(20)]
    np.testing.assert_allclose(ours, 6 * learning_rates * rising, rtol=1e-4, atol=1e-9)


def test_a_pull_goes_no_further_than_to_the_mean():
    pull = LearningRates(0.1, dampening=4.0).pull(1, 4, width=0.02)
    assert [float(pull(step)) for step in (2, 3)] == [0.0, 1.0]


def test_no_pull_without_dampening():
    assert LearningRates(optax.sgd(0.5)).pull(1, 4, width=0.1) is None
