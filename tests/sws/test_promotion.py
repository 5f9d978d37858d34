"""The prior runs where JAX is told not to promote types; no test promotes ranks (conftest)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.sws import exact, prior, table
from swsjax.sws.grid import grid_over
from swsjax.sws.merging import kl_divergence, merge
from swsjax.sws.prior import Beta, HyperPriors
from swsjax.sws.quantizing import quantize

RNG = np.random.default_rng(0)
WEIGHTS = [jnp.float32(RNG.normal(size=(3, 4))), jnp.float32(RNG.normal(size=5))]
MIXTURE = prior.init_mixture(-1.0, 1.0, components=3, pi_zero=0.5)
GRID = grid_over(WEIGHTS, 256)

FUNCTIONS = {
    "log_prob": lambda m, w: prior.log_prob(m, w[0]).sum(),
    "responsibilities": lambda m, w: prior.responsibilities(m, w[0])[..., 0].sum(),
    "exact sum": exact.sum_log_prob,
    "exact means": lambda m, w: exact.sum_and_means(m, w)[1][0].sum(),
    "tabulated sum": lambda m, w: table.sum_log_prob(m, w, GRID),
    "tabulated means": lambda m, w: table.straight_through(m, w, GRID)[0].sum(),
    "hyper-priors": lambda m, w: prior.hyper_log_prob(m, HyperPriors(pi_zero=Beta(9.0, 3.0))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_prior_and_its_gradients(name):
    # The settings of promotion are part of what is compiled anew.
    function = jax.jit(jax.value_and_grad(FUNCTIONS[name], argnums=(0, 1)))
    expected = function(MIXTURE, WEIGHTS)
    with jax.numpy_dtype_promotion("strict"):
        ours = function(MIXTURE, WEIGHTS)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def test_around_the_prior():
    with jax.numpy_dtype_promotion("strict"):
        merge(MIXTURE)
        kl_divergence(MIXTURE)
        quantize(MIXTURE, WEIGHTS)
        table.error_with(64, MIXTURE, WEIGHTS)
