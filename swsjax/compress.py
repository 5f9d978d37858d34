"""From a pretrained net to a quantised one: soft, hard and pruning stage, with merges between."""

from collections.abc import Callable
from contextlib import nullcontext
from numbers import Integral
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from swsjax.advice import checked, warn_before, why_zero
from swsjax.checks import is_number
from swsjax.config import TAU_PER_EXAMPLE, Config
from swsjax.errors import ConfigError, RetrainingError
from swsjax.losses import Loss, LossWithAux, Params
from swsjax.nets import Net, take_apart
from swsjax.prior import GaussianMixture, init_mixture
from swsjax.quantize import non_zeros, quantize_each
from swsjax.resume import digest, keeper
from swsjax.retrain import hard, soft
from swsjax.select import Rules, by_mixture
from swsjax.sharding import check_mesh, gather, replicate
from swsjax.stages import Progress, Run, Stage, range_of, run_stages
from swsjax.stream import Stream, one_step
from swsjax.train import check_data, compiled_meanwhile, epoch

__all__ = ["Result", "compress"]


class Result(NamedTuple):
    """What ``compress`` returns."""

    params: Any
    """The quantised net: like the one given, with few distinct values, most of them 0."""
    retrained: Any
    """The net at the end of retraining, before each weight was set to its component's mean."""
    mixtures: dict[str, GaussianMixture]
    """The priors at the end, merged, by name: ``"weights"`` where no rule gave another."""
    history: list[Progress]
    """One entry an epoch."""
    aux: Any = None
    """What the loss carried from step to step, at the end."""


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
    mesh: Mesh | None = None,
    evaluate: Callable[..., float] | None = None,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | PathLike[str] | None = None,
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
        rules: which leaves are compressed and under which mixture; ``select(params, rules)`` shows
            what they do.
        prune_loss_fn: loss of the pruning stage, where it is to be another.
        start: an earlier result of the same net, to go on from its retrained weights and mixtures:
            with ``soft_epochs=0, hard_epochs=0`` it is pruned further.
        mesh: devices to retrain on, with an axis ``"data"`` over which each batch is divided, and
            if wanted ``"model"``, over which the weights are. In several processes
            (``jax.distributed``) each calls this with the same arguments and gets the same result.
        evaluate: error of a given net, on validation data: ``evaluate(params)``, or with ``aux``
            ``evaluate(params, aux)``. Called once an epoch with the quantised net and kept in the
            history. It decides nothing.
        callback: called with the progress after every epoch.
        checkpoint: folder in which the whole state is kept after every epoch. A run that finds
            its own state there goes on from it, and ends as if it had never stopped.

    Returns:
        The quantised net, the retrained one, the mixtures, the history and aux.

    Raises:
        ConfigError: params or data hold nothing to train on, or not what they should; a rule
            decides nothing; the loss is no scalar.
        CheckpointError: the folder holds another run.
        RetrainingError: the loss or a mixture is no longer finite, a mixture no longer matches
            the weights, or every weight is zero.

    Warns:
        SwsjaxWarning: settings that will hardly serve, with others to try.

    Soft weight-sharing (Ullrich, Meeds, Welling, ICLR 2017) with two differences: after the soft
    stage comes a hard one, in which the net computes with the quantised weights; without it the
    error rises where the paper quantises. And then a pruning stage, without the prior's pull, in
    which the least salient of the weights left become zero too, a few each epoch.

    >>> key = jax.random.key(0)
    >>> x = jax.random.normal(key, (512, 4))
    >>> data = {"x": x, "y": x @ jnp.array([1.0, 1.0, 0.0, -1.0])}
    >>> loss = lambda params, batch: jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
    >>> params = {"w": jnp.array([0.98, 1.02, 0.01, -1.0])}
    >>> result = compress(params, loss, data, Config(components=4, soft_epochs=1, hard_epochs=1))
    >>> print(np.asarray(result.params["w"]).round(1))
    [ 1.  1.  0. -1.]
    """
    _check_kinds(config, start, loss_fn, prune_loss_fn, evaluate, callback)
    net = take_apart(params, aux, rules)
    mesh = None if mesh is None else check_mesh(mesh, config.batch_size)
    train_size = _train_size(data, config)
    losses = [checked(net.loss(loss)) for loss in (loss_fn, prune_loss_fn or loss_fn)]
    tau = _tau(config, train_size)
    if not isinstance(data, Stream):
        data = replicate(jax.tree.map(jnp.asarray, data), mesh)
    groups = by_mixture(net.params, net.labels)
    if start is None:
        warn_before(config, groups, train_size)
        mixtures = {name: _first_mixture(name, leaves, config) for name, leaves in groups.items()}
    else:
        started = take_apart(start.retrained, start.aux, rules)
        _check_start(net, started, set(groups), set(start.mixtures))
        net, mixtures = started._replace(whole=net.whole), start.mixtures
    if not isinstance(data, Stream):
        for loss in losses[: 1 if prune_loss_fn is None else 2]:
            jax.eval_shape(loss, net.params, net.carried, _batch_of(data, config.batch_size))
    stages = [
        Stage("soft", soft, losses[0], config.soft_rates, config.soft_epochs, tau),
        Stage("hard", hard, losses[0], config.hard_rates, config.hard_epochs, tau),
        Stage("prune", hard, losses[1], config.prune_rates, config.prune_epochs, 0.0, config.kept),
    ]
    epochs = sum(stage.epochs for stage in stages)
    run = Run(net, data, train_size, config, epochs, mesh, aux is not None, evaluate, callback)
    settings = digest(str(config), str(rules), net.params, net.carried, mixtures, train_size)
    keeping = nullcontext() if checkpoint is None else keeper(checkpoint, settings)
    with keeping as kept, compiled_meanwhile(epoch, one_step):
        state, history = run_stages(run, stages, mixtures, kept)
    retrained, carried = gather((state.params, state.aux), mesh)
    quantised = quantize_each(state.mixtures, retrained, net.labels)
    if non_zeros(by_mixture(quantised, net.labels)) == 0:
        raise RetrainingError(
            f"every weight is zero after quantisation: {why_zero(state.mixtures, config)}"
        )
    compressed, aux = net.whole(quantised, carried)
    return Result(compressed, net.whole(retrained, carried)[0], state.mixtures, history, aux)


def _check_kinds(
    config: Config,
    start: Result | None,
    loss_fn: Loss | LossWithAux,
    *functions: Callable[..., Any] | None,
) -> None:
    """Find arguments of another kind, given in another order, before they fail elsewhere."""
    if not isinstance(config, Config):
        raise ConfigError(f"config must be a Config, got a {type(config).__name__}")
    if not (start is None or isinstance(start, Result)):
        raise ConfigError(f"start must be a result of compress, got a {type(start).__name__}")
    if not callable(loss_fn):
        raise ConfigError(
            f"loss_fn must be a function, got a {type(loss_fn).__name__}; compress takes params, "
            "loss_fn and data in this order"
        )
    for name, function in zip(("prune_loss_fn", "evaluate", "callback"), functions, strict=True):
        if not (function is None or callable(function)):
            raise ConfigError(f"{name} must be a function, got a {type(function).__name__}")


def _tau(config: Config, train_size: int) -> float | optax.Schedule:
    if config.tau is None:
        return TAU_PER_EXAMPLE * train_size
    if callable(config.tau):
        first = config.tau(jnp.zeros((), jnp.int32))
        if not (is_number(first) and 0 <= first < float("inf")):
            raise ConfigError(f"tau must give numbers that are not negative, got {first!r}")
    return config.tau


def _train_size(data: Any, config: Config) -> int:
    if not isinstance(data, Stream):
        return check_data(data, config.batch_size)
    if not isinstance(data.size, Integral) or not callable(data.batches):
        raise ConfigError(
            "a Stream has the number of examples and a function from the number of an epoch to "
            f"its batches, got a {type(data.size).__name__} and a {type(data.batches).__name__}"
        )
    if data.size < config.batch_size:
        raise ConfigError(
            f"the stream holds {data.size} examples, fewer than a batch of "
            f"{config.batch_size}; set batch_size in the config"
        )
    return data.size


def _batch_of(data: Any, batch_size: int) -> Any:
    """Shapes of a batch."""
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype), data
    )


def _first_mixture(name: str, leaves: list[Array], config: Config) -> GaussianMixture:
    if not any(leaf.size for leaf in leaves):
        raise ConfigError(f"the mixture {name!r} has no weights: leave its empty leaves out")
    low, high = range_of(leaves)
    if low == high:
        raise ConfigError(
            f"the weights of the mixture {name!r} are all {low:g}, so there is nothing to share: "
            "pretrain the net, or leave them out by a rule"
        )
    return init_mixture(
        low,
        high,
        components=config.components,
        pi_zero=config.pi_zero,
        std=config.initial_std,
    )


def _check_start(net: Net, started: Net, names: set[str], came_names: set[str]) -> None:
    expected, came = _shapes(net.params), _shapes(started.params)
    if expected != came:
        name, _ = min(expected.items() ^ came.items())
        raise ConfigError(
            f"start is the result of another net: {name} is {came.get(name, 'missing')} there and "
            f"{expected.get(name, 'missing')} in params"
        )
    if names != came_names:
        raise ConfigError(
            f"start has the mixtures {sorted(came_names)}, but the rules ask for {sorted(names)}"
        )
    expected, came = _shapes(net.carried[0]), _shapes(started.carried[0])
    if expected != came:
        raise ConfigError(f"start carries the aux {came}, but here it is {expected}; give the same")


def _shapes(tree: Params) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
