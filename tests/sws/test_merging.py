"""Merging of components: what is conserved, which merge, and which do not."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from swsjax.errors import ConfigError
from swsjax.sws.merging import kl_divergence, merge
from swsjax.sws.prior import component_means, log_mixing, log_prob


def moments(mixture):
    """Shares, means and second moments about 0 of all components."""
    shares = np.exp(np.float64(log_mixing(mixture)))
    means = np.float64(component_means(mixture))
    return shares, means, np.exp(-np.float64(mixture.log_precisions)) + means**2


def symmetric(mixture):
    divergence = np.float64(kl_divergence(mixture))
    return (divergence + divergence.T) / 2 + np.diag(np.full(len(divergence), np.inf))


def floats(low, high, size):
    return st.lists(st.floats(low, high), min_size=size, max_size=size).map(np.array)


def test_divergence_is_the_integral(mixture_of):
    means, stds = [0.3, -1.0], [0.5, 0.2, 0.9]
    with jax.enable_x64(True):
        ours = np.asarray(kl_divergence(mixture_of(means, stds, [1, 1, 1])))
    components = [stats.norm(mean, std) for mean, std in zip([0, *means], stds, strict=True)]
    for i, p in enumerate(components):
        for j, q in enumerate(components):
            # Bound as defaults, because the loop variables change.
            expected, _ = integrate.quad(
                lambda x, p=p, q=q: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)),
                p.mean() - 12 * p.std(),
                p.mean() + 12 * p.std(),
                points=[p.mean()],
            )
            assert ours[i, j] == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_divergence_of_twins_and_near_twins_in_float32(mixture_of):
    divergence = kl_divergence(mixture_of([1.0, 1.0], [0.1, 0.1, 0.1001], [1, 1, 1]))
    np.testing.assert_array_equal(np.diag(divergence), 0)
    np.testing.assert_allclose(divergence[1, 2], 1e-6, rtol=2e-2)  # (relative change of std)^2


@pytest.mark.parametrize(("distance", "left"), [(0.99, 1), (1.01, 2)])
def test_default_merges_within_one_standard_deviation(distance, left, mixture_of):
    mixture = mixture_of([5.0, 5.0 + 0.2 * distance], [0.2] * 3, [0.8, 0.1, 0.1])
    assert len(merge(mixture).means) == left


@pytest.mark.parametrize("threshold", [0.2, 0.3])
def test_divergence_of_different_widths(threshold, mixture_of):
    mixture = mixture_of([5.0, 5.1], [0.2, 0.2, 0.3], [0.8, 0.1, 0.1])
    expected = symmetric(mixture)[1, 2]
    assert 0.2 < expected < 0.3
    assert len(merge(mixture, threshold).means) == (2 if threshold < expected else 1)


def test_merging_twins_does_not_change_the_density(mixture_of):
    means, stds = [1.0, -0.5, 1.0], [0.1, 0.2, 0.05, 0.2]
    mixture = mixture_of(means, stds, [0.6, 0.1, 0.2, 0.1])
    merged = merge(mixture, 1e-3)
    np.testing.assert_allclose(merged.means, [-0.5, 1.0])
    np.testing.assert_allclose(np.exp(log_mixing(merged)), [0.6, 0.2, 0.2], rtol=1e-5)
    points = jnp.linspace(-2, 2, 101)
    np.testing.assert_allclose(log_prob(merged, points), log_prob(mixture, points), rtol=1e-4)


@pytest.mark.parametrize("threshold", [0.0, 1e-5])
def test_distinct_components_are_kept(threshold, mixture_of):
    mixture = mixture_of([0.5, -0.9, 2.0], [0.1, 0.2, 0.05, 0.3], [0.6, 0.1, 0.25, 0.05])
    merged = merge(mixture, threshold)
    order = [0, 2, 1, 3]  # of their means, the zero component first
    for ours, theirs in zip(moments(merged), moments(mixture), strict=True):
        np.testing.assert_allclose(ours, theirs[order], rtol=1e-5)


def test_threshold_zero_does_not_even_merge_twins(mixture_of):
    assert len(merge(mixture_of([1.0, 1.0], [0.1] * 3, [0.8, 0.1, 0.1]), 0.0).means) == 2


@given(floats(1, 2, 5), floats(0.05, 0.3, 5), floats(0.01, 1, 6), st.floats(0.01, 10))
@settings(max_examples=100, deadline=None)
def test_moments_are_conserved(mixture_of, means, stds, shares, threshold):
    """The zero component is far from the others, so they merge among themselves."""
    mixture = mixture_of(means, [1e-3, *stds], shares)
    merged = merge(mixture, threshold)
    (shares, means, seconds), (ours, our_means, our_seconds) = moments(mixture), moments(merged)
    np.testing.assert_allclose(ours.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(ours[0], shares[0], rtol=1e-5)
    np.testing.assert_allclose(our_seconds[0], 1e-6, rtol=1e-5)
    np.testing.assert_allclose(ours @ our_means, shares @ means, rtol=1e-5)
    np.testing.assert_allclose(ours @ our_seconds, shares @ seconds, rtol=1e-5)
    assert (np.diff(our_means[1:]) >= 0).all()
    assert len(our_means) == 2 or symmetric(merged).min() > threshold * (1 - 1e-4)


def test_component_merged_with_zero_keeps_mean_zero(mixture_of):
    mixture = mixture_of([0.02, 1.0], [0.05, 0.04, 0.1], [0.6, 0.3, 0.1])
    merged = merge(mixture)
    np.testing.assert_array_equal(merged.means, mixture.means[1:])
    ours, _, seconds = moments(merged)
    np.testing.assert_allclose(ours, [0.9, 0.1], rtol=1e-5)
    # The second moment about 0, not the variance about the mean of the two.
    expected = (0.6 * 0.05**2 + 0.3 * (0.04**2 + 0.02**2)) / 0.9
    np.testing.assert_allclose(seconds[0], expected, rtol=1e-5)


@pytest.mark.parametrize("means", [[0.0, 0.0, 0.0], [-1.0, 0.1, 3.0]])
def test_at_least_one_free_component_remains(means, mixture_of):
    mixture = mixture_of(means, [0.1] * 4, [0.7, 0.1, 0.1, 0.1])
    merged = merge(mixture, 1e9)
    assert [leaf.shape for leaf in merged] == [(1,), (2,), (1,), ()]
    assert all(np.isfinite(leaf).all() for leaf in merged)
    again = merge(merged, 1e9)
    np.testing.assert_allclose(np.concatenate(moments(again)), np.concatenate(moments(merged)))


def test_merging_is_transitive(mixture_of):
    """The ends of the chain are further apart than the threshold, but merge through the middle."""
    mixture = mixture_of([1.0, 1.4, 1.8, 2.2], [0.01, 1, 1, 1, 1], [0.6, 0.1, 0.1, 0.1, 0.1])
    assert symmetric(mixture)[1, 4] > 0.5
    merged = merge(mixture, 0.5)
    np.testing.assert_allclose(merged.means, [1.6], rtol=1e-6)
    np.testing.assert_allclose(np.exp(-merged.log_precisions[1]), 1 + 0.2, rtol=1e-5)


def test_the_closest_merge_first(mixture_of):
    mixture = mixture_of([1.0, 1.9, 2.6], [0.01, 1, 1, 1], [0.7, 0.1, 0.1, 0.1])
    assert symmetric(mixture)[1, 2] < 0.5
    np.testing.assert_allclose(merge(mixture, 0.5).means, [1.0, 2.25], rtol=1e-6)


@pytest.mark.parametrize("threshold", [-1, float("nan")])
def test_negative_threshold(threshold, mixture_of):
    message = f"threshold must not be negative, got {threshold}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        merge(mixture_of([1.0], [1, 1], [1, 1]), threshold)
