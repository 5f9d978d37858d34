"""Soft filter pruning: how many filters are zeroed and which, and that all keep training."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_tasks import BATCH, small, untrained

from swsjax.baselines import soft_filters
from swsjax.baselines.soft_filters import (
    convolution_kernels,
    soft_filter_pruning,
    zero_smallest_filters,
)
from swsjax.errors import ConfigError
from swsjax.training import PretrainConfig

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("filters", "rate", "zeroed"),
    [(16, 0.9, 1), (10, 0.9, 1), (10, 0.7, 3), (9, 0.7, 2), (4, 0.01, 3), (1, 0.5, 0), (7, 1, 0)],
)
def test_the_smallest_filters_are_zeroed(filters, rate, zeroed):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, filters)).astype(np.float32)
    params = {"conv": {"bias": jnp.ones(filters), "kernel": jnp.asarray(kernel)}, "fc": jnp.ones(2)}
    found = jax.jit(lambda params: zero_smallest_filters(params, rate, ["conv/kernel"]))(params)
    norms = np.sqrt((kernel**2).sum((0, 1, 2)))
    kept = np.argsort(norms)[zeroed:]
    expected = np.zeros_like(kernel)
    expected[..., kept] = kernel[..., kept]
    np.testing.assert_array_equal(found["conv"]["kernel"], expected)
    np.testing.assert_array_equal(found["conv"]["bias"], params["conv"]["bias"])
    np.testing.assert_array_equal(found["fc"], params["fc"])


def test_of_equal_filters_the_last_are_zeroed():
    found = zero_smallest_filters({"w": jnp.ones((1, 4))}, 0.5, ["w"])
    np.testing.assert_array_equal(found["w"], [[1, 1, 0, 0]])


def test_zeroed_filters_train_until_they_are_zeroed_again(monkeypatch):
    before, after = [], []

    def recorded(params, rate, names):
        found = zero_smallest_filters(params, rate, names)
        before.append(np.asarray(params["fc1"]["kernel"]))
        after.append(np.asarray(found["fc1"]["kernel"]))
        return found

    monkeypatch.setattr(soft_filters, "zero_smallest_filters", recorded)
    net = soft_filter_pruning(
        small("two layers"),
        untrained("two layers"),
        0.6,
        PretrainConfig(epochs=3, batch_size=BATCH),
        key=KEY,
        names=["fc1/kernel"],
    )
    assert len(after) == 4  # before each epoch, and at the end
    np.testing.assert_array_equal(net.params["fc1"]["kernel"], after[-1])
    for kernel in after:
        assert (kernel != 0).any(0).sum() == 5  # of 8 filters int(8 * 0.4) = 3 are zeroed
    for kernel, trained in zip(after[:-1], before[1:], strict=True):
        assert (trained != 0).all()
        assert (trained != kernel).all()


def test_all_convolutions_are_pruned_by_default():
    names = convolution_kernels(untrained("BatchNorm"))
    blocks = [f"g{group}b0{layer}" for group in range(3) for layer in ("conv1", "conv2", "short")]
    # The first block changes neither channels nor size, and needs no convolution for that.
    assert set(names) == {f"{layer}/kernel" for layer in ("conv0", *blocks)} - {"g0b0short/kernel"}


NO_CONVOLUTIONS = (
    "the net has no convolutions, which have kernels of four axes; pass the names of the kernels "
    "to prune"
)


@pytest.mark.parametrize(
    ("rate", "names", "message"),
    [
        (0, ["fc1/kernel"], "rate must be a number in (0, 1], got 0"),
        (1.1, ["fc1/kernel"], "rate must be a number in (0, 1], got 1.1"),
        (0.5, None, NO_CONVOLUTIONS),
        (
            0.5,
            ["fc1"],
            "the net has no fc1; expected names among fc1/bias, fc1/kernel, fc2/bias, fc2/kernel",
        ),
    ],
    ids=["nothing", "more than all", "no convolutions", "name"],
)
def test_what_cannot_be_pruned(rate, names, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        soft_filter_pruning(
            small("two layers"),
            untrained("two layers"),
            rate,
            PretrainConfig(batch_size=BATCH),
            key=KEY,
            names=names,
        )
