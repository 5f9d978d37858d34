"""From a retrained net to a quantised one: each weight becomes its component's mean."""

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.exact import assigned_means
from swsjax.losses import Params
from swsjax.prior import GaussianMixture

__all__ = ["codebook", "non_zeros", "quantize"]


@jax.jit
def quantize(mixture: GaussianMixture, params: Params) -> Params:
    """Set each weight to the mean of its most responsible component, exactly zero for the zero one.

    Args:
        mixture: the prior, J free components.
        params: pytree of floating arrays.

    Returns:
        The same pytree with at most J + 1 distinct values.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> quantize(mixture, {"w": jnp.array([0.1, 0.8, 1.3])})
    {'w': Array([0., 1., 1.], dtype=float32)}
    """
    return jax.tree.map(lambda weights: assigned_means(mixture, weights), params)


def codebook(params: Params) -> np.ndarray:
    """Distinct values in a pytree, zero included, in increasing order.

    >>> codebook({"w": jnp.array([0.0, 1.0, 1.0]), "b": jnp.array([-2.0])})
    array([-2.,  0.,  1.], dtype=float32)
    """
    return np.unique(np.concatenate([np.unique(leaf) for leaf in jax.tree.leaves(params)]))


def non_zeros(params: Params) -> int:
    """Number of entries of a pytree that are not zero.

    >>> non_zeros({"w": jnp.array([0.0, 1.0, 1.0]), "b": jnp.array([-2.0])})
    3
    """
    return sum(jnp.count_nonzero(leaf).item() for leaf in jax.tree.leaves(params))
