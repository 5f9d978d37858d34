"""The stages of ``compress``, made from its settings."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.sws.advice import check_mixtures, check_some_left, warn_of_lost_arrays
from swsjax.sws.config import Annealing, Config
from swsjax.sws.merging import merge
from swsjax.sws.prune import Hold, Score, hold_in_range, prune_epoch, pruning, saliency, zeros_cut
from swsjax.sws.rates import LearningRates
from swsjax.sws.stages import Course, Planned, Stage
from swsjax.sws.step import Joint, hand_over, hard, soft
from swsjax.sws.units import measured_again
from swsjax.training.loop import Feed
from swsjax.training.losses import LossWithAux
from swsjax.training.masks import held

__all__ = ["Stages", "three_stages"]

Stages = Callable[[Config, LossWithAux, LossWithAux, Feed], list[Stage]]
"""From the settings, the loss, the loss of the pruning stage and the data to the stages."""

# The share of the hard stage in which the net is handed over; after a longer one, less is left.
_HAND_OVER = 0.1


def three_stages(
    config: Config,
    loss_fn: LossWithAux,
    prune_loss_fn: LossWithAux,
    feed: Feed,
    *,
    score: Score = saliency,
    hold: Hold = hold_in_range,
) -> list[Stage]:
    """Return the stages of ``compress``: soft, hard and prune.

    With ``config.annealing``, one width of all components falls over the soft stage, the units are
    measured again in each of its epochs, and the net is handed over to the assigned means over the
    first tenth of the hard stage. The other stages go on with Adam's moments of the one before; the
    gradients of the hard stage are larger, and would be divided by too little. Without, the
    precisions are learned, and components are merged after each stage.

    Args:
        config: settings.
        loss_fn: loss of the soft and the hard stage.
        prune_loss_fn: loss of the pruning stage.
        feed: the data.
        score: which weights are pruned: those with the lowest scores.
        hold: what becomes of the update of compressed weights in the pruning stage.

    >>> from swsjax.training.loop import feed_of
    >>> feed = feed_of(jnp.zeros(1000), 128)
    >>> loss = lambda weights, carried, batch: (jnp.zeros(()), carried)
    >>> [(stage.name, stage.epochs) for stage in three_stages(Config(), loss, loss, feed)]
    [('soft', 30), ('hard', 20), ('prune', 24)]
    """
    steps, annealing = feed.steps, config.annealing
    check = (check_mixtures,) if annealing is None else ()
    stages = [
        Stage(
            "soft",
            config.soft_epochs,
            loss_fn,
            _soft(config.soft_learning_rates, steps, annealing),
            config.tau,
            checks=check,
            finish=warn_of_lost_arrays,
        ),
        Stage(
            "hard",
            config.hard_epochs,
            loss_fn,
            _hard(config.hard_learning_rates, steps, annealing),
            config.tau,
            checks=(check_some_left, *check),
        ),
        Stage(
            "prune",
            config.prune_epochs,
            prune_loss_fn,
            _prune(config.prune_learning_rates, steps, annealing, hold),
            tau=0.0,
            checks=(check_some_left,),
            begin=zeros_cut,
            before_epoch=partial(
                prune_epoch, epochs=config.prune_epochs, keep=config.keep, score=score
            ),
        ),
    ]
    if annealing is None:
        merging = partial(_merged, threshold=config.merge_threshold)
        return [stage._replace(end=merging) for stage in stages]
    soft_stage, hard_stage, prune_stage = stages
    return [
        soft_stage._replace(before_epoch=measured_again, continues=True),
        hard_stage,
        prune_stage._replace(continues=True),
    ]


# The same settings give the same functions, so that a step made of them is compiled once.
@lru_cache(maxsize=32)
def _soft(rates: LearningRates, steps: int, annealing: Annealing | None) -> Planned:
    def course(epochs: int | Array) -> Course:
        width = None if annealing is None else annealing.width(epochs * steps)
        return Course(_holding_zeros(rates.optimizer(epochs, steps)), soft, width)

    return course


@lru_cache(maxsize=32)
def _hard(rates: LearningRates, steps: int, annealing: Annealing | None) -> Planned:
    def course(epochs: int | Array) -> Course:
        optimizer = _holding_zeros(rates.optimizer(epochs, steps))
        if annealing is None:
            return Course(optimizer, hard)
        forward = hand_over(jnp.maximum(jnp.round(_HAND_OVER * epochs * steps), 1))
        return Course(optimizer, forward, *_dampening(rates, epochs, steps, annealing))

    return course


@lru_cache(maxsize=32)
def _prune(rates: LearningRates, steps: int, annealing: Annealing | None, hold: Hold) -> Planned:
    def course(epochs: int | Array) -> Course:
        optimizer = pruning(rates.optimizer(epochs, steps), hold)
        if annealing is None:
            return Course(optimizer, hard)
        return Course(optimizer, hard, *_dampening(rates, epochs, steps, annealing))

    return course


def _dampening(
    rates: LearningRates, epochs: int | Array, steps: int, annealing: Annealing
) -> tuple[optax.Schedule, optax.Schedule | None]:
    """Width and pull of a stage after an annealing, at the width of its end."""
    end = Annealing(annealing.end, annealing.end).width(1)
    return end, rates.pull(epochs, steps, annealing.end)


def _holding_zeros(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    with_extra = optax.with_extra_args_support(optimizer)

    def update(gradients: Joint, state: Any, joint: Joint, **extra: Any) -> tuple[Joint, Any]:
        updates, state = with_extra.update(gradients, state, joint, **extra)
        groups = jax.tree.map(held, joint.weights.groups, updates.weights.groups)
        return updates._replace(weights=updates.weights._replace(groups=groups)), state

    return optax.GradientTransformationExtraArgs(with_extra.init, update)


def _merged(joint: Joint, threshold: float) -> Joint:
    merged = {name: merge(mixture, threshold) for name, mixture in joint.mixtures.items()}
    return joint._replace(mixtures=merged)
