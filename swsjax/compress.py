"""From a pretrained net to a quantised one: soft, hard and pruning stage, with merges between."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from swsjax.errors import ConfigError, RetrainingError
from swsjax.losses import Loss, Params
from swsjax.merge import merge
from swsjax.prior import GaussianMixture, HyperPriors, init_mixture
from swsjax.prune import keep_largest, pruning, saliency, share_left
from swsjax.quantize import codebook, non_zeros, quantize
from swsjax.retrain import Forward, Info, Rates, State, Step, hard, init, make_step, soft
from swsjax.sharding import check_mesh, gather, place_weights, replicate, settle
from swsjax.stream import Stream, stream_epoch
from swsjax.table import error_with, node_count, refined
from swsjax.train import check_data, epoch

__all__ = ["Config", "Progress", "Result", "compress"]


@dataclass(frozen=True)
class Config:
    """Settings of ``compress``; the defaults suit the LeNets, ``tau`` is the dial.

    A larger ``tau`` gives a smaller file and a larger error. Raises ``ConfigError`` for a setting
    out of its range.

    >>> Config(tau=0.1).tau
    0.1
    """

    tau: float | optax.Schedule = 0.06
    """Weight of the prior on the loss summed over the training examples, or an optax schedule
    of it over the steps of each stage."""
    components: int = 16
    """Free components at the start, beside the zero one."""
    pi_zero: float = 0.999
    """Share of the zero component at the start; stays there unless it has a hyper-prior."""
    initial_std: float = 0.25
    """Standard deviation of every component at the start."""
    hyper_priors: HyperPriors = HyperPriors()
    soft_epochs: int = 30
    soft_rates: Rates = Rates(precisions=7e-4)
    hard_epochs: int = 20
    hard_rates: Rates = Rates(precisions=5e-4, warmup_epochs=1.0, final=0.0, epsilon=1e-5)
    prune_epochs: int = 0
    """Epochs of a last stage, of which the first half prunes: for nets with weights to spare."""
    prune_rates: Rates = Rates(warmup_epochs=0.5, final=0.0, epsilon=1e-5)
    kept: float = 0.6
    """Share of the weights that are not zero after the hard stage which pruning leaves so."""
    merge_threshold: float = 0.5
    """Symmetric KL divergence (nats) under which two components become one."""
    batch_size: int = 128
    method: Literal["tabulated", "exact"] = "tabulated"
    """How the prior is evaluated: looked up in a table, or weight by weight (slow; reference)."""
    tolerance: float = 1e-4
    """Relative error of the tabulated prior and its gradients above which its grid is refined."""
    seed: int = 0
    """Seed of the order of the examples."""

    def __post_init__(self):
        """Check what can be checked before any time is spent."""
        if not callable(self.tau) and not self.tau > 0:
            raise ConfigError(f"tau must be positive, got {self.tau}")
        epochs = (self.soft_epochs, self.hard_epochs, self.prune_epochs)
        if min(epochs) < 0 or max(epochs) < 1:
            raise ConfigError(
                "soft_epochs, hard_epochs and prune_epochs must be at least 0 and not all 0, got "
                f"{self.soft_epochs}, {self.hard_epochs} and {self.prune_epochs}"
            )
        if not 0 < self.kept <= 1:
            raise ConfigError(f"kept must be over 0 and at most 1, got {self.kept}")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.method not in ("tabulated", "exact"):
            raise ConfigError(f"method must be 'tabulated' or 'exact', got {self.method!r}")
        if not self.tolerance > 0:
            raise ConfigError(f"tolerance must be positive, got {self.tolerance}")
        if not self.merge_threshold >= 0:
            raise ConfigError(f"merge_threshold must not be negative, got {self.merge_threshold}")


class Progress(NamedTuple):
    """What an epoch of ``compress`` reports; the history is a list of these."""

    stage: str
    """``"soft"``, ``"hard"`` or ``"prune"``."""
    epoch: int
    """Epochs done in all, from 1."""
    epochs: int
    """Epochs that there will be in all."""
    loss: float
    """Mean loss over the epoch, without the prior (nats)."""
    non_zeros: int
    """Weights that would not be zero, were the net quantised now."""
    levels: int
    """Distinct values, zero included, were the net quantised now."""
    error: float | None
    """What ``evaluate`` says of the net quantised now; None without it."""
    prior_error: float
    """Relative error of the tabulated prior and its gradients, on a sample; 0 if exact."""
    mixture: GaussianMixture
    """The mixture after the epoch, in NumPy arrays."""


class Result(NamedTuple):
    """What ``compress`` returns."""

    params: Params
    """The quantised net: a pytree like the one given, with few distinct values, most of them 0."""
    retrained: Params
    """The weights at the end of retraining, before each was set to its component's mean."""
    mixture: GaussianMixture
    """The prior at the end, merged."""
    history: list[Progress]
    """One entry an epoch."""


