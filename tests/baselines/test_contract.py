"""What every method promises, over all methods: one list of assertions, one line per method."""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_tasks import BATCH, TASKS, small, untrained

import swsjax
from swsjax import baselines
from swsjax.errors import ConfigError
from swsjax.training import PretrainConfig, hold_zeros
from swsjax.trees import form_of


class Method(NamedTuple):
    prune: Callable
    """From a task, a net, the share of the weights to keep and a key to a net."""
    draws: bool = True
    """Whether the key decides anything."""
    trains: bool = False
    """Whether the weights that are kept change."""
    compiles: bool = False
    """Whether it is a function of arrays, without a task."""
    per_layer: bool = False
    """Whether the share is that of each kernel."""


def of_task(prune, **settings):
    return lambda task, net, keep, key: prune(task, net, keep, key=key, **settings)


def after_magnitude(finish, **settings):
    def both(task, net, keep, key):
        return finish(task, baselines.magnitude(net, keep), key=key, **settings)

    return Method(both, trains=True)


TRAINING = PretrainConfig(epochs=1, learning_rate=0.1, batch_size=BATCH)
# A new method is a new line; one that takes a pruned net comes behind one that prunes.
METHODS = {
    "random": Method(lambda task, net, keep, key: baselines.random(net, keep, key=key)),
    "SNIP": Method(of_task(baselines.snip, batch_size=BATCH)),
    "SNIP-MB": Method(of_task(baselines.snip, batches=2, batch_size=BATCH)),
    "Iter SNIP": Method(of_task(baselines.iter_snip, steps=3, batch_size=BATCH)),
    "FORCE": Method(of_task(baselines.force, steps=3, batch_size=BATCH)),
    "GRASP": Method(of_task(baselines.grasp)),
    "GRASP-MB": Method(of_task(baselines.grasp, batches=2)),
    "magnitude": Method(
        lambda task, net, keep, key: baselines.magnitude(net, keep), draws=False, compiles=True
    ),
    "magnitude per layer": Method(
        lambda task, net, keep, key: baselines.magnitude_per_layer(net, keep),
        draws=False,
        compiles=True,
        per_layer=True,
    ),
    "magnitude, fine-tuned": after_magnitude(
        baselines.fine_tune, epochs=1, batch_size=BATCH, optimizer=optax.sgd(0.01)
    ),
    "magnitude, from scratch": after_magnitude(baselines.scratch, config=TRAINING),
    "lottery ticket": Method(of_task(baselines.lottery_ticket, config=TRAINING)),
    "magnitude, k-means": Method(
        lambda task, net, keep, key: baselines.k_means(baselines.magnitude(net, keep), levels=3),
        draws=False,
        trains=True,
    ),
}
ALL = pytest.mark.parametrize("method", METHODS)
ON_ALL_TASKS = pytest.mark.parametrize("task", TASKS)
KEEP = 0.3


@cache
def pruned(method, task, keep=KEEP, seed=0):
    return METHODS[method].prune(small(task), untrained(task), keep, jax.random.key(seed))


def sizes(task):
    return [kernel.size for kernel in baselines.kernels(untrained(task)).values()]


def left(net):
    return sum(int(np.count_nonzero(kernel)) for kernel in baselines.kernels(net).values())


def assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@ALL
@ON_ALL_TASKS
def test_structure_and_types_stay(method, task):
    before, after = untrained(task), pruned(method, task)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert form_of(after) == form_of(before)


@pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].trains])
@ON_ALL_TASKS
def test_what_is_kept_keeps_its_value(method, task):
    before, after = untrained(task), pruned(method, task)
    assert_equal(after, baselines.masked(before, baselines.mask(after)))


@ALL
@ON_ALL_TASKS
@pytest.mark.parametrize("keep", [KEEP, 0.1])
def test_the_density_is_exact(method, task, keep):
    counts = sizes(task) if METHODS[method].per_layer else [sum(sizes(task))]
    assert left(pruned(method, task, keep)) == sum(round(count * keep) for count in counts)


@ALL
def test_the_key_decides(method):
    task, net = small("two layers"), untrained("two layers")
    first, again, other = (
        METHODS[method].prune(task, net, KEEP, jax.random.key(seed)) for seed in (0, 0, 1)
    )
    assert_equal(first, again)
    same = all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), first, other)))
    assert same != METHODS[method].draws


@ALL
@ON_ALL_TASKS
def test_zeros_are_held_in_training(method, task):
    net, of = pruned(method, task), small(task)
    optimizer = optax.chain(
        optax.add_decayed_weights(0.01), optax.sgd(0.05, momentum=0.9), hold_zeros()
    )
    trained = swsjax.train(
        net.params, of.loss(), of.data(), optimizer, epochs=2, batch_size=BATCH, aux=net.aux
    )
    after = baselines.kernels(net._replace(params=trained.params))
    for name, kernel in baselines.kernels(net).items():
        np.testing.assert_array_equal(after[name] == 0, kernel == 0)
        assert np.any(after[name] != kernel)


@ALL
@ON_ALL_TASKS
def test_a_file_holds_every_bit(method, task):
    net, of = pruned(method, task), small(task)
    assert_equal(of.parts(swsjax.loads(swsjax.dumps(of.whole(net)))), net)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].compiles])
@ON_ALL_TASKS
def test_a_function_of_arrays_compiles(method, task):
    compiled = jax.jit(lambda net: METHODS[method].prune(small(task), net, KEEP, None))
    assert_equal(compiled(untrained(task)), pruned(method, task))


@ALL
def test_to_keep_all_prunes_nothing(method):
    net = pruned(method, "two layers", keep=1)
    assert left(net) == sum(sizes("two layers")) == 152
    if not METHODS[method].trains:
        assert_equal(net, untrained("two layers"))


@ALL
def test_to_keep_none(method):
    what = "fc/kernel" if METHODS[method].per_layer else "the net"
    expected = f"keep=0.01 of 48 weights in {what} is none; keep at least 0.021"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        pruned(method, "one layer", keep=0.01)


@ALL
@pytest.mark.parametrize("keep", [0, 1.01, -0.5, float("nan"), "0.5"])
def test_a_share_out_of_range(method, keep):
    expected = f"keep must be a number in (0, 1], got {keep!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        pruned(method, "one layer", keep=keep)


@ALL
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(method, value):
    params, aux = untrained("two layers")
    kernel = params["fc2"]["kernel"].at[1, 2].set(value)
    net = swsjax.lab.Variables(params | {"fc2": params["fc2"] | {"kernel": kernel}}, aux)
    expected = (
        "kernels must be finite, got NaN or infinity in fc2/kernel; load or train the net again"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        METHODS[method].prune(small("two layers"), net, KEEP, jax.random.key(0))


@ALL
def test_a_net_without_kernels(method):
    _, aux = untrained("two layers")
    net = swsjax.lab.Variables({"bias": jnp.ones(3)}, aux)
    expected = (
        "the net has no weights to prune; expected a floating array with two axes or more in "
        "params, got {'bias': 'float32[3]'}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        METHODS[method].prune(small("two layers"), net, KEEP, jax.random.key(0))
