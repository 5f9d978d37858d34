"""From a pretrained net to a quantised one: soft, hard and pruning stage, with merges between."""

from collections.abc import Callable
from contextlib import nullcontext
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from swsjax.errors import ConfigError, RetrainingError
from swsjax.sws.advice import checked, warn_before, why_zero
from swsjax.sws.config import Config
from swsjax.sws.grid import range_of
from swsjax.sws.plans import Stages, three_stages
from swsjax.sws.prior import GaussianMixture, init_mixture
from swsjax.sws.quantizing import non_zeros, quantize_groups
from swsjax.sws.record import read_details
from swsjax.sws.stages import Run, run_stages
from swsjax.sws.units import in_units
from swsjax.training.epochs import TrainState, caches_cleared, compiled_loop, indexed_step
from swsjax.training.history import Epoch, Log, error_of
from swsjax.training.loop import feed_of
from swsjax.training.losses import Loss, LossWithAux
from swsjax.training.net import Net, Weights, take_apart
from swsjax.training.resume import digest, opened
from swsjax.training.selection import Rules, Selection
from swsjax.training.sharding import gather
from swsjax.training.statistics import estimator
from swsjax.training.stream import Stream, one_step
from swsjax.trees import form_of, is_number

__all__ = ["Result", "compress"]


class Result(NamedTuple):
    """What ``compress`` returns."""

    params: Any
    """The quantised net: like the given one, with few distinct values, most of them 0."""
    retrained: Any
    """The net at the end of retraining, before its weights were quantised."""
    mixtures: dict[str, GaussianMixture]
    """The priors at the end, merged, by group: ``"weights"`` unless a rule names another."""
    history: list[Epoch]
    """One entry per epoch; its details are ``sws.Details``."""
    selection: Selection
    """What was done with each leaf."""
    aux: Any = None
    """What the loss carried from step to step, at the end. Statistics are those of the quantised
    net."""


