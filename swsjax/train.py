"""Ordinary training: one compiled epoch, and pretraining where no pretrained net is at hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from swsjax.checks import (
    check_floating,
    check_numbers,
    check_scalar,
    first_axes,
    holds_numbers,
)
from swsjax.errors import ConfigError, RetrainingError
from swsjax.losses import Loss, Params
from swsjax.sharding import place_batch

__all__ = [
    "PretrainConfig",
    "PretrainProgress",
    "TrainState",
    "check_data",
    "compiled_meanwhile",
    "epoch",
    "pretrain",
]


class _Keyed(Protocol):
    """A NamedTuple with a random key."""

    @property
    def key(self) -> Array: ...

    def _replace(self, **changes: Any) -> Self: ...


StateT = TypeVar("StateT", bound=_Keyed)
InfoT = TypeVar("InfoT")


@partial(jax.jit, static_argnames=("step", "batch_size", "mesh"), donate_argnames="state")
def epoch(
    step: Callable[[StateT, Any], tuple[StateT, InfoT]],
    state: StateT,
    data: Any,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
) -> tuple[StateT, InfoT]:
    """One pass over the data in random order, as one compiled loop.

    Args:
        step: from state and batch to state and info. The same function object in every epoch, or
            the loop compiles again.
        state: a NamedTuple with the random key of the order under ``key``. Its buffers are
            donated: it cannot be used afterwards.
        data: pytree of arrays with the N examples along the first axis. An incomplete last batch
            is left out, which is another one each time.
        batch_size: examples a step, at most N.
        mesh: devices to divide each batch over, see ``swsjax.sharding``.

    Returns:
        The state after N // batch_size steps, and the mean info over them.

    >>> step = lambda state, batch: (state._replace(params=state.params + batch.sum()), batch[0])
    >>> state, _ = epoch(step, TrainState(jnp.zeros(()), (), jax.random.key(0)), jnp.arange(6.0),
    ...                  batch_size=2)
    >>> state.params
    Array(15., dtype=float32)
    """
    size = len(jax.tree.leaves(data)[0])
    steps = size // batch_size
    key, shuffle = jax.random.split(state.key)
    order = jax.random.permutation(shuffle, size)[: steps * batch_size].reshape(steps, batch_size)

    def body(state: StateT, indices: Array) -> tuple[StateT, InfoT]:
        indices = place_batch(indices, mesh)
        return step(state, jax.tree.map(lambda array: array[indices], data))

    state, infos = jax.lax.scan(body, state._replace(key=key), order)
    return state, jax.tree.map(partial(jnp.mean, axis=0), infos)


@contextmanager
def compiled_meanwhile(*compiled: Any) -> Iterator[None]:
    """Let go, in the end, of what functions of ``jax.jit`` were compiled to for steps of a run.

    Nobody has those steps any more, yet JAX would keep the loops around them, and with them the
    loss and all that it holds. On a processor each takes a thousand memory maps and more, of which
    Linux grants a process 65,530: a search would end after a few trials.

    >>> double = jax.jit(lambda x: 2 * x)
    >>> with compiled_meanwhile(double):
    ...     print(double(2))
    4
    """
    try:
        yield
    finally:
        for function in compiled:
            function.clear_cache()


def check_data(data: Any, batch_size: int) -> int:
    """Return the number of examples in the data, having checked that they make up a batch.

    Raises:
        ConfigError: the arrays disagree on the number of examples, hold fewer than a batch, or
            no numbers.

    >>> check_data({"x": jnp.zeros((10, 3)), "y": jnp.zeros(10)}, batch_size=5)
    10
    """
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ConfigError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
    axes = first_axes(data)
    if len(axes) != 1 or () in axes.values():
        raise ConfigError(
            "data must be a pytree of arrays with the same number of examples along the first "
            f"axis, got first axes {axes or 'of no arrays'}"
        )
    for path, leaf in jax.tree.leaves_with_path(data):
        if not holds_numbers(leaf):
            name = jax.tree_util.keystr(path)
            raise ConfigError(f"data must be of numbers, got {name} of type {leaf.dtype}")
    ((train_size,),) = axes.values()
    if train_size < batch_size:
        raise ConfigError(
            f"data hold {train_size} examples, fewer than a batch of {batch_size}; "
            "set batch_size in the config"
        )
    return train_size


class TrainState(NamedTuple):
    """What ordinary training carries from step to step."""

    params: Params
    """The weights: a pytree of floating arrays."""
    opt_state: optax.OptState
    """Of the optimiser over them."""
    key: Array
    """Key of the order in which examples are drawn."""


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of ``pretrain``: epochs and batch size of AdamW with a half cosine to zero.

    Raises ``ConfigError`` for a setting out of its range.
    """

    epochs: int = 40
    learning_rate: float = 1e-3
    """At the start."""
    weight_decay: float = 1e-4
    """Decoupled: a share of each weight, times the rate, goes in every step."""
    batch_size: int = 128
    seed: int = 0
    """Of the order of the examples."""

    def __post_init__(self) -> None:
        """Check what can be checked before any time is spent."""
        check_numbers(self)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be finite and not negative, got {value}")


class PretrainProgress(NamedTuple):
    """What an epoch of ``pretrain`` reports."""

    epoch: int
    """Epochs done, from 1."""
    epochs: int
    """Epochs that there will be."""
    loss: float
    """Mean loss over the epoch (nats)."""


def pretrain(
    params: Params,
    loss_fn: Loss,
    data: Any,
    config: PretrainConfig = PretrainConfig(),
    *,
    callback: Callable[[PretrainProgress], None] | None = None,
) -> Params:
    """Train a net in the ordinary way.

    Args:
        params: pytree of floating arrays to start from.
        loss_fn: mean loss of a batch, ``loss_fn(params, batch) -> scalar``.
        data: pytree of arrays with the training examples along the first axis.
        config: settings.
        callback: called with the progress after every epoch.

    Returns:
        The trained parameters after the last epoch.

    Raises:
        ConfigError: params that cannot be trained, data that do not make up a batch, or a loss
            that is no scalar.
        RetrainingError: the loss is not finite.

    >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2)
    >>> trained = pretrain(jnp.zeros(()), loss, jnp.ones(64),
    ...                    PretrainConfig(epochs=20, learning_rate=0.1, batch_size=8))
    >>> print(np.asarray(trained).round(1))
    1.0
    """
    if not isinstance(config, PretrainConfig):
        raise ConfigError(f"config must be a PretrainConfig, got a {type(config).__name__}")
    check_floating("params", params)
    steps_per_epoch = check_data(data, config.batch_size) // config.batch_size
    data = jax.tree.map(jnp.asarray, data)
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.epochs * steps_per_epoch)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)

    def scalar_loss(params: Params, batch: Any) -> Array:
        return check_scalar(loss_fn(params, batch))

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Array]:
        loss, gradient = jax.value_and_grad(scalar_loss)(state.params, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, state.key), loss

    # A copy: the state of an epoch is donated, and the caller's arrays are the caller's.
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    state = TrainState(params, optimizer.init(params), jax.random.key(config.seed))
    with compiled_meanwhile(epoch):
        for done in range(1, config.epochs + 1):
            state, loss = epoch(step, state, data, batch_size=config.batch_size)
            if not jnp.isfinite(loss):
                raise RetrainingError(
                    f"the loss is {loss.item()} after epoch {done} of {config.epochs} of "
                    "pretraining; lower PretrainConfig.learning_rate, or see whether all data are "
                    "finite and all labels in range"
                )
            if callback is not None:
                callback(PretrainProgress(done, config.epochs, loss.item()))
    return state.params
