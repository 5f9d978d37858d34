r"""Zeroing the least salient weights of a quantised net, a little at a time, while it trains.

Where the mixture leaves off: its zero component takes the weights that the prior can pull to zero,
but what is left lies at means of its own and does not move on. Gradual pruning (Zhu and Gupta,
arXiv 1710.01878) takes those that matter least too.

How much a weight matters is told from its magnitude and its gradients together. To remove it costs
:math:`\tfrac12 w^2 F` of loss with F the curvature (LeCun, Denker, Solla, Optimal Brain Damage,
1989), of which the mean square of the gradient is an estimate (Theis et al., arXiv 1801.05787).
The score here is the geometric mean of that cost's root and the plain magnitude. It was chosen on
single runs of LeNet-300-100; against magnitude alone the gain was clear where much was pruned in
few epochs, and within noise in a longer pruning to half.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swsjax.losses import Params
from swsjax.prior import GaussianMixture

__all__ = ["PruneState", "keep_largest", "pruning", "saliency", "share_left"]

_DECAY = 0.999  # of the mean square gradient, as in Adam


@jax.jit
def keep_largest(params: Params, scores: Params, number: int | jax.Array) -> Params:
    """Set all weights to zero but the ``number`` of largest score, over all leaves together.

    Of equal scores all or none are kept.

    >>> params = {"w": jnp.array([0.1, -0.8]), "b": jnp.array([0.3])}
    >>> keep_largest(params, jax.tree.map(jnp.abs, params), 2)
    {'b': Array([0.3], dtype=float32), 'w': Array([ 0. , -0.8], dtype=float32)}
    """
    together = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(scores)])
    # The largest that goes; nothing goes if all are to be kept.
    largest = jnp.sort(together, descending=True).at[number].get(mode="fill", fill_value=-1)
    return jax.tree.map(lambda leaf, score: jnp.where(score > largest, leaf, 0), params, scores)


@jax.jit
def saliency(params: Params, squares: Params) -> Params:
    r"""Score of each weight from its magnitude and the mean square of its gradient.

    .. math:: |w| \, \mathrm{E}[g^2]^{1/4}

    Args:
        params: pytree of weights.
        squares: mean square gradients, a pytree alike. All zero: the scores go by magnitude.

    >>> params, squares = {"w": jnp.array([0.5, -0.4, 0.0])}, {"w": jnp.array([1e-4, 16e-4, 1.0])}
    >>> print(np.asarray(saliency(params, squares)["w"]).round(3))
    [0.05 0.08 0.  ]
    """
    # What has no gradient goes first, and by magnitude.
    least = jnp.finfo(jnp.float32).tiny
    return jax.tree.map(
        lambda leaf, square: jnp.abs(leaf.astype(jnp.float32)) * (square + least) ** 0.25,
        params,
        squares,
    )


def share_left(final: float, progress: float) -> float:
    r"""Share of the weights left at some progress of pruning, from 0 to 1 and beyond.

    .. math:: f + (1 - f) (1 - t)^3

    fast while there is much to take and slow towards the end (Zhu and Gupta, Eq. 1, from a
    sparsity of zero).

    >>> share_left(0.6, 0.0), round(share_left(0.6, 0.5), 3), share_left(0.6, 1.0)
    (1.0, 0.65, 0.6)
    """
    return final + (1 - final) * (1 - min(progress, 1.0)) ** 3


class PruneState(NamedTuple):
    """State of ``pruning``."""

    inner: optax.OptState
    """State of the optimiser of the weights and the mixtures."""
    squares: Params
    """Running mean square of each weight's gradient, in float32; zero at the start."""


def pruning(
    optimizer: optax.GradientTransformation, labels: Sequence[str | None]
) -> optax.GradientTransformation:
    """Let zeros be and no weight leave the range of the means; measure gradients for ``saliency``.

    Over ``(params, mixtures)``. A pruned weight needs no other mark than its value, which is
    exactly zero and stays so. A weight beyond the outermost mean computes as one at that mean does:
    no gradient calls it back, and as no prior acts it would drift away, so its steps end there (as
    in BinaryConnect: Courbariaux, Bengio, David, arXiv 1511.00363). On a side without means nothing
    is cut. ``labels`` tell under which mixture each leaf of the params is, in order; those that are
    under none (None) take any step.

    >>> mixture = GaussianMixture(jnp.array([-0.5, 1.0]), jnp.zeros(3), jnp.zeros(2), jnp.zeros(()))
    >>> trained = {"w": jnp.array([0.0, 1.0, -0.375])}, {"weights": mixture}
    >>> optimizer = pruning(optax.sgd(0.25), ["weights"])
    >>> gradients = jax.tree.map(jnp.ones_like, trained)
    >>> updates, state = optimizer.update(gradients, optimizer.init(trained), trained)
    >>> updates[0]
    {'w': Array([ 0.   , -0.25 , -0.125], dtype=float32)}
    """

    def init(trained: Any) -> PruneState:
        squares = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, jnp.float32), trained[0])
        return PruneState(optimizer.init(trained), squares)

    def update(gradients: Any, state: PruneState, trained: Any) -> tuple[Any, PruneState]:
        (to_params, to_mixture), inner = optimizer.update(gradients, state.inner, trained)
        params, mixtures = trained
        leaves, structure = jax.tree.flatten(params)
        held = jax.tree.unflatten(
            structure,
            [
                step if label is None else _held(leaf, step, mixtures[label])
                for leaf, step, label in zip(
                    leaves, jax.tree.leaves(to_params), labels, strict=True
                )
            ],
        )
        gradient = optax.tree.cast(gradients[0], jnp.float32)
        squares = optax.tree.update_moment_per_elem_norm(gradient, state.squares, _DECAY, 2)
        return (held, to_mixture), PruneState(inner, squares)

    return optax.GradientTransformation(init, update)


def _held(leaf: jax.Array, step: jax.Array, mixture: GaussianMixture) -> jax.Array:
    low, high = jnp.min(mixture.means), jnp.max(mixture.means)
    low, high = jnp.where(low < 0, low, -jnp.inf), jnp.where(high > 0, high, jnp.inf)
    cut = jnp.clip(leaf + step, low, high) - leaf
    return jnp.where(leaf == 0, 0, cut.astype(step.dtype))
