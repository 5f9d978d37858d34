"""What every method promises, over all methods: one list of assertions, one line per method."""

import re
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_tasks import BATCH, interrupted_and_resumed, small, untrained

import swsjax
from swsjax import baselines
from swsjax.cli.methods import STRUCTURED, Start, shrunk
from swsjax.errors import ConfigError
from swsjax.training import PretrainConfig, hold_zeros
from swsjax.trees import form_of


class Method(NamedTuple):
    prune: Callable
    """From a task, a net, the share of the weights to keep and a key to a net."""
    draws: bool = True
    """Whether the key decides anything."""
    trains: bool = False
    """Whether it takes a callback and a folder to resume from."""
    changes: bool = False
    """Whether the weights that are kept change."""
    compiles: bool = False
    """Whether it is a function of arrays, without a task."""
    per_layer: bool = False
    """Whether the share is that of each kernel."""


def of_task(prune, **settings):
    def method(task, net, keep, key, **options):
        return prune(task, net, keep, key=key, **settings, **options)

    return method


def after_magnitude(finish, **properties):
    def method(task, net, keep, key, **options):
        return finish(task, baselines.magnitude(net, keep), key=key, **options)

    return Method(method, changes=True, **properties)


def quantized(finish, settings):
    """Of a net alone."""
    return lambda task, net, *, key: finish(net, settings)


def tuned(task, net, **options):
    settings = {"epochs": 2, "batch_size": BATCH, "optimizer": optax.adam(0.01)}
    return baselines.tune_codebooks(task, baselines.k_means(net, 3), **settings, **options)


TRAINING = PretrainConfig(epochs=2, learning_rate=0.1, batch_size=BATCH)
FINE_TUNE = partial(
    baselines.fine_tune, epochs=2, batch_size=BATCH, optimizer=optax.sgd(0.01, momentum=0.9)
)
RETRAIN = partial(baselines.retrain, config=TRAINING)
K_MEANS = quantized(baselines.k_means, 3)
AFFINE = quantized(baselines.quantize_affine, 16)  # of fewer bits, more weights are zero
# A new method is a new line; one that takes a pruned net comes behind one that prunes.
METHODS = {
    "random": Method(lambda task, net, keep, key: baselines.random(net, keep, key=key)),
    "SNIP": Method(of_task(baselines.snip, batch_size=BATCH)),
    "SNIP-MB": Method(of_task(baselines.snip, batches=2, batch_size=BATCH)),
    "Iter SNIP": Method(of_task(baselines.iter_snip, steps=3, batch_size=BATCH)),
    "FORCE": Method(of_task(baselines.force, steps=3, batch_size=BATCH)),
    "GRASP": Method(of_task(baselines.grasp)),
    "GRASP-MB": Method(of_task(baselines.grasp, batches=2)),
    "lottery ticket": Method(of_task(baselines.lottery_ticket, config=TRAINING), trains=True),
    "magnitude": Method(
        lambda task, net, keep, key: baselines.magnitude(net, keep), draws=False, compiles=True
    ),
    "magnitude per layer": Method(
        lambda task, net, keep, key: baselines.magnitude_per_layer(net, keep),
        draws=False,
        compiles=True,
        per_layer=True,
    ),
    "magnitude, fine-tuned": after_magnitude(FINE_TUNE, trains=True),
    "magnitude, retrained": after_magnitude(RETRAIN, trains=True),
    "magnitude, from scratch": after_magnitude(
        partial(baselines.scratch, config=TRAINING), trains=True
    ),
    "magnitude, reinitialised": after_magnitude(baselines.reinitialised),
    "magnitude, rewound": after_magnitude(
        lambda task, net, key: baselines.rewind(net, task.init(1)), draws=False
    ),
    "magnitude, k-means": after_magnitude(K_MEANS, draws=False),
    "magnitude, k-means, tuned": after_magnitude(tuned, trains=True),
    "magnitude, affine": after_magnitude(AFFINE, draws=False, compiles=True),
}
TASKS = "two layers", "one layer", "bfloat16", "normalised"
TRAINED, OTHERS = (
    [name for name in METHODS if METHODS[name].trains is trains] for trains in (True, False)
)
ALL = pytest.mark.parametrize("method", METHODS)
# To train takes as long as everything else: one net with statistics, and one of a single kernel.
ON_TASKS = pytest.mark.parametrize(
    ("method", "task"), [*product(OTHERS, TASKS), *product(TRAINED, ["normalised", "one layer"])]
)
KEEP = 0.3


@cache
def pruned(method, task, keep=KEEP, seed=0):
    return METHODS[method].prune(small(task), untrained(task), keep, jax.random.key(seed))


