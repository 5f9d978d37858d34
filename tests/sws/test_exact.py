"""The exact prior, evaluated in blocks, against the density of every weight."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.sws import exact
from swsjax.sws.prior import assign, component_means, log_prob

RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.uniform(-1.5, 1.5, 300).astype(np.float32))

forward = jax.jit(partial(jax.vjp, exact.sum_and_means))
back = jax.jit(lambda backward, cotangents: backward(cotangents))


def test_exact_sum_is_the_density_of_every_weight(mixture_of):
    """Over more than one block, the last one not full, and a leaf without weights."""
    mixture = jax.tree.map(jnp.float32, mixture_of([-0.4, 0.5], [0.1] * 3, [0.8, 0.1, 0.1]))
    leaves = [jnp.float32(RNG.normal(0, 0.5, (123, 45))), jnp.zeros((0, 3)), jnp.asarray(0.3)]

    def of_every_weight(mixture, leaves):
        return sum(log_prob(mixture, leaf).sum() for leaf in leaves)

    ours, expected = (
        jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(mixture, leaves)
        for total in (exact.sum_log_prob, of_every_weight)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4), ours, expected
    )


def test_exact_assignment_and_its_gradients(mixture_of):
    mixture = jax.tree.map(jnp.float32, mixture_of([-0.8, 0.6], [0.1, 0.2, 0.2], [7, 1, 1]))
    (total, (ours,)), backward = forward(mixture, [WEIGHTS])
    np.testing.assert_array_equal(total, jax.jit(exact.sum_log_prob)(mixture, [WEIGHTS]))
    np.testing.assert_array_equal(ours, component_means(mixture)[assign(mixture, WEIGHTS)])
    by_mixture, (by_weights,) = back(backward, (jnp.zeros(()), [jnp.ones_like(WEIGHTS)]))
    np.testing.assert_array_equal(by_weights, 1)
    counts = [(ours == mean).sum() for mean in mixture.means]
    np.testing.assert_array_equal(by_mixture.means, counts)


def test_sum_and_means_add_their_gradients(mixture_of):
    mixture = jax.tree.map(jnp.float32, mixture_of([-0.8, 0.6], [0.1, 0.2, 0.2], [7, 1, 1]))
    _, backward = forward(mixture, [WEIGHTS])
    zero, ones = jnp.zeros(()), jnp.ones_like(WEIGHTS)
    both, *apart = (
        back(backward, cotangents)
        for cotangents in ((zero + 2, [3 * ones]), (zero + 2, [0 * ones]), (zero, [3 * ones]))
    )
    jax.tree.map(
        lambda x, y, z: np.testing.assert_allclose(x, y + z, rtol=1e-6, atol=1e-5), both, *apart
    )
