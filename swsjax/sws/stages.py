"""The stages of a retraining: what each of them is, and how they follow one another."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swsjax.sws.advice import (
    Check,
    check_finite,
    check_mixtures,
    check_some_left,
    warn_of_lost_arrays,
)
from swsjax.sws.config import TAU_PER_EXAMPLE, Config
from swsjax.sws.grid import node_count, range_of
from swsjax.sws.merging import merge
from swsjax.sws.plateau import check_learning, zero_kernels
from swsjax.sws.prior import GaussianMixture
from swsjax.sws.prune import Hold, Score, hold_in_range, prune_epoch, pruning, saliency, zeros_cut
from swsjax.sws.quantizing import quantize_groups
from swsjax.sws.record import figures_of
from swsjax.sws.step import Forward, Info, Joint, hard, init, make_step, soft
from swsjax.sws.table import error_with, refined
from swsjax.training.epochs import Step, TrainState, copied
from swsjax.training.history import Epoch, Log
from swsjax.training.loop import Feed, Phase, run_phase
from swsjax.training.losses import LossWithAux
from swsjax.training.net import Net, Weights
from swsjax.training.selection import Selection
from swsjax.training.sharding import gather, replicate, settle, shard_weights
from swsjax.training.statistics import estimator, mean_loss

__all__ = ["Run", "Stage", "Stages", "run_stages", "three_stages"]


def _unchanged(state: Any, *_: Any) -> Any:
    return state


def _nothing(*_: Any) -> None:
    return None


class Stage(NamedTuple):
    """A stage of retraining: everything in which it differs from the others."""

    name: str
    """``"soft"``, ``"hard"`` or ``"prune"``, as the history has it."""
    epochs: int
    """Number of epochs; without any, the stage is skipped."""
    forward: Forward
    """What the net computes with: ``soft`` or ``hard``."""
    loss_fn: LossWithAux
    """Of weights, carried part and batch, as ``Net.loss`` makes it."""
    optimizer: optax.GradientTransformation
    """Over the ``Joint`` of weights and mixtures."""
    tau: float | optax.Schedule
    """Weight of the prior; at 0 the prior does not act."""
    checks: tuple[Check, ...]
    """Raise after an epoch if the net or the mixtures are lost."""
    begin: Callable[[Joint], Joint] = _unchanged
    """Applied to weights and mixtures before the stage."""
    before_epoch: Callable[[TrainState, int], TrainState] = _unchanged
    """Applied before each epoch, with its number in the stage."""
    finish: Callable[[Weights, Selection], None] = _nothing
    """Called after the stage with the net as it would be quantised; may warn."""


Stages = Callable[[Config, LossWithAux, LossWithAux, Feed], list[Stage]]
"""From the settings, the loss, the loss of the pruning stage and the data to the stages."""


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
    [('soft', 30), ('hard', 20), ('prune', 0)]
    """
    tau = TAU_PER_EXAMPLE * feed.size if config.tau is None else config.tau
    soft_optimizer, hard_optimizer, prune_optimizer = (
        rates.optimizer(epochs, feed.steps)
        for rates, epochs in (
            (config.soft_learning_rates, config.soft_epochs),
            (config.hard_learning_rates, config.hard_epochs),
            (config.prune_learning_rates, config.prune_epochs),
        )
    )
    return [
        Stage(
            "soft",
            config.soft_epochs,
            soft,
            loss_fn,
            soft_optimizer,
            tau,
            checks=(check_mixtures,),
            finish=warn_of_lost_arrays,
        ),
        Stage(
            "hard",
            config.hard_epochs,
            hard,
            loss_fn,
            hard_optimizer,
            tau,
            checks=(check_some_left, check_mixtures),
        ),
        Stage(
            "prune",
            config.prune_epochs,
            hard,
            prune_loss_fn,
            pruning(prune_optimizer, hold),
            tau=0.0,
            checks=(check_some_left,),
            begin=zeros_cut,
            before_epoch=partial(
                prune_epoch, epochs=config.prune_epochs, keep=config.keep, score=score
            ),
        ),
    ]


class Run(NamedTuple):
    """What the stages of a run have in common."""

    net: Net
    """The net in parts, as it was given."""
    feed: Feed
    """The data."""
    config: Config
    """Settings."""
    stages: list[Stage]
    """In the order in which they run."""
    error: Callable[[Weights, Any], float] | None
    """Error of quantised weights and the carried part, on validation data. The statistics in the
    carried part are re-estimated for these weights first."""
    log: Log
    """The history, and the state on disk."""


