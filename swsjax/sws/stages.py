"""The stages of a retraining: what each of them is, and how they follow one another."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.sws.advice import Check, check_finite
from swsjax.sws.config import Config
from swsjax.sws.exact import has_kernel
from swsjax.sws.grid import node_count, range_of
from swsjax.sws.plateau import check_learning, zero_kernels
from swsjax.sws.prior import GaussianMixture
from swsjax.sws.quantizing import quantize_groups
from swsjax.sws.rates import continued
from swsjax.sws.record import figures_of
from swsjax.sws.reference import Reference, References, loss_unit, zeroed
from swsjax.sws.step import Forward, Info, Joint, init, make_step
from swsjax.sws.table import error_with, refined
from swsjax.training.epochs import Step, TrainState, copied
from swsjax.training.history import Epoch, Log
from swsjax.training.loop import Feed, Phase, run_phase
from swsjax.training.losses import LossWithAux
from swsjax.training.net import Net, Weights
from swsjax.training.selection import Selection
from swsjax.training.sharding import divides_weights, gather, replicate, settle, shard_weights
from swsjax.training.statistics import Estimate, LossMeter, estimator, loss_meter

__all__ = [
    "Course",
    "Given",
    "Made",
    "Planned",
    "Run",
    "Stage",
    "made_once",
    "run_stages",
    "started",
]


def _unchanged(state: Any, *_: Any) -> Any:
    return state


def _nothing(*_: Any) -> None:
    return None


class Course(NamedTuple):
    """What of a stage depends on how long it is."""

    optimizer: optax.GradientTransformation
    """Over the ``Joint`` of weights and mixtures."""
    forward: Forward
    """What the net computes with: ``soft``, ``hard`` or what ``hand_over`` makes."""
    width: optax.Schedule | None = None
    """Standard deviation that all components share; None: their precisions are learned."""
    pull: optax.Schedule | None = None
    """Share of the way to its assigned mean that each weight goes in a step; None is no pull."""


Planned = Callable[[int | Array], Course]
"""From a number of epochs, which may be traced, to what depends on it."""


class Given(NamedTuple):
    """What a step reads from the state, so that runs that differ in it share a compiled step."""

    tau: Array
    """() weight of the prior, if it is constant."""
    epochs: Array
    """() int32 epochs of the stage."""
    floor: Array
    """() loss of a batch at and below which only the prior acts."""
    unit: Array
    """() what the objective is divided by."""


class Stage(NamedTuple):
    """A stage of retraining: everything in which it differs from the others."""

    name: str
    """``"soft"``, ``"hard"`` or ``"prune"``, as the history has it."""
    epochs: int
    """Number of epochs; without any, the stage is skipped."""
    loss_fn: LossWithAux
    """Of weights, carried part and batch, as ``Net.loss`` makes it."""
    course: Planned
    """What depends on the number of epochs. Runs with the same function, loss and grid share a
    compiled step."""
    tau: float | optax.Schedule
    """Weight of the prior; at 0 the prior does not act."""
    checks: tuple[Check, ...]
    """Raise after an epoch if the net or the mixtures are lost."""
    begin: Callable[[Joint], Joint] = _unchanged
    """Applied to weights and mixtures before the stage."""
    continues: bool = False
    """Whether Adam's moments are those of the stage before."""
    before_epoch: Callable[[TrainState, int], TrainState] = _unchanged
    """Applied before each epoch, with its number in the stage."""
    end: Callable[[Joint], Joint] = _unchanged
    """Applied to weights and mixtures after the stage."""
    finish: Callable[[Weights, Selection], None] = _nothing
    """Called after the stage with the net as it would be quantised; may warn."""


class Made(NamedTuple):
    """Functions that are compiled once for all runs of a ``compress``; see ``made_once``."""

    step: Callable[..., Step]
    """``make_step`` on what a course has for the ``Given`` of a state, with nodes as pairs."""
    estimate: Callable[[LossWithAux], Estimate]
    """``estimator`` on the data."""
    loss_meter: Callable[[LossWithAux], LossMeter]
    """``loss_meter`` on the data."""
    first_loss: Callable[[LossWithAux], float]
    """Mean loss of the given net on the data."""
    reference: References
    """That loss, and the unit of losses."""


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
    made: Made
    """Steps and estimates of all runs."""
    reference: References
    """Of a loss, what it is compared with."""


def made_once(net: Net, feed: Feed) -> Made:
    """Return makers with a memory: the same arguments give the same function, compiled once.

    Args:
        net: the net in parts, as it was given.
        feed: the data.

    >>> from swsjax.sws import HyperPriors, LearningRates, soft
    >>> from swsjax.training.loop import feed_of
    >>> from swsjax.training import take_apart
    >>> made = made_once(take_apart(jnp.ones(3)), feed_of(jnp.ones(4), 2))
    >>> course = lambda epochs: Course(optax.sgd(1), soft)
    >>> given = {"tau": None, "hyper": HyperPriors(), "nodes": (("weights", 64),)}
    >>> made.step(print, course, **given) is made.step(print, course, **given)
    True
    """

    @cache
    def step(
        loss_fn: LossWithAux,
        course: Planned,
        *,
        nodes: tuple[tuple[str, int], ...] | None,
        **settings: Any,
    ) -> Step:
        settings["nodes"] = None if nodes is None else dict(nodes)

        def on_course(before: TrainState, batch: Any) -> tuple[TrainState, Info]:
            given: Given = before.given
            planned = course(given.epochs)._asdict()
            step = make_step(loss_fn, floor=given.floor, unit=given.unit, **planned, **settings)
            state, info = step(before._replace(given=given.tau), batch)
            return state._replace(given=given), info

        return feed.augmented(on_course)

    meter = cache(partial(loss_meter, feed=feed))

    @cache
    def first_loss(loss_fn: LossWithAux) -> float:
        return meter(loss_fn)(net.weights, net.carried)

    @cache
    def reference(loss_fn: LossWithAux) -> Reference:
        first = first_loss(loss_fn)
        return Reference(first, loss_unit(meter(loss_fn)(zeroed(net.weights), net.carried) - first))

    estimate = cache(partial(estimator, feed=feed))
    return Made(step, estimate, meter, first_loss, reference)


