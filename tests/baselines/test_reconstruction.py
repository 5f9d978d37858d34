"""ThiNet and regression by LASSO: choices against brute force, and nets with an exact answer."""

import re
from functools import cache
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_tasks import images, small, untrained

from swsjax.baselines.channels import channel_groups
from swsjax.baselines.least_squares import (
    discarded_channels,
    lasso_channels,
    least_squares_scales,
)
from swsjax.baselines.leaves import with_leaves
from swsjax.baselines.reconstruction import contributions, lasso_regression, thinet
from swsjax.baselines.samples import sample_layer
from swsjax.errors import ConfigError
from swsjax.lab import PooledConv, classification
from swsjax.trees import named_leaves

KEY = jax.random.key(1)
SEEDS = pytest.mark.parametrize("seed", range(4))


class Convolutions(nnx.Module):
    """A pooled convolution, one with a stride and padding, and a dense layer after flattening."""

    def __init__(self, image_shape, classes, *, rngs):
        self.conv1 = PooledConv(1, 4, 3, rngs=rngs)
        self.conv2 = nnx.Conv(4, 6, (3, 3), strides=2, padding="SAME", rngs=rngs)
        self.fc = nnx.Linear(24, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x[..., None]))))
        return self.fc(x.reshape(len(x), -1))


@cache
def convolutions():
    return classification(Convolutions, images(10, 10))


def layers(task, keeps):
    found = channel_groups(task.predict, task.init(0), task.dataset.test.images[:1])
    return list(zip(found, keeps, strict=True))


def patches_of(image, size, stride, padding):
    """All windows of (height, width, channels), each as one row."""
    padded = np.pad(image, ((padding), (padding), (0, 0)))
    return [
        padded[i : i + size, j : j + size].ravel()
        for i in range(0, padded.shape[0] - size + 1, stride)
        for j in range(0, padded.shape[1] - size + 1, stride)
    ]


def assert_rows_among(rows, all_rows):
    distances = np.abs(rows[:, None] - np.array(all_rows)[None]).max(-1)
    assert (distances.min(1) < 1e-5).all()
    assert len(set(distances.argmin(1))) > len(rows) // 4  # not one position again and again


def test_samples_are_patches_of_what_each_layer_reads():
    task = convolutions()
    net, drawn = task.init(0), jnp.asarray(task.dataset.train.images[:3])
    module = nnx.eval_shape(lambda: Convolutions((10, 10), 3, rngs=nnx.Rngs(0)))
    nnx.update(module, net.params)
    read = np.asarray(drawn, np.float32)[..., None] / 255
    between = np.asarray(nnx.relu(module.conv1(read)))
    expected = {
        # 8 x 8 convolutions under the maxima; 4 x 4 pixels are padded to 5 x 5, behind.
        "conv1": [patch for image in read for patch in patches_of(image, 3, 1, (0, 0))],
        "conv2": [patch for image in between for patch in patches_of(image, 3, 2, (0, 1))],
    }
    for name, rows in expected.items():
        (found,) = sample_layer(
            task.predict, [net], f"params/{name}/kernel", drawn, positions=4, key=KEY
        )
        assert found.patches.shape == (12, len(rows[0]))
        assert_rows_among(found.patches, rows)
        kernel = np.asarray(net.params[name]["kernel"]).reshape(len(rows[0]), -1)
        np.testing.assert_allclose(found.outputs, found.patches @ kernel, rtol=1e-4, atol=1e-5)


@SEEDS
@pytest.mark.parametrize("channels", [2, 4, 6])
def test_each_step_of_the_greedy_search_is_the_best_one(seed, channels):
    x = np.random.default_rng(seed).normal(size=(20, channels))
    found = discarded_channels(x, channels - 1).tolist()
    for step, chosen in enumerate(found):
        before = found[:step]
        sums = {
            c: (x[:, [*before, c]].sum(1) ** 2).sum() for c in range(channels) if c not in before
        }
        assert chosen == min(sums, key=sums.get)


@SEEDS
@pytest.mark.parametrize("channels", [3, 5, 6])
def test_the_greedy_search_is_brute_force_where_contributions_are_orthogonal(seed, channels):
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(20, channels)))[0] * rng.uniform(1, 2, channels)
    for number in range(channels):
        best = min(
            combinations(range(channels), number), key=lambda s: (x[:, list(s)].sum(1) ** 2).sum()
        )
        assert set(discarded_channels(x, number)) == set(best)


