"""From a retrained net to a quantised one: each weight becomes its component's mean, rounded."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.checks import check_floating, check_types, for_jax
from swsjax.errors import ConfigError
from swsjax.sws.exact import assigned_means
from swsjax.sws.prior import GaussianMixture
from swsjax.training.net import Weights
from swsjax.training.selection import parameters
from swsjax.trees import Params, is_array

__all__ = ["codebook", "non_zeros", "quantize", "quantize_groups"]


def quantize(mixture: GaussianMixture, params: Params) -> Params:
    """Set each weight to the mean of its most responsible component.

    The mean of the zero component is exactly zero, and zeros stay zero. Others are rounded to the
    eight significant bits of bfloat16, by 0.2 % at most; a file omits trailing zero bytes of
    levels, so each takes two bytes less than a float32.

    Args:
        mixture: the prior, J free components.
        params: pytree of floating arrays.

    Returns:
        The same pytree with at most J + 1 distinct values.

    Raises:
        ConfigError: the mixture is not a ``GaussianMixture``, or a leaf is not a floating array;
            or as ``checks.for_jax``.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> quantize(mixture, {"w": jnp.array([0.1, 0.8, 1.3])})
    {'w': Array([0., 1., 1.], dtype=float32)}
    """
    if not isinstance(mixture, GaussianMixture):
        raise ConfigError(
            f"quantize takes one GaussianMixture, got a {type(mixture).__name__}; a result has it "
            "as result.mixtures['weights']"
        )
    check_floating("weights to quantise", params)
    return _quantize(mixture, for_jax("weights to quantise", params))


@jax.jit
def _quantize(mixture: GaussianMixture, params: Params) -> Params:
    return jax.tree.map(lambda weights: _levels(mixture, weights), params)


def _levels(mixture: GaussianMixture, weights: jax.Array) -> jax.Array:
    means = assigned_means(mixture, weights)
    kind = jnp.finfo(means.dtype)
    most = jnp.finfo(jnp.bfloat16).nmant
    rounded = jax.lax.reduce_precision(means, kind.nexp, min(kind.nmant, most))
    return jnp.where(weights == 0, 0, rounded)  # whatever else has a mean near zero


@jax.jit
def quantize_groups(mixtures: Mapping[str, GaussianMixture], weights: Weights) -> Weights:
    """Quantise each group with its mixture; leave the free arrays as they are.

    Args:
        mixtures: one per group, by name.
        weights: the arrays of a net.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> weights = Weights({"kernels": [jnp.array([0.1, 0.8])]}, [jnp.array([0.3])])
    >>> print(*quantize_groups({"kernels": mixture}, weights))
    {'kernels': [Array([0., 1.], dtype=float32)]} [Array([0.3], dtype=float32)]
    """
    groups = {
        name: [_levels(mixtures[name], leaf) for leaf in leaves]
        for name, leaves in weights.groups.items()
    }
    return weights._replace(groups=groups)


def codebook(params: Any) -> np.ndarray:
    """Distinct values in a net, zero included, in increasing order.

    Args:
        params: any pytree, of which the arrays of numbers count; of Flax NNX, the parameters.

    Raises:
        ConfigError: an array is masked, or of a type that JAX does not have.

    >>> codebook({"w": jnp.array([0.0, 1.0, 1.0]), "b": jnp.array([-2.0]), "act": jax.nn.relu})
    array([-2.,  0.,  1.], dtype=float32)
    """
    values = [_distinct(np.asarray(leaf)) for leaf in _numbers(params)]
    if len({array.dtype for array in values}) > 1:  # NumPy joins bfloat16 and float16 to no type
        values = [_widened(array) for array in values]
    return np.unique(np.concatenate(values))


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == jnp.bfloat16 else array


def _distinct(array: np.ndarray) -> np.ndarray:
    """Its distinct values; most may be zero, and sorting those is what takes time."""
    return np.append(array[array == 0][:1], np.unique(array[array != 0]))


def non_zeros(params: Any) -> int:
    """Number of entries of a net that are not zero.

    Args:
        params: any pytree, of which the arrays of numbers count; of Flax NNX, the parameters.

    Raises:
        ConfigError: an array is masked, or of a type that JAX does not have.

    >>> non_zeros({"w": jnp.array([0.0, 1.0, 1.0]), "b": jnp.array([-2.0]), "act": jax.nn.relu})
    3
    """
    return sum(int(np.count_nonzero(leaf)) for leaf in _numbers(params))


def _numbers(net: Any) -> list[Any]:
    check_types("params", parameters(net))
    leaves = jax.tree.leaves(parameters(net))
    return [leaf for leaf in leaves if is_array(leaf) and jnp.issubdtype(leaf.dtype, np.number)]