def compress(
    params: Params,
    loss_fn: Loss,
    data: Any,
    config: Config = Config(),
    *,
    prune_loss_fn: Loss | None = None,
    start: Result | None = None,
    mesh: Mesh | None = None,
    evaluate: Callable[[Params], float] | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Result:
    """Retrain a pretrained net under the mixture prior and quantise it.

    Args:
        params: pytree of floating arrays, the pretrained weights.
        loss_fn: mean loss of a batch, ``loss_fn(params, batch) -> scalar``.
        data: pytree of arrays with the N training examples along the first axis; a batch is the
            same pytree with ``config.batch_size`` of them. Or a ``Stream``, for data that do not
            fit on the device.
        config: settings.
        prune_loss_fn: loss of the pruning stage, where it is to be another.
        start: an earlier result of the same net, to go on from its retrained weights and mixture:
            with ``soft_epochs=0, hard_epochs=0`` it is pruned further.
        mesh: devices to retrain on, with an axis ``"data"`` over which each batch is divided, and
            if wanted ``"model"``, over which the weights are. In several processes
            (``jax.distributed``) each calls this with the same arguments and gets the same result.
        evaluate: error of given params, on validation data; called once an epoch with the
            quantised net and kept in the history. It decides nothing.
        callback: called with the progress after every epoch.

    Returns:
        The quantised net, the retrained one, the mixture and the history.

    Raises:
        ConfigError: params or data hold nothing to train on, or not what they should.
        RetrainingError: the loss or the mixture is no longer finite, or every weight is zero.

    Soft weight-sharing (Ullrich, Meeds, Welling, ICLR 2017) with two differences: after the soft
    stage comes a hard one, in which the net computes with the quantised weights; without it the
    error rises where the paper quantises. And then a pruning stage, without the prior's pull, in
    which the least salient of the weights left become zero too, a few each epoch.

    >>> key = jax.random.key(0)
    >>> x = jax.random.normal(key, (512, 4))
    >>> data = {"x": x, "y": x @ jnp.array([1.0, 1.0, 0.0, -1.0])}
    >>> loss = lambda params, batch: jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
    >>> params = {"w": jnp.array([0.98, 1.02, 0.01, -1.0])}
    >>> result = compress(params, loss, data, Config(components=2, soft_epochs=2, hard_epochs=2))
    >>> print(np.asarray(result.params["w"]).round(1))
    [ 1.  1.  0. -1.]
    """
    _check_params(params)
    mesh = None if mesh is None else check_mesh(mesh, config.batch_size)
    if isinstance(data, Stream):
        train_size = data.size
        if train_size < config.batch_size:
            raise ConfigError(
                f"the stream holds {train_size} examples, fewer than a batch of "
                f"{config.batch_size}; set batch_size in the config"
            )
    else:
        train_size = check_data(data, config.batch_size)
        data = replicate(jax.tree.map(jnp.asarray, data), mesh)
    if start is None:
        mixture = init_mixture(
            *_range(params),
            components=config.components,
            pi_zero=config.pi_zero,
            std=config.initial_std,
        )
    else:
        _check_start(params, start)
        params, mixture = start.retrained, start.mixture
    # A copy: the state of an epoch is donated, and the caller's arrays are the caller's.
    params, mixture = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), (params, mixture))
    stages = (
        _Stage("soft", soft, loss_fn, config.soft_rates, config.soft_epochs, config.tau),
        _Stage("hard", hard, loss_fn, config.hard_rates, config.hard_epochs, config.tau),
        _Stage(
            "prune",
            hard,
            loss_fn if prune_loss_fn is None else prune_loss_fn,
            config.prune_rates,
            config.prune_epochs,
            0.0,
            config.kept,
        ),
    )
    history: list[Progress] = []

    def run(stage: _Stage, params: Params, mixture: GaussianMixture, key: Array) -> State:
        optimizer = stage.rates.optimizer(stage.epochs, train_size // config.batch_size)
        at_start = 0
        if stage.kept is not None:
            optimizer = pruning(optimizer)
            params = jax.tree.map(_cut, params, quantize(mixture, params))
            at_start = non_zeros(params)

        @cache  # an epoch compiles again for another step
        def step_on(nodes: int | None) -> Step:
            return make_step(
                stage.loss_fn,
                optimizer,
                forward=stage.forward,
                tau=stage.tau,
                train_size=train_size,
                hyper=config.hyper_priors,
                nodes=nodes,
            )

        params, mixture = place_weights(params, mesh), replicate(mixture, mesh)
        state = settle(init(params, mixture, optimizer, replicate(key, mesh)), mesh)
        nodes = None
        if config.method == "tabulated":
            nodes = _refined(state, _nodes(params, config), config)
        for number in range(stage.epochs):
            if stage.kept is not None:
                # Over the first half, from when there are gradients to tell; the other half trains.
                half = stage.epochs // 2
                left = share_left(stage.kept, number / half if half else 1.0)
                scores = saliency(state.params, state.opt_state.squares)
                kept = keep_largest(state.params, scores, round(left * at_start))
                state = state._replace(params=kept)
            if isinstance(data, Stream):
                batches = data.batches(len(history))
                state, info = stream_epoch(step_on(nodes), state, batches, mesh=mesh)
            else:
                state, info = epoch(
                    step_on(nodes), state, data, batch_size=config.batch_size, mesh=mesh
                )
            prior_error = 0.0
            if nodes is not None:
                leaves = jax.tree.leaves(state.params)
                prior_error = error_with(nodes, state.mixture, leaves).item()
            quantised = gather(quantize(state.mixture, state.params), mesh)
            progress = Progress(
                stage=stage.name,
                epoch=len(history) + 1,
                epochs=sum(stage.epochs for stage in stages),
                loss=info.loss.item(),
                non_zeros=non_zeros(quantised),
                levels=len(codebook(quantised)),
                error=None if evaluate is None else evaluate(quantised),
                prior_error=prior_error,
                mixture=jax.tree.map(np.asarray, state.mixture),
            )
            history.append(progress)
            _check_progress(progress, info, state)
            if callback is not None:
                callback(progress)
            # In pruning no prior acts.
            if stage.kept is None and prior_error > config.tolerance / 10:
                nodes = _refined(state, nodes, config)
        return state

    keys = jax.random.split(jax.random.key(config.seed), len(stages))
    for stage, key in zip(stages, keys, strict=True):
        if stage.epochs:
            state = run(stage, params, mixture, key)
            params, mixture = state.params, merge(state.mixture, config.merge_threshold)
    retrained = gather(params, mesh)
    quantised = quantize(mixture, retrained)
    if non_zeros(quantised) == 0:
        raise RetrainingError(
            "every weight is zero after quantisation: the prior outweighs the loss; lower tau"
        )
    return Result(quantised, retrained, mixture, history)


class _Stage(NamedTuple):
    name: str
    forward: Forward
    loss_fn: Loss
    rates: Rates
    epochs: int
    tau: float | optax.Schedule
    kept: float | None = None
    """Share of the weights not zero at its start that pruning leaves; None: no pruning."""


def _cut(weights: Array, quantised: Array) -> Array:
    """Weights, exactly zero where they are quantised to zero."""
    return jnp.where(quantised == 0, 0, weights)


def _nodes(params: Params, config: Config) -> int:
    """Nodes to start with: enough for the precision that the hyper-prior prefers.

    Single components may become far narrower, but those that hold few weights do not matter; the
    error that is measured once an epoch decides.
    """
    gamma = config.hyper_priors.precision
    sigma = min(config.initial_std, (gamma.rate / gamma.shape) ** 0.5)
    return node_count(*_range(params), sigma)


def _range(params: Params) -> tuple[float, float]:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params) if jnp.size(leaf)]
    return min(x.min().item() for x in leaves), max(x.max().item() for x in leaves)


