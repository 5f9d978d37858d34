"""From a pretrained net to a quantised one: soft stage, merge, hard stage, merge, quantise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from swsjax.errors import ConfigError, RetrainingError
from swsjax.losses import Loss, Params
from swsjax.merge import merge
from swsjax.prior import GaussianMixture, HyperPriors, init_mixture
from swsjax.quantize import codebook, non_zeros, quantize
from swsjax.retrain import Forward, Info, Rates, State, hard, init, make_step, soft
from swsjax.train import epoch

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
    merge_threshold: float = 0.5
    """Symmetric KL divergence (nats) under which two components become one."""
    batch_size: int = 128
    grid_size: int = 8192
    """Points of the table in which the prior is looked up."""
    seed: int = 0
    """Seed of the order of the examples."""

    def __post_init__(self):
        """Check what can be checked before any time is spent."""
        if not callable(self.tau) and not self.tau > 0:
            raise ConfigError(f"tau must be positive, got {self.tau}")
        if self.soft_epochs < 1 or self.hard_epochs < 0:
            raise ConfigError(
                "soft_epochs must be at least 1 and hard_epochs at least 0, "
                f"got {self.soft_epochs} and {self.hard_epochs}"
            )
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.grid_size < 2:
            raise ConfigError(f"grid_size must be at least 2, got {self.grid_size}")
        if not self.merge_threshold >= 0:
            raise ConfigError(f"merge_threshold must not be negative, got {self.merge_threshold}")


class Progress(NamedTuple):
    """What an epoch of ``compress`` reports; the history is a list of these."""

    stage: str
    """``"soft"`` or ``"hard"``."""
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
    evaluate: Callable[[Params], float] | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Result:
    """Retrain a pretrained net under the mixture prior and quantise it.

    Args:
        params: pytree of floating arrays, the pretrained weights.
        loss_fn: mean loss of a batch, ``loss_fn(params, batch) -> scalar``.
        data: pytree of arrays with the N training examples along the first axis; a batch is the
            same pytree with ``config.batch_size`` of them.
        config: settings.
        evaluate: error of given params, on validation data; called once an epoch with the
            quantised net and kept in the history. It decides nothing.
        callback: called with the progress after every epoch.

    Returns:
        The quantised net, the retrained one, the mixture and the history.

    Raises:
        ConfigError: params or data hold nothing to train on, or not what they should.
        RetrainingError: the loss or the mixture is no longer finite, or every weight is zero.

    Soft weight-sharing (Ullrich, Meeds, Welling, ICLR 2017) with one difference: a hard stage
    after the soft one, in which the net computes with the quantised weights. Without it the
    error rises where the paper quantises.

    >>> key = jax.random.key(0)
    >>> x = jax.random.normal(key, (512, 4))
    >>> data = {"x": x, "y": x @ jnp.array([1.0, 1.0, 0.0, -1.0])}
    >>> loss = lambda params, batch: jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
    >>> params = {"w": jnp.array([0.98, 1.02, 0.01, -1.0])}
    >>> result = compress(params, loss, data, Config(components=2, soft_epochs=2, hard_epochs=2))
    >>> print(np.asarray(result.params["w"]).round(1))
    [ 1.  1.  0. -1.]
    """
    leaves = _check_params(params)
    train_size = _check_data(data, config.batch_size)
    data = jax.tree.map(jnp.asarray, data)
    low, high = min(x.min().item() for x in leaves), max(x.max().item() for x in leaves)
    mixture = init_mixture(
        low, high, components=config.components, pi_zero=config.pi_zero, std=config.initial_std
    )
    # A copy: the state of an epoch is donated, and the caller's arrays are the caller's.
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    soft_key, hard_key = jax.random.split(jax.random.key(config.seed))
    history: list[Progress] = []

    def run_stage(
        name: str, forward: Forward, rates: Rates, epochs: int, params, mixture, key
    ) -> State:
        optimizer = rates.optimizer(epochs, train_size // config.batch_size)
        step = make_step(
            loss_fn,
            optimizer,
            forward=forward,
            tau=config.tau,
            train_size=train_size,
            hyper=config.hyper_priors,
            grid_size=config.grid_size,
        )
        state = init(params, mixture, optimizer, key)
        for _ in range(epochs):
            state, info = epoch(step, state, data, batch_size=config.batch_size)
            progress = _progress(name, state, info, len(history) + 1, config, evaluate)
            history.append(progress)
            _check_progress(progress, info, state)
            if callback is not None:
                callback(progress)
        return state

    state = run_stage(
        "soft", soft, config.soft_rates, config.soft_epochs, params, mixture, soft_key
    )
    mixture = merge(state.mixture, config.merge_threshold)
    if config.hard_epochs:
        state = run_stage(
            "hard", hard, config.hard_rates, config.hard_epochs, state.params, mixture, hard_key
        )
        mixture = merge(state.mixture, config.merge_threshold)
    quantised = quantize(mixture, state.params)
    if non_zeros(quantised) == 0:
        raise RetrainingError(
            "every weight is zero after quantisation: the prior outweighs the loss; lower tau"
        )
    return Result(quantised, state.params, mixture, history)


def _progress(
    stage: str,
    state: State,
    info: Info,
    done: int,
    config: Config,
    evaluate: Callable[[Params], float] | None,
) -> Progress:
    quantised = quantize(state.mixture, state.params)
    return Progress(
        stage=stage,
        epoch=done,
        epochs=config.soft_epochs + config.hard_epochs,
        loss=info.loss.item(),
        non_zeros=non_zeros(quantised),
        levels=len(codebook(quantised)),
        error=None if evaluate is None else evaluate(quantised),
        mixture=jax.tree.map(np.asarray, state.mixture),
    )


def _check_params(params: Params) -> list[jax.Array]:
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
    return [jnp.asarray(leaf) for leaf in leaves if jnp.size(leaf)]


def _check_data(data: Any, batch_size: int) -> int:
    sizes = {jax.tree_util.keystr(p): jnp.shape(x)[:1] for p, x in jax.tree.leaves_with_path(data)}
    if not sizes or len(set(sizes.values())) > 1 or () in sizes.values():
        raise ConfigError(
            "data must be a pytree of arrays with the same number of examples along the first "
            f"axis, got first axes {sizes or 'of no arrays'}"
        )
    (train_size,) = next(iter(sizes.values()))
    if train_size < batch_size:
        raise ConfigError(
            f"data hold {train_size} examples, fewer than a batch of {batch_size}; "
            "set batch_size in the config"
        )
    return train_size


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
    if progress.stage == "hard" and progress.non_zeros == 0:
        raise RetrainingError(
            f"every weight is zero {where}: the prior outweighs the loss; lower tau"
        )
