"""Sparse structure selection: its step in NumPy, and scales that merge into last layers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_tasks import BATCH, small, untrained

from swsjax.baselines.in_training import train_task
from swsjax.baselines.structures import (
    accelerated_proximal,
    last_layers,
    merge_scales,
    scaled_task,
    sparse_structure_selection,
    with_block_scales,
)
from swsjax.errors import ConfigError
from swsjax.training import PretrainConfig

KEY = jax.random.key(0)
CONFIG = PretrainConfig(epochs=2, batch_size=BATCH)
BLOCKS = {"last": ["fc2/kernel", "fc2/bias"]}


@pytest.mark.parametrize("schedule", [lambda step: 0.3 / (1 + 0.1 * step), lambda step: 0.2])
def test_fifty_steps_are_those_of_the_formula(schedule):
    rng = np.random.default_rng(0)
    proximal = accelerated_proximal(schedule, strength=0.05, momentum=0.8)
    params = {"a": jnp.ones(()), "b": jnp.ones(())}
    state = proximal.init(params)
    scale, velocity, seen = np.ones(2), np.zeros(2), []
    for step in range(50):
        gradient = rng.normal(loc=[0.3, -0.1])
        gradients = dict(zip("ab", jnp.asarray(gradient, jnp.float32), strict=True))
        updates, state = jax.jit(proximal.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
        rate = schedule(step)
        moved = scale - rate * gradient
        near = np.sign(moved) * np.maximum(np.abs(moved) - rate * 0.05, 0)
        velocity = near - scale + 0.8 * velocity
        scale = np.maximum(0, near + 0.8 * velocity)
        np.testing.assert_allclose([params["a"], params["b"]], scale, atol=1e-4)
        seen.append(scale)
    assert (np.array(seen) == 0).any()
    assert (np.array(seen) > 1).any()


def test_scales_merge_into_the_last_layers():
    task, net = small("two layers"), untrained("two layers")
    images = task.dataset.test.images[:4]
    scaled = with_block_scales(net, BLOCKS)
    np.testing.assert_array_equal(
        scaled_task(task, BLOCKS).logits(scaled, images), task.logits(net, images)
    )
    scaled.params["scales"]["last"] = jnp.array(0.3)
    np.testing.assert_allclose(
        task.logits(merge_scales(scaled, BLOCKS), images),
        0.3 * task.logits(net, images),
        rtol=1e-5,
    )


def test_a_block_whose_scale_is_zero_adds_nothing():
    """The blocks of a residual net, of which one keeps its scale."""
    net = untrained("BatchNorm")
    blocks = last_layers(net, "*conv2")
    assert blocks == {name: (f"{name}/kernel",) for name in ("g0b0conv2", "g1b0conv2", "g2b0conv2")}
    scaled = with_block_scales(net, blocks)
    scaled.params["scales"]["g1b0conv2"] = jnp.zeros(())
    merged = merge_scales(scaled, blocks)
    for block, (name,) in blocks.items():
        kernel = merged.params[name.removesuffix("/kernel")]["kernel"]
        expected = net.params[name.removesuffix("/kernel")]["kernel"]
        np.testing.assert_array_equal(kernel, 0 if block == "g1b0conv2" else expected)


def test_strong_penalties_remove_and_the_weights_train_as_ever():
    task, net = small("two layers"), untrained("two layers")
    removed = sparse_structure_selection(
        task, net, BLOCKS, CONFIG, key=KEY, proximal=accelerated_proximal(0.1, strength=30.0)
    )
    assert not removed.params["fc2"]["kernel"].any()
    still = sparse_structure_selection(
        task, net, BLOCKS, CONFIG, key=KEY, proximal=accelerated_proximal(0.0)
    )
    jax.tree.map(np.testing.assert_array_equal, still, train_task(task, net, CONFIG, key=KEY))
    moved = sparse_structure_selection(
        task, net, BLOCKS, CONFIG, key=KEY, proximal=accelerated_proximal(0.1, strength=0.0)
    )
    assert (moved.params["fc1"]["kernel"] != still.params["fc1"]["kernel"]).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: last_layers(untrained("two layers"), "conv*"),
            "no layer fits 'conv*'; expected a pattern of the layers fc1, fc2",
        ),
        (
            lambda: with_block_scales(
                untrained("two layers"), {"a": ["fc1/bias"], "b": ["fc1/bias"]}
            ),
            "each leaf must be of one block, got fc1/bias, fc1/bias",
        ),
        (
            lambda: accelerated_proximal(0.1, momentum=1.0),
            "strength must be finite and not negative, and momentum in [0, 1), got 0.01 and 1.0",
        ),
        (
            lambda: with_block_scales(untrained("two layers"), {"a": ["fc3/bias"]}),
            "the net has no fc3/bias; expected names among fc1/bias, fc1/kernel, fc2/bias, "
            "fc2/kernel",
        ),
    ],
    ids=["pattern", "shared", "momentum", "name"],
)
def test_what_is_no_block(call, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        call()