@SEEDS
def test_scales_are_those_of_least_squares(seed):
    x, kept = np.random.default_rng(seed).normal(size=(20, 6)), np.array([0, 2, 5])
    expected = np.linalg.lstsq(x[:, kept], x.sum(1))[0]
    np.testing.assert_allclose(least_squares_scales(x, kept), expected, rtol=1e-8)


@SEEDS
def test_lasso_keeps_the_largest_of_orthogonal_channels(seed):
    """Its path is known: coefficients leave in the order of their products with the targets."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 12))
    x = np.linalg.qr(x - x.mean(0))[0]
    y = x @ rng.permutation(np.arange(1.0, 13))
    order, before = np.argsort(-np.abs(x.T @ y)), set()
    for number in range(1, 13):
        found = set(lasso_channels(x, y, number).tolist())
        assert number <= len(found) <= int(1.1 * number)
        assert found == set(order[: len(found)])
        assert before <= found
        before = found


@SEEDS
def test_lasso_keeps_as_many_as_are_asked_for(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, 25)) + 2 * rng.normal(size=(80, 1))
    y = x @ rng.normal(size=25)
    for number in (1, 5, 12, 20, 25):
        found = lasso_channels(x, y, number)
        assert number <= len(found) <= int(1.1 * number)
        assert (np.diff(found) > 0).all()


def test_lasso_with_channels_that_contribute_nothing():
    x = np.zeros((20, 5))
    x[:, 3] = np.random.default_rng(0).normal(size=20)
    assert 3 in lasso_channels(x, x.sum(1), 2)
    assert len(lasso_channels(x, x.sum(1), 2)) == 2


def dead(net, channels):
    """Channels of conv1 and conv2 whose filters are zero: nothing behind ReLU."""
    replaced = {}
    for name, leaf in named_leaves(net):
        if name.startswith(("params/conv1", "params/conv2")):
            replaced[name] = leaf.at[..., jnp.array(channels)].set(0)
    return with_leaves(net, replaced)


def doubled(net):
    """conv2's channels 3 to 5 are those from 0 to 2 again, and fc reads them differently."""
    kernel, bias = (net.params["conv2"][leaf] for leaf in ("kernel", "bias"))
    index = jnp.array([0, 1, 2, 0, 1, 2])
    return with_leaves(
        net, {"params/conv2/kernel": kernel[..., index], "params/conv2/bias": bias[index]}
    )


@pytest.mark.parametrize("method", [thinet, lasso_regression])
def test_dead_channels_go_first_and_outputs_stay(method):
    task = convolutions()
    net = dead(task.init(0), [0, 2])
    test = task.dataset.test.images
    pruned = method(task, net, layers(task, [0.5, 0.67]), key=KEY, per_class=4)
    np.testing.assert_allclose(task.logits(pruned, test), task.logits(net, test), atol=1e-4)
    read = np.asarray(pruned.params["conv2"]["kernel"] != 0).any((0, 1, 3))
    assert read.tolist() == [False, True, False, True]
    flat = np.asarray(pruned.params["fc"]["kernel"] != 0).any(1).reshape(4, 6)
    assert (flat == [False, True, False, True, True, True]).all()


def test_regression_fits_the_next_layer():
    """Half of the channels of a layer that has each twice, and the outputs of the net as it was."""
    task = convolutions()
    net, test = doubled(task.init(0)), task.dataset.test.images
    pruned = lasso_regression(task, net, layers(task, [1.0, 0.5])[1:], key=KEY, per_class=20)
    flat = np.asarray(pruned.params["fc"]["kernel"] != 0).any(1).reshape(4, 6)
    assert (flat == flat[0]).all()
    assert (flat[0, :3] ^ flat[0, 3:]).all()
    np.testing.assert_allclose(task.logits(pruned, test), task.logits(net, test), atol=1e-3)


