"""What follows pruning, against steps written out; run as a script, a fine-tuning to be killed."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from small_tasks import images, small, untrained

import swsjax
from swsjax.baselines import density, kernels, magnitude
from swsjax.baselines.finish import (
    FINE_TUNING,
    fine_tune,
    reinitialised,
    retrain,
    rewind,
    scratch,
    scratch_b_epochs,
)
from swsjax.baselines.in_training import seed_of
from swsjax.baselines.weights import with_kernels
from swsjax.errors import ConfigError
from swsjax.lab import Variables, classification
from swsjax.training import PretrainConfig, SgdConfig, crop_and_flip, pretrain

KEY = jax.random.key(3)
CONFIG = PretrainConfig(epochs=3, learning_rate=0.01, batch_size=32)
EPOCHS = 20  # of the run that is killed
NAMES = pytest.mark.parametrize("name", ["two layers", "bfloat16", "normalised"])


def assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


def differ(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return any((x != y).any() for x, y in pairs)


def zeros(net):
    return {name: np.asarray(kernel) == 0 for name, kernel in kernels(net).items()}


def pruned(name, keep=0.7):
    return magnitude(untrained(name), keep)


def killed_run(folder=None):
    return fine_tune(
        small("two layers"),
        pruned("two layers"),
        epochs=EPOCHS,
        key=KEY,
        batch_size=32,
        augment=partial(crop_and_flip, pad=1),
        resume=folder,
    )


SGD = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9, nesterov=True))
ADAM = optax.adamw(0.01, weight_decay=0.1)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("two layers", SGD), ("two layers", ADAM), ("bfloat16", SGD), ("normalised", SGD)],
    ids=["sgd", "adamw", "bfloat16", "normalised"],
)
def test_kernels_keep_their_zeros_and_all_else_is_trained(name, optimizer):
    before = pruned(name)
    after = fine_tune(small(name), before, epochs=2, batch_size=32, key=KEY, optimizer=optimizer)
    assert_equal(zeros(after), zeros(before))
    assert swsjax.trees.form_of(after) == swsjax.trees.form_of(before)
    for (path, old), new in zip(
        jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        moved = np.asarray(old != new)
        is_kernel = path[0].name == "params" and old.ndim > 1
        if name != "bfloat16":  # in which a step may be smaller than a rounding
            assert (moved[np.asarray(old != 0)] if is_kernel else moved).all(), path


def written_out_gradient(task, decay):
    """Of the mean cross-entropy of all training images and half of the squared weights."""
    pixels, labels = task.dataset.train

    def loss(params):
        logits = task.apply(params, {}, jnp.asarray(pixels))[0]
        surprise = jax.nn.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
        return surprise.mean() + decay / 2 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    return jax.jit(jax.grad(loss))


def test_fine_tuning_is_sgd_with_momentum_and_decay_of_weights_that_are_not_zero():
    """Three steps on all images, so that their order does not matter."""
    task, net = small("two layers"), pruned("two layers")
    ours = fine_tune(task, net, epochs=3, batch_size=96, key=KEY)
    masks = jax.tree.map(lambda x: np.where(x.ndim > 1, np.asarray(x != 0), True), net.params)
    params, gradient = jax.tree.map(np.asarray, net.params), written_out_gradient(task, 1e-4)
    trace = jax.tree.map(np.zeros_like, params)
    for _ in range(3):
        slopes = jax.tree.map(np.asarray, gradient(params))
        trace = jax.tree.map(lambda t, g: np.float32(0.9) * t + g, trace, slopes)
        params = jax.tree.map(
            lambda x, t, kept: x - np.float32(1e-3) * t * kept, params, trace, masks
        )
    for x, y, old in zip(*map(jax.tree.leaves, (ours.params, params, net.params)), strict=True):
        np.testing.assert_allclose(x - old, y - old, rtol=1e-3, atol=1e-7)


def test_fine_tuning_augments():
    """Of images without light the first kernel has no gradient."""
    black = partial(lambda key, batch: batch | {"inputs": 0 * batch["inputs"]})
    task, net, sgd = small("two layers"), pruned("two layers"), optax.sgd(0.1)
    run = partial(fine_tune, task, net, epochs=1, batch_size=32, key=KEY, optimizer=sgd)
    assert_equal(run(augment=black).params["fc1"]["kernel"], net.params["fc1"]["kernel"])
    assert differ(run().params["fc1"]["kernel"], net.params["fc1"]["kernel"])


def test_the_key_decides_the_order():
    task, net = small("two layers"), pruned("two layers")
    run = partial(fine_tune, task, net, epochs=1, batch_size=32)
    assert_equal(run(key=KEY), run(key=KEY))
    assert differ(run(key=KEY), run(key=jax.random.key(4)))


@pytest.mark.parametrize(
    ("name", "config"),
    [("two layers", CONFIG), ("normalised", SgdConfig(epochs=2, batch_size=32, pad=1))],
    ids=["adamw", "sgd"],
)
def test_retraining_a_dense_net_is_its_pretraining(name, config):
    task, net = small(name), untrained(name)
    expected = pretrain(
        net.params,
        task.loss(config.loss),
        task.data(),
        replace(config, seed=seed_of(KEY)),
        aux=net.aux,
        augment=config.augment(),
    )
    ours = jax.tree.leaves(retrain(task, net, config, key=KEY))
    for x, y in zip(ours, jax.tree.leaves((expected.params, expected.aux)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["two layers", "bfloat16"])
def test_retraining_and_scratch_keep_zeros_and_learn(name):
    task, net = small(name), pruned(name)
    config = replace(CONFIG, epochs=20, learning_rate=0.05)
    for trained in (retrain(task, net, config, key=KEY), scratch(task, net, config, key=KEY)):
        assert_equal(zeros(trained), zeros(net))
        assert task.error(trained, task.dataset.train) < 0.4 < task.error(net, task.dataset.train)


def test_scratch_takes_nothing_but_zeros_from_the_net():
    task, net = small("two layers"), pruned("two layers")
    other = Variables(*jax.tree.map(lambda x: 2 * x, tuple(net)))
    ours = scratch(task, net, CONFIG, key=KEY)
    assert_equal(scratch(task, other, CONFIG, key=KEY), ours)
    assert differ(scratch(task, net, CONFIG, key=jax.random.key(4)), ours)


class Wide(nnx.Module):
    """One convolution by He's initialiser with the number of outputs, as Liu et al. have it."""

    def __init__(self, image_shape, classes, *, rngs):
        he = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.conv = nnx.Conv(1, 400, (3, 3), kernel_init=he, rngs=rngs)
        self.fc = nnx.Linear(400, classes, rngs=rngs)

    def __call__(self, images):
        return self.fc(nnx.relu(self.conv(images[..., None])).mean((1, 2)))