def _refined(state: State, nodes: int, config: Config) -> int:
    """As many nodes as keep the error within the tolerance until it is next measured.

    An epoch raises the error fourfold as components narrow, a hundredfold where a stage begins.
    """
    return refined(state.mixture, jax.tree.leaves(state.params), nodes, config.tolerance / 20)


def _check_start(params: Params, start: Result) -> None:
    expected, came = _shapes(params), _shapes(start.retrained)
    if expected != came:
        name, _ = min(expected.items() ^ came.items())
        raise ConfigError(
            f"start is the result of another net: {name} is {came.get(name, 'missing')} there and "
            f"{expected.get(name, 'missing')} in params"
        )


def _shapes(params: Params) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
        for path, leaf in jax.tree.leaves_with_path(params)
    }


def _check_params(params: Params) -> None:
    leaves = jax.tree.leaves(params)
    if not leaves or not any(jnp.size(leaf) for leaf in leaves):
        raise ConfigError("params hold no weights; expected a pytree of floating arrays")
    for path, leaf in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ConfigError(
                f"params{name} has dtype {jnp.result_type(leaf)}; expected a floating dtype. "
                "Leave what is not trained out of params and close over it in loss_fn"
            )
        if not jnp.all(jnp.isfinite(leaf)):
            raise ConfigError(f"params{name} holds values that are not finite; pretrain again")


def _check_progress(progress: Progress, info: Info, state: State) -> None:
    where = f"after epoch {progress.epoch} of {progress.epochs} ({progress.stage} stage)"
    if not (jnp.isfinite(info.loss) and jnp.isfinite(info.log_prior)):
        raise RetrainingError(
            f"loss or prior is not finite {where}: loss {info.loss.item()}, log-prior "
            f"{info.log_prior.item()}; lower the learning rates of that stage"
        )
    # The info is of before the last update.
    if not all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((state.params, state.mixture))):
        raise RetrainingError(
            f"weights or mixture are not finite {where}; lower the learning rates of that stage"
        )
    if progress.stage != "soft" and progress.non_zeros == 0:
        raise RetrainingError(
            f"every weight is zero {where}: the prior outweighs the loss; lower tau"
        )
