r"""Zeroing the smallest weights of a quantised net, a little at a time, while it trains.

Where the mixture leaves off: its zero component takes the weights that the prior can pull to zero,
but what is left lies at means of its own and does not move on. Gradual magnitude pruning (Zhu and
Gupta, arXiv 1710.01878) takes the smallest of those too.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from swsjax.losses import Params

__all__ = ["hold_zeros", "keep_largest", "share_left"]


@jax.jit
def keep_largest(params: Params, number: int | jax.Array) -> Params:
    """Set all weights to zero but the ``number`` largest by magnitude, over all leaves together.

    Of equal magnitudes all or none are kept.

    >>> keep_largest({"w": jnp.array([0.1, -0.8]), "b": jnp.array([0.3])}, 2)
    {'b': Array([0.3], dtype=float32), 'w': Array([ 0. , -0.8], dtype=float32)}
    """
    magnitudes = jnp.concatenate([jnp.abs(leaf).ravel() for leaf in jax.tree.leaves(params)])
    # The largest that goes; nothing goes if all are to be kept.
    largest = jnp.sort(magnitudes, descending=True).at[number].get(mode="fill", fill_value=-1)
    return jax.tree.map(lambda leaf: jnp.where(jnp.abs(leaf) > largest, leaf, 0), params)


def share_left(final: float, progress: float) -> float:
    r"""Share of the weights left at some progress of pruning, from 0 to 1 and beyond.

    .. math:: f + (1 - f) (1 - t)^3

    fast while there is much to take and slow towards the end (Zhu and Gupta, Eq. 1, from a
    sparsity of zero).

    >>> share_left(0.6, 0.0), round(share_left(0.6, 0.5), 3), share_left(0.6, 1.0)
    (1.0, 0.65, 0.6)
    """
    return final + (1 - final) * (1 - min(progress, 1.0)) ** 3


def hold_zeros(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Let weights that are exactly zero stay there; over ``(params, mixture)``.

    So a pruned weight needs no other mark than its value.

    >>> params, mixture = {"w": jnp.array([0.0, 1.0])}, ()
    >>> optimizer = hold_zeros(optax.sgd(1.0))
    >>> gradients = {"w": jnp.ones(2)}, ()
    >>> updates, _ = optimizer.update(gradients, optimizer.init((params, ())), (params, ()))
    >>> updates[0]
    {'w': Array([ 0., -1.], dtype=float32)}
    """

    def update(gradients: Any, state: optax.OptState, trained: Any) -> tuple[Any, optax.OptState]:
        (to_params, to_mixture), state = optimizer.update(gradients, state, trained)
        held = jax.tree.map(lambda leaf, step: jnp.where(leaf == 0, 0, step), trained[0], to_params)
        return (held, to_mixture), state

    return optax.GradientTransformation(optimizer.init, update)
