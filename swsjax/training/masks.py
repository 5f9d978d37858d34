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
    kept = _highest(jnp.concatenate([score.ravel() for score in jax.tree.leaves(scores)]), k)
    out, start = [], 0
    for leaf in leaves:
        mask = kept[start : start + leaf.size].reshape(leaf.shape)
        out.append(jnp.where(mask, leaf, 0))
        start += leaf.size
    return jax.tree.unflatten(structure, out)


_ROWS = 32  # their sum must fit in a byte


def _highest(scores: jax.Array, k: int | jax.Array) -> jax.Array:
    """Where the k highest scores are, by bisection: sorting takes a hundred times as long."""
    ranks = _ranks(scores)
    least, most = jnp.iinfo(ranks.dtype).min, jnp.iinfo(ranks.dtype).max
    padding = (0, -ranks.size % _ROWS)
    ranks = jnp.pad(ranks, padding, constant_values=least).reshape(_ROWS, -1)

    def halved(bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # at least k are above low, at most k above high
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, which does not overflow
        above = _count(ranks > middle)
        return jnp.where(above >= k, middle, low), jnp.where(above <= k, middle, high)

    start = jnp.array(least, ranks.dtype), jnp.array(most, ranks.dtype)
    _, high = jax.lax.while_loop(lambda bounds: bounds[0] + 1 < bounds[1], halved, start)
    above = ranks > high
    missing = k - _count(above)

    def with_first_ties() -> jax.Array:
        ties = ranks == high
        number = jnp.cumsum(ties.ravel()).reshape(ties.shape)
        return above | (ties & (number <= missing))

    kept = jax.lax.cond(missing > 0, with_first_ties, lambda: above)
    return kept.ravel()[: scores.size]


def _ranks(scores: jax.Array) -> jax.Array:
    """Integers in the order of floats; NaN is minus infinity.

    The bits of floats, read as integers, are in the order of the floats if those of negative ones
    are flipped, except for the sign.
    """
    integer = jnp.dtype(f"int{8 * scores.dtype.itemsize}")
    numbers = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    positive_zero = jnp.where(numbers == 0, 0, numbers)
    bits = jax.lax.bitcast_convert_type(positive_zero, integer)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)


def _count(flags: jax.Array) -> jax.Array:
    """How many flags are set; bytes are added first, of which processors add many at once."""
    return jnp.sum(jnp.sum(flags, axis=0, dtype=jnp.int8), dtype=jnp.int32)


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
