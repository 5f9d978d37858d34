r"""Pruning the least salient weights of a quantised net, a few in each epoch, while it trains.

The zero component takes the weights that the prior can pull to zero; the others are at means of
their own and stay there. Gradual pruning (Zhu and Gupta, arXiv 1710.01878) removes those of them
that matter least.

Saliency combines magnitude and gradients. Removing a weight costs :math:`\tfrac12 w^2 F` of loss
with F the curvature (LeCun, Denker, Solla, Optimal Brain Damage, 1989), of which the mean square of
the gradient is an estimate (Theis et al., arXiv 1801.05787). The score here is the geometric mean
of the root of that cost and the magnitude. It was chosen on single runs of LeNet-300-100: against
magnitude alone the gain was clear when many weights were pruned in few epochs, and within noise in
a longer pruning to half.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swsjax.sws.prior import GaussianMixture
from swsjax.sws.quantizing import quantize_groups
from swsjax.sws.step import Joint
from swsjax.training.epochs import TrainState
from swsjax.training.masks import cubic_keep, held, keep_top
from swsjax.trees import Params

__all__ = [
    "Hold",
    "PruneState",
    "Score",
    "hold_in_range",
    "prune_epoch",
    "pruning",
    "saliency",
    "zeros_cut",
]

Score = Callable[[Params, Params], Params]
"""From weights and the mean squares of their gradients to their scores, pytrees of one form."""
Hold = Callable[[jax.Array, jax.Array, GaussianMixture], jax.Array]
"""From an array of weights, its update and its mixture to the update that is applied."""

_DECAY = 0.999  # of the mean square gradient, as in Adam


@jax.jit
def saliency(params: Params, squares: Params) -> Params:
    r"""Score of each weight from its magnitude and the mean square of its gradient.

    .. math:: |w| \, \mathrm{E}[g^2]^{1/4}

    Args:
        params: pytree of weights.
        squares: mean square gradients, a pytree of the same form. If all are zero, weights are
            scored by magnitude.

    >>> params, squares = {"w": jnp.array([0.5, -0.4, 0.0])}, {"w": jnp.array([1e-4, 16e-4, 1.0])}
    >>> print(np.asarray(saliency(params, squares)["w"]).round(3))
    [0.05 0.08 0.  ]
    """
    # Weights without a gradient are pruned first, by magnitude.
    least = jnp.finfo(jnp.float32).tiny
    return jax.tree.map(
        lambda leaf, square: jnp.abs(leaf.astype(jnp.float32)) * (square + least) ** 0.25,
        params,
        squares,
    )


def hold_in_range(leaf: jax.Array, update: jax.Array, mixture: GaussianMixture) -> jax.Array:
    """Keep zeros at zero; clip weights to the range of the means.

    A weight beyond the outermost mean computes as one at that mean: its gradient does not depend on
    where it is, and without a prior it would drift away, so it stops there (as in BinaryConnect:
    Courbariaux, Bengio, David, arXiv 1511.00363). A side without means is not clipped.

    >>> mixture = GaussianMixture(jnp.array([-0.5, 1.0]), jnp.zeros(3), jnp.zeros(2), jnp.zeros(()))
    >>> print(hold_in_range(jnp.array([0.0, 1.0, -0.375]), jnp.full(3, -0.25), mixture))
    [ 0.    -0.25  -0.125]
    """
    low, high = jnp.min(mixture.means), jnp.max(mixture.means)
    low, high = jnp.where(low < 0, low, -jnp.inf), jnp.where(high > 0, high, jnp.inf)
    clipped = jnp.clip(leaf + update, low, high) - leaf
    return held(leaf, clipped.astype(update.dtype))


class PruneState(NamedTuple):
    """State of ``pruning``."""

    inner: optax.OptState
    """State of the optimiser of weights and mixtures."""
    squares: dict[str, list[jax.Array]]
    """Running mean square of each compressed weight's gradient, float32; zero at the start."""
    at_start: jax.Array
    """() int32 compressed weights that were not zero at the start."""


