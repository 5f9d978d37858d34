"""A net and its copy that computes the same end the same, under one default."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import swsjax
from swsjax.sws import Config, compress
from swsjax.training import train

SHORT = Config(
    soft_epochs=6, hard_epochs=4, prune_epochs=0, tau=2.5e-6, batch_size=50, least_steps=1
)
EPSILON = 1e-5
POINT = 6.5 / 597  # of error: six of the examples held out
OPTIMIZER = optax.adam(3e-3)


class Copy(NamedTuple):
    """A net, how it is computed and trained, and its data."""

    params: dict[str, Any]
    data: dict[str, np.ndarray]
    held_out: dict[str, np.ndarray]
    config: Config = Config(batch_size=50)
    scales: tuple[float, float] = (1.0, 1.0)
    """That the kernels are divided by."""
    is_normalised: bool = False
    """Whether the hidden layer is normalised over the batch."""
    loss_scale: float = 1.0
    """That the loss is multiplied by."""

    def logits(self, params, x):
        hidden = x @ (params["one"] / self.scales[0])
        if self.is_normalised:
            hidden = (hidden - hidden.mean(0)[None]) / jnp.sqrt(hidden.var(0)[None] + EPSILON)
        return jax.nn.relu(hidden + params["bias"][None]) @ (params["two"] / self.scales[1])

    def loss(self, params, batch):
        found = jnp.float32(self.logits(params, batch["x"]))
        losses = optax.softmax_cross_entropy_with_integer_labels(found, batch["y"])
        return self.loss_scale * losses.mean()

    def compressed(self, **targets):
        """The params, the error on examples held out, and the bytes of the file."""
        result = compress(self.params, self.loss, self.data, self.config, **targets)
        found = self.logits(result.params, self.held_out["x"])
        error = float(np.mean(np.argmax(found, -1) != self.held_out["y"]))
        return result.params, error, len(swsjax.dumps(result.params))


def trained(copy, optimizer=OPTIMIZER, epochs=30):
    found = train(copy.params, copy.loss, copy.data, optimizer, epochs=epochs, batch_size=50)
    return copy._replace(params=found.params)


def untrained(**settings):
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x, y = (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)
    keys = jax.random.split(jax.random.key(0))
    params = {
        "one": 0.15 * jax.random.normal(keys[0], (64, 60)),
        "bias": jnp.zeros(60),
        "two": 0.15 * jax.random.normal(keys[1], (60, 10)),
    }
    parts = {"x": x[:1200], "y": y[:1200]}, {"x": x[1200:], "y": y[1200:]}
    return Copy(params, *parts, **settings)


@pytest.fixture(scope="module")
def net():
    return trained(untrained())


@pytest.fixture(scope="module")
def normalised():
    return trained(untrained(is_normalised=True))


def rescaled(net, factor):
    """A ReLU layer times a factor, the next one over it."""
    one, bias, two = (net.params[name] for name in ("one", "bias", "two"))
    return net._replace(params={"one": one * factor, "bias": bias * factor, "two": two / factor})


def first_kernel_times(net, factor):
    return net._replace(params=net.params | {"one": net.params["one"] * factor})


def with_inputs(net, scale, offset=0.0):
    """Inputs x scale - offset; the first layer takes this back."""
    one = net.params["one"] / np.reshape(scale, (-1, 1))
    bias = net.params["bias"] + offset @ one if np.ndim(offset) else net.params["bias"]
    parts = (part | {"x": part["x"] * scale - offset} for part in (net.data, net.held_out))
    return Copy(net.params | {"one": one, "bias": bias}, *parts, net.config)


def standardised(net):
    x = net.data["x"]
    scale = np.float32(1 / (x.std(axis=0) + 0.1))
    return with_inputs(net, scale, x.mean(axis=0) * scale)


def permuted(net):
    order = np.random.default_rng(1).permutation(60)
    one, bias, two = (net.params[name] for name in ("one", "bias", "two"))
    return net._replace(params={"one": one[:, order], "bias": bias[order], "two": two[order]})


def in_batches_of(net, batch_size):
    return net._replace(config=replace(net.config, batch_size=batch_size))


def with_loss_times(net, scale):
    return net._replace(loss_scale=scale)


def twice(net):
    return net._replace(data=jax.tree.map(lambda x: np.concatenate([x, x]), net.data))


def in_bfloat16(net):
    return net._replace(params=jax.tree.map(lambda w: w.astype(jnp.bfloat16), net.params))


def by_sgd(net):
    del net
    schedule = optax.cosine_decay_schedule(0.1, 60 * 24)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(schedule, momentum=0.9))
    return trained(untrained(), optimizer, epochs=60)


def by_adamw(net):
    del net
    return trained(untrained(), optax.adamw(3e-3, weight_decay=0.01))


SAME = {
    "ReLU layer times 10": lambda net: rescaled(net, 10),
    "ReLU layer over 50": lambda net: rescaled(net, 1 / 50),
    "inputs 0 to 255": lambda net: with_inputs(net, np.float32(255)),
    "permuted": permuted,
}
TRAINED_OTHERWISE = {
    "standardised inputs": standardised,
    "batches of 32": lambda net: in_batches_of(net, 32),
    "batches of 128": lambda net: in_batches_of(net, 128),
    "batches of 512": lambda net: in_batches_of(net, 512),
    "data twice": twice,
    "loss times 1e5": lambda net: with_loss_times(net, 1e5),
    "loss times 1e-6": lambda net: with_loss_times(net, 1e-6),
    "bfloat16": in_bfloat16,
    "pretrained by SGD": by_sgd,
    "pretrained by AdamW": by_adamw,
}


@pytest.mark.parametrize("name", [*SAME, "standardised inputs", "bfloat16"])
def test_copies_compute_the_same(net, name):
    copy = (SAME | TRAINED_OTHERWISE)[name](net)
    ours = net.logits(net.params, net.held_out["x"])
    theirs = copy.logits(copy.params, copy.held_out["x"])
    np.testing.assert_allclose(theirs, ours, rtol=0.02, atol=0.1)


@pytest.fixture(scope="module")
def short(net):
    return net._replace(config=SHORT)


@pytest.fixture(scope="module")
def after_few_epochs(short):
    return short.compressed()


@pytest.mark.parametrize("make", [partial(rescaled, factor=4), partial(with_inputs, scale=16.0)])
def test_copies_by_powers_of_two_end_the_same_to_the_bit(short, after_few_epochs, make):
    params, error, _ = after_few_epochs
    others, other_error, _ = make(short).compressed()
    assert error == other_error < 0.1
    for name, leaf in params.items():
        factor = np.abs(others[name]).max() / np.abs(leaf).max()
        np.testing.assert_array_equal(others[name], leaf * factor)


def test_a_small_loss_in_other_units_ends_the_same_to_the_bit(net):
    small = net._replace(config=replace(SHORT, tau=None))
    ours, theirs = (with_loss_times(small, 2.0**-k).compressed(budget=240)[0] for k in (20, 24))
    jax.tree.map(np.testing.assert_array_equal, theirs, ours)
    assert len(np.unique(ours["one"])) < 20


@pytest.fixture(scope="module")
def default(net):
    return net.compressed()


def assert_same(ours, theirs, *, share):
    _, error, size = ours
    _, other_error, other_size = theirs
    assert abs(error - other_error) <= POINT
    assert abs(size - other_size) <= share * size


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_a_copy_ends_the_same(net, default, name):
    assert_same(default, SAME[name](net).compressed(), share=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED_OTHERWISE)
def test_a_net_that_is_trained_otherwise_ends_about_the_same(net, default, name):
    assert_same(default, TRAINED_OTHERWISE[name](net).compressed(), share=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.1, 30.0])  # epsilon is of the size of smaller variances
def test_kernels_before_a_normalisation_have_no_scale(normalised, factor):
    copy = first_kernel_times(normalised, factor)
    assert_same(normalised.compressed(), copy.compressed(), share=0.15)
