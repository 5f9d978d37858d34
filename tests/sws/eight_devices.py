"""Tests on eight devices; ``test_sharding.py`` runs them in a process that has eight."""

import re
from typing import NamedTuple

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh

from swsjax.errors import ConfigError
from swsjax.sws import table
from swsjax.sws.compression import Result
from swsjax.sws.grid import cells_on, grid_over
from swsjax.sws.plans import three_stages
from swsjax.sws.prior import HyperPriors, init_mixture
from swsjax.sws.rates import LearningRates
from swsjax.sws.step import init, make_step, soft
from swsjax.training import epoch, keep_top, stream_epoch, take_apart
from swsjax.training.sharding import check_mesh, gather, replicate, shard_batch, shard_weights

DEVICES = np.array(jax.devices())
NAMES = ["one device", "data", "data and model"]
# Of the arrays in the order of their names: bias, hidden, out.
WHOLE = [(None,), (None, None), (None, None)]
DIVIDED = [(None,), ("model", None), ("model", None)]
COMPILED = []


def mesh_of(name):
    if name == "one device":
        return None
    return Mesh(DEVICES if name == "data" else DEVICES.reshape(-1, 2), tuple(name.split(" and ")))


def note_compiled(event, seconds, **details):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(details["fun_name"])


def axes(array):
    """The axis of the mesh over which each axis of an array is divided."""
    spec = getattr(array.sharding, "spec", ())
    return (*spec, *[None] * (array.ndim - len(spec)))


class Run(NamedTuple):
    result: Result
    weights: list
    """How the weights are sharded before and after each epoch."""
    batches: set
    """What batches are divided over."""
    traced: list
    """How often the loss had been traced after each epoch."""
    compiled: list
    """What was compiled from one report to the next."""


def run(mesh):
    """Two epochs per stage."""
    weights, shardings, traced, compiled, traces = [], [], [], [], []

    def loss_fn(params, batch):
        traces.append(batch["x"].shape)
        jax.debug.inspect_array_sharding(batch["x"], callback=shardings.append)
        return planted.loss_fn(params, batch)

    def note(joint):
        weights.append([axes(array) for array in joint.weights.groups["weights"]])

    def watched(stage):
        def before_epoch(state, number):
            state = stage.before_epoch(state, number)
            note(state.params)
            return state

        def check(record, joint, config):
            note(joint)

        return stage._replace(before_epoch=before_epoch, checks=(*stage.checks, check))

    def stages(*arguments):
        return [watched(stage) for stage in three_stages(*arguments)]

    def callback(record):
        traced.append(len(traces))
        compiled.append(COMPILED.copy())
        COMPILED.clear()

    result = planted.retrain(
        2, 2, loss_fn, prune_epochs=2, mesh=mesh, stages=stages, callback=callback
    )
    batches = {(*getattr(sharding, "spec", ()), None)[0] for sharding in shardings}
    return Run(result, weights, batches, traced, compiled)


@pytest.fixture(scope="module")
def runs():
    jax.monitoring.register_event_duration_secs_listener(note_compiled)
    return {name: run(mesh_of(name)) for name in NAMES}


@pytest.fixture(scope="module")
def mesh():
    """Both axes."""
    return mesh_of("data and model")


def test_there_are_eight_devices():
    assert len(DEVICES) == 8


@pytest.mark.parametrize("name", ["data", "data and model"])
def test_result_is_that_of_one_device(runs, name):
    """Up to rounding: sums over batch and weights are in a different order."""
    alone, spread = runs["one device"].result, runs[name].result
    moved = np.abs(alone.retrained["hidden"] - planted.PARAMS["hidden"]).max()
    assert moved > 1e-2
    for x, y in zip(jax.tree.leaves(alone[:3]), jax.tree.leaves(spread[:3]), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5)
    counts = [record.non_zeros for record in alone.history]
    assert counts[-1] == round(0.6 * counts[3]) < counts[3]
    for x, y in zip(alone.history, spread.history, strict=True):
        assert y.loss == pytest.approx(x.loss, rel=1e-4)
        assert (y.non_zeros, y.details.levels) == (x.non_zeros, x.details.levels)


@pytest.mark.parametrize("name", NAMES)
def test_error_of_the_prior_is_small(runs, name):
    errors = [record.details.prior_error for record in runs[name].result.history]
    assert max(errors) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_result_is_whole_on_one_device(runs, name):
    for leaf in jax.tree.leaves(runs[name].result[:2]):
        assert len(leaf.sharding.device_set) == 1


