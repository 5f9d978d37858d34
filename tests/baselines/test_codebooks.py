"""Codebooks against the best partition, and their training against sums of gradients."""

import re
import shutil
import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_tasks import small, untrained

import swsjax
from swsjax.baselines import kernels, magnitude
from swsjax.baselines.codebooks import (
    k_means,
    k_means_of_net,
    tune_codebook_of_net,
    tune_codebooks,
)
from swsjax.baselines.weights import with_kernels
from swsjax.errors import ConfigError, DataError
from swsjax.lab import Variables

KEY = jax.random.key(5)
BOTH = pytest.mark.parametrize("cluster", [k_means, k_means_of_net])
# Weights of a few digits, so that a rounding does not decide between two clusters.
WEIGHTS = st.lists(st.integers(-60, 60).map(lambda n: n / 16), min_size=1, max_size=30)


def assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


def clustered(weights, levels, cluster=k_means):
    net = Variables({"w": jnp.asarray(weights, jnp.float32)}, ())
    return np.asarray(cluster(net, levels).params["w"])


def values_of(array):
    values = np.unique(np.float32(array))
    return values[values != 0]


def least_cost(weights, levels):
    """Of all partitions into intervals, by dynamic programming."""
    weights = np.sort(weights)

    def cost(start, end):
        part = weights[start:end]
        return ((part - part.mean()) ** 2).sum()

    best = [0.0] + [np.inf] * len(weights)
    for _ in range(levels):
        best = [0.0] + [
            min(best[start] + cost(start, end) for start in range(end))
            for end in range(1, len(weights) + 1)
        ]
    return best[-1]


def cost_of_start(weights, levels):
    """Of the means that k-means begins with, evenly spaced."""
    means = np.linspace(weights.min(), weights.max(), levels)
    return (np.abs(weights[:, None] - means).min(axis=1) ** 2).sum()


@BOTH
@given(WEIGHTS, st.integers(1, 6))
@example([-1.0, 1.0], 1)
@example([0.0], 1)
@example([2.0, 2.0, 2.0], 2)
@settings(max_examples=60, deadline=None)
def test_k_means(cluster, weights, levels):
    weights = np.array(weights)
    ours = clustered(weights, levels, cluster).astype(float)
    kept = weights != 0
    np.testing.assert_array_equal(ours != 0, kept)
    values = values_of(ours)
    assert len(values) <= levels
    weights, ours = weights[kept], ours[kept]
    if len(np.unique(weights)) <= levels:
        np.testing.assert_array_equal(ours, weights)
        return
    cost = ((ours - weights) ** 2).sum()
    assert least_cost(weights, levels) - 1e-5 <= cost <= cost_of_start(weights, levels) + 1e-5
    for value in values:  # a mean of its weights, which are nearer to it than to others
        np.testing.assert_allclose(weights[ours == value].mean(), value, rtol=1e-5, atol=1e-6)
    nearest = np.abs(weights[:, None] - values).min(axis=1)
    np.testing.assert_allclose(np.abs(ours - weights), nearest, atol=1e-5)


@BOTH
def test_clusters_that_are_apart_are_found(cluster):
    centres = np.array([-2.0, -0.5, 0.7, 3.0])
    weights = (centres[:, None] + np.linspace(-0.1, 0.1, 21)).ravel()
    found = clustered(weights, 4, cluster)
    np.testing.assert_allclose(found, np.repeat(centres, 21), rtol=1e-5)
    assert ((found - weights) ** 2).sum() == pytest.approx(least_cost(weights, 4), rel=1e-3)


def test_thirty_two_levels_of_many_weights():
    weights = np.random.default_rng(0).normal(size=3000) * np.random.default_rng(1).integers(
        0, 2, 3000
    )
    found = clustered(weights, 32)
    assert len(values_of(found)) == 32
    np.testing.assert_array_equal(found == 0, weights == 0)
    # A uniform density in every cell would cost width^2 / 12 per weight.
    assert ((found - weights) ** 2).mean() < cost_of_start(weights[weights != 0], 32) / 3000


