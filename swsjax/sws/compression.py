"""From a pretrained net to a quantised one: soft, hard and pruning stage, with merges between."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from swsjax.checks import path_of
from swsjax.errors import ConfigError, SwsjaxWarning
from swsjax.sws.advice import checked, warn_before
from swsjax.sws.budget import steps_within
from swsjax.sws.config import Config
from swsjax.sws.grid import range_of
from swsjax.sws.job import Job, Quantised, shared_identity
from swsjax.sws.moves import Move, first_tau, settings_of, shortened, usual_epochs, within_budget
from swsjax.sws.plans import Stages, three_stages
from swsjax.sws.prior import GaussianMixture, init_mixture
from swsjax.sws.reference import no_reference
from swsjax.sws.result import Result
from swsjax.sws.stages import made_once, started
from swsjax.sws.targets import ANY_SIZE, Targets, chosen
from swsjax.sws.units import Carried, in_units
from swsjax.sws.walk import (
    SHARE,
    TRAINING_SHARE,
    Outcome,
    allowed,
    compared,
    outcome_text,
    stored_bytes,
    walk,
)
from swsjax.sws.wanted import Budget, Wanted, budget_text, wanted_of
from swsjax.training.augment import Augment
from swsjax.training.epochs import TrainState, caches_cleared, compiled_loop, indexed_step
from swsjax.training.history import Epoch, losses_of
from swsjax.training.loop import feed_of
from swsjax.training.losses import Loss, LossWithAux
from swsjax.training.net import Net, Weights, take_apart
from swsjax.training.progress import watched
from swsjax.training.resume import FOLDER
from swsjax.training.selection import Rules, Selection
from swsjax.training.stream import Stream, one_step
from swsjax.trees import form_of, is_number

__all__ = ["compress"]


NetT = TypeVar("NetT")


def compress(
    params: NetT,
    loss_fn: Loss | LossWithAux,
    data: Any,
    config: Config = Config(),
    *,
    max_loss: float | None = None,
    target_bytes: int | Sequence[int] | None = None,
    budget: Budget | None = None,
    aux: Any = None,
    rules: Rules = (),
    augment: Augment | None = None,
    prune_loss_fn: Loss | LossWithAux | None = None,
    start: Result[NetT] | None = None,
    stages: Stages = three_stages,
    mesh: Mesh | None = None,
    evaluate: Callable[..., Any] | None = None,
    callback: Callable[[Epoch], None] | None = None,
    progress: bool = True,
    resume: str | PathLike[str] | None = None,
) -> Result[NetT]:
    """Retrain a pretrained net under the mixture prior and quantise it.

    Args:
        params: the pretrained net: any pytree with floating arrays, or a Flax NNX module, whose
            ``nnx.Param`` variables are compressed and whose others are carried along.
        loss_fn: mean loss of a batch, ``loss_fn(params, batch) -> scalar``; with ``aux``,
            ``loss_fn(params, aux, batch) -> (scalar, aux)``.
        data: pytree of arrays with the N training examples along the first axis; a batch is the
            same pytree with ``config.batch_size`` of them. Or a ``Stream``, for data that do not
            fit on the device.
        config: settings. With ``tau``, one run of soft, hard and pruning stage; without, as many
            runs as the targets take, in which a batch acts only while its loss is above what the
            pretrained net has on the training data: few or noisy examples are not overfitted.
        max_loss: how much may be added to what ``evaluate`` returns for the pretrained net, in its
            units: 0.005 is half a point of an error rate. The run ends at the smallest file within.
            By default, half a percent of what training gained, see ``sws.walk.allowed``.
        target_bytes: size of the file, statistics included, or several. The run ends at the best
            net within each, and within ``max_loss`` if that is given.
        budget: what the run may take in all, a number of steps or a ``datetime.timedelta``: every
            stage becomes longer or shorter. A time is a number of steps by what one takes here,
            measured first, so the run ends near it. By default stages are as in ``config``, which
            usually makes about 170 epochs, but shorter if that is more than 100,000 steps.
        aux: what the loss carries from step to step and is not trained, such as batch statistics
            and random keys; a pytree of arrays.
        rules: which leaves are compressed, and in which group; ``select(params, rules)`` shows
            what they do.
        augment: ``augment(key, batch) -> batch``, applied to every batch inside the compiled step:
            what the net was pretrained with, such as ``crop_and_flip``.
        prune_loss_fn: loss of the pruning stage, if it differs.
        start: an earlier result of the same net, whose retrained weights and mixtures are the
            start: with ``soft_epochs=0, hard_epochs=0`` it is pruned further.
        stages: makes the stages from the settings; ``partial(three_stages, score=...)`` prunes by
            a different score.
        mesh: devices to retrain on, with an axis ``"data"``, over which each batch is divided, and
            optionally ``"model"``, over which the weights are. With several processes
            (``jax.distributed``) each calls this with the same arguments and gets the same result.
        evaluate: error of a net on validation data: ``evaluate(params)``, or with ``aux``
            ``evaluate(params, aux)``; smaller is better. A number, or one for each example, as
            ``training.misclassified`` returns: then the walk knows how far to trust a difference.
            Called once per epoch with the quantised net, for the history; with the net at the end
            of each run it decides what is run next. Without it, the run ends at the first net that
            keeps its loss on the training data.
        callback: called with the record of each epoch.
        progress: whether to show it on a terminal or in a notebook, if there is no callback.
        resume: folder in which the whole state is written after every epoch. A run that finds its
            own state there resumes from it, and ends as if it had never stopped. It is the same run
            if settings, rules, weights and data are the same, and the losses return the same on the
            first batch. Towards targets, every net on the way is kept there; other targets go on
            from them.

    Returns:
        The quantised net, the retrained one, the mixtures, the history, the selection and aux; the
        nets on the way, and what was reached.

    Raises:
        ConfigError: params or data hold nothing to train on, or something else than they should; a
            rule decides nothing; the loss is not a scalar; a target with ``tau``, or out of range.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss or a mixture is no longer finite, a mixture no longer matches
            the weights, or every weight is zero.

    Warns:
        SwsjaxWarning: settings unlikely to work, with others to try; a target was not reached.

    Soft weight-sharing (Ullrich, Meeds, Welling, ICLR 2017) with three differences. The prior acts
    on weights in units of each array, and the width of its components follows the progress of the
    soft stage; with ``sws.LEARNED``, as in the paper, precisions are learned, of the weights as
    they are. After the soft stage there is a hard one, in which the net computes with the quantised
    weights; without it the error rises when the paper quantises. Then there is an optional pruning
    stage, without a prior, in which the least salient of the remaining weights become zero too, a
    few in each epoch.

    >>> key = jax.random.key(0)
    >>> x = jax.random.normal(key, (512, 4))
    >>> data = {"x": x, "y": x @ jnp.array([1.0, 1.0, 0.0, -1.0])}
    >>> loss = lambda params, batch: jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
    >>> params = {"w": jnp.array([0.98, 1.02, 0.01, -1.0])}
    >>> config = Config(components=4, soft_epochs=2, hard_epochs=1, prune_epochs=0)
    >>> result = compress(params, loss, data, config)
    >>> print(np.asarray(result.params["w"]).round(1), result.outcomes[0].reached)
    [ 1.  1.  0. -1.] True
    """
    _check_types(config, start, loss_fn)
    _check_functions(
        prune_loss_fn=prune_loss_fn, stages=stages, evaluate=evaluate, callback=callback
    )
    wanted = wanted_of(max_loss, target_bytes, budget, config)
    net = _taken_apart(params, aux, rules, config)
    feed = feed_of(
        data, config.batch_size, least_steps=config.least_steps, mesh=mesh, augment=augment
    )
    loss, prune_loss = _losses(net, loss_fn, prune_loss_fn)
    losses = tuple(dict.fromkeys([loss, prune_loss]))
    if start is None:
        warn_before(config, net.weights.groups)
        mixtures = _first_mixtures(net, config)
    else:
        net, mixtures = _started(net, start, rules, config), start.mixtures
    if not isinstance(data, Stream):
        batch = feed.batch_shapes()
        for each in losses:
            jax.eval_shape(each, net.weights, net.carried, batch)

    def evaluated(weights: Weights, carried: Any) -> np.ndarray:
        assert evaluate is not None
        rebuilt, aux_after = net.rebuild(weights, carried)
        return losses_of(evaluate, *((rebuilt,) if aux is None else (rebuilt, aux_after)))

    identity = None if resume is None else shared_identity(net, mixtures, rules, feed, losses)
    measured = None if evaluate is None else evaluated
    made = made_once(net, feed)
    with (
        watched(callback, progress=progress) as callback,
        caches_cleared(compiled_loop, indexed_step, one_step),
    ):
        ref = made.reference if config.tau is None else no_reference
        job = Job(net, feed, loss, prune_loss, stages, measured, callback, identity, made, ref)
        if config.tau is None:
            return _walked(job, config, wanted, None if resume is None else path_of(resume, FOLDER))
        state, history = job.run(config, started(net, mixtures), resume)
        return _result(job, state, history, job.quantised(state, config))


def _losses(
    net: Net, loss_fn: Loss | LossWithAux, prune_loss_fn: Loss | LossWithAux | None
) -> tuple[LossWithAux, LossWithAux]:
    """Those of the soft and hard, and of the pruning stage; one function if they are the same."""
    loss = checked(net.loss(loss_fn))
    return loss, loss if prune_loss_fn is None else checked(net.loss(prune_loss_fn))


def _walked(job: Job, config: Config, wanted: Wanted, folder: Path | None) -> Result[Any]:
    """Make level after level, and the result from those that the targets end at."""
    most: float | None = wanted.max_loss
    if wanted.sizes and most is None:
        most = inf
    share = TRAINING_SHARE if job.evaluate is None else SHARE
    before, most = allowed(job.losses, job.net, most, share)
    # Without validation data nothing says how far to go: the first net that keeps its loss.
    known = job.evaluate is not None or wanted.max_loss is not None or wanted.sizes
    loss = before.mean().item()
    targets = Targets(loss, loss + most, wanted.sizes if known else (ANY_SIZE,))
    most_epochs = inf
    if wanted.budget is None:
        config = shortened(config, job.feed.steps)
    else:
        most_epochs = steps_within(wanted.budget, job, folder) / job.feed.steps
        config = within_budget(config, most_epochs)
    usual = usual_epochs(config)

    def run(
        number: int, move: Move, start: TrainState | None, done: int
    ) -> tuple[TrainState, list[Epoch]]:
        settings = replace(settings_of(move, config), seed=config.seed + number)
        if start is None:
            start = started(job.net, _first_mixtures(job.net, settings))
        if move.kind == "round":
            return start, []
        of_level = None if folder is None else folder / f"level-{number}-{move.name}"
        with warnings.catch_warnings():  # of settings; the loss of the level tells
            warnings.simplefilter("ignore", SwsjaxWarning)
            return job.run(settings, start, of_level, done, usual)

    def measure(state: TrainState) -> tuple[float, int, float]:
        net = job.quantised(state, config)
        loss, noise = compared(job.losses(net.weights, net.statistics), before)
        return loss, stored_bytes(*job.net.rebuild(net.weights, net.statistics)), noise

    tau = job.reference(job.loss_fn).unit * first_tau(_size(job.net))
    found = walk(run, measure, targets, config, tau=tau, most_epochs=most_epochs)
    outcomes = []
    for number, size in zip(chosen(found.levels, targets), wanted.sizes or (None,), strict=True):
        level, state = found.levels[number], found.states[number]
        assert state is not None
        net = job.quantised(state, config)
        reached, text = outcome_text(found.levels, number, targets, size)
        if found.cut:
            assert wanted.budget is not None
            text += f"; the budget of {budget_text(wanted.budget)} ended the run"
        if not reached:
            warnings.warn(text, SwsjaxWarning, stacklevel=3)
        rebuilt = job.net.rebuild(net.weights, net.statistics)
        outcomes.append(Outcome(*rebuilt, level.loss, level.file_bytes, reached, text))
    assert state is not None
    result = _result(job, state, found.history, net)
    return result._replace(levels=found.levels, outcomes=outcomes)


def _result(job: Job, state: TrainState, history: list[Epoch], net: Quantised) -> Result[Any]:
    before, _ = job.net.rebuild(net.retrained, net.carried)
    compressed, aux = job.net.rebuild(net.weights, net.statistics)
    units = net.carried.units if isinstance(net.carried, Carried) else None
    return Result(compressed, before, state.params.mixtures, history, job.net.selection, aux, units)


def _size(net: Net) -> int:
    return sum(leaf.size for leaves in net.weights.groups.values() for leaf in leaves)


def _check_types(config: Any, start: Any, loss_fn: Any) -> None:
    """Find arguments of the wrong type, or in the wrong order, before they fail elsewhere."""
    if not isinstance(config, Config):
        raise ConfigError(f"config must be a Config, got a {type(config).__name__}")
    if not (start is None or isinstance(start, Result)):
        raise ConfigError(f"start must be a result of compress, got a {type(start).__name__}")
    if start is not None and config.tau is None:
        raise ConfigError("start is for runs with a given tau; set tau in the settings")
    if not callable(loss_fn):
        raise ConfigError(
            f"loss_fn must be a function, got a {type(loss_fn).__name__}; compress takes params, "
            "loss_fn and data in this order"
        )
    _check_tau(config)


def _check_functions(**functions: Any) -> None:
    for name, function in functions.items():
        if not (function is None or callable(function)):
            raise ConfigError(f"{name} must be a function, got a {type(function).__name__}")


def _check_tau(config: Config) -> None:
    if callable(config.tau):
        first = config.tau(jnp.zeros((), jnp.int32))
        if not (is_number(first) and 0 <= first < float("inf")):
            raise ConfigError(f"tau must return numbers that are not negative, got {first!r}")


def _first_mixtures(net: Net, config: Config) -> dict[str, GaussianMixture]:
    groups = net.weights.groups
    return {name: _first_mixture(name, leaves, config) for name, leaves in groups.items()}


def _first_mixture(name: str, leaves: list[Array], config: Config) -> GaussianMixture:
    if not any(leaf.size for leaf in leaves):
        raise ConfigError(f"the group {name!r} has no weights: leave its empty leaves out")
    low, high = range_of(leaves)
    if low == high:
        raise ConfigError(
            f"the weights of the group {name!r} are all {low:g}, so there is nothing to share: "
            "pretrain the net, or leave them out by a rule"
        )
    return init_mixture(
        low,
        high,
        components=config.components,
        pi_zero=config.pi_zero,
        std=config.initial_std if config.annealing is None else config.annealing.start,
    )


def _taken_apart(params: Any, aux: Any, rules: Rules, config: Config, units: Any = None) -> Net:
    net = take_apart(params, aux, rules)
    return net if config.annealing is None else in_units(net, units)


def _started(net: Net, start: Result[Any], rules: Rules, config: Config) -> Net:
    """The net as an earlier result left it, checked to be the same net."""
    started = _taken_apart(start.retrained, start.aux, rules, config, start.units)
    expected, actual = _forms(net.selection), _forms(started.selection)
    if expected != actual:
        name, _ = min(expected.items() ^ actual.items())
        raise ConfigError(
            f"start is the result of a different net: {name} is {actual.get(name, 'missing')} "
            f"there and {expected.get(name, 'missing')} in params"
        )
    groups, found = sorted(net.weights.groups), sorted(start.mixtures)
    if groups != found:
        raise ConfigError(f"start has mixtures for the groups {found}, the rules name {groups}")
    expected, actual = form_of(net.carried[0]), form_of(started.carried[0])
    if expected != actual:
        raise ConfigError(
            f"aux must have the form of start.aux, {actual}, got {expected}; pass aux=start.aux"
        )
    return started._replace(selection=net.selection, rebuild=net.rebuild)


def _forms(selection: Selection) -> dict[str, str]:
    """Type and shape of each leaf, as JAX holds it: float32 for NumPy's float64 by default."""

    def held(dtype: str) -> str:
        try:
            return str(jax.dtypes.canonicalize_dtype(dtype))
        except TypeError:  # not an array of numbers
            return dtype

    return {leaf.name: f"{held(leaf.dtype)}{list(leaf.shape)}" for leaf in selection.leaves}
