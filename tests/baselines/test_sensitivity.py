"""Shares of layers, given, global and by sensitivity; pruning one layer leaves others alone."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_tasks import small, untrained

from swsjax.baselines.channels import channel_groups
from swsjax.baselines.filters import l1_norms
from swsjax.baselines.sensitivity import sensitivities, shares_by_sensitivity, skewness
from swsjax.baselines.shares import (
    channel_scores,
    channels_kept,
    global_shares,
    prune_channels,
)
from swsjax.errors import ConfigError
from swsjax.trees import named_leaves


def l1(name, kernel):
    return l1_norms(kernel)


def groups_of(name):
    """The groups between the two convolutions of a block, or the two dense layers."""
    task = small(name)
    found = channel_groups(task.predict, untrained(name), task.dataset.test.images[:1])
    return [group for group in found if len(group.kernels) == 1]


@pytest.mark.parametrize("name", ["two layers", "BatchNorm"])
def test_scores_are_those_of_the_filters(name):
    groups, leaves = groups_of(name), dict(named_leaves(untrained(name)))
    scores = channel_scores(untrained(name), groups, l1)
    for group, score in zip(groups, scores, strict=True):
        ((kernel, axis),) = group.kernels
        assert axis == leaves[kernel].ndim - 1
        expected = np.abs(np.asarray(leaves[kernel])).reshape(-1, group.size).sum(0)
        np.testing.assert_allclose(score, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["two layers", "BatchNorm"])
def test_a_layer_alone_is_pruned(name):
    """Its smallest channels, in all leaves that they run through, and nothing else."""
    net, groups = untrained(name), groups_of(name)
    group = groups[-1]
    (score,) = channel_scores(net, [group], l1)
    before = dict(named_leaves(net))
    after = dict(named_leaves(prune_channels(net, [group], [score], [0.5])))
    gone = np.argsort(score)[: group.size - group.size // 2]
    expected = {leaf: np.array(array) for leaf, array in before.items()}
    for (leaf, axis), indices in group.members.items():
        if leaf.startswith("params"):
            np.moveaxis(expected[leaf], axis, 0)[indices[gone].ravel()] = 0
    for leaf, array in after.items():
        np.testing.assert_array_equal(array, expected[leaf], err_msg=leaf)


def test_errors_are_those_of_each_layer_alone():
    task, net, groups = small("two layers"), untrained("two layers"), groups_of("two layers")
    scores, keeps = channel_scores(net, groups, l1), [1.0, 0.6, 0.2]
    kernel = np.array(net.params["fc1"]["kernel"])
    found = sensitivities(task, net, groups, scores, keeps)
    validation = task.dataset.validation
    assert found.shape == (1, 3)
    for error, keep in zip(found[0], keeps, strict=True):
        pruned = prune_channels(net, groups, scores, [keep])
        assert error == task.error(pruned, validation)
    assert found[0, 0] == task.error(net, validation)
    np.testing.assert_array_equal(net.params["fc1"]["kernel"], kernel)


@given(
    scores=st.lists(
        arrays.arrays(float, st.integers(1, 6), elements=st.floats(0, 1)), min_size=1, max_size=4
    ),
    keep=st.floats(0.2, 1),
)
def test_global_shares_are_those_of_one_rank(scores, keep):
    joined = np.concatenate(scores)
    number = round(joined.size * keep)
    if not number:
        return
    shares = global_shares(scores, keep)
    counts = [share * score.size for share, score in zip(shares, scores, strict=True)]
    assert all(count >= 1 for count in counts)
    assert number <= round(sum(counts)) <= number + len(scores) - 1
    threshold = np.sort(joined)[-number]
    for count, score in zip(counts, scores, strict=True):
        least, most = (score > threshold).sum(), (score >= threshold).sum()
        assert max(least, 1) - 1e-9 <= count <= max(most, 1) + 1e-9
        assert channels_kept(score.size, count / score.size) == round(count)


@pytest.mark.parametrize(
    ("errors", "shares"),
    [
        ([[0.02, 0.02, 0.03]], [0.1]),
        ([[0.02, 0.03, 0.031]], [0.5]),
        ([[0.9, 0.02, 0.02]], [1.0]),  # not down to a share that is fine by chance
        ([[0.02, 0.9, 0.02], [0.01, 0.01, 0.01]], [0.9, 0.1]),
    ],
)
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_shares_by_sensitivity(errors, shares, order):
    keeps = np.array([0.9, 0.5, 0.1])[order]
    found = shares_by_sensitivity(np.array(errors)[:, order], keeps, error=0.02, tolerance=0.01)
    assert found == shares


def test_skewness_is_the_third_moment():
    scores = [np.random.default_rng(0).gamma(2, size=20), np.full(5, 0.1, np.float32)]
    centred = scores[0] - scores[0].mean()
    third = (centred**3).mean() / (centred**2).mean() ** 1.5
    np.testing.assert_allclose(skewness(scores), [third, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: channels_kept(5, 0), "keep must be a number in (0, 1], got 0"),
        (
            lambda: prune_channels(untrained("two layers"), groups_of("two layers"), [], [0.5]),
            "scores must have one entry for each of 1 groups, got 0",
        ),
        (
            lambda: shares_by_sensitivity(np.zeros((2, 3)), [0.5], error=0, tolerance=0),
            "errors must be of shape (layers, 1), one for each share, got (2, 3)",
        ),
        (
            lambda: channel_scores(
                {"b": jnp.ones(3)}, [groups_of("two layers")[0]._replace(kernels=())], l1
            ),
            "channels are scored by the kernels that make them, and no kernel makes those of "
            "params/fc1/bias, params/fc1/kernel, params/fc2/kernel; leave the group out",
        ),
    ],
    ids=["keep", "scores", "errors", "no kernel"],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        call()