def test_a_codebook_for_each_array_or_for_the_net():
    net = untrained("normalised")
    with_biases = net._replace(params=jax.tree.map(lambda x: x + 0.01, net.params))
    apart, joint = k_means(with_biases, 3), k_means_of_net(with_biases, 3)
    assert {min(3, len(values_of(x))) for x in jax.tree.leaves(with_biases.params)} == {
        len(values_of(x)) for x in jax.tree.leaves(apart.params)
    }
    everything = np.concatenate([np.ravel(x) for x in jax.tree.leaves(joint.params)])
    assert len(values_of(everything)) == 3
    assert_equal((apart.aux, joint.aux), (net.aux, net.aux))


@BOTH
@pytest.mark.parametrize("name", ["two layers", "bfloat16", "normalised"])
def test_form_zeros_and_bits_are_kept(cluster, name):
    task, net = small(name), magnitude(untrained(name), 0.5)
    ours = cluster(net, 4)
    assert swsjax.trees.form_of(ours) == swsjax.trees.form_of(net)
    assert_equal(cluster(net, 4), ours)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(net), strict=True):
        np.testing.assert_array_equal(x == 0, y == 0)
    whole = task.whole(ours)
    assert_equal(task.parts(swsjax.loads(swsjax.dumps(whole), like=whole)), ours)


@BOTH
@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (1,)], ids=str)
def test_arrays_without_weights(cluster, shape):
    np.testing.assert_array_equal(clustered(np.zeros(shape), 2, cluster), np.zeros(shape))


@BOTH
def test_a_mean_of_zero_is_not_a_pruned_weight(cluster):
    assert clustered([-1.0, 0.0, 1.0], 1, cluster).tolist() == [
        float(jnp.finfo(jnp.float32).tiny),
        0.0,
        float(jnp.finfo(jnp.float32).tiny),
    ]


@BOTH
@pytest.mark.parametrize("levels", [0, 1.5, True])
def test_levels_out_of_range(cluster, levels):
    message = f"levels must be an integer of at least 1, got {levels!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        clustered([1.0, 2.0], levels, cluster)