@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_the_deviation_of_a_new_initialisation_is_that_of_the_code_of_liu(keep):
    task = classification(Wide, images(4, 4))
    net = magnitude(task.init(0), keep)
    kernel = kernels(reinitialised(task, net, key=KEY))["conv/kernel"]
    left = np.asarray(kernel[kernel != 0])
    inputs = kernel.shape[2]
    assert left.size == np.count_nonzero(net.params["conv"]["kernel"])
    assert left.std() == pytest.approx(np.sqrt(2 / (left.size / inputs)), rel=0.1)


@NAMES
def test_a_new_initialisation_is_the_nets_own_divided_by_the_root_of_the_density(name):
    task, net = small(name), pruned(name)
    ours, fresh = reinitialised(task, net, key=KEY), task.init(seed_of(KEY))
    for kernel, start, dead in zip(
        *(tree.values() for tree in (kernels(ours), kernels(fresh), zeros(net))), strict=True
    ):
        expected = np.where(dead, 0, np.float32(start) / np.sqrt(max(1 - dead.mean(), 1e-9)))
        np.testing.assert_allclose(
            np.float32(kernel), expected, rtol=1e-2 if name[0] == "b" else 1e-6
        )
        assert kernel.dtype == start.dtype
    assert_equal(with_kernels(ours, kernels(fresh)), fresh)


def test_a_kernel_without_weights_stays_empty():
    net = untrained("two layers")
    empty = with_kernels(net, kernels(net) | {"fc1/kernel": jnp.zeros((16, 8))})
    found = kernels(reinitialised(small("two layers"), empty, key=KEY))
    assert (found["fc1/kernel"] == 0).all()
    assert (found["fc2/kernel"] != 0).all()


