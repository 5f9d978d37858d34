"""The prior over all weights evaluated exactly, in blocks: the reference for the table.

N x J exponentials, but never all at once: the memory is that of one block and of the gradient, for
any number of components.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from swsjax.sws.prior import GaussianMixture, assign, component_means, log_prob

__all__ = ["assigned_means", "pass_through", "straight_through", "sum_log_prob"]

_BLOCK = 4096
"""Weights per block: with 17 components the temporaries fit a processor's second-level cache."""


def sum_log_prob(mixture: GaussianMixture, leaves: Sequence[Array]) -> Array:
    """Sum of log p(w) over all weights (nats), a scalar, at least float32.

    Differentiable once in the weights and the mixture; the gradients are computed with the value.

    >>> mixture, w = GaussianMixture(*(jnp.zeros(n) for n in [1, 2, 1, ()])), jnp.array([0.5, 2.0])
    >>> print(np.asarray(sum_log_prob(mixture, [w])).round(3))
    -3.963
    """
    return sum((_sum_over_leaf(mixture, leaf) for leaf in leaves), start=jnp.zeros(()))


def assigned_means(mixture: GaussianMixture, weights: Array) -> Array:
    """Mean of each weight's most responsible component, in the shape and dtype of ``weights``.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> print(assigned_means(mixture, jnp.array([0.1, 0.8, 1.3])))
    [0. 1. 1.]
    """
    return component_means(mixture)[_assigned(mixture, weights)].astype(weights.dtype)


def straight_through(mixture: GaussianMixture, leaves: Sequence[Array]) -> list[Array]:
    """Assigned means with the gradients of ``table.straight_through``.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> print(*straight_through(mixture, [jnp.array([0.1, 0.8, 1.3])]))
    [0. 1. 1.]
    """
    assigned = [assigned_means(mixture, jax.lax.stop_gradient(leaf)) for leaf in leaves]
    return [pass_through(*pair) for pair in zip(leaves, assigned, strict=True)]


@jax.custom_vjp
def pass_through(weights: Array, quantised: Array) -> Array:
    """Return ``quantised``; its gradient is passed unchanged to ``weights`` and to ``quantised``.

    The straight-through estimator. The usual ``w + stop_gradient(quantised - w)`` has the same
    gradient and a rounded value.

    >>> jax.grad(lambda w: pass_through(w, jnp.round(w)) * 3.0)(0.8)
    Array(3., dtype=float32, weak_type=True)
    """
    return quantised


pass_through.defvjp(
    lambda weights, quantised: (quantised, None), lambda _, cotangent: (cotangent, cotangent)
)


@jax.custom_vjp
def _sum_over_leaf(mixture: GaussianMixture, weights: Array) -> Array:
    return _forward(mixture, weights)[0]


def _forward(mixture: GaussianMixture, weights: Array) -> tuple[Array, tuple[Any, Array]]:
    """The sum, and the gradients to mixture and weights, block by block."""

    def of_block(mixture: GaussianMixture, block: Array, valid: Array) -> Array:
        return jnp.sum(jnp.where(valid, log_prob(mixture, block), 0.0))

    def body(carry: tuple[Array, Any], block: tuple[Array, Array]) -> tuple[Any, Array]:
        total, to_mixture = carry
        value, (more, to_block) = jax.value_and_grad(of_block, argnums=(0, 1))(mixture, *block)
        return (total + value, jax.tree.map(jnp.add, to_mixture, more)), to_block

    blocks = _in_blocks(weights)
    valid = _in_blocks(jnp.ones(weights.shape, bool))
    dtype = jnp.result_type(jnp.float32, weights)
    start = jnp.zeros((), dtype), jax.tree.map(jnp.zeros_like, mixture)
    (total, to_mixture), to_blocks = jax.lax.scan(body, start, (blocks, valid))
    return total, (to_mixture, to_blocks.ravel()[: weights.size].reshape(weights.shape))


_sum_over_leaf.defvjp(
    _forward,
    lambda saved, cotangent: jax.tree.map(lambda x: (cotangent * x).astype(x.dtype), saved),
)


def _assigned(mixture: GaussianMixture, weights: Array) -> Array:
    components = jax.lax.map(lambda block: assign(mixture, block), _in_blocks(weights))
    return components.ravel()[: weights.size].reshape(weights.shape)


def _in_blocks(array: Array) -> Array:
    """An array as (blocks, _BLOCK), the last block filled up with zeros."""
    count = -(-array.size // _BLOCK)
    return jnp.pad(array.ravel(), (0, count * _BLOCK - array.size)).reshape(count, _BLOCK)
