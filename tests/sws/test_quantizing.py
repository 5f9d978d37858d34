"""Quantising against a brute-force search for the most responsible component."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from swsjax.sws.quantizing import codebook, non_zeros, quantize, quantize_groups
from swsjax.training import Weights

RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": RNG.normal(0, 0.5, (10, 20)).astype(np.float32),
    "list": [jnp.asarray(RNG.normal(0, 0.5, 5)), np.zeros((0, 3), np.float32)],
}


class Pair(NamedTuple):
    left: object
    right: object


def short(values):
    """Round to bfloat16, to the nearest value, ties to even."""
    return np.float32(values).astype(jnp.bfloat16).astype(np.float32)


def floats(low, high, size):
    return st.lists(st.floats(low, high), min_size=size, max_size=size).map(np.array)


@given(floats(-1, 1, 3), floats(0.05, 1, 4), floats(0.01, 1, 4))
@settings(max_examples=60, deadline=None)
def test_each_weight_becomes_its_most_responsible_mean(mixture_of, means, stds, shares):
    mixture = mixture_of(means, stds, shares)
    quantised = quantize(mixture, PARAMS)
    assert jax.tree.structure(quantised) == jax.tree.structure(PARAMS)
    assert len(codebook(quantised)) <= 4
    levels = short([0, *mixture.means])
    for weights, ours in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(quantised), strict=True):
        joint = np.log(shares / shares.sum()) + stats.norm.logpdf(
            np.float64(weights)[..., None], [0, *means], stds
        )
        best = joint.argmax(axis=-1)
        chosen = np.where(np.asarray(ours)[..., None] == levels, joint, -np.inf).max(axis=-1)
        # Equal to the brute force, or tied with it in float32.
        assert ((ours == levels[best]) | (chosen > joint.max(axis=-1) - 1e-3)).all()


def test_assignment_equals_a_brute_force_search(mixture_of):
    weights = jnp.linspace(-2, 2, 4001)
    means, stds, shares = [-1.0, 0.2, 1.5], [0.2, 0.1, 0.05, 0.6], np.array([0.6, 0.2, 0.1, 0.1])
    quantised = quantize(mixture_of(means, stds, shares), weights)
    best = (shares * stats.norm.pdf(np.asarray(weights)[:, None], [0, *means], stds)).argmax(-1)
    expected = short([0, *means])[best]
    assert len(np.unique(expected)) == 4
    assert (quantised != expected).sum() <= 2  # at boundaries, by rounding


def test_zero_is_exactly_zero(mixture_of):
    mixture = mixture_of([0.5, 0.7], [0.1] * 3, [0.9, 0.05, 0.05])
    quantised = quantize(mixture, jnp.asarray([1e-3, -0.2, 0.01, 0.5]))
    assert np.asarray(quantised)[:3].tobytes() == bytes(12)  # not minus zero either
    assert quantised[3] == 0.5


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_structure_and_dtype_are_kept(dtype, mixture_of):
    params = Pair(jnp.ones((2, 3), dtype), {"scalar": jnp.asarray(0.0, dtype), "none": None})
    quantised = quantize(mixture_of([1.1], [0.1, 0.1], [0.5, 0.5]), params)
    assert jax.tree.structure(quantised) == jax.tree.structure(params)
    assert quantised.left.dtype == quantised.right["scalar"].dtype == dtype
    np.testing.assert_array_equal(quantised.left, np.full((2, 3), 1.1015625))  # 141 / 128


@given(st.floats(-1e15, 1e15).filter(lambda mean: abs(mean) > 1))
@settings(max_examples=60, deadline=None)
def test_levels_have_the_precision_of_bfloat16(mixture_of, mean):
    mixture = mixture_of([mean], [0.1, 0.1], [0.5, 0.5])
    (level,) = quantize(mixture, jnp.float32([mean]))
    assert level == short(mean)
    assert abs(level - mean) <= abs(mean) / 256


def test_codebook_of_narrow_types():
    """float16 and bfloat16 have no common type of 16 bits."""
    net = {"a": jnp.asarray([0.1, 3], jnp.float16), "b": jnp.asarray([0.1, 3], jnp.bfloat16)}
    assert codebook(net).tolist() == [*sorted([float(net["a"][0]), float(net["b"][0])]), 3]
    assert codebook({"b": net["b"]}).dtype == jnp.bfloat16


def test_codebook_and_non_zeros():
    params = Pair(np.float32([[3, 0], [-1, 3]]), [jnp.zeros(2), jnp.asarray(0.5), np.zeros((0,))])
    np.testing.assert_array_equal(codebook(params), [-1, 0, 0.5, 3])
    assert non_zeros(params) == 4
    assert type(non_zeros(params)) is int


def test_each_group_is_quantised_with_its_own_mixture(mixture_of):
    mixtures = {
        "one": mixture_of([1.0], [0.1, 0.1], [0.5, 0.5]),
        "two": mixture_of([2.0], [0.1, 0.1], [0.5, 0.5]),
    }
    leaves = [jnp.array([0.1, 0.9, 1.8]), jnp.array([[1.6]])]
    free = [jnp.array([0.3])]
    quantised = quantize_groups(mixtures, Weights({"one": leaves, "two": leaves}, free))
    for name, mixture in mixtures.items():
        for ours, expected in zip(quantised.groups[name], quantize(mixture, leaves), strict=True):
            np.testing.assert_array_equal(ours, expected)
    assert codebook(quantised.groups["one"]).tolist() == [0, 1]
    assert codebook(quantised.groups["two"]).tolist() == [0, 2]
    np.testing.assert_array_equal(quantised.free[0], free[0])


def test_figures_of_a_net_with_functions_in_it():
    net = eqx.nn.MLP(3, 2, 4, 1, activation=jax.nn.gelu, key=jax.random.key(0))
    net = jax.tree.map(lambda leaf: jnp.round(leaf) if eqx.is_array(leaf) else leaf, net)
    arrays = jax.tree.leaves(eqx.filter(net, eqx.is_array))
    assert non_zeros(net) == sum(np.count_nonzero(array) for array in arrays)
    np.testing.assert_array_equal(
        codebook(net), np.unique(np.concatenate(list(map(np.ravel, arrays))))
    )


def test_figures_of_an_nnx_module_are_those_of_its_parameters():
    net = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    net.mean[...] = jnp.full(3, 7.0)
    assert codebook(net).tolist() == [0, 1]
    assert non_zeros(net) == 3