@pytest.mark.parametrize("method", [thinet, lasso_regression])
def test_outputs_are_nearer_than_those_of_pruning_alone(method):
    """Channels that are dropped are made up for, and only this layer and its bias change."""
    task, net = small("two layers"), untrained("two layers")
    ((group, keep),) = layers(task, [0.5])
    pruned = method(task, net, [(group, keep)], key=KEY, per_class=20)
    alive = np.flatnonzero(np.asarray(pruned.params["fc2"]["kernel"]).any(1))
    assert len(alive) == 4
    kernel = np.zeros((8, 3), np.float32)
    kernel[alive] = net.params["fc2"]["kernel"][alive]
    alone = with_leaves(net, {"params/fc2/kernel": jnp.asarray(kernel)})
    train = task.dataset.train.images
    wanted = task.logits(net, train)
    errors = [float(((task.logits(n, train) - wanted) ** 2).sum()) for n in (pruned, alone)]
    assert errors[0] < 0.9 * errors[1]
    np.testing.assert_array_equal(
        pruned.params["fc1"]["kernel"][:, alive], net.params["fc1"]["kernel"][:, alive]
    )
    if method is thinet:  # one scale for each channel
        ratios = np.asarray(pruned.params["fc2"]["kernel"][alive]) / kernel[alive]
        np.testing.assert_allclose(ratios, ratios[:, :1].repeat(3, 1), rtol=1e-4)


def test_tuning_follows_each_layer():
    task, seen = convolutions(), []

    def tune(net):
        seen.append([int(np.asarray(net.params[n]["bias"] != 0).sum()) for n in ("conv1", "conv2")])
        return net

    net = jax.tree.map(lambda leaf: leaf + 0.01, task.init(0))
    thinet(task, net, layers(task, [0.5, 0.5]), key=KEY, per_class=1, positions=2, tune=tune)
    assert seen == [[2, 6], [2, 3]]


def test_contributions_sum_to_outputs():
    task, net = convolutions(), convolutions().init(0)
    (samples,) = sample_layer(
        task.predict,
        [net],
        "params/conv2/kernel",
        jnp.asarray(task.dataset.train.images[:2]),
        positions=5,
        key=KEY,
    )
    inputs = np.arange(36).reshape(9, 4).T
    x = contributions(samples, np.asarray(net.params["conv2"]["kernel"], float), inputs, KEY)
    drawn = jax.random.randint(KEY, (10,), 0, 6)
    np.testing.assert_allclose(
        x.sum(1), samples.outputs[np.arange(10), drawn], rtol=1e-4, atol=1e-6
    )


LAYOUT = (
    "w must be used once, in a matrix product or convolution whose last axis is the filters, as is "
    "the kernel's; leave this layer out"
)


@pytest.mark.parametrize(
    "predict",
    [
        lambda net, x: x @ net["w"] @ net["w"],
        lambda net, x: jnp.cumsum(x) + net["w"].sum(),
        lambda net, x: x @ net["w"].T,
    ],
    ids=["twice", "added", "transposed"],
)
def test_layers_that_cannot_be_sampled(predict):
    net = {"w": jnp.arange(9.0).reshape(3, 3)}
    with pytest.raises(ConfigError, match=f"^{re.escape(LAYOUT)}$"):
        sample_layer(predict, [net], "w", jnp.eye(3), positions=3, key=KEY)


def test_groups_that_several_kernels_read():
    task, net = small("BatchNorm"), untrained("BatchNorm")
    groups = channel_groups(task.predict, net, task.dataset.test.images[:1])
    (first, *_) = (group for group in groups if len(group.kernels) > 1)
    message = (
        "channels are reconstructed in the one kernel that reads them, with its filters last; got "
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}.*; leave this group out$"):
        thinet(task, net, [(first, 0.5)], key=KEY)


def test_a_share_out_of_its_range_is_found_before_the_first_layer():
    task, tuned = convolutions(), []
    message = "keep must be a number in (0, 1], got 2"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        thinet(task, task.init(0), layers(task, [0.5, 2]), key=KEY, tune=tuned.append)
    assert not tuned


@pytest.mark.parametrize("method", [thinet, lasso_regression])
def test_nets_of_16_bits_keep_their_type(method):
    task, net = small("bfloat16"), untrained("bfloat16")
    pruned = method(task, net, layers(task, [0.5]), key=KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(pruned)} == {jnp.bfloat16.dtype}
    assert np.asarray(pruned.params["fc2"]["kernel"] != 0).any(1).sum() == 4