@cache
def steps_of(task):
    """Train a net for three steps on all images, with momentum and decay; its zeros are held."""
    of = small(task)
    decay, sgd = optax.add_decayed_weights(0.01), optax.sgd(0.05, momentum=0.9)
    optimizer = optax.chain(decay, sgd, hold_zeros())
    loss, data = of.loss(), of.data()

    @jax.jit
    def step(params, aux, state):
        gradient, aux = jax.grad(loss, has_aux=True)(params, aux, data)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), aux, state

    def steps(net):
        params, aux, state = *net, optimizer.init(net.params)
        for _ in range(3):
            params, aux, state = step(params, aux, state)
        return net._replace(params=params)

    return steps


def sizes(task):
    return [kernel.size for kernel in baselines.kernels(untrained(task)).values()]


def left(net):
    return sum(int(np.count_nonzero(kernel)) for kernel in baselines.kernels(net).values())


def assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


def differ(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return any((np.asarray(x) != np.asarray(y)).any() for x, y in pairs)


@ON_TASKS
def test_structure_and_types_stay(method, task):
    before, after = untrained(task), pruned(method, task)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert form_of(after) == form_of(before)


@pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].changes])
def test_what_is_kept_keeps_its_value(method):
    for task in ["normalised"] if METHODS[method].trains else TASKS:
        before, after = untrained(task), pruned(method, task)
        assert_equal(after, baselines.masked(before, baselines.mask(after)))


@ON_TASKS
def test_the_density_is_exact(method, task):
    counts = sizes(task) if METHODS[method].per_layer else [sum(sizes(task))]
    for keep in [KEEP] if METHODS[method].trains else [KEEP, 0.1]:
        expected = sum(round(count * keep) for count in counts)
        assert left(pruned(method, task, keep)) == expected


@pytest.mark.parametrize("method", OTHERS)
def test_the_key_decides(method):
    task, net = small("two layers"), untrained("two layers")
    again, other = (METHODS[method].prune(task, net, KEEP, jax.random.key(n)) for n in (0, 1))
    assert_equal(again, pruned(method, "two layers"))
    assert differ(again, other) == METHODS[method].draws


@pytest.mark.parametrize("method", TRAINED)
def test_interrupted_and_resumed(method, tmp_path):
    """After one of two epochs; all weights of one kernel are kept."""
    net = untrained("one layer")
    run = partial(METHODS[method].prune, small("one layer"), net, 1, jax.random.key(0))
    resumed = interrupted_and_resumed(run, tmp_path)
    assert_equal(resumed, pruned(method, "one layer", keep=1))


@ON_TASKS
def test_zeros_are_held_in_training(method, task):
    net = pruned(method, task)
    after = baselines.kernels(steps_of(task)(net))
    for name, kernel in baselines.kernels(net).items():
        np.testing.assert_array_equal(after[name] == 0, kernel == 0)
        assert np.any(after[name] != kernel)


@ON_TASKS
def test_a_file_holds_every_bit(method, task):
    net, of = pruned(method, task), small(task)
    assert_equal(of.parts(swsjax.loads(swsjax.dumps(of.whole(net)))), net)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].compiles])
def test_a_function_of_arrays_compiles(method):
    for task in TASKS:
        compiled = jax.jit(lambda net: METHODS[method].prune(None, net, KEEP, None))
        assert_equal(compiled(untrained(task)), pruned(method, task))


@ALL
def test_to_keep_all_prunes_nothing(method):
    """Of a net with a single kernel."""
    net = pruned(method, "one layer", keep=1)
    assert left(net) == sum(sizes("one layer")) == 48
    if not METHODS[method].changes:
        assert_equal(net, untrained("one layer"))


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


AGAIN = "load or train the net again"


def not_finite(value):
    params, aux = untrained("two layers")
    kernel = params["fc2"]["kernel"].at[1, 2].set(value)
    return swsjax.lab.Variables(params | {"fc2": params["fc2"] | {"kernel": kernel}}, aux)


@ALL
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(method, value):
    expected = "kernels must be finite, got NaN or infinity in fc2/kernel; " + AGAIN
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        METHODS[method].prune(small("two layers"), not_finite(value), KEEP, jax.random.key(0))


@pytest.mark.parametrize(
    ("finish", "what"),
    [
        (FINE_TUNE, "kernels"),
        (RETRAIN, "kernels"),
        (AFFINE, "kernels"),
        (K_MEANS, "weights to share"),
        (baselines.tune_codebooks, "weights to share"),
    ],
    ids=["fine_tune", "retrain", "quantize_affine", "k_means", "tune_codebooks"],
)
def test_what_follows_pruning_is_given_weights_that_are_not_finite(finish, what):
    options = {"epochs": 1} if finish is baselines.tune_codebooks else {}
    expected = f"{what} must be finite, got NaN or infinity in fc2/kernel; {AGAIN}"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        finish(small("two layers"), not_finite(np.nan), key=jax.random.key(0), **options)


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


