"""The prior over all weights evaluated exactly: the reference for the table.

N x J exponentials, but never all at once. On a CUDA GPU, where exponentials cost less than the
memory of a table's lookups, a kernel makes one pass over the weights, and there is no table. On
other devices the weights are visited in blocks: the memory is that of one block and of the
gradient, for any number of components.
"""

from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.backend import get_backend

from swsjax.sws.prior import GaussianMixture, assign, component_means, log_prob

__all__ = ["assigned_means", "has_kernel", "sum_and_means", "sum_log_prob"]

_BLOCK = 4096
"""Weights per block: with 17 components the temporaries fit a processor's second-level cache."""
_BLOCK_OF_ACCELERATOR = 2**18
"""Enough to keep all of an accelerator's cores busy, and time per block well above its start."""
_MOST_IN_KERNEL = 32
"""Components of which the kernel keeps its sums in a thread's registers."""

_Found = tuple[Array, tuple[GaussianMixture, Array]]
"""The sum, and its gradients with respect to mixture and weights."""


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


def sum_and_means(mixture: GaussianMixture, leaves: Sequence[Array]) -> tuple[Array, list[Array]]:
    """``sum_log_prob``, and assigned means with the gradients of ``table.straight_through``.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> total, means = sum_and_means(mixture, [jnp.array([0.1, 0.8, 1.3])])
    >>> print(np.asarray(total).round(3), *means)
    -3.468 [0. 1. 1.]
    """
    pairs = [_sum_and_means(mixture, leaf) for leaf in leaves]
    total = sum((total for total, _ in pairs), start=jnp.zeros(()))
    return total, [means for _, means in pairs]


def has_kernel(components: int) -> bool:
    """Whether a mixture of this many components has a kernel here: on one CUDA GPU.

    The kernel does not divide its work between devices.

    >>> has_kernel(257)
    False
    """
    one_gpu = jax.default_backend() == "gpu" and jax.device_count() == 1
    cuda = one_gpu and "cuda" in get_backend().platform_version
    return cuda and components <= _MOST_IN_KERNEL


@jax.custom_vjp
def _sum_over_leaf(mixture: GaussianMixture, weights: Array) -> Array:
    return _one_pass(mixture, weights)[0]


def _scaled(gradients: Any, by_total: Array) -> Any:
    return jax.tree.map(lambda x: (by_total * x).astype(x.dtype), gradients)


_sum_over_leaf.defvjp(lambda mixture, weights: _one_pass(mixture, weights), _scaled)


@jax.custom_vjp
def _sum_and_means(mixture: GaussianMixture, weights: Array) -> tuple[Array, Array]:
    return _both_forward(mixture, weights)[0]


def _both_forward(mixture: GaussianMixture, weights: Array) -> tuple[tuple[Array, Array], Any]:
    (total, gradients), numbers = _one_pass_with_numbers(mixture, weights)
    means = component_means(mixture)[numbers].astype(weights.dtype)
    return (total, means), (gradients, numbers)


def _both_backward(saved: Any, cotangents: tuple[Array, Array]) -> tuple[GaussianMixture, Array]:
    (gradients, numbers), (by_total, by_means) = saved, cotangents
    to_mixture, to_weights = _scaled(gradients, by_total)
    sums = _sums_by_component(numbers, by_means, to_mixture.log_precisions.size)
    to_means = to_mixture.means + sums[1:].astype(to_mixture.means.dtype)  # zero is fixed
    return to_mixture._replace(means=to_means), to_weights + by_means


_sum_and_means.defvjp(_both_forward, _both_backward)


def _one_pass(mixture: GaussianMixture, weights: Array) -> _Found:
    if not _fits(mixture, weights):
        return _in_turn(mixture, weights)
    return jax.lax.platform_dependent(mixture, weights, cuda=_kernels().one_pass, default=_in_turn)


def _one_pass_with_numbers(mixture: GaussianMixture, weights: Array) -> tuple[_Found, Array]:
    def in_turn(mixture: GaussianMixture, weights: Array) -> tuple[_Found, Array]:
        return _in_turn(mixture, weights), _assigned(mixture, weights)

    if not _fits(mixture, weights):
        return in_turn(mixture, weights)
    return jax.lax.platform_dependent(
        mixture, weights, cuda=_kernels().one_pass_with_numbers, default=in_turn
    )


def _sums_by_component(numbers: Array, values: Array, components: int) -> Array:
    def scattered(numbers: Array, values: Array) -> Array:
        sums = jnp.zeros(components, jnp.promote_types(values.dtype, jnp.float32))
        return sums.at[numbers].add(values.astype(sums.dtype))

    if not (has_kernel(components) and values.size):
        return scattered(numbers, values)
    kernel = partial(_kernels().sums_by_component, components=components)
    return jax.lax.platform_dependent(numbers, values, cuda=kernel, default=scattered)


def _fits(mixture: GaussianMixture, weights: Array) -> bool:
    """Whether a kernel takes them: it computes in float32, and needs a weight."""
    single = weights.dtype != jnp.float64 and weights.size > 0
    return has_kernel(mixture.log_precisions.size) and single


def _kernels() -> ModuleType:
    """The module of the kernels, imported where they run: Pallas takes time to load."""
    from swsjax.sws import fused

    return fused


def _in_turn(mixture: GaussianMixture, weights: Array) -> _Found:
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
    to_weights = to_blocks.ravel()[: weights.size].reshape(weights.shape)
    return total, (to_mixture, to_weights)


def _assigned(mixture: GaussianMixture, weights: Array) -> Array:
    """The number of each weight's most responsible component, block by block."""
    components = jax.lax.map(lambda block: assign(mixture, block), _in_blocks(weights))
    numbers = components.ravel()[: weights.size].reshape(weights.shape)
    return numbers.astype(jnp.uint8 if mixture.log_precisions.size <= 256 else jnp.int32)


def _in_blocks(array: Array) -> Array:
    """An array as (blocks, weights), the last block filled up with zeros."""
    on_processor = jax.default_backend() == "cpu"
    block = _BLOCK if on_processor else min(_BLOCK_OF_ACCELERATOR, max(array.size, 1))
    count = -(-array.size // block)
    return jnp.pad(array.ravel(), (0, count * block - array.size)).reshape(count, block)