def pruning(
    optimizer: optax.GradientTransformation, hold: Hold = hold_in_range
) -> optax.GradientTransformation:
    """Hold the updates of the compressed weights, and measure gradients for ``saliency``.

    Args:
        optimizer: over the ``Joint`` of weights and mixtures.
        hold: what becomes of the update of an array of compressed weights.

    >>> from swsjax.training import Weights
    >>> mixture = GaussianMixture(jnp.array([-0.5, 1.0]), jnp.zeros(3), jnp.zeros(2), jnp.zeros(()))
    >>> weights = Weights({"weights": [jnp.array([0.0, 1.0, -0.375])]}, [])
    >>> joint = Joint(weights, {"weights": mixture})
    >>> optimizer = pruning(optax.sgd(0.25))
    >>> gradients = jax.tree.map(jnp.ones_like, joint)
    >>> updates, state = optimizer.update(gradients, optimizer.init(joint), joint)
    >>> print(updates.weights.groups["weights"][0], state.at_start)
    [ 0.    -0.25  -0.125] 2
    """

    with_extra = optax.with_extra_args_support(optimizer)

    def init(joint: Joint) -> PruneState:
        groups = joint.weights.groups
        squares = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, jnp.float32), groups)
        return PruneState(optimizer.init(joint), squares, _count(jax.tree.leaves(groups)))

    def update(
        gradients: Joint, state: PruneState, joint: Joint, **extra: Any
    ) -> tuple[Joint, PruneState]:
        updates, inner = with_extra.update(gradients, state.inner, joint, **extra)
        groups = {
            name: [
                hold(leaf, update, joint.mixtures[name])
                for leaf, update in zip(leaves, updates.weights.groups[name], strict=True)
            ]
            for name, leaves in joint.weights.groups.items()
        }
        gradient = optax.tree.cast(gradients.weights.groups, jnp.float32)
        squares = optax.tree.update_moment_per_elem_norm(gradient, state.squares, _DECAY, 2)
        updates = updates._replace(weights=updates.weights._replace(groups=groups))
        return updates, PruneState(inner, squares, state.at_start)

    return optax.GradientTransformationExtraArgs(init, update)


def prune_epoch(
    state: TrainState, number: int, *, epochs: int, keep: float, score: Score = saliency
) -> TrainState:
    """Prune down to the scheduled number of weights, before an epoch of the pruning stage.

    The schedule, ``cubic_keep``, takes the first half of the stage, beginning when there are
    gradients; the other half only trains.

    Args:
        state: of a stage whose optimiser is ``pruning``.
        number: of the epoch in the stage, from 0.
        epochs: of the stage.
        keep: fraction of the weights to keep in the end.
        score: the lowest scores are pruned.

    >>> from swsjax.sws import LearningRates, init, init_mixture
    >>> from swsjax.training import take_apart
    >>> optimizer = pruning(LearningRates().optimizer(1, 1))
    >>> net = take_apart([jnp.array([0.1, -0.8, 0.3, 0.0, 1.0])])
    >>> state = init(net, {"weights": init_mixture(-1.0, 1.0)}, optimizer, jax.random.key(0))
    >>> state = prune_epoch(state, 1, epochs=2, keep=0.5)
    >>> print(state.params.weights.groups["weights"][0])
    [ 0.  -0.8  0.   0.   1. ]
    """
    half = epochs // 2
    share = cubic_keep(keep, number / half if half else 1.0)
    joint: Joint = state.params
    groups = joint.weights.groups
    scores = _pruned_last(groups, score(groups, state.opt_state.squares))
    kept = keep_top(groups, scores, round(share * state.opt_state.at_start.item()))
    weights = joint.weights._replace(groups=kept)
    return state._replace(params=joint._replace(weights=weights))


@jax.jit
def _count(leaves: list[jax.Array]) -> jax.Array:
    return jnp.sum(jnp.stack([jnp.count_nonzero(leaf) for leaf in leaves]))


@jax.jit
def _pruned_last(groups: Params, scores: Params) -> Params:
    """Weights that are pruned already rank last, however they score."""
    return jax.tree.map(lambda leaf, score: jnp.where(leaf == 0, -jnp.inf, score), groups, scores)


@jax.jit
def zeros_cut(joint: Joint) -> Joint:
    """Set the weights to exactly zero that are quantised to zero.

    >>> from swsjax.sws import init_mixture
    >>> from swsjax.training import Weights
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0, components=2, std=0.1)}
    >>> cut = zeros_cut(Joint(Weights({"weights": [jnp.array([0.1, 0.9])]}, []), mixtures))
    >>> print(cut.weights.groups["weights"][0])
    [0.  0.9]
    """
    quantised = quantize_groups(joint.mixtures, joint.weights)
    cut = jax.tree.map(
        lambda leaf, level: jnp.where(level == 0, 0, leaf),
        joint.weights.groups,
        quantised.groups,
    )
    return joint._replace(weights=joint.weights._replace(groups=cut))
