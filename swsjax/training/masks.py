"""Zeros as masks: exact top-k, zeros that stay zero, and how many weights are kept over time.

A pruned weight is marked by its value alone: it is exactly zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from swsjax.checks import for_jax
from swsjax.trees import Params

__all__ = ["cubic_keep", "held", "hold_zeros", "keep_top"]


def keep_top(params: Params, scores: Params, k: int | jax.Array) -> Params:
    """Set all weights to zero except the ``k`` with the highest scores, over all leaves together.

    Exactly k weights are kept (all, if there are no more): of equal scores the first, in the order
    of ``jax.tree.leaves``. NaN ranks below every number.

    Args:
        params: pytree of weights.
        scores: pytree of the same shapes.
        k: number of weights to keep.

    Raises:
        ConfigError: as ``checks.for_jax``.

    >>> params = {"w": jnp.array([0.1, -0.8]), "b": jnp.array([0.3])}
    >>> keep_top(params, jax.tree.map(jnp.abs, params), 2)
    {'b': Array([0.3], dtype=float32), 'w': Array([ 0. , -0.8], dtype=float32)}
    """
    return _keep_top(for_jax("params", params), for_jax("scores", scores), k)


@jax.jit
def _keep_top(params: Params, scores: Params, k: int | jax.Array) -> Params:
    leaves, structure = jax.tree.flatten(params)
    flat = jnp.concatenate([score.ravel() for score in jax.tree.leaves(scores)])
    flat = jnp.where(jnp.isnan(flat), -jnp.inf, flat)
    threshold = _highest(flat, jnp.clip(k, 1, flat.size))
    above, ties = flat > threshold, flat == threshold
    kept = above | (ties & (jnp.cumsum(ties) <= k - jnp.sum(above)))
    out, start = [], 0
    for leaf in leaves:
        mask = kept[start : start + leaf.size].reshape(leaf.shape)
        out.append(jnp.where(mask, leaf, 0))
        start += leaf.size
    return jax.tree.unflatten(structure, out)


def _highest(scores: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th highest of many scores without NaN, by bisection: sorting takes ten times as long.

    The bits of floats, read as integers, are in the order of the floats if those of negative ones
    are flipped, except for the sign.
    """
    integer = jnp.dtype(f"int{8 * scores.dtype.itemsize}")
    least, most = (
        jnp.array(bound, integer) for bound in (jnp.iinfo(integer).min, jnp.iinfo(integer).max)
    )

    def ordered(bits: jax.Array) -> jax.Array:  # its own inverse
        return jnp.where(bits < 0, bits ^ most, bits)

    positive_zero = jnp.where(scores == 0, 0, scores)
    bits = ordered(jax.lax.bitcast_convert_type(positive_zero, integer))

    def halved(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # the k-th highest is above low and at most high
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, which does not overflow
        is_above = jnp.sum(bits > middle) >= k
        return jnp.where(is_above, middle, low), jnp.where(is_above, high, middle)

    _, found = jax.lax.fori_loop(0, 8 * scores.dtype.itemsize, halved, (least, most))
    return jax.lax.bitcast_convert_type(ordered(found), scores.dtype)


def held(leaf: jax.Array, update: jax.Array) -> jax.Array:
    """Return the update of an array of weights, zero where the weight is zero.

    >>> print(held(jnp.array([0.0, 1.0]), jnp.array([0.5, 0.5])))
    [0.  0.5]
    """
    return jnp.where(leaf == 0, 0, update)


def hold_zeros() -> optax.GradientTransformation:
    """Keep zeros at zero; the last link of an ``optax.chain``, after momentum and decay.

    >>> optimizer = optax.chain(optax.sgd(1.0, momentum=0.9), hold_zeros())
    >>> params = jnp.array([0.0, 1.0])
    >>> updates, _ = optimizer.update(jnp.ones(2), optimizer.init(params), params)
    >>> print(updates)
    [ 0. -1.]
    """

    def update(updates: Any, state: Any, params: Params) -> tuple[Any, Any]:
        return jax.tree.map(held, params, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def cubic_keep(keep: float, progress: float) -> float:
    r"""Share of the weights to keep at some progress of pruning, from 0 (the start) to 1.

    .. math:: k + (1 - k) (1 - t)^3

    fast while there is much to prune and slow towards the end (Zhu and Gupta, arXiv 1710.01878,
    Eq. 1, from a sparsity of zero).

    >>> cubic_keep(0.6, 0.0), round(cubic_keep(0.6, 0.5), 3), cubic_keep(0.6, 1.0)
    (1.0, 0.65, 0.6)
    """
    return keep + (1 - keep) * (1 - min(progress, 1.0)) ** 3
