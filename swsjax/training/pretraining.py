"""Pretraining: ``train`` with AdamW, for nets that are not trained yet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optax

from swsjax.checks import check_data, check_numbers
from swsjax.errors import ConfigError
from swsjax.training.history import Epoch
from swsjax.training.loop import Trained, train
from swsjax.training.losses import Loss, LossWithAux
from swsjax.trees import Params

__all__ = ["PretrainConfig", "pretrain"]


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of ``pretrain``: AdamW with a half cosine to zero.

    Raises ``ConfigError`` if a setting is out of its range.
    """

    epochs: int = 40
    """Passes through the data."""
    learning_rate: float = 1e-3
    """At the start."""
    weight_decay: float = 1e-4
    """Decoupled: each step shrinks each weight by this share times the learning rate."""
    batch_size: int = 128
    """Examples per step."""
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


def pretrain(
    params: Params,
    loss_fn: Loss | LossWithAux,
    data: Any,
    config: PretrainConfig = PretrainConfig(),
    *,
    aux: Any = None,
    callback: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train a net by AdamW; ``train`` takes any other optimiser.

    Args:
        params: pytree of floating arrays to start from.
        loss_fn: as for ``train``.
        data: pytree of arrays with the training examples along the first axis.
        config: settings.
        aux: what the loss carries from step to step, as for ``train``.
        callback: called with the record of each epoch.

    Returns:
        The trained parameters, aux and history.

    Raises:
        ConfigError: as ``train``.
        RetrainingError: the loss is not finite.

    >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2)
    >>> trained = pretrain(jnp.zeros(()), loss, jnp.ones(64),
    ...                    PretrainConfig(epochs=20, learning_rate=0.1, batch_size=8))
    >>> print(np.asarray(trained.params).round(1))
    1.0
    """
    if not isinstance(config, PretrainConfig):
        raise ConfigError(f"config must be a PretrainConfig, got a {type(config).__name__}")
    steps = config.epochs * (check_data(data, config.batch_size) // config.batch_size)
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    return train(
        params,
        loss_fn,
        data,
        optax.adamw(schedule, weight_decay=config.weight_decay),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        aux=aux,
        callback=callback,
    )