@BOTH
def test_weights_that_are_not_finite(cluster):
    net = Variables({"fc": {"bias": jnp.array([1.0, jnp.nan])}}, ())
    message = (
        "weights to share must be finite, got NaN or infinity in fc/bias; load or train the net "
        "again"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        cluster(net)


@BOTH
def test_without_scikit_learn(cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    message = "k-means needs scikit-learn: pip install 'swsjax[digits]'"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        clustered([1.0, 2.0, 4.0], 2, cluster)
    assert clustered([1.0, 2.0], 2, cluster).tolist() == [1.0, 2.0]


def shared(name="two layers", levels=3, cluster=k_means):
    """A pruned net with biases, quantised."""
    net = magnitude(untrained(name), 0.5)
    biases = jax.tree.map(
        lambda x: jnp.where(x.ndim > 1, x, 0.1 + 0 * x).astype(x.dtype), net.params
    )
    return cluster(Variables(biases, net.aux), levels)


@jax.jit
def loss(params):
    """The mean cross-entropy of all training images of two layers, written out."""
    task = small("two layers")
    pixels, labels = task.dataset.train
    logits = task.apply(params, {}, jnp.asarray(pixels))[0]
    return (jax.nn.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean()


gradients_of = jax.jit(jax.grad(loss))


@cache
def after_a_step(cluster, tune):
    """On all images, so that their order does not matter; and the net before it."""
    net, sgd = shared(cluster=cluster), optax.sgd(1.0)
    tuned = tune(small("two layers"), net, epochs=1, key=KEY, optimizer=sgd, batch_size=96)
    return net, tuned


def test_the_gradient_of_a_value_is_the_sum_of_those_of_its_weights():
    net, ours = after_a_step(k_means, tune_codebooks)
    gradients = gradients_of(net.params)
    for before, after, slopes in zip(
        *map(jax.tree.leaves, (net.params, ours.params, gradients)), strict=True
    ):
        expected = np.zeros(before.shape)
        for value in values_of(before):
            of_value = np.asarray(before == value)
            expected[of_value] = -np.asarray(slopes)[of_value].sum()
        np.testing.assert_allclose(after - before, expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_a_value_by_differences():
    net, ours = after_a_step(k_means, tune_codebooks)
    kernel = kernels(net)["fc2/kernel"]
    for value in values_of(kernel):
        of_value = kernel == value

        def moved(by, of_value=of_value):
            found = kernels(net) | {"fc2/kernel": kernel + by * of_value}
            return loss(with_kernels(net, found).params)

        slope = (moved(1e-2) - moved(-1e-2)) / 2e-2
        step = (kernels(ours)["fc2/kernel"] - kernel)[of_value]
        np.testing.assert_allclose(step, -slope, rtol=1e-2, atol=1e-4)


def test_the_gradient_of_a_value_in_the_whole_net():
    net, ours = after_a_step(k_means_of_net, tune_codebook_of_net)
    gradients = gradients_of(net.params)
    before, after, slopes = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        for tree in (net.params, ours.params, gradients)
    )
    assert len(values_of(before)) == 3
    for value in values_of(before):
        of_value = before == value
        np.testing.assert_allclose((after - before)[of_value], -slopes[of_value].sum(), rtol=1e-4)
    np.testing.assert_array_equal(after[before == 0], 0)


@pytest.mark.parametrize(
    ("name", "cluster", "tune"),
    [
        ("two layers", k_means, tune_codebooks),
        ("two layers", k_means_of_net, tune_codebook_of_net),
        ("bfloat16", k_means, tune_codebooks),
        ("normalised", k_means, tune_codebooks),
    ],
)
def test_weights_that_shared_a_value_still_do(name, cluster, tune):
    """Under momentum and decay; and zeros are still zero."""
    task, net = small(name), shared(name, cluster=cluster)
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    ours = tune(task, net, epochs=3, key=KEY, optimizer=optimizer, batch_size=32)
    assert swsjax.trees.form_of(ours) == swsjax.trees.form_of(net)
    trees = [jax.tree.leaves(net.params), jax.tree.leaves(ours.params)]
    if cluster is k_means_of_net:
        trees = [[np.concatenate([np.ravel(x) for x in tree])] for tree in trees]
    for before, after in zip(*trees, strict=True):
        before, after = np.float32(before), np.float32(after)
        np.testing.assert_array_equal(after == 0, before == 0)
        for value in values_of(before):
            assert len(np.unique(after[before == value])) == 1
        assert len(before) < 1 or (before != after).any()
    for before, after in zip(*map(jax.tree.leaves, (net.aux, ours.aux)), strict=True):
        assert (before != after).any()


def test_training_through_codebooks_learns():
    task, net = small("two layers"), shared()
    ours = tune_codebooks(task, net, epochs=20, key=KEY, optimizer=optax.adam(0.03), batch_size=32)
    assert loss(ours.params) < 0.9 * loss(net.params)


def test_the_key_decides_the_order():
    task, net = small("two layers"), shared()
    first, again, other = (
        tune_codebooks(task, net, epochs=1, key=jax.random.key(seed), batch_size=32)
        for seed in (0, 0, 1)
    )
    assert_equal(again, first)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    assert any((x != y).any() for x, y in pairs)


def test_tuning_of_a_codebook_of_the_net_resumes(tmp_path):
    """The last epoch is lost, as if the power had failed; for the others, see the contract."""
    task, net = small("two layers"), shared()
    run = partial(tune_codebook_of_net, task, net, epochs=3, key=KEY, batch_size=32)
    expected = run()
    assert_equal(run(resume=tmp_path), expected)
    shutil.rmtree(tmp_path / "3")
    written = (tmp_path / "2").stat().st_mtime_ns
    assert_equal(run(resume=tmp_path), expected)
    assert (tmp_path / "3").exists()
    assert (tmp_path / "2").stat().st_mtime_ns == written


@pytest.mark.parametrize("tune", [tune_codebooks, tune_codebook_of_net])
def test_nothing_but_zeros_and_one_value(tune):
    net = untrained("two layers")
    dead = with_kernels(
        net, {"fc1/kernel": jnp.zeros((16, 8)), "fc2/kernel": jnp.full((8, 3), 0.5)}
    )
    ours = tune(small("two layers"), dead, epochs=1, key=KEY, batch_size=32)
    assert (kernels(ours)["fc1/kernel"] == 0).all()
    assert len(np.unique(kernels(ours)["fc2/kernel"])) == 1
