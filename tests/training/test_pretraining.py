"""Pretraining against NumPy, and as `train` with AdamW."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swsjax.errors import CheckpointError, ConfigError
from swsjax.training.loop import train
from swsjax.training.losses import cross_entropy
from swsjax.training.pretraining import PretrainConfig, SgdConfig, pretrain


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
    trained = pretrain(jnp.asarray(8.0), squared, np.full(8, 2.0), config)  # 2 steps per epoch
    np.testing.assert_allclose(trained.params, adamw(8.0, 2.0, 10, 0.3, 0.1), rtol=1e-4)


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps():
    data = np.array([1.0, 1.0, 3.0, 3.0] * 2, np.float32)
    config = PretrainConfig(epochs=3, learning_rate=0.0, batch_size=4)
    trained = pretrain(jnp.asarray(8.0), squared, data, config)
    assert trained.params == 8
    assert [(epoch.stage, epoch.epoch, epoch.epochs) for epoch in trained.history] == [
        ("train", 1, 3),
        ("train", 2, 3),
        ("train", 3, 3),
    ]
    losses = [epoch.loss for epoch in trained.history]
    np.testing.assert_allclose(losses, 0.5 * np.mean((data - 8) ** 2), rtol=1e-6)


def carrying_loss(params, aux, batch):
    noise = 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(0), aux["steps"]))
    error = batch["x"] @ params["w"] + params["b"][None] + noise - batch["y"]
    return jnp.mean(error**2), {"steps": aux["steps"] + 1}


def test_pretraining_is_train_with_adamw_to_the_last_bit():
    rng = np.random.default_rng(0)
    data = {"x": np.float32(rng.normal(size=(50, 4))), "y": np.float32(rng.normal(size=(50, 3)))}
    params = {"w": np.float32(rng.normal(size=(4, 3))), "b": np.zeros(3, np.float32)}
    aux = {"steps": jnp.zeros((), jnp.int32)}
    config = PretrainConfig(
        epochs=4, learning_rate=0.02, weight_decay=0.3, batch_size=8, seed=5
    )  # 6 steps per epoch
    seen = []
    ours = pretrain(params, carrying_loss, data, config, aux=aux, callback=seen.append)
    optimizer = optax.adamw(optax.cosine_decay_schedule(0.02, 24), weight_decay=0.3)
    theirs = train(params, carrying_loss, data, optimizer, epochs=4, batch_size=8, seed=5, aux=aux)
    assert ours.history == theirs.history == seen
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)
    assert ours.aux["steps"] == 24


def one_cycle(steps, peak):
    """Learning rates: half a cosine up from 1/25 of the peak, and half a cosine down."""
    up = int(0.3 * steps)
    rising = peak / 25 + (peak - peak / 25) * (1 - np.cos(np.pi * np.arange(up) / up)) / 2
    falling = peak * (1 + np.cos(np.pi * np.arange(steps - up) / (steps - up))) / 2
    return np.concatenate([rising, falling])


def test_sgd_is_nesterov_with_one_cycle_and_decay_of_kernels():
    config = SgdConfig(
        epochs=5, learning_rate=0.1, weight_decay=0.2, batch_size=4, momentum=0.8
    )  # 2 steps per epoch
    start = {"kernel": np.full((1, 1), 8.0), "bias": np.full(1, 8.0)}

    def loss(params, batch):
        return squared(params["kernel"].sum(), batch) + squared(params["bias"].sum(), batch)

    trained = pretrain(start, loss, np.full(8, 2.0), config)
    for name, decay in (("kernel", 0.2), ("bias", 0.0)):
        x, trace = 8.0, 0.0
        for rate in one_cycle(10, 0.1):
            gradient = x - 2.0 + decay * x
            trace = gradient + 0.8 * trace
            x -= rate * (gradient + 0.8 * trace)
        np.testing.assert_allclose(trained.params[name].item(), x, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_sgd_of_few_steps(steps):
    config = SgdConfig(epochs=steps, learning_rate=0.1, batch_size=4)
    trained = pretrain(jnp.asarray(8.0), squared, np.full(4, 2.0), config)
    assert 2 < trained.params < 8


def test_the_loss_of_sgd_smooths_the_labels():
    logits = np.random.default_rng(0).normal(size=(6, 5))
    labels = np.array([0, 4, 2, 2, 1, 3])
    batch = {"inputs": jnp.asarray(logits), "labels": jnp.asarray(labels)}
    loss = SgdConfig(label_smoothing=0.2).loss(lambda params, x: x)
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = 0.8 * np.eye(5)[labels] + 0.2 / 5
    np.testing.assert_allclose(
        loss(None, batch), -(targets * log_shares).sum(axis=1).mean(), rtol=1e-5
    )
    plain = cross_entropy(lambda params, x: x)
    assert PretrainConfig().loss(lambda params, x: x)(None, batch) == plain(None, batch)
    with pytest.raises(ConfigError, match=r"^label_smoothing must lie in \[0, 1\], got 2$"):
        cross_entropy(lambda params, x: x, label_smoothing=2)


def test_pretraining_augments():
    changed = pretrain(
        jnp.asarray(8.0),
        squared,
        np.full(8, 100.0),
        SgdConfig(epochs=30, batch_size=4),
        augment=lambda key, batch: 0 * batch + 3,
    )
    np.testing.assert_allclose(changed.params, 3, atol=0.1)


def test_the_augmentation_of_sgd_is_cropping_and_flipping():
    images = jnp.asarray(np.random.default_rng(0).random((32, 6, 6, 3)))
    assert PretrainConfig().augment() is None
    changed = SgdConfig(pad=0).augment()(jax.random.key(0), {"inputs": images})["inputs"]
    np.testing.assert_array_equal(np.sort(changed, axis=2), np.sort(images, axis=2))
    assert (changed != images).any()


def test_the_seed_decides_the_order():
    data = np.random.default_rng(0).normal(size=32).astype(np.float32)
    params = {"jax": jnp.asarray(8.0), "numpy": np.zeros(2, np.float32)}

    def loss(params, batch):
        return squared(params["jax"], batch) + jnp.sum((params["numpy"] - batch[0]) ** 2)

    run = partial(pretrain, params, loss, data)
    first, again, other = (
        run(PretrainConfig(epochs=2, learning_rate=0.1, batch_size=4, seed=seed)).params
        for seed in (0, 0, 1)
    )
    assert jax.tree.map(jnp.array_equal, first, again) == {"jax": True, "numpy": True}
    assert not jnp.array_equal(first["jax"], other["jax"])
    # The caller's arrays are not donated and not changed.
    assert params["jax"] == 8
    np.testing.assert_array_equal(params["numpy"], 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be finite and not negative, got -1.0"),
        ({"weight_decay": np.inf}, "weight_decay must be finite and not negative, got inf"),
        (
            {"batch_size": 9},
            "data hold 8 examples, fewer than a batch of 9; set a smaller batch_size",
        ),
    ],
)
def test_settings_out_of_range(settings, message):
    for kind in (PretrainConfig, SgdConfig):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            pretrain(jnp.zeros(()), squared, jnp.ones(8), kind(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum must be in [0, 1), got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be in [0, 1), got -0.1"),
        ({"pad": -1}, "pad must not be negative, got -1"),
        ({"pad": 1.5}, "pad must be an integer, got 1.5"),
    ],
)
def test_settings_of_sgd_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        SgdConfig(**settings)


class StoppedError(Exception):
    """Raised by the callback of a run."""


@pytest.mark.parametrize("kind", [PretrainConfig, SgdConfig])
def test_a_stopped_pretraining_ends_as_if_it_never_stopped(kind, tmp_path):
    config = kind(epochs=5, learning_rate=0.1, batch_size=4)
    data = np.random.default_rng(0).normal(size=16).astype(np.float32)
    seen = []

    def stop(epoch):
        seen.append(epoch.epoch)
        if len(seen) == 3:
            raise StoppedError

    run = partial(pretrain, jnp.asarray(8.0), squared, data, config)
    with pytest.raises(StoppedError):
        run(callback=stop, resume=tmp_path)
    resumed = run(callback=stop, resume=tmp_path)
    whole = run()
    assert seen == [1, 2, 3, 4, 5]
    assert resumed.history == whole.history
    assert resumed.params == whole.params


def test_a_pretraining_with_other_settings_is_not_resumed(tmp_path):
    run = partial(pretrain, jnp.asarray(8.0), squared, np.full(8, 2.0, np.float32))
    config = PretrainConfig(epochs=2, batch_size=4)
    with pytest.raises(ConfigError):  # before there is any state
        pretrain(
            jnp.asarray(8),
            squared,
            np.ones(8),
            PretrainConfig(2, 0.3, batch_size=4),
            resume=tmp_path,
        )
    first = run(config, resume=tmp_path)
    assert run(config, resume=tmp_path).params == first.params
    message = (
        f"{tmp_path} holds a run with other settings; choose a different folder, or delete this "
        "one to start again"
    )
    for other in ({"learning_rate": 2e-3}, {"weight_decay": 0.1}):
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
            run(PretrainConfig(epochs=2, batch_size=4, **other), resume=tmp_path)
