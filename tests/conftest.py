"""Settings and fixtures of the whole test suite."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.prior import GaussianMixture

if not hasattr(jax, "enable_x64"):  # where the oldest supported JAX has it
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64


def pytest_configure(config):
    """Compile quickly rather than well: the fast tests compile many steps and take few of each."""
    if config.option.markexpr == "not slow":
        jax.config.update("jax_disable_most_optimizations", True)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # in processes that tests start


def pytest_collection_modifyitems(items):
    """Tests that share a dear fixture go to one worker, which makes it once."""
    for item in items:
        for name in {"demo", "run", "result", "whole", "front"}.intersection(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="session")
def mixture_of():
    """Build a mixture from means (J,), and standard deviations and shares (J + 1,)."""

    def build(means, stds, shares):
        shares = np.asarray(shares) / np.sum(shares)
        return GaussianMixture(
            means=jnp.asarray(means, float),
            log_precisions=jnp.asarray(-2 * np.log(stds)),
            mixing_logits=jnp.asarray(np.log(shares[1:])),
            zero_logit=jnp.asarray(np.log(shares[0]) - np.log(shares[1:].sum())),
        )

    return build
