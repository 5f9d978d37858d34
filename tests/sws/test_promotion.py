"""Nothing here relies on what JAX may be told not to do: to broadcast ranks, to promote types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.sws import exact, prior, table
from swsjax.sws.compression import compress
from swsjax.sws.config import Config
from swsjax.sws.grid import grid_over
from swsjax.sws.merging import kl_divergence, merge
from swsjax.sws.prior import Beta, HyperPriors
from swsjax.sws.quantizing import quantize
from swsjax.training.losses import cross_entropy

RNG = np.random.default_rng(0)
WEIGHTS = [jnp.float32(RNG.normal(size=(3, 4))), jnp.float32(RNG.normal(size=5))]
MIXTURE = prior.init_mixture(-1.0, 1.0, components=3, pi_zero=0.5)
GRID = grid_over(WEIGHTS, 256)

FUNCTIONS = {
    "log_prob": lambda m, w: prior.log_prob(m, w[0]).sum(),
    "responsibilities": lambda m, w: prior.responsibilities(m, w[0])[..., 0].sum(),
    "exact sum": exact.sum_log_prob,
    "exact means": lambda m, w: exact.straight_through(m, w)[0].sum(),
    "tabulated sum": lambda m, w: table.sum_log_prob(m, w, GRID),
    "tabulated means": lambda m, w: table.straight_through(m, w, GRID)[0].sum(),
    "hyper-priors": lambda m, w: prior.hyper_log_prob(m, HyperPriors(pi_zero=Beta(9.0, 3.0))),
}


@pytest.fixture(params=["ranks", "types"])
def strict(request):
    """Both at once would hide which one fails."""
    if request.param == "ranks":
        return jax.numpy_rank_promotion("raise")
    return jax.numpy_dtype_promotion("strict")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_prior_and_its_gradients(strict, name):
    function = jax.value_and_grad(FUNCTIONS[name], argnums=(0, 1))
    expected = function(MIXTURE, WEIGHTS)
    with strict:
        ours = function(MIXTURE, WEIGHTS)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def test_around_the_prior(strict):
    with strict:
        merge(MIXTURE)
        kl_divergence(MIXTURE)
        quantize(MIXTURE, WEIGHTS)
        table.error_with(64, MIXTURE, WEIGHTS)


def test_a_whole_retraining_without_broadcast_ranks():
    """Types it may promote: Adam does."""
    data = {"inputs": np.float32(RNG.normal(size=(200, 4))), "labels": RNG.integers(3, size=200)}
    params = {"w": np.float32(RNG.normal(size=(4, 3))), "b": np.zeros(3, np.float32)}
    loss = cross_entropy(lambda params, x: x @ params["w"] + params["b"][None])
    config = Config(
        components=4,
        tau=1e-4,
        soft_epochs=1,
        hard_epochs=1,
        prune_epochs=2,
        keep=0.9,
        batch_size=50,
        least_steps=1,
    )
    expected = compress(params, loss, data, config, rules=[("b", None)]).params
    with jax.numpy_rank_promotion("raise"):
        ours = compress(params, loss, data, config, rules=[("b", None)]).params
    for name in params:
        np.testing.assert_array_equal(ours[name], expected[name])
