"""From a retrained net to a quantised one: each weight becomes its component's mean, rounded."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.checks import check_floating
from swsjax.errors import ConfigError
from swsjax.exact import assigned_means
from swsjax.losses import Params
from swsjax.prior import GaussianMixture

__all__ = ["codebook", "non_zeros", "quantize", "quantize_each"]


def quantize(mixture: GaussianMixture, params: Params) -> Params:
    """Set each weight to the mean of its most responsible component, exactly zero for the zero one.

    Means are rounded to the eight significant bits of bfloat16, by 0.2 % at most. A file stores no
    zeros that levels end in, so that each is two bytes shorter than a float32.

    Args:
        mixture: the prior, J free components.
        params: pytree of floating arrays.

    Returns:
        The same pytree with at most J + 1 distinct values.

    Raises:
        ConfigError: the mixture is none, or a leaf is no floating array.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> quantize(mixture, {"w": jnp.array([0.1, 0.8, 1.3])})
    {'w': Array([0., 1., 1.], dtype=float32)}
    """
    if not isinstance(mixture, GaussianMixture):
        raise ConfigError(
            f"quantize takes one GaussianMixture, got a {type(mixture).__name__}; of a result that "
            "is result.mixtures['weights']"
        )
    check_floating("weights to quantise", params)
    return _quantize(mixture, params)


@jax.jit
def _quantize(mixture: GaussianMixture, params: Params) -> Params:
    return jax.tree.map(lambda weights: _levels(mixture, weights), params)


def _levels(mixture: GaussianMixture, weights: jax.Array) -> jax.Array:
    means = assigned_means(mixture, weights)
    kind = jnp.finfo(means.dtype)
    most = jnp.finfo(jnp.bfloat16).nmant
    return jax.lax.reduce_precision(means, kind.nexp, min(kind.nmant, most))


@partial(jax.jit, static_argnames="labels")
def quantize_each(
    mixtures: Mapping[str, GaussianMixture], params: Params, labels: Sequence[str | None]
) -> Params:
    """``quantize`` each leaf with the mixture that its label names; leave those without as is.

    Args:
        mixtures: priors by name.
        params: pytree of floating arrays.
        labels: for each leaf, in the order of ``jax.tree.leaves``, a name or None; hashable.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> params = {"bias": jnp.array([0.3]), "kernel": jnp.array([0.1, 0.8])}
    >>> quantize_each({"kernels": mixture}, params, (None, "kernels"))
    {'bias': Array([0.3], dtype=float32), 'kernel': Array([0., 1.], dtype=float32)}
    """
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(
        structure,
        [
            leaf if label is None else _levels(mixtures[label], leaf)
            for leaf, label in zip(leaves, labels, strict=True)
        ],
    )


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