def run_stages(run: Run, mixtures: dict[str, GaussianMixture]) -> TrainState:
    """Run the remaining stages.

    Args:
        run: what they have in common.
        mixtures: the prior over each group at the start.

    Returns:
        The state after the last stage, its mixtures merged.

    >>> from swsjax.sws import init_mixture
    >>> from swsjax.training import take_apart
    >>> from swsjax.training.loop import feed_of
    >>> net = take_apart({"w": jnp.array([0.9, 1.1, 0.0])})
    >>> loss = net.loss(lambda params, batch: jnp.mean((params["w"] - batch) ** 2))
    >>> config = Config(batch_size=2, prior="exact", soft_epochs=1, hard_epochs=0, tau=0.01)
    >>> feed = feed_of(jnp.ones((4, 3)), 2)
    >>> run = Run(net, feed, config, three_stages(config, loss, loss, feed), None, Log([]))
    >>> state = run_stages(run, {"weights": init_mixture(-1.0, 1.0)})
    >>> len(run.log.history), run.log.history[0].loss < 1
    (1, True)
    """
    log, mesh = run.log, run.feed.mesh
    resuming = bool(log.history)
    joint, carried = copied((Joint(run.net.weights, mixtures), run.net.carried))
    keys = jax.random.split(jax.random.key(run.config.seed), len(run.stages))
    first = 0
    for stage, key in zip(run.stages, keys, strict=True):
        done, first = len(log.history) - first, first + stage.epochs
        if not stage.epochs or done > stage.epochs:
            continue
        if resuming:  # the arrays themselves are read from the disk
            last = log.history[-1].details
            joint = joint._replace(mixtures=jax.tree.map(jnp.zeros_like, last.mixtures))
        else:
            joint = stage.begin(joint)
        net = run.net._replace(
            weights=shard_weights(joint.weights, mesh), carried=replicate(carried, mesh)
        )
        state = settle(
            init(net, replicate(joint.mixtures, mesh), stage.optimizer, replicate(key, mesh)), mesh
        )
        if resuming:
            assert log.resume is not None
            state, nodes = log.resume.restore(state), last.nodes
        else:
            nodes = _first_nodes(run, state.params)
        state = run_phase(_phase(run, stage, nodes, done), state, run.feed, log, done)
        merged = {
            name: merge(mixture, run.config.merge_threshold)
            for name, mixture in state.params.mixtures.items()
        }
        joint, carried, resuming = state.params._replace(mixtures=merged), state.aux, False
        quantised = gather(quantize_groups(merged, joint.weights), mesh)
        stage.finish(quantised, run.net.selection)
    return state._replace(params=joint)


def _phase(run: Run, stage: Stage, first_nodes: dict[str, int] | None, done: int) -> Phase:
    """The epochs of a stage, of which some are done; the grid is refined in between."""

    @cache  # another step would compile again
    def step_on(nodes: tuple[tuple[str, int], ...] | None) -> Step:
        return make_step(
            stage.loss_fn,
            stage.optimizer,
            forward=stage.forward,
            tau=stage.tau,
            train_size=run.feed.size,
            hyper=run.config.hyper_priors,
            nodes=None if nodes is None else dict(nodes),
        )

    def nodes_at(number: int) -> dict[str, int] | None:
        return first_nodes if number == done else run.log.history[-1].details.nodes

    def step(number: int) -> Step:
        nodes = nodes_at(number)
        return step_on(None if nodes is None else tuple(nodes.items()))

    estimate = estimator(stage.loss_fn, run.feed)

    def error(weights: Weights, carried: Any) -> float | None:
        return None if run.error is None else run.error(weights, estimate(weights, carried))

    def after_epoch(state: TrainState, info: Info, number: int) -> Epoch:
        figures = figures_of(state, run.feed.mesh, error)
        return _record(run, stage, state, info, nodes_at(number), figures)

    return Phase(stage.epochs, step, stage.before_epoch, after_epoch)


def _record(
    run: Run,
    stage: Stage,
    state: TrainState,
    info: Info,
    nodes: dict[str, int] | None,
    figures: dict[str, Any],
) -> Epoch:
    """The record of an epoch, once the checks have passed."""
    joint: Joint = state.params
    error = 0.0
    if nodes is not None:
        error = max(
            error_with(nodes[name], joint.mixtures[name], leaves).item()
            for name, leaves in joint.weights.groups.items()
        )
    epoch = Epoch(
        stage=stage.name,
        epoch=len(run.log.history) + 1,
        epochs=sum(stage.epochs for stage in run.stages),
        loss=info.loss.item(),
        **figures,
    )
    check_finite(epoch, info, joint)
    for check in stage.checks:
        check(epoch, joint, run.config)
    if stage.tau != 0:  # pruning takes weights on purpose, and no prior acts
        _check_learning(run, stage, joint, epoch)
        if nodes is not None and error > run.config.tolerance / 10:
            nodes = _refined(joint, nodes, run.config)
    return epoch._replace(details=epoch.details._replace(prior_error=error, nodes=nodes))


def _check_learning(run: Run, stage: Stage, joint: Joint, epoch: Epoch) -> None:
    def first_loss() -> float:
        return mean_loss(stage.loss_fn, run.net.weights, run.net.carried, run.feed)

    def lost() -> list[str]:
        quantised = quantize_groups(joint.mixtures, joint.weights)
        return zero_kernels(gather(quantised, run.feed.mesh), run.net.selection)

    check_learning([*run.log.history, epoch], first_loss, lost)


def _first_nodes(run: Run, joint: Joint) -> dict[str, int] | None:
    """Nodes to start with: enough for the precision that the hyper-prior prefers.

    Single components may become far narrower, but they matter little if they hold few weights; the
    error that is measured after each epoch decides.
    """
    if run.config.prior == "exact":
        return None
    gamma = run.config.hyper_priors.precision
    sigma = min(run.config.initial_std, (gamma.rate / gamma.shape) ** 0.5)
    groups = joint.weights.groups
    nodes = {name: node_count(*range_of(leaves), sigma) for name, leaves in groups.items()}
    return _refined(joint, nodes, run.config)


def _refined(joint: Joint, nodes: dict[str, int], config: Config) -> dict[str, int]:
    """Enough nodes to keep the error within the tolerance until it is measured again.

    An epoch raises the error fourfold as components narrow, a hundredfold at the start of a stage.
    """
    target = config.tolerance / 20
    return {
        name: refined(joint.mixtures[name], leaves, nodes[name], target)
        for name, leaves in joint.weights.groups.items()
    }
