"""Network slimming: the subgradient, one threshold over all scales, and no layer emptied."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_tasks import BATCH, small, untrained

from swsjax.baselines.finish import fine_tune
from swsjax.baselines.slimming import (
    add_scale_signs,
    batch_norm_scales,
    network_slimming,
    slim,
    with_scales,
)
from swsjax.errors import ConfigError
from swsjax.lab import Variables
from swsjax.training import PretrainConfig
from swsjax.trees import named_leaves

KEY = jax.random.key(0)
SCALES = [f"g{group}b0bn{number}/scale" for group in range(3) for number in (1, 2)]


def with_random_scales(seed):
    """The residual net with scales, biases and magnitudes of all layers at random."""
    rng = np.random.default_rng(seed)
    net = untrained("BatchNorm")
    return net._replace(
        params=jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), net.params
        )
    )


def test_scales_are_found_and_set():
    net = untrained("BatchNorm")
    assert batch_norm_scales(net) == ("bn/scale", *SCALES)
    changed = dict(named_leaves(with_scales(net, SCALES, 0.25).params))
    for name, leaf in named_leaves(net.params):
        np.testing.assert_array_equal(changed[name], 0.25 if name in SCALES else leaf)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_the_subgradient_is_that_of_the_penalty(strength):
    params = {"bn": {"bias": jnp.ones(3), "scale": jnp.array([0.5, 0.0, -2.0])}, "fc": jnp.ones(2)}
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
    chain = optax.chain(add_scale_signs(strength, ["bn/scale"]), optax.sgd(1.0))
    updates, _ = chain.update(gradients, chain.init(params), params)
    expected = jax.tree.map(lambda gradient: -np.asarray(gradient), gradients)
    expected["bn"]["scale"] -= strength * np.array([1.0, 0.0, -1.0])
    for update, wanted in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(update, wanted, rtol=1e-5)


@pytest.mark.parametrize("keep", [0.15, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_scales_of_all_layers_are_zeroed(seed, keep):
    net, names = with_random_scales(seed), ("bn/scale", *SCALES)
    before, after = (
        dict(named_leaves(net.params)),
        dict(named_leaves(slim(net, keep, names).params)),
    )
    sizes = np.sort(np.abs(np.concatenate([before[name] for name in names])))
    threshold = sizes[-round(keep * len(sizes))]
    zeroed = set()
    for name in names:
        size = np.abs(before[name])
        stays = (size >= threshold) | (size == size.max())
        np.testing.assert_array_equal(after[name], np.where(stays, before[name], 0))
        bias = name.replace("scale", "bias")
        np.testing.assert_array_equal(after[bias], np.where(stays, before[bias], 0))
        assert after[name].any()
        zeroed |= {name, bias}
    for name in before.keys() - zeroed:
        np.testing.assert_array_equal(after[name], before[name])


def test_training_makes_scales_small_and_pruned_channels_stay_dead():
    task, config = small("BatchNorm"), PretrainConfig(epochs=1, batch_size=BATCH)
    start = with_scales(untrained("BatchNorm"), batch_norm_scales(untrained("BatchNorm")))
    net = network_slimming(task, start, 0.5, config, key=KEY, strength=0.1)
    # 20 scales; a layer that had none of the 10 largest keeps one more.
    left = sum(jnp.count_nonzero(dict(named_leaves(net.params))[name]) for name in SCALES)
    left += jnp.count_nonzero(net.params["bn"]["scale"])
    assert 10 <= left <= 10 + len(SCALES)
    tuned = fine_tune(task, net, epochs=1, key=KEY, batch_size=BATCH)
    after = dict(named_leaves(tuned.params))
    changed = False
    for name, leaf in named_leaves(net.params):
        if name in SCALES or name.replace("bias", "scale") in SCALES:
            scale = dict(named_leaves(net.params))[name.replace("bias", "scale")]
            np.testing.assert_array_equal(after[name][scale == 0], 0)
        changed |= bool((after[name] != leaf).any())
    assert changed


NONE = (
    "slimming needs the scales of BatchNorms, and the net has none; expected a leaf called scale "
    "in params, with one called mean in aux"
)
NAMES = "the net has no fc/scale; expected names among bias, scale"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batch_norm_scales(untrained("two layers")), NONE),
        (lambda: add_scale_signs(-1.0, []), "strength must be finite and not negative, got -1.0"),
        (lambda: slim(two_scales(), 0, ["scale"]), "keep must be a number in (0, 1], got 0"),
        (lambda: slim(two_scales(), 0.5, ["fc/scale"]), NAMES),
        (lambda: with_scales(two_scales(), ["fc/scale"]), NAMES),
    ],
    ids=["no norms", "strength", "keep", "name", "name to set"],
)
def test_what_cannot_be_slimmed(call, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        call()


def two_scales():
    return Variables({"bias": jnp.ones(2), "scale": jnp.array([1.0, 2.0])}, {})
