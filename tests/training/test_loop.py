"""Training: any optimiser, state, projections, and runs that are interrupted and resumed."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import killed_training
import numpy as np
import optax
import pytest
from interrupting import PowerCutError, interrupt_at
from killed_training import DATA, PARAMS, everything, loss_fn, run

from swsjax.errors import CheckpointError, ConfigError, RetrainingError
from swsjax.file.files import load
from swsjax.training.loop import train
from swsjax.training.masks import hold_zeros
from swsjax.training.stream import Stream, stream_arrays

SCRIPT = Path(killed_training.__file__)
EPOCHS = killed_training.EPOCHS


def squared(params, batch):
    return 0.5 * jnp.mean((batch - params) ** 2)


def assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


OPTIMIZERS = {
    "SGD with momentum, on a schedule": optax.sgd(
        optax.piecewise_constant_schedule(0.2, {3: 0.1}), momentum=0.9
    ),
    "Lion": optax.lion(optax.linear_schedule(0.3, 0.0, 8)),
    "clipping before Adam": optax.chain(optax.clip(0.5), optax.adam(0.1)),
    "one optimiser per leaf": optax.multi_transform(
        {"fast": optax.sgd(0.5), "still": optax.set_to_zero()}, {"x": "fast", "y": "still"}
    ),
    "two steps as one": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "a state that holds the weights themselves": optax.contrib.prodigy(0.5),
    "a state that holds their averages": optax.contrib.schedule_free_sgd(0.2),
    "a rate that depends on the way from the first weights": optax.contrib.dog(0.5),
    "a step that depends on the loss": optax.polyak_sgd(),
    "a schedule that depends on the loss": optax.chain(
        optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=2, rtol=0.5)
    ),
    "a line search": optax.lbfgs(memory_size=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer(name):
    """All batches are alike, so that their order has no influence."""
    optimizer, target = OPTIMIZERS[name], jnp.full(4, 2.0)

    def loss(params, batch):
        return squared(params["x"], batch) + jnp.mean((params["y"] - batch) ** 4) / 50

    trained = train(
        {"x": np.float32(5), "y": np.float32(-1)},
        loss,
        np.full(8, 2, np.float32),
        optimizer,
        epochs=4,
        batch_size=4,
    )
    extended = optax.with_extra_args_support(optimizer)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params, target)
        updates, state = extended.update(
            gradient,
            state,
            params,
            value=value,
            grad=gradient,
            value_fn=partial(loss, batch=target),
        )
        return optax.apply_updates(params, updates), state, value

    params = {"x": jnp.float32(5), "y": jnp.float32(-1)}
    state, losses = optimizer.init(params), []
    for _ in range(8):
        params, state, value = step(params, state)
        losses.append(value)
    for leaf in ("x", "y"):
        np.testing.assert_allclose(trained.params[leaf], params[leaf], rtol=1e-5)
    expected = np.reshape(losses, (4, 2)).mean(axis=1)
    np.testing.assert_allclose([p.loss for p in trained.history], expected, rtol=1e-4, atol=1e-7)


def test_aux_is_carried_from_step_to_step():
    data = np.arange(12, dtype=np.float32)

    def loss(params, aux, batch):
        key, _ = jax.random.split(aux["key"])
        return squared(params, batch), {"key": key, "sum": aux["sum"] + batch.sum()}

    aux, seen = {"key": jax.random.key(7), "sum": jnp.zeros(())}, []

    def evaluate(params, aux):
        seen.append((float(params), float(aux["sum"])))
        return len(seen) / 10

    trained = train(
        np.float32(3),
        loss,
        data,
        optax.sgd(0.1),
        epochs=3,
        batch_size=4,
        aux=aux,
        evaluate=evaluate,
    )
    key = aux["key"]
    for _ in range(9):
        key, _ = jax.random.split(key)
    assert trained.aux["key"] == key
    assert trained.aux["sum"] == 3 * data.sum()
    assert [total for _, total in seen] == [66, 132, 198]
    assert seen[-1][0] == trained.params
    assert [epoch.error for epoch in trained.history] == [0.1, 0.2, 0.3]
    assert aux["sum"] == 0  # the caller's arrays are not donated


def noisy(key, batch):
    """Noise whose size shows how often it was added."""
    return batch + jax.random.normal(key, batch.shape)


@pytest.mark.parametrize("is_stream", [False, True])
def test_augmentation_changes_every_batch_of_its_own(is_stream):
    """With data of zero and a rate of 0, aux collects what the loss saw."""
    data = np.zeros(12, np.float32)

    def loss(params, aux, batch):
        return squared(params, batch), {"seen": jnp.roll(aux["seen"], 4).at[:4].set(batch)}

    def run(**options):
        trained = train(
            jnp.zeros(()),
            loss,
            stream_arrays(data, batch_size=4) if is_stream else data,
            optax.sgd(0.0),
            epochs=3,
            batch_size=4,
            aux={"seen": jnp.zeros(36)},
            **options,
        )
        return np.asarray(trained.aux["seen"])

    assert not run().any()
    seen = run(augment=noisy)
    assert len(np.unique(seen)) == 36
    assert abs(seen.mean()) < 0.8  # five standard errors
    np.testing.assert_array_equal(run(augment=noisy), seen)
    assert not np.isin(run(augment=noisy, seed=1), seen).any()


def test_augmentation_does_not_change_the_order_of_the_examples():
    def loss(params, aux, batch):
        return squared(params, 0.0), jnp.roll(aux, 4).at[:4].set(batch)

    data = np.arange(1, 13, dtype=np.float32)
    options = {"epochs": 2, "batch_size": 4, "aux": jnp.zeros(24)}
    plain, negated = (
        train(jnp.zeros(()), loss, data, optax.sgd(0.0), augment=augment, **options).aux
        for augment in (None, lambda key, batch: -batch)
    )
    np.testing.assert_array_equal(negated, -plain)


def test_the_keys_of_augmentation_are_not_those_of_the_order():
    """A key used twice would make the changes of a batch depend on the order."""
    keys = []

    def loss(params, aux, batch):
        return squared(params, batch["x"]), {
            "keys": jnp.roll(aux["keys"], 1, 0).at[0].set(batch["key"])
        }

    trained = train(
        jnp.zeros(()),
        loss,
        {"x": np.zeros(16, np.float32)},
        optax.sgd(0.0),
        epochs=3,
        batch_size=4,
        aux={"keys": jnp.zeros((12, 2), jnp.uint32)},
        augment=lambda key, batch: batch | {"key": jax.random.key_data(key)},
    )
    key = jax.random.key(0)
    for _ in range(5):
        key, shuffle = jax.random.split(key)
        keys += [jax.random.key_data(key).tolist(), jax.random.key_data(shuffle).tolist()]
    keys += trained.aux["keys"].tolist()
    assert len({tuple(key) for key in keys}) == 10 + 12


def test_projection_follows_every_step():
    """A step of SGD leads from anywhere to 2, the projection back to 1."""
    seen = []
    trained = train(
        jnp.zeros(()),
        squared,
        np.full(8, 2, np.float32),
        optax.sgd(1.0),
        epochs=2,
        batch_size=4,
        project=lambda params: jnp.minimum(params, 1),
        evaluate=lambda params: seen.append(float(params)) or 0.5,
    )
    assert trained.params == 1
    assert seen == [1, 1]
    # From 0 and then from 1; without a projection after the first step, it would be from 2.
    assert [epoch.loss for epoch in trained.history] == [(2 + 0.5) / 2, 0.5]


def test_before_epoch_changes_the_params_of_each_epoch():
    numbers = []

    def before_epoch(params, number):
        numbers.append((number, float(params)))
        return params + 10**number

    trained = train(
        jnp.zeros(()),
        squared,
        np.zeros(8, np.float32),
        optax.sgd(0.0),
        epochs=3,
        batch_size=4,
        before_epoch=before_epoch,
    )
    assert numbers == [(0, 0), (1, 1), (2, 11)]
    assert trained.params == 111
    assert [epoch.loss for epoch in trained.history] == [0.5, 0.5 * 11**2, 0.5 * 111**2]


def test_before_epoch_may_return_arrays_of_the_caller():
    """Rewinding to the initial weights must not donate them."""
    initial = {"w": jnp.full(3, 5.0), "tied": jnp.zeros(3)}
    initial["tied"] = initial["w"]
    trained = train(
        initial,
        lambda params, batch: squared(params["w"][0], batch) + squared(params["tied"][0], batch),
        np.full(8, 2, np.float32),
        optax.sgd(0.5),
        epochs=3,
        batch_size=8,
        before_epoch=lambda params, number: initial,
    )
    assert trained.params["w"].tolist() == trained.params["tied"].tolist() == [3.5, 5, 5]
    assert initial["w"].tolist() == [5, 5, 5]


@pytest.mark.parametrize("hold", [True, False])
def test_zeros_are_held_under_momentum_and_decay(hold):
    """Half of the weights are zero at the start, others become zero under way."""
    rng = np.random.default_rng(0)
    start = np.float32(rng.normal(size=20))
    start[:10] = 0

    def cut(params, number):
        return params.at[10:15].set(0) if number == 2 else params

    links = [
        optax.trace(0.9),
        optax.add_decayed_weights(0.1),
        optax.add_noise(0.01, 0.5, jax.random.key(0)),
        optax.scale(-0.1),
        *([hold_zeros()] if hold else []),
    ]
    trained = train(
        start,
        lambda params, batch: jnp.mean((batch - params[None]) ** 2),
        np.float32(rng.normal(size=(32, 20))),
        optax.chain(*links),
        epochs=4,
        batch_size=8,
        before_epoch=cut,
    )
    is_zero = np.asarray(trained.params == 0)
    assert is_zero.tolist() == [hold] * 15 + [False] * 5
    assert not np.isin(trained.params[15:], start).any()


def test_training_on_a_stream():
    rng = np.random.default_rng(0)
    examples, asked = np.float32(rng.normal(size=(3, 2, 4))), []

    def batches(number):
        asked.append(number)
        return list(examples[number])

    optimizer = optax.adam(0.1)
    stream = Stream(8, batches)
    trained = train(np.float32(1), squared, stream, optimizer, epochs=3, batch_size=4)
    params = jnp.float32(1)
    state, losses = optimizer.init(params), []
    for batch in examples.reshape(-1, 4):
        value, gradient = jax.value_and_grad(squared)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    assert asked == [0, 1, 2]
    np.testing.assert_allclose(trained.params, params, rtol=1e-5)
    expected = np.reshape(losses, (3, 2)).mean(axis=1)
    np.testing.assert_allclose([epoch.loss for epoch in trained.history], expected, rtol=1e-5)


def test_training_on_a_mesh(tmp_path, three_epochs):
    """Of eight devices, in a process of its own; interrupted and resumed there."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, SCRIPT.with_name("mesh_training.py"), tmp_path]
    subprocess.run(command, env=environment, check=True, timeout=120)
    ours, resumed = (
        load(tmp_path / f"{name}.sws", like=three_epochs) for name in ("whole", "resumed")
    )
    assert_equal(resumed, ours)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(three_epochs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def whole():
    return everything(run())


@pytest.fixture(scope="module")
def three_epochs():
    return everything(run(epochs=3))


def test_killed_and_resumed(tmp_path, whole):
    """With SIGKILL, during a step or while the state is written."""
    with subprocess.Popen(
        [sys.executable, SCRIPT, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        for _ in range(3):
            assert process.stdout.readline() == "epoch\n"
        time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    seen = []
    resumed = run(tmp_path, callback=lambda epoch: seen.append(epoch.epoch))
    assert seen == list(range(EPOCHS - len(seen) + 1, EPOCHS + 1))
    assert 0 < len(seen) <= EPOCHS - 3
    assert_equal(everything(resumed), whole)


def test_interrupted_twice_after_an_epoch(tmp_path, whole):
    seen = []
    for number in (1, 5):
        with pytest.raises(PowerCutError):
            run(tmp_path, callback=interrupt_at(number, seen))
    resumed = run(tmp_path, callback=lambda epoch: seen.append(epoch.epoch))
    assert seen == list(range(1, EPOCHS + 1))  # no epoch is trained twice
    assert_equal(everything(resumed), whole)


def test_augmented_training_resumes_as_if_it_had_never_stopped(tmp_path, three_epochs):
    def augment(key, batch):
        return batch | {"x": noisy(key, batch["x"])}

    expected = everything(run(augment=augment, epochs=3))
    with pytest.raises(PowerCutError):
        run(tmp_path, augment=augment, epochs=3, callback=interrupt_at(2))
    assert_equal(everything(run(tmp_path, augment=augment, epochs=3)), expected)
    assert (expected["params"]["w"] != three_epochs["params"]["w"]).any()


def test_a_stream_resumes_at_its_next_pass(tmp_path):
    stream = stream_arrays(killed_training.DATA, batch_size=20)
    expected = everything(run(data=stream, epochs=3))
    with pytest.raises(PowerCutError):
        run(tmp_path, data=stream, epochs=3, callback=interrupt_at(2))
    asked = []

    def batches(number):
        asked.append(number)
        return stream.batches(number)

    resumed = run(tmp_path, data=Stream(stream.size, batches), epochs=3)
    assert asked == [0, 0, 0, 2]  # the first batch tells whether it is the same run
    assert_equal(everything(resumed), expected)


def test_a_finished_run_is_not_repeated(tmp_path, whole):
    run(tmp_path)
    again = run(tmp_path, callback=interrupt_at(1))
    assert_equal(everything(again), whole)


def test_a_folder_of_a_different_run(tmp_path):
    with pytest.raises(PowerCutError):
        run(tmp_path, callback=interrupt_at(1))

    def other_loss(params, aux, batch):
        loss, aux = loss_fn(params, aux, batch)
        return loss + 0.1, aux

    moved = jax.tree.map(lambda x: x + 1, DATA)
    for what, change in {
        "settings": {"epochs": EPOCHS + 1, "seed": 1, "batch_size": 25},
        "weights": {"params": jax.tree.map(lambda x: x + 1, PARAMS)},
        "data": {"data": moved},
        "loss": {"loss_fn": other_loss},
        "settings and data": {"seed": 1, "data": moved},
    }.items():
        message = (
            f"{tmp_path} holds a run with other {what}; choose a different folder, or delete this "
            "one to start again"
        )
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
            run(tmp_path, **change)


@pytest.mark.parametrize("epochs", [0, 1.5, "2"])
def test_epochs_out_of_range(epochs):
    message = f"epochs must be an integer of at least 1, got {epochs!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        train(jnp.zeros(()), squared, np.ones(8), optax.sgd(0.1), epochs=epochs, batch_size=4)


def test_a_loss_that_is_not_finite():
    message = (
        "the loss is inf after epoch 2 of 5; lower the learning rate, or check that all data are "
        "finite and all labels in range"
    )
    history = []
    with pytest.raises(RetrainingError, match=f"^{re.escape(message)}$"):
        train(
            jnp.float32(1e5),
            squared,
            np.zeros(4, np.float32),
            optax.sgd(-1e20),
            epochs=5,
            batch_size=4,
            callback=history.append,
        )
    assert [epoch.epoch for epoch in history] == [1]


def test_an_augmentation_that_is_not_a_function():
    message = "augment must be a function of a key and a batch, got a bool; crop_and_flip is one"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        train(jnp.zeros(()), squared, np.ones(8), optax.sgd(0.1), epochs=1, augment=True)
