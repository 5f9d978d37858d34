"""Pruning by magnitude against sorting."""

import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.baselines import kernels, magnitude, magnitude_per_layer
from swsjax.errors import ConfigError
from swsjax.lab import Variables

RNG = np.random.default_rng(0)
NET = Variables(
    {
        "conv": {"kernel": jnp.asarray(RNG.normal(0, 3, (3, 3, 2, 4)), jnp.float32)},
        "fc": {
            "kernel": jnp.asarray(RNG.normal(0, 1, (7, 5)), jnp.float32),
            "bias": jnp.full(5, 1e-9),
        },
    },
    {},
)


def largest(weights, k):
    """Magnitude of the k-th largest weight."""
    return np.sort(np.abs(weights), axis=None)[-k]


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_one_threshold_for_the_net(keep):
    sizes = [kernel.size for kernel in kernels(NET).values()]
    everything = np.concatenate([np.ravel(kernel) for kernel in kernels(NET).values()])
    least = largest(everything, round(sum(sizes) * keep))
    for name, kernel in kernels(magnitude(NET, keep)).items():
        before = np.asarray(kernels(NET)[name])
        np.testing.assert_array_equal(kernel, np.where(np.abs(before) >= least, before, 0))


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_one_threshold_per_layer(keep):
    for name, kernel in kernels(magnitude_per_layer(NET, keep)).items():
        before = np.asarray(kernels(NET)[name])
        least = largest(before, round(before.size * keep))
        np.testing.assert_array_equal(kernel, np.where(np.abs(before) >= least, before, 0))


def test_the_layer_that_would_be_emptied_is_named():
    expected = r"^keep=0.01 of 35 weights in fc/kernel is none; keep at least 0.029$"
    with pytest.raises(ConfigError, match=expected):
        magnitude_per_layer(NET, 0.01)