def compress(
    params: Any,
    loss_fn: Loss | LossWithAux,
    data: Any,
    config: Config = Config(),
    *,
    aux: Any = None,
    rules: Rules = (),
    prune_loss_fn: Loss | LossWithAux | None = None,
    start: Result | None = None,
    stages: Stages = three_stages,
    mesh: Mesh | None = None,
    evaluate: Callable[..., Any] | None = None,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Result:
    """Retrain a pretrained net under the mixture prior and quantise it.

    Args:
        params: the pretrained net: any pytree with floating arrays, or a Flax NNX module, whose
            ``nnx.Param`` variables are compressed and whose others are carried along.
        loss_fn: mean loss of a batch, ``loss_fn(params, batch) -> scalar``; with ``aux``,
            ``loss_fn(params, aux, batch) -> (scalar, aux)``.
        data: pytree of arrays with the N training examples along the first axis; a batch is the
            same pytree with ``config.batch_size`` of them. Or a ``Stream``, for data that do not
            fit on the device.
        config: settings.
        aux: what the loss carries from step to step and is not trained, such as batch statistics
            and random keys; a pytree of arrays.
        rules: which leaves are compressed, and in which group; ``select(params, rules)`` shows
            what they do.
        prune_loss_fn: loss of the pruning stage, if it differs.
        start: an earlier result of the same net, whose retrained weights and mixtures are the
            start: with ``soft_epochs=0, hard_epochs=0`` it is pruned further.
        stages: makes the stages from the settings; ``partial(three_stages, score=...)`` prunes by
            a different score.
        mesh: devices to retrain on, with an axis ``"data"``, over which each batch is divided, and
            optionally ``"model"``, over which the weights are. With several processes
            (``jax.distributed``) each calls this with the same arguments and gets the same result.
        evaluate: error of a net on validation data: ``evaluate(params)``, or with ``aux``
            ``evaluate(params, aux)``. Called once per epoch with the quantised net, for the
            history. It decides nothing.
        callback: called with the record of each epoch.
        resume: folder in which the whole state is written after every epoch. A run that finds its
            own state there resumes from it, and ends as if it had never stopped.

    Returns:
        The quantised net, the retrained one, the mixtures, the history, the selection and aux.

    Raises:
        ConfigError: params or data hold nothing to train on, or something else than they should; a
            rule decides nothing; the loss is not a scalar.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss or a mixture is no longer finite, a mixture no longer matches
            the weights, or every weight is zero.

    Warns:
        SwsjaxWarning: settings unlikely to work, with others to try.

    Soft weight-sharing (Ullrich, Meeds, Welling, ICLR 2017) with two differences, three with
    ``ANNEALED``: there the prior acts on weights in units of each array, and the width of its
    components follows the progress of the soft stage. After the soft stage there is a hard one, in
    which the net computes with the quantised weights; without it the error rises when the paper
    quantises. Then there is an optional pruning stage, without a prior, in which the least salient
    of the remaining weights become zero too, a few in each epoch.

    >>> key = jax.random.key(0)
    >>> x = jax.random.normal(key, (512, 4))
    >>> data = {"x": x, "y": x @ jnp.array([1.0, 1.0, 0.0, -1.0])}
    >>> loss = lambda params, batch: jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
    >>> params = {"w": jnp.array([0.98, 1.02, 0.01, -1.0])}
    >>> result = compress(params, loss, data, Config(components=4, soft_epochs=1, hard_epochs=1))
    >>> print(np.asarray(result.params["w"]).round(1))
    [ 1.  1.  0. -1.]
    """
    _check_types(config, start, loss_fn)
    _check_functions(
        prune_loss_fn=prune_loss_fn, stages=stages, evaluate=evaluate, callback=callback
    )
    net = _taken_apart(params, aux, rules, config)
    feed = feed_of(data, config.batch_size, least_steps=config.least_steps, mesh=mesh)
    losses = tuple(checked(net.loss(loss)) for loss in (loss_fn, prune_loss_fn or loss_fn))
    _check_tau(config)
    if start is None:
        warn_before(config, net.weights.groups, feed.size)
        mixtures = {
            name: _first_mixture(name, leaves, config)
            for name, leaves in net.weights.groups.items()
        }
    else:
        net, mixtures = _started(net, start, rules, config), start.mixtures
    if not isinstance(data, Stream):
        batch = _batch_of(feed.data, config.batch_size)
        for loss in losses[: 1 if prune_loss_fn is None else 2]:
            jax.eval_shape(loss, net.weights, net.carried, batch)

    def error(weights: Weights, carried: Any) -> float:
        assert evaluate is not None
        rebuilt, aux_after = net.rebuild(weights, carried)
        return error_of(evaluate, *((rebuilt,) if aux is None else (rebuilt, aux_after)))

    identity = digest(str(config), str(rules), net.weights, net.carried, mixtures, feed.size)
    with (
        nullcontext() if resume is None else opened(resume, identity) as folder,
        caches_cleared(compiled_loop, indexed_step, one_step),
    ):
        log = Log.opened(folder, callback, read_details)
        planned = stages(config, losses[0], losses[1], feed)
        run = Run(net, feed, config, planned, None if evaluate is None else error, log)
        state = run_stages(run, mixtures)
        return _result(run, state, losses[1])


def _result(run: Run, state: TrainState, loss_fn: LossWithAux) -> Result:
    net, feed, mixtures = run.net, run.feed, state.params.mixtures
    retrained, carried = gather((state.params.weights, state.aux), feed.mesh)
    quantised = quantize_groups(mixtures, retrained)
    if non_zeros(quantised.groups) == 0:
        raise RetrainingError(
            f"every weight is zero after quantisation: {why_zero(mixtures, run.config)}"
        )
    before, _ = net.rebuild(retrained, carried)
    estimate = estimator(loss_fn, feed)
    compressed, aux = net.rebuild(quantised, estimate(quantised, carried))
    return Result(compressed, before, mixtures, run.log.history, net.selection, aux)


def _check_types(config: Any, start: Any, loss_fn: Any) -> None:
    """Find arguments of the wrong type, or in the wrong order, before they fail elsewhere."""
    if not isinstance(config, Config):
        raise ConfigError(f"config must be a Config, got a {type(config).__name__}")
    if not (start is None or isinstance(start, Result)):
        raise ConfigError(f"start must be a result of compress, got a {type(start).__name__}")
    if not callable(loss_fn):
        raise ConfigError(
            f"loss_fn must be a function, got a {type(loss_fn).__name__}; compress takes params, "
            "loss_fn and data in this order"
        )


def _check_functions(**functions: Any) -> None:
    for name, function in functions.items():
        if not (function is None or callable(function)):
            raise ConfigError(f"{name} must be a function, got a {type(function).__name__}")


def _check_tau(config: Config) -> None:
    if callable(config.tau):
        first = config.tau(jnp.zeros((), jnp.int32))
        if not (is_number(first) and 0 <= first < float("inf")):
            raise ConfigError(f"tau must return numbers that are not negative, got {first!r}")


def _batch_of(data: Any, batch_size: int) -> Any:
    """Shapes of a batch."""
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype), data
    )


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


def _taken_apart(params: Any, aux: Any, rules: Rules, config: Config) -> Net:
    net = take_apart(params, aux, rules)
    return net if config.annealing is None else in_units(net)


def _started(net: Net, start: Result, rules: Rules, config: Config) -> Net:
    """The net as an earlier result left it, checked to be the same net."""
    started = _taken_apart(start.retrained, start.aux, rules, config)
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