@pytest.mark.parametrize(
    ("name", "expected"), [("one device", WHOLE), ("data", WHOLE), ("data and model", DIVIDED)]
)
def test_weights_stay_sharded_as_at_the_start(runs, name, expected):
    assert runs[name].weights == 12 * [expected]


@pytest.mark.parametrize(
    ("name", "axis"), [("one device", None), ("data", "data"), ("data and model", "data")]
)
def test_batches_are_divided_over_data(runs, name, axis):
    assert runs[name].batches == {axis}


@pytest.mark.parametrize("name", NAMES)
def test_step_is_traced_once_per_stage(runs, name):
    assert runs[name].traced == [2, 2, 3, 3, 4, 4]  # first to try the loss


@pytest.mark.parametrize("name", NAMES)
def test_nothing_compiles_after_the_first_epoch_of_a_stage(runs, name):
    compiled = runs[name].compiled
    assert all(compiled[::2])
    assert compiled[1::2] == [[]] * 3


# Most weights are in few cells of the table, where a sum of floats would depend on the order.
MANY = {
    "kernel": np.random.default_rng(0).normal(0, 1e-3, (300, 100)).astype(np.float32),
    "bias": np.float32([-1, 0.5, 1]),
}


def under_the_prior(mesh):
    """Weights and mixture after an epoch of steps with a loss of zero."""
    mesh = None if mesh is None else check_mesh(mesh, 64)
    optimizer = LearningRates(weights=1e-4).optimizer(1, 8)
    mixture = replicate(init_mixture(-1.0, 1.0, components=4), mesh)
    net = take_apart(MANY)
    net = net._replace(weights=shard_weights(net.weights, mesh))
    state = init(net, {"weights": mixture}, optimizer, replicate(jax.random.key(0), mesh))
    step = make_step(
        net.loss(lambda params, batch: 0.0),
        optimizer,
        forward=soft,
        tau=0.1 / 520,
        hyper=HyperPriors(),
        nodes=128,
    )
    data = replicate(jax.tree.map(jnp.asarray, planted.DATA), mesh)
    state, _ = epoch(step, state, data, batch_size=64, mesh=mesh)
    weights, mixtures = jax.tree.map(np.asarray, state.params)
    return net.rebuild(weights, net.carried)[0], mixtures["weights"]


def test_under_the_prior_alone_every_bit_is_that_of_one_device():
    """For the prior, devices exchange only a histogram, in integers."""
    alone = under_the_prior(None)
    assert np.abs(alone[0]["kernel"] - MANY["kernel"]).max() > 1e-4
    for name in ("data", "data and model"):
        for x, y in zip(
            jax.tree.leaves(alone), jax.tree.leaves(under_the_prior(mesh_of(name))), strict=True
        ):
            np.testing.assert_array_equal(x, y, strict=True)


EXCHANGE = re.compile(
    r" = (?P<shapes>.*?) (?P<how>all-gather|all-reduce|all-to-all|collective-permute"
    r"|collective-broadcast|reduce-scatter)(-start)?\("
)


def test_devices_exchange_tables_and_no_weights(mesh):
    """64 nodes make a table of 2017 points; the weights are 20 times as many."""
    leaves = [np.random.default_rng(0).normal(size=s) for s in [(512, 64), (64, 100), (100,)]]
    leaves = [jnp.asarray(leaf, jnp.float32) for leaf in leaves]

    def objective(mixture, leaves):
        grid = grid_over(leaves, 64)
        cells = cells_on(leaves, grid)
        assigned = table.straight_through(mixture, leaves, grid, cells)
        log_prob = table.sum_log_prob(mixture, leaves, grid, cells)
        return log_prob + sum(jnp.sum(x**2) for x in assigned)

    gradients = jax.jit(jax.value_and_grad(objective, argnums=(0, 1)))
    placed = replicate(init_mixture(-3.0, 3.0), mesh), shard_weights(leaves, mesh)
    exchanges = list(EXCHANGE.finditer(gradients.lower(*placed).compile().as_text()))
    assert {match["how"] for match in exchanges} == {"all-reduce"}
    shapes = re.findall(r"\w+\[([\d,]*)\]", " ".join(match["shapes"] for match in exchanges))
    sizes = [np.prod([int(n) for n in shape.split(",") if n]) for shape in shapes]
    assert max(sizes) == 2 * 2016  # the histogram: counts and fractions of 63 x 32 cells


