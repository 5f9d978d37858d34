"""Top-k, bits and channels of a traced level against NumPy, and the schedules by their values."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_tasks import images, untrained

from swsjax.baselines.affine import quantize_affine
from swsjax.baselines.levels import first_channels, kept_channels, rounded, top_share
from swsjax.baselines.rules import bits, norm_parameters, task_layers, top_k, width
from swsjax.baselines.schedules import (
    at_levels,
    decayed_share,
    decaying,
    ends_or_uniform,
    late,
    late_share,
    line_draw,
    point_draw,
    sandwich,
    uniform,
)
from swsjax.baselines.weights import kernels
from swsjax.errors import ConfigError
from swsjax.lab import ResidualNet, Variables, classification
from swsjax.lab.nets import NETS
from swsjax.lab.residual import instance_norm
from swsjax.trees import named_leaves

SIZES = st.sampled_from([1, 2, 9])  # each is compiled
WEIGHTS = hnp.arrays(np.float32, SIZES, elements=st.integers(-9, 9).map(np.float32))
SHARES = st.integers(1, 100).map(lambda hundredths: hundredths / 100)
KEYS = jax.random.split(jax.random.key(0), 400)
HALF = jnp.array(0.5)


@given(WEIGHTS, SHARES)
@settings(max_examples=25, deadline=None)
def test_the_smallest_weights_of_an_array_become_zero(weights, share):
    dropped = int(np.floor((np.float32(1) - np.float32(share)) * np.float32(weights.size)))
    order = np.argsort(-np.abs(weights), kind="stable")  # the first of equal magnitudes
    expected = weights.copy()
    expected[order[weights.size - dropped :]] = 0
    np.testing.assert_array_equal(top_share(jnp.asarray(weights), share), expected)


def test_gradients_go_through_kept_weights_only():
    weights = jnp.array([0.1, -0.8, 0.3, 0.2])
    gradient = jax.grad(lambda w: jnp.sum(jnp.arange(1.0, 5) * top_share(w, 0.5)))(weights)
    np.testing.assert_array_equal(gradient, [0, 2, 3, 0])


@given(WEIGHTS, st.integers(1, 16))
@settings(max_examples=25, deadline=None)
def test_rounded_as_the_quantiser_after_training(weights, number):
    net = Variables({"kernel": jnp.asarray(weights)[None]}, {})
    expected = quantize_affine(net, number).params["kernel"][0]
    ours = np.asarray(rounded(jnp.asarray(weights), number))
    np.testing.assert_array_equal(ours, expected)
    assert len(np.unique(np.append(ours, 0))) <= 2**number
    assert (ours[weights == 0] == 0).all()


def test_gradients_go_straight_through_rounding():
    weights = jax.random.normal(jax.random.key(0), (5, 3))
    factors = jax.random.normal(jax.random.key(1), (5, 3))
    gradient = jax.grad(lambda w: jnp.sum(factors * rounded(w, 2) ** 2))(weights)
    np.testing.assert_array_equal(gradient, 2 * factors * rounded(weights, 2))


@pytest.mark.parametrize("compressed", [top_share, rounded])
def test_all_levels_are_one_trace(compressed):
    traces = []

    @jax.jit
    def at(weights, level):
        traces.append(level)
        return compressed(weights, level)

    weights = jax.random.normal(jax.random.key(0), (6, 7))
    for level in (1, 2, 5) if compressed is rounded else (0.1, 0.5, 1.0):
        np.testing.assert_allclose(at(weights, level), compressed(weights, level), rtol=1e-6)
    assert len(traces) == 1


@given(st.sampled_from([1, 4, 11]), SHARES)
@settings(max_examples=15, deadline=None)
def test_the_first_channels_are_kept(size, share):
    kept = max(1, round(float(np.float32(share) * np.float32(size))))
    params = {"a": jnp.ones((2, size)), "b": jnp.ones(size), "c": jnp.ones((3 * size, 2))}
    found = first_channels(params, [{"a": 1, "b": 0, "c": 0, "mean": 0}], share)
    expected = (np.arange(size) < kept).astype(float)
    np.testing.assert_array_equal(found["a"], np.tile(expected, (2, 1)))
    np.testing.assert_array_equal(found["b"], expected)
    np.testing.assert_array_equal(found["c"], np.tile(expected, 3)[:, None] * np.ones(2))


def test_a_kernel_between_two_layers_loses_channels_on_both_axes():
    params = {"a": jnp.ones((1, 4)), "b": jnp.ones((4, 2)), "c": jnp.ones((2, 1))}
    found = first_channels(params, [{"a": 1, "b": 0}, {"b": 1, "c": 0}], 0.5)
    np.testing.assert_array_equal(found["b"], [[1, 0], [1, 0], [0, 0], [0, 0]])
    assert kept_channels({"d": jnp.ones(3)}, params, [{"a": 1}], 0.5) == {}


@pytest.mark.parametrize("norm", [{}, {"norm": instance_norm}], ids=["batch", "instance"])
def test_masked_channels_are_those_of_the_physically_narrow_net(norm):
    """In training: the norms take statistics of the batch."""

    def task_of(*widths):
        model = partial(ResidualNet, widths=widths, blocks=1, **norm)
        return classification(model, images(4, 4, 3))

    wide, narrow = task_of(4, 4, 6, 8), task_of(2, 2, 3, 4)
    net, rng = jax.tree.map(np.asarray, jax.jit(lambda: wide.init(0))()), np.random.default_rng(1)
    net = net._replace(
        params=jax.tree.map(lambda x: x + np.float32(rng.normal(0, 0.3, x.shape)), net.params)
    )
    rule = width(0.25, 1.0, task_layers(wide))
    masked = jax.jit(rule.compressed)(net, 0.5)
    like = jax.eval_shape(lambda: narrow.init(0))
    cut = jax.tree.map(lambda x, y: x[tuple(map(slice, y.shape))], net, like)
    batch = jnp.asarray(wide.dataset.test.images)
    ours, after = jax.jit(wide.apply)(masked.params, net.aux, batch)
    theirs, expected = jax.jit(narrow.apply)(cut.params, cut.aux, batch)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    if not norm:
        carried = rule.carried(net, after, 0.5)
        for (name, new), old, own in zip(
            named_leaves(carried), jax.tree.leaves(net.aux), jax.tree.leaves(expected), strict=True
        ):
            kept = len(own)
            np.testing.assert_allclose(new[:kept], own, rtol=1e-4, atol=1e-5, err_msg=name)
            np.testing.assert_array_equal(new[kept:], old[kept:], err_msg=name)
            assert (np.asarray(new[:kept]) != np.asarray(old[:kept])).any()


def test_layers_of_a_task_have_those_that_the_table_knows():
    task = classification(NETS["resnet-8"].model, images(4, 4, 3))
    found = task_layers(task)
    assert len(found) == 6
    for channels in NETS["resnet-8"].channels:
        assert channels in found


def test_parameters_of_norms():
    found = norm_parameters(untrained("BatchNorm").params)
    assert {name.rpartition("/")[0][-3:] for name in found} == {"bn1", "bn2", "bn"}
    assert {name.rpartition("/")[2] for name in found} == {"scale", "bias"}
    assert norm_parameters(untrained("two layers").params) == ()


def test_kernels_that_stay_whole():
    net = untrained("two layers")
    found = top_k(0.1, 1.0, whole=["fc2/*"]).compressed(net, 0.1)
    np.testing.assert_array_equal(found.params["fc2"]["kernel"], net.params["fc2"]["kernel"])
    assert jnp.count_nonzero(found.params["fc1"]["kernel"]) == 13  # 128 - int(0.9 * 128)
    assert bits(1, 2, whole=["fc1/kernel"]).compressed(net, 1).params["fc1"]["kernel"].size == 128
    np.testing.assert_array_equal(found.params["fc1"]["bias"], net.params["fc1"]["bias"])


@pytest.mark.parametrize(
    ("share", "progress", "decayed", "stepped"),
    [
        (0.025, 0.0, 1.0, 1.0),
        (0.025, 0.4, 0.5125, 1.0),
        (0.025, 0.8, 0.025, 0.025),
        (0.025, 1.0, 0.025, 0.025),
        (0.5, 0.2, 0.875, 1.0),
        (1.0, 0.6, 1.0, 1.0),
    ],
)
def test_shares_over_the_training(share, progress, decayed, stepped):
    assert decayed_share(share, progress) == pytest.approx(decayed)
    assert late_share(share, progress) == pytest.approx(stepped)


def test_half_of_the_points_are_ends():
    found = np.asarray(jax.vmap(lambda key: ends_or_uniform(key, 0.025, 1.0))(KEYS))
    least, most = np.mean(found == np.float32(0.025)), np.mean(found == 1)
    between = found[(found > 0.025) & (found < 1)]
    assert least == pytest.approx(0.25, abs=0.07)
    assert most == pytest.approx(0.25, abs=0.07)
    assert len(between) / len(found) == pytest.approx(0.5, abs=0.08)
    assert between.mean() == pytest.approx(0.51, abs=0.06)


def test_a_line_of_shares_decays_to_its_points():
    rule = top_k(0.005, 0.05)
    points, shares = jax.vmap(lambda key: decaying(rule, key, jnp.array(0.9)))(KEYS)
    assert points.shape == (400, 1)
    np.testing.assert_allclose(shares, points, rtol=1e-6)
    assert np.min(points) == np.float32(0.005)
    assert np.max(points) == np.float32(0.05)
    points, shares = decaying(rule, KEYS[0], jnp.array(0.0))
    np.testing.assert_allclose(shares, [1])


def test_a_point_of_shares_keeps_all_until_late():
    rule = top_k(0.1, 0.3)
    assert (jax.vmap(lambda key: late(rule, key, HALF)[1])(KEYS) == 1).all()
    shares = np.asarray(jax.vmap(lambda key: late(rule, key, jnp.array(0.8))[1])(KEYS))
    assert 0.1 <= shares.min() < 0.12
    assert 0.28 < shares.max() <= 0.3


def test_bits_have_equal_parts_of_the_line():
    rule = bits(3, 8)
    alphas = (np.arange(60) + 0.5) / 60
    np.testing.assert_array_equal(rule.of(alphas), np.repeat(np.arange(3, 9), 10))
    np.testing.assert_array_equal(rule.of([0.0, 1.0]), [3, 8])
    np.testing.assert_allclose(rule.alpha(np.arange(3, 9)), (np.arange(6) + 0.5) / 6, rtol=1e-6)
    _, levels = jax.vmap(lambda key: uniform(rule, key, HALF))(KEYS)
    counts = np.bincount(np.ravel(levels), minlength=9)[3:]
    assert counts.sum() == 400
    assert (np.abs(counts - 400 / 6) < 30).all()
    assert levels.dtype == jnp.int32


def test_the_sandwich():
    rule = width(0.25, 1.0, [{"a": 0}])
    points, widths = jax.vmap(lambda key: sandwich(rule, key, HALF))(KEYS)
    np.testing.assert_array_equal(points[:, :2], np.tile([0.0, 1.0], (400, 1)))
    np.testing.assert_allclose(widths, 0.25 + 0.75 * points, rtol=1e-6)
    assert ((points[:, 2:] > 0) & (points[:, 2:] < 1)).all()
    assert np.mean(points[:, 2:]) == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(rule.alpha(widths), points, atol=1e-6)
    points, widths = at_levels((0.25, 0.5, 1.0))(rule, KEYS[0], HALF)
    np.testing.assert_allclose(points, [0, 1 / 3, 1], rtol=1e-6)
    np.testing.assert_array_equal(widths, [0.25, 0.5, 1])
    assert width(0.5, 0.5, [{"a": 0}]).alpha(0.5) == 0


def test_draws_of_the_paper():
    rules = top_k(0.1, 1.0), width(0.1, 1.0, [{"a": 0}]), bits(3, 8)
    assert [line_draw(rule) for rule in rules] == [decaying, sandwich, uniform]
    assert [point_draw(rule) for rule in rules] == [late, sandwich, uniform]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: top_k(0, 1.0),
            "least share of the weights must be a number in (0, 1], got 0",
        ),
        (
            lambda: top_k(0.1, "all"),
            "most share of the weights must be a number in (0, 1], got 'all'",
        ),
        (
            lambda: top_k(0.5, 0.1),
            "the least share of the weights is 0.5, more than the most, 0.1; swap them",
        ),
        (
            lambda: top_k(0.5, 1, whole="fc1"),
            "whole must be a sequence of names or patterns, got 'fc1'",
        ),
        (
            lambda: width(0.5, 1.5, [{"a": 0}]),
            "most share of the channels must be a number in (0, 1], got 1.5",
        ),
        (
            lambda: width(0.5, 1, []),
            "layers must be a sequence of mappings from names of leaves to axes, got []; "
            "task_layers finds them",
        ),
        (
            lambda: bits(0, 8),
            "least number of bits must be an integer of at least 1, got 0",
        ),
        (
            lambda: bits(8, 3),
            "the least number of bits is 8, more than the most, 3; swap them",
        ),
        (
            lambda: top_k(0.1, 1, whole=["conv/*"]).ends(untrained("two layers")),
            "'conv/*' in whole fits no kernel; the kernels are fc1/kernel, fc2/kernel",
        ),
        (
            lambda: bits(1, 2, whole=["*"]).ends(untrained("two layers")),
            "whole fits all kernels, and none is left to compress: fc1/kernel, fc2/kernel",
        ),
        (
            lambda: width(0.5, 1, [{"conv/kernel": 3}]).ends(untrained("two layers")),
            "the net does not have the channels of {'conv/kernel': 3}: it has none; pass the "
            "layers of this net",
        ),
        (
            lambda: width(0.5, 1, [{"fc1/kernel": 1, "fc2/kernel": 1}]).ends(
                untrained("two layers")
            ),
            "the net does not have the channels of {'fc1/kernel': 1, 'fc2/kernel': 1}: it has "
            "{'fc1/kernel': 8, 'fc2/kernel': 3}; pass the layers of this net",
        ),
    ],
    ids=range(12),
)
def test_rules_that_are_none(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


def test_a_rule_compresses_kernels_only():
    net = untrained("BatchNorm")
    for rule, level in ((top_k(0.1, 1.0), 0.2), (bits(2, 8), 2)):
        found = jax.jit(rule.compressed)(net, level)
        assert all(map(jnp.array_equal, jax.tree.leaves(found.aux), jax.tree.leaves(net.aux)))
        for name, leaf in named_leaves(net.params):
            changed = not jnp.array_equal(dict(named_leaves(found.params))[name], leaf)
            assert changed <= (name in kernels(net))
