"""Statistics re-estimated for weights that have changed."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.sws import LEARNED, LearningRates, compress
from swsjax.training import Stream, take_apart
from swsjax.training.loop import feed_of
from swsjax.training.statistics import estimator, loss_meter

RNG = np.random.default_rng(0)
INPUTS = np.float32(RNG.normal(1.0, 2.0, (640, 5)))
TARGETS = np.float32(np.tanh(INPUTS @ RNG.normal(size=(5, 3))))
DATA = {"x": INPUTS, "y": TARGETS}
PARAMS = {"kernel": np.float32(RNG.normal(size=(5, 3)))}
MOMENTUM = 0.9


def normalised(params, x, mean, variance):
    return (x @ params["kernel"] - mean[None]) / jnp.sqrt(variance[None] + 1e-5)


def loss(params, aux, batch):
    """A layer with batch normalisation, a counter and a key."""
    hidden = batch["x"] @ params["kernel"]
    mean, variance = hidden.mean(axis=0), hidden.var(axis=0)
    error = jnp.mean((normalised(params, batch["x"], mean, variance) - batch["y"]) ** 2)
    running = [
        MOMENTUM * old + (1 - MOMENTUM) * new
        for old, new in zip(aux["running"], (mean, variance), strict=True)
    ]
    key, _ = jax.random.split(aux["key"])
    return error, {"running": running, "steps": aux["steps"] + 1, "key": key}


def start():
    return {
        "running": [jnp.zeros(3), jnp.ones(3)],
        "steps": jnp.zeros((), jnp.int32),
        "key": jax.random.key(0),
    }


def population(params):
    hidden = INPUTS @ np.asarray(params["kernel"])
    return hidden.mean(axis=0), hidden.var(axis=0)


def close(running, expected):
    for ours, theirs in zip(running, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.1, atol=0.15)


def estimated(data, aux):
    net = take_apart(PARAMS, aux)
    estimate = estimator(net.loss(loss), feed_of(data, 64), steps=60)
    return estimate(net.weights, net.carried)[0]


def test_statistics_become_those_of_the_weights():
    data = {name: np.tile(array, (8, 1)) for name, array in DATA.items()}
    found = estimated(data, start())
    close(found["running"], population(PARAMS))
    # A counter and a key belong to the training.
    assert found["steps"] == 0
    assert (jax.random.key_data(found["key"]) == jax.random.key_data(start()["key"])).all()


def test_statistics_have_8_significant_bits():
    net = take_apart(PARAMS, start() | {"scale": jnp.float32(1 / 3)})
    estimate = estimator(net.loss(lambda *net: (loss(*net)[0], net[1])), feed_of(DATA, 64), steps=1)
    rng = np.random.default_rng(0)
    running = [jnp.float32(rng.normal(size=3)) for _ in range(2)]
    (aux, _) = net.carried
    found, _ = estimate(net.weights, (aux | {"running": running}, ()))
    assert found["scale"] == np.float32(1 / 3)
    for ours, exact in zip(found["running"], running, strict=True):
        mantissas, _ = np.frexp(np.asarray(ours, np.float64))
        np.testing.assert_array_equal(mantissas * 2**8, np.round(mantissas * 2**8))
        np.testing.assert_allclose(ours, exact, rtol=2**-8)
        assert (ours != exact).any()


def test_examples_of_a_part_are_drawn_at_random():
    """The first half of sorted data would have other statistics."""
    order = np.argsort(INPUTS[:, 0])
    data = {name: np.repeat(array[order], 13, axis=0) for name, array in DATA.items()}
    close(estimated(data, start())["running"], population(PARAMS))


def test_statistics_from_a_stream():
    def batches(number):
        yield from (jax.tree.map(lambda x: x[:64], DATA) for _ in range(100))

    found = estimated(Stream(6400, batches), start())
    hidden = INPUTS[:64] @ PARAMS["kernel"]
    close(found["running"], (hidden.mean(axis=0), hidden.var(axis=0)))


def test_without_statistics_nothing_is_computed():
    calls = []

    def counted(params, aux, batch):
        calls.append(1)
        return jnp.zeros(()), aux

    net = take_apart(PARAMS, {"steps": jnp.zeros((), jnp.int32)})
    carried = estimator(net.loss(counted), feed_of(DATA, 64))(net.weights, net.carried)
    assert carried is net.carried
    assert not calls


def test_a_compressed_net_has_its_own_statistics():
    """They are those of the quantised net, in each record and at the end."""
    seen = []

    def evaluate(params, aux):
        mean, variance = aux["running"]
        seen.append((params, aux))
        outputs = normalised(params, INPUTS, mean, variance)
        return jnp.mean((outputs - TARGETS) ** 2)

    config = replace(
        LEARNED,
        components=4,
        pi_zero=0.5,
        initial_std=0.3,
        soft_epochs=1,
        hard_epochs=1,
        soft_learning_rates=LearningRates(weights=1e-4),
        batch_size=64,
        least_steps=60,
    )
    result = compress(PARAMS, loss, DATA, config, aux=start(), evaluate=evaluate)
    assert len(seen) == len(result.history) == 2
    for params, aux in [*seen, (result.params, result.aux)]:
        close(aux["running"], population(params))
    assert result.aux["steps"] == 2 * 60


def test_statistics_are_those_of_augmented_batches():
    """Twice the inputs have twice the mean and four times the variance."""
    net = take_apart(PARAMS, start())
    data = {name: np.tile(array, (8, 1)) for name, array in DATA.items()}

    def doubled(key, batch):
        del key
        return batch | {"x": 2 * batch["x"]}

    estimate = estimator(net.loss(loss), feed_of(data, 64, augment=doubled), steps=60)
    mean, variance = estimate(net.weights, net.carried)[0]["running"]
    close((mean / 2, variance / 4), population(PARAMS))


def test_each_batch_is_augmented_by_a_key_of_its_own():
    seen = []

    def loss(params, aux, batch):
        jax.debug.callback(lambda x: seen.append(x.item()), batch[0])
        return jnp.sum(params["kernel"] ** 2), aux

    net = take_apart(PARAMS, {"running": jnp.zeros(3)})
    feed = feed_of(np.zeros(40), 4, augment=lambda key, x: x + jax.random.uniform(key, x.shape))
    loss_meter(net.loss(loss), feed, steps=20)(net.weights, net.carried)
    estimator(net.loss(loss), feed, steps=20)(net.weights, net.carried)
    jax.effects_barrier()
    assert len(seen) == 40
    assert len(set(seen)) == 20  # the same ones in both