# Of each method that prunes channels or blocks: the task whose layers it is for.
CHANNELS = dict.fromkeys(STRUCTURED, "normalised") | {"structures": "one block"}
AFTER_TRAINING = [name for name in CHANNELS if name not in ("slimming", "soft-filters")]
AFTER_TRAINING.remove("structures")
EACH = pytest.mark.parametrize(("method", "task"), CHANNELS.items())
ON_DENSE = [*CHANNELS.items(), *product(AFTER_TRAINING, ["two layers", "bfloat16"])]


def start(task, net, seed=0):
    """Of a method of the command line, which shows nothing and stores no state."""
    return Start(small(task), net, net, TRAINING, jax.random.key(seed), None, None)


def prune_channels(method, task, net, seed=0, keep=0.5):
    options = {"strength": 30.0} if method == "structures" else {"keep": keep}
    return STRUCTURED[method](start(task, net, seed), **options)


@cache
def of_fewer_channels(method, task):
    return prune_channels(method, task, untrained(task))


@pytest.mark.parametrize(("method", "task"), ON_DENSE)
def test_channels_structure_types_and_bits(method, task):
    before, net, of = untrained(task), of_fewer_channels(method, task), small(task)
    assert jax.tree.structure(net) == jax.tree.structure(before)
    assert form_of(net) == form_of(before)
    assert_equal(of.parts(swsjax.loads(swsjax.dumps(of.whole(net)))), net)


@EACH
def test_dead_channels_are_removed(method, task):
    """Half of four; a block keeps one channel, which adds nothing."""
    of, before = small(task), untrained(task)
    narrow, net = shrunk(of, of_fewer_channels(method, task))
    sizes = {name: kernel.shape[-1] for name, kernel in baselines.kernels(net).items()}
    if method == "structures":
        assert sizes == {"g0b0conv1/kernel": 1, "g0b0conv2/kernel": 3, "fc/kernel": 3}
    else:
        assert sizes == {"conv/kernel": 2, "fc/kernel": 3}
    assert_equal(of.parts(swsjax.loads(swsjax.dumps(narrow.whole(net)))), net)
    fresh = jax.eval_shape(lambda: narrow.init(1))
    assert form_of(fresh) == form_of(net) != form_of(before)


@EACH
def test_zeros_of_channels_are_held_in_training(method, task):
    net = of_fewer_channels(method, task)
    after = baselines.kernels(steps_of(task)(net))
    for name, kernel in baselines.kernels(net).items():
        np.testing.assert_array_equal(after[name] == 0, kernel == 0)


@pytest.mark.parametrize("method", AFTER_TRAINING)
def test_the_key_decides_which_channels_are_kept(method):
    net = untrained("normalised")
    again, other = (prune_channels(method, "normalised", net, seed) for seed in (0, 1))
    assert_equal(again, of_fewer_channels(method, "normalised"))
    assert differ(again, other) <= (method in ("thinet", "lasso"))


@pytest.mark.parametrize("method", AFTER_TRAINING)
def test_to_keep_all_channels_or_hardly_any(method):
    """No layer is emptied, as in the papers."""
    net = untrained("normalised")
    assert_equal(prune_channels(method, "normalised", net, keep=1), net)
    kernel = prune_channels(method, "normalised", net, keep=0.01).params["conv"]["kernel"]
    assert int(np.any(kernel != 0, axis=(0, 1, 2)).sum()) == 1


def test_to_keep_no_scale():
    expected = "keep=0.01 of 4 weights in the scales is none; keep at least 0.25"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        prune_channels("slimming", "normalised", untrained("normalised"), keep=0.01)


@pytest.mark.parametrize("method", [name for name in CHANNELS if name != "structures"])
@pytest.mark.parametrize("keep", [0, 1.01, float("nan")])
def test_a_share_of_channels_out_of_range(method, keep):
    name = "rate" if method == "soft-filters" else "keep"
    expected = f"{name} must be a number in (0, 1], got {keep!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        prune_channels(method, "normalised", untrained("normalised"), keep=keep)


@EACH
def test_channels_of_weights_that_are_not_finite(method, task):
    layer = "conv" if task == "normalised" else "g0b0conv1"
    params, aux = untrained(task)
    kernel = params[layer]["kernel"].at[0, 0, 0, 0].set(np.nan)
    net = swsjax.lab.Variables(params | {layer: {"kernel": kernel}}, aux)
    what = "scores must be finite, got NaN or infinity for params/conv/kernel"
    if method not in ("l1-filters", "spectral", "nuclear", "frobenius"):
        what = f"kernels must be finite, got NaN or infinity in {layer}/kernel"
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{what}; {AGAIN}')}$"):
        prune_channels(method, task, net)
