"""The affine quantiser against NumPy, in double precision."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_tasks import small, untrained

import swsjax
from swsjax.baselines import kernels, magnitude
from swsjax.baselines.affine import quantize_affine
from swsjax.baselines.weights import with_kernels
from swsjax.errors import ConfigError
from swsjax.lab import Variables

WEIGHTS = hnp.arrays(
    np.float32,
    st.sampled_from([(1, 1), (1, 2), (2, 2), (5, 4)]),  # each is compiled
    elements=st.just(0.0)
    | st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-20),
)


def quantized(weights, bits):
    return quantize_affine(Variables({"kernel": jnp.asarray(weights)}, ()), bits).params["kernel"]


@given(WEIGHTS, st.integers(1, 10))
@example(np.zeros((2, 2), np.float32), 3)
@example(np.full((2, 2), 0.3, np.float32), 1)
@example(np.full((1, 1), -3e38, np.float32), 2)
@example(np.array([[-3e38, 3e38]], np.float32), 4)
@example(np.array([[-3.5, 3.5, 3.4, 0.0]], np.float32), 3)  # both ends half a step from a value
@settings(max_examples=150, deadline=None)
def test_at_most_two_to_the_bits_values_one_of_them_zero(weights, bits):
    ours = np.asarray(quantized(weights, bits))
    assert ours.shape == weights.shape
    assert len(np.unique(np.append(ours, 0))) <= 2**bits
    assert (ours[weights == 0] == 0).all()
    low, high = (end([0.0, *weights.ravel().tolist()]) for end in (min, max))
    step = (high - low) / (2**bits - 1)
    assert (np.abs(np.float64(ours) - weights) <= step / 2 * (1 + 1e-5) + 2e-6 * (high - low)).all()
    if step:  # evenly spaced, with zero
        multiples = ours / step
        np.testing.assert_allclose(multiples, np.round(multiples), atol=2e-3)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_against_numpy(bits):
    weights = np.float32(np.random.default_rng(bits).normal(0.2, 1, (30, 20)))
    step = (np.float64(weights.max()) - weights.min()) / (2**bits - 1)
    zero = np.round(-weights.min() / step)
    numbers = np.clip(np.round(weights / step) + zero, 0, 2**bits - 1)
    expected = (numbers - zero) * step
    ours = np.asarray(quantized(weights, bits))
    # A weight between two values may go to either, by the rounding of float32.
    close = np.isclose(ours, expected, rtol=1e-5, atol=1e-6)
    assert close.mean() > (0.98 if bits == 16 else 0.998)
    assert np.abs(ours - expected).max() < step * 1.001
    assert len(np.unique(ours)) <= 2**bits


def test_by_hand():
    found = quantized([[-1.0, -0.4, 0.0, 0.3, 2.0]], 2)  # steps of 1 from -1
    np.testing.assert_array_equal(found, [[-1, 0, 0, 0, 2]])
    np.testing.assert_array_equal(quantized([[0.5, 1.0]], 1), [[0, 1]])  # 0.5 rounds to even
    np.testing.assert_array_equal(quantized([[-3.0, -1.0]], 1), [[-3, 0]])


@pytest.mark.parametrize("name", ["two layers", "bfloat16", "normalised"])
def test_only_kernels_are_quantised(name):
    net = magnitude(untrained(name), 0.5)
    found = quantize_affine(net, 3)
    assert swsjax.trees.form_of(found) == swsjax.trees.form_of(net)
    for before, after in zip(kernels(net).values(), kernels(found).values(), strict=True):
        assert (np.asarray(after)[np.asarray(before == 0)] == 0).all()
        assert len(np.unique(np.float32(after))) <= 8
        assert (before != after).any()
    rest = with_kernels(found, kernels(net))
    assert all(map(jnp.array_equal, jax.tree.leaves(rest), jax.tree.leaves(net)))
    whole = small(name).whole(found)
    decoded = small(name).parts(swsjax.loads(swsjax.dumps(whole), like=whole))
    for ours, expected in zip(jax.tree.leaves(decoded), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(ours, expected, strict=True)


def test_under_jit():
    net = untrained("two layers")
    compiled = jax.jit(quantize_affine, static_argnums=1)(net, 4)
    for ours, expected in zip(
        jax.tree.leaves(compiled), jax.tree.leaves(quantize_affine(net, 4)), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (0, "bits must be an integer of at least 1, got 0"),
        (2.5, "bits must be an integer of at least 1, got 2.5"),
        (17, "bits must be at most 16, got 17"),
    ],
)
def test_bits_out_of_range(bits, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        quantize_affine(untrained("two layers"), bits)


def test_weights_that_are_not_finite():
    with pytest.raises(ConfigError, match=r"finite, got NaN or infinity in kernel; "):
        quantized([[np.inf, 1.0]], 4)
