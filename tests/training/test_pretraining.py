"""One epoch sees what it should; pretraining against NumPy and on digits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.lab.task import build, pretrain_classifier
from swsjax.lab.data import load_digits
from swsjax.errors import ConfigError
from swsjax.training.loop import PretrainConfig, TrainState, epoch, pretrain

INDICES = {"index": np.arange(12), "twice": 2 * np.arange(12)}


def record(state, batch):
    """Append the batch to the record in ``params``; ``opt_state`` counts the batches."""
    aligned = jnp.all(batch["twice"] == 2 * batch["index"])
    seen = state.params.at[state.opt_state].set(jnp.where(aligned, batch["index"], -1))
    return TrainState(seen, state.opt_state + 1, state.key), batch["index"].mean()


def start(seed, steps=4, batch_size=3):
    unseen = jnp.full((steps, batch_size), -1)
    return TrainState(unseen, jnp.zeros((), jnp.int32), jax.random.key(seed))


def order(seed=0, epochs=1, size=12, steps=4, batch_size=3):
    """What was seen in each epoch, and the mean infos."""
    data = jax.tree.map(lambda x: jnp.asarray(x[:size]), INDICES)
    state, orders, infos = start(seed, steps, batch_size), [], []
    for _ in range(epochs):
        state, info = epoch(record, state, data, batch_size=batch_size)
        orders.append(np.asarray(state.params).ravel().tolist())
        infos.append(info)
        state = state._replace(opt_state=jnp.zeros((), jnp.int32))
    return orders, infos


def test_every_example_once_in_each_epoch():
    orders, infos = order(epochs=3)
    assert [sorted(seen) for seen in orders] == [list(range(12))] * 3
    assert len({tuple(seen) for seen in orders}) == 3
    assert list(range(12)) not in orders
    np.testing.assert_allclose(infos, 5.5)


def test_order_depends_on_the_key_only():
    assert order(seed=1, epochs=2) == order(seed=1, epochs=2)
    assert order(seed=1)[0] != order(seed=2)[0]


def test_incomplete_batch_is_left_out_and_is_another_one_each_time():
    orders, _ = order(epochs=20, size=11, steps=3)
    assert all(len(set(seen)) == 9 and min(seen) >= 0 for seen in orders)
    assert set().union(*orders) == set(range(11))


def test_state_is_donated():
    state = start(0)
    epoch(record, state, jax.tree.map(jnp.asarray, INDICES), batch_size=3)
    assert state.params.is_deleted()


def test_epochs_compile_once():
    traces = []

    def step(state, batch):
        traces.append(batch["index"].shape)
        return record(state, batch)

    state = start(0)
    for _ in range(3):
        state, _ = epoch(step, state, INDICES, batch_size=3)
    assert traces == [(3,)]


def squared(params, batch):
    return 0.5 * jnp.mean((batch - params) ** 2)


def adamw(x, target, steps, rate, decay):
    """AdamW with a half cosine, on the squared distance from ``target``, in NumPy."""
    m = v = 0.0
    for t in range(steps):
        gradient = x - target
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        update = m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        x -= rate * (1 + np.cos(np.pi * t / steps)) / 2 * (update + decay * x)
    return x


def test_pretraining_is_adamw_with_a_half_cosine():
    config = PretrainConfig(epochs=5, learning_rate=0.3, weight_decay=0.1, batch_size=4)
    reports = []
    data = np.array([1.0, 1.0, 3.0, 3.0] * 2, np.float32)  # 2 batches an epoch
    trained = pretrain(jnp.asarray(8.0), squared, np.full(8, 2.0), config, callback=reports.append)
    np.testing.assert_allclose(trained, adamw(8.0, 2.0, 10, 0.3, 0.1), rtol=1e-4)
    assert [report[:2] for report in reports] == [(done, 5) for done in range(1, 6)]
    first_two = [8.0, adamw(8.0, 2.0, 10, 0.3, 0.1)]
    assert reports[0].loss < 0.5 * (first_two[0] - 2) ** 2
    still = pretrain(
        jnp.asarray(8.0),
        squared,
        data,
        PretrainConfig(epochs=1, learning_rate=0.0, batch_size=8),
        callback=reports.append,
    )
    assert still == 8
    np.testing.assert_allclose(reports[-1].loss, 0.5 * np.mean((data - 8) ** 2), rtol=1e-6)


def test_seed_decides_the_order():
    data = np.random.default_rng(0).normal(size=32).astype(np.float32)
    params = {"jax": jnp.asarray(8.0), "numpy": np.zeros(2, np.float32)}

    def loss(params, batch):
        return squared(params["jax"], batch) + jnp.sum((params["numpy"] - batch[0]) ** 2)

    train = partial(pretrain, params, loss, data)
    first, again, other = (
        train(PretrainConfig(epochs=2, learning_rate=0.1, batch_size=4, seed=seed))
        for seed in (0, 0, 1)
    )
    assert jax.tree.map(jnp.array_equal, first, again) == {"jax": True, "numpy": True}
    assert not jnp.array_equal(first["jax"], other["jax"])
    # The caller's arrays are not donated and not changed.
    assert params["jax"] == 8
    np.testing.assert_array_equal(params["numpy"], 0)


class Small(nnx.Module):
    def __init__(self, image_shape, classes, *, rngs):
        self.fc1 = nnx.Linear(64, 32, rngs=rngs)
        self.fc2 = nnx.Linear(32, classes, rngs=rngs)

    def __call__(self, images):
        return self.fc2(nnx.relu(self.fc1(images.reshape(len(images), -1))))


def test_digits_are_learned():
    digits = load_digits()
    untrained = build(Small, digits)
    losses = []
    trained = pretrain_classifier(
        untrained,
        digits,
        PretrainConfig(epochs=25, learning_rate=5e-3, batch_size=64),
        callback=lambda progress: losses.append(progress.loss),
    )
    assert untrained.error(digits.validation) > 0.5
    assert trained.error(digits.validation) < 0.1
    assert losses[-1] < 0.2 < 1 < losses[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        (
            {"batch_size": 9},
            "data hold 8 examples, fewer than a batch of 9; set batch_size in the config",
        ),
    ],
)
def test_what_cannot_be_trained_says_so(config, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        pretrain(jnp.zeros(()), lambda p, b: p * b.sum(), jnp.ones(8), PretrainConfig(**config))