def test_a_ticket_has_the_initial_weights_and_statistics():
    init, net = untrained("normalised"), pruned("normalised")
    trained = Variables(*jax.tree.map(lambda x: 3 * x, tuple(net)))
    ticket = rewind(trained, init)
    assert_equal(zeros(ticket), zeros(net))
    for name, kernel in kernels(init).items():
        np.testing.assert_array_equal(kernels(ticket)[name], np.where(zeros(net)[name], 0, kernel))
    assert_equal(with_kernels(ticket, kernels(init)), init)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_initial_zero_is_not_a_pruned_weight(dtype):
    net = Variables({"kernel": jnp.array([[0, 1, 1]], dtype), "bias": jnp.zeros(3, dtype)}, ())
    init = Variables({"kernel": jnp.array([[1, 0, -2]], dtype), "bias": jnp.zeros(3, dtype)}, ())
    ticket = rewind(net, init)
    assert ticket.params["kernel"].tolist() == [[0, float(jnp.finfo(dtype).tiny), -2]]
    assert ticket.params["bias"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("epochs", "large", "small", "expected"),
    [
        (160, 2, 1, 320),
        (160, 3, 2, 240),
        (40, 1, 1, 40),
        (1, 7, 2, 3),
        (5, 1, 2, 2),
        (40, 1.0, 0.3, 133),
    ],
)
def test_epochs_of_scratch_b(epochs, large, small, expected):
    assert scratch_b_epochs(epochs, large, small) == expected


@given(st.integers(1, 500), st.integers(1, 10**9), st.floats(1e-3, 1))
def test_scratch_b_costs_as_much_as_the_large_net(epochs, large, share):
    small = max(1, int(large * share))
    found = scratch_b_epochs(epochs, large, small)
    assert type(found) is int
    assert found * small <= epochs * large < (found + 1) * small


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2, 1), "epochs must be a positive number, got 0"),
        ((1, 2, 0), "small must be a positive number, got 0"),
        ((1, np.inf, 1), "large must be a positive number, got inf"),
        (
            (2, 1, 5),
            "2 epochs of 1 operations are less than one of 5; pass the operations of the large "
            "net first",
        ),
    ],
)
def test_operations_out_of_range(arguments, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        scratch_b_epochs(*arguments)


@pytest.mark.parametrize("train", [partial(fine_tune, epochs=1), retrain], ids=["tune", "retrain"])
def test_weights_that_are_not_finite(train):
    net = untrained("two layers")
    bad = with_kernels(net, kernels(net) | {"fc2/kernel": jnp.full((8, 3), jnp.nan)})
    with pytest.raises(ConfigError, match=r"finite, got NaN or infinity in fc2/kernel; "):
        train(small("two layers"), bad, key=KEY)


@pytest.mark.parametrize("train", [retrain, scratch], ids=["retrain", "scratch"])
def test_data_fewer_than_a_batch(train):
    message = "data hold 96 examples, fewer than a batch of 97; set a smaller batch_size"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        train(small("two layers"), pruned("two layers"), PretrainConfig(batch_size=97), key=KEY)


def test_the_defaults_are_those_of_liu():
    updates, _ = FINE_TUNING.update(jnp.ones(1), FINE_TUNING.init(jnp.ones(1)), jnp.full(1, 100.0))
    assert updates.item() == pytest.approx(-1e-3 * (1 + 1e-4 * 100))


def test_a_tuned_net_returns_from_its_file():
    task = small("bfloat16")
    net = fine_tune(task, pruned("bfloat16"), epochs=1, batch_size=32, key=KEY)
    whole = task.whole(net)
    decoded = task.parts(swsjax.loads(swsjax.dumps(whole), like=whole))
    assert_equal(decoded, net)
    assert density(decoded) == density(pruned("bfloat16"))


@pytest.mark.slow
def test_fine_tuning_killed_and_resumed(tmp_path):
    """With SIGKILL, in the middle of training or while the state is written."""
    state, target = tmp_path / "state", tmp_path / "net.sws"
    with subprocess.Popen([sys.executable, __file__, state, target]) as process:
        while not list(state.glob("[2-9]")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    net = killed_run(state)
    assert sorted(int(path.name) for path in state.glob("[0-9]*")) == [EPOCHS - 1, EPOCHS]
    assert_equal(net, killed_run())


if __name__ == "__main__":
    swsjax.save(Path(sys.argv[2]), tuple(killed_run(Path(sys.argv[1]))))