def started(net: Net, mixtures: dict[str, GaussianMixture]) -> TrainState:
    """Return the state of a net before its first stage, for ``run_stages``.

    Args:
        net: in parts.
        mixtures: the prior over each group.

    >>> from swsjax.sws import init_mixture
    >>> from swsjax.training import take_apart
    >>> net = take_apart({"w": jnp.ones(3)})
    >>> started(net, {"weights": init_mixture(-1.0, 1.0)}).opt_state
    ()
    """
    zero = jnp.zeros((), jnp.int32)
    return TrainState(Joint(net.weights, mixtures), (), zero, jax.random.key(0), net.carried)


def run_stages(run: Run, start: TrainState) -> TrainState:
    """Run the remaining stages.

    Args:
        run: what they have in common.
        start: weights, mixtures, carried part and Adam's moments at the start.

    Returns:
        The state after the last stage.

    >>> from dataclasses import replace
    >>> from swsjax.sws import LEARNED, init_mixture
    >>> from swsjax.sws.plans import three_stages
    >>> from swsjax.sws.reference import no_reference
    >>> from swsjax.training import take_apart
    >>> from swsjax.training.loop import feed_of
    >>> net = take_apart({"w": jnp.array([[0.9, 1.1, 0.0]])})
    >>> loss = net.loss(lambda params, batch: jnp.mean((params["w"] - batch) ** 2))
    >>> config = replace(LEARNED, batch_size=2, prior="exact", soft_epochs=1, hard_epochs=0)
    >>> feed = feed_of(jnp.ones((4, 3)), 2)
    >>> stages = three_stages(config, loss, loss, feed)
    >>> run = Run(net, feed, config, stages, None, Log([]), made_once(net, feed), no_reference)
    >>> state = run_stages(run, started(net, {"weights": init_mixture(-1.0, 1.0)}))
    >>> len(run.log.history), run.log.history[0].loss < 1
    (1, True)
    """
    log, mesh = run.log, run.feed.mesh
    resuming = bool(log.history)
    joint, carried, moments = copied((start.params, start.aux, start.opt_state))
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
        optimizer = stage.course(stage.epochs).optimizer
        state = settle(
            init(net, replicate(joint.mixtures, mesh), optimizer, replicate(key, mesh)), mesh
        )
        tau = stage.tau if _is_constant(stage.tau) else 0.0
        reference = map(jnp.float32, run.reference(stage.loss_fn))
        given = Given(jnp.float32(tau), jnp.int32(stage.epochs), *reference)
        state = state._replace(given=replicate(given, mesh))
        if resuming:
            assert log.resume is not None
            state, nodes = log.resume.restore(state), last.nodes
        else:
            if stage.continues:
                state = state._replace(opt_state=continued(state.opt_state, moments))
            nodes = _first_nodes(run, state.params)
        state = run_phase(_phase(run, stage, nodes, done), state, run.feed, log, done)
        joint, carried, resuming = stage.end(state.params), state.aux, False
        moments = state.opt_state
        quantised = gather(quantize_groups(joint.mixtures, joint.weights), mesh)
        stage.finish(quantised, run.net.selection)
    return state._replace(params=joint)


def _is_constant(tau: float | optax.Schedule) -> bool:
    """Whether the state holds the weight of the prior, so that runs can share a step."""
    return not callable(tau) and tau != 0


def _phase(run: Run, stage: Stage, first_nodes: dict[str, int] | None, done: int) -> Phase:
    """The epochs of a stage, of which some are done; the grid is refined in between."""

    def step_on(nodes: tuple[tuple[str, int], ...] | None) -> Step:
        return run.made.step(
            stage.loss_fn,
            stage.course,
            tau=None if _is_constant(stage.tau) else stage.tau,
            hyper=run.config.hyper_priors,
            nodes=nodes,
            sample=None if divides_weights(run.feed.mesh) else run.config.sample,
        )

    def nodes_at(number: int) -> dict[str, int] | None:
        return first_nodes if number == done else run.log.history[-1].details.nodes

    def step(number: int) -> Step:
        nodes = nodes_at(number)
        return step_on(None if nodes is None else tuple(nodes.items()))

    estimate = run.made.estimate(stage.loss_fn)

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
    def lost() -> list[str]:
        quantised = quantize_groups(joint.mixtures, joint.weights)
        return zero_kernels(gather(quantised, run.feed.mesh), run.net.selection)

    first_loss = partial(run.made.first_loss, stage.loss_fn)
    check_learning([*run.log.history, epoch], first_loss, lost)


def _first_nodes(run: Run, joint: Joint) -> dict[str, int] | None:
    """Nodes to start with: enough for the end of the annealing, or what the hyper-prior prefers.

    With learned precisions single components may become far narrower, but they matter little if
    they hold few weights; the error that is measured after each epoch decides.
    """
    largest = max((m.log_precisions.size for m in joint.mixtures.values()), default=0)
    if run.config.prior == "exact" or has_kernel(largest):
        return None
    gamma = run.config.hyper_priors.precision
    sigma = min(run.config.initial_std, (gamma.rate / gamma.shape) ** 0.5)
    if run.config.annealing is not None:
        sigma = run.config.annealing.end
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