def test_batch_must_be_a_multiple_of_the_devices_along_data(mesh):
    message = (
        "batch_size 12 is not a multiple of the 8 devices along 'data'; set a different batch_size"
    )
    with pytest.raises(ConfigError, match=f"^{message}$"):
        check_mesh(mesh_of("data"), 12)
    assert check_mesh(mesh, 12).shape == {"data": 4, "model": 2}


@example([3, 4], 4)
@example([4, 6], 2)
@example([7, 2], 2)
@example([3, 5], 2)
@example([0, 3], 2)
@example([], 2)
@given(st.lists(st.integers(1, 12), max_size=3), st.sampled_from([2, 4, 8]))
@settings(max_examples=50, deadline=None)
def test_weights_are_divided_along_the_longest_axis_that_divides(shape, devices):
    mesh = Mesh(DEVICES.reshape(-1, devices), ("data", "model"))
    weights = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    placed = shard_weights(weights, mesh)
    divided = [n for n, axis in zip(shape, axes(placed), strict=True) if axis == "model"]
    assert divided == sorted(n for n in shape if n % devices == 0)[-1:]
    assert set(axes(placed)) <= {"model", None}
    np.testing.assert_array_equal(placed, weights, strict=True)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_go_to_every_device(mesh, impl):
    key = jax.random.key(3, impl=impl)
    everywhere = replicate({"key": key, "x": jnp.ones(3)}, mesh)
    assert all(len(leaf.sharding.device_set) == 8 for leaf in everywhere.values())
    assert all(leaf.sharding.is_fully_replicated for leaf in everywhere.values())
    assert jax.random.key_impl(everywhere["key"]) == jax.random.key_impl(key)
    np.testing.assert_array_equal(
        jax.random.key_data(everywhere["key"]), jax.random.key_data(key), strict=True
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gathered_weights_are_whole(mesh, dtype):
    weights = {"w": jnp.arange(24, dtype=dtype).reshape(4, 6), "b": jnp.ones((), dtype)}
    gathered = gather(shard_weights(weights, mesh), mesh)
    for name, leaf in gathered.items():
        assert len(leaf.sharding.device_set) == 1
        np.testing.assert_array_equal(leaf, weights[name], strict=True)


def test_batch_is_divided_along_its_first_axis(mesh):
    batch = {"x": np.arange(16.0).reshape(8, 2), "y": np.arange(8)}
    placed = shard_batch(batch, mesh)
    assert jax.tree.map(axes, placed) == {"x": ("data", None), "y": ("data",)}
    for name, leaf in placed.items():
        assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {2}
        np.testing.assert_array_equal(leaf, batch[name])


def test_batches_of_a_stream_are_divided_over_data(mesh):
    shardings = []

    def step(state, batch):
        jax.debug.inspect_array_sharding(batch, callback=shardings.append)
        return state + batch.sum(axis=0), batch.mean()

    batches = np.arange(48.0, dtype=np.float32).reshape(3, 8, 2)
    state, info = stream_epoch(step, replicate(jnp.zeros(2), mesh), batches, mesh=mesh)
    np.testing.assert_array_equal(state, batches.sum(axis=(0, 1)))
    assert info == batches.mean()
    assert {(*sharding.spec, None)[0] for sharding in shardings} == {"data"}


@pytest.mark.parametrize("k", [0, 1, 40, 86, 87])
@pytest.mark.parametrize("score", [jnp.abs, lambda leaf: jnp.round(jnp.abs(leaf))])
def test_sharded_weights_are_pruned_like_whole_ones(mesh, score, k):
    """The second score has many ties, which are broken by rank among all leaves."""
    scores = jax.tree.map(score, planted.PARAMS)
    kept = keep_top(planted.PARAMS, scores, k)
    sharded = keep_top(*shard_weights((planted.PARAMS, scores), mesh), k)
    if score is jnp.abs:  # the smallest of the 87 weights is zero
        assert sum(np.count_nonzero(leaf) for leaf in sharded.values()) == min(k, 86)
    for name, leaf in sharded.items():
        np.testing.assert_array_equal(leaf, kept[name], strict=True)
