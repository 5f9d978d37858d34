"""Pretraining: ``train`` with AdamW or SGD, for nets that are not trained yet."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import optax

from swsjax.checks import check_data, check_numbers, path_of
from swsjax.errors import CheckpointError, ConfigError
from swsjax.file.atomic import write_bytes
from swsjax.training.augment import Augment, crop_and_flip
from swsjax.training.history import Epoch
from swsjax.training.loop import Trained, train
from swsjax.training.losses import Apply, Loss, LossWithAux, cross_entropy
from swsjax.training.resume import FOLDER, identity_of
from swsjax.trees import Params

__all__ = ["PretrainConfig", "SgdConfig", "pretrain"]


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

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """The optimiser of a training of this many steps."""
        return optax.adamw(self.schedule(steps), weight_decay=self.weight_decay)

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rates of a training of this many steps."""
        return optax.cosine_decay_schedule(self.learning_rate, steps)

    def steps(self, data: Any) -> int:
        """The number of steps of a training on these data, which make up a batch at least."""
        return self.epochs * (check_data(data, self.batch_size) // self.batch_size)

    def loss(self, apply: Apply) -> Loss:
        """The loss of a net's logits, for ``lab.pretrain_task``."""
        return cross_entropy(apply)

    def augment(self) -> Augment | None:
        """What changes the images, for ``lab.pretrain_task``."""
        return None


@dataclass(frozen=True)
class SgdConfig(PretrainConfig):
    """Settings of ``pretrain`` for residual nets: SGD with Nesterov momentum and one cycle.

    The learning rate rises to ``learning_rate`` in the first 30 % of the steps and falls to nearly
    zero. ``lab.pretrain_task`` also smooths the labels, and crops and flips the images.

    Raises ``ConfigError`` if a setting is out of its range.
    """

    epochs: int = 45
    """Passes through the data."""
    learning_rate: float = 0.2
    """At its highest."""
    weight_decay: float = 5e-4
    """Times the weight, added to its gradient; kernels only, not biases and BatchNorm's scales."""
    momentum: float = 0.9
    """Share of the last update that is added to the next."""
    label_smoothing: float = 0.05
    """Share of each label that is spread evenly over all classes."""
    pad: int = 4
    """Pixels of zeros around an image that is then cropped to its size."""

    def __post_init__(self) -> None:
        """Check what can be checked before any time is spent."""
        super().__post_init__()
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.pad < 0:
            raise ConfigError(f"pad must not be negative, got {self.pad}")

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """The optimiser of a training of this many steps."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=_kernels),
            optax.sgd(self.schedule(steps), momentum=self.momentum, nesterov=True),
        )

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rates of a training of this many steps."""
        return optax.cosine_onecycle_schedule(steps, self.learning_rate)

    def loss(self, apply: Apply) -> Loss:
        """Cross-entropy of the smoothed labels, for ``lab.pretrain_task``."""
        return cross_entropy(apply, label_smoothing=self.label_smoothing)

    def augment(self) -> Augment:
        """Random crops and flips, for ``lab.pretrain_task``."""
        return partial(crop_and_flip, pad=self.pad)


def _kernels(params: Params) -> Any:
    """Which leaves are kernels: those of two axes or more."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def pretrain(
    params: Params,
    loss_fn: Loss | LossWithAux,
    data: Any,
    config: PretrainConfig = PretrainConfig(),
    *,
    aux: Any = None,
    augment: Augment | None = None,
    callback: Callable[[Epoch], None] | None = None,
    progress: bool = True,
    resume: str | PathLike[str] | None = None,
) -> Trained:
    """Train a net with the optimiser of the settings; ``train`` takes any other.

    Args:
        params: pytree of floating arrays to start from.
        loss_fn: as for ``train``.
        data: pytree of arrays with the training examples along the first axis.
        config: settings: a ``PretrainConfig`` for AdamW, a ``SgdConfig`` for SGD.
        aux: what the loss carries from step to step, as for ``train``.
        augment: changes every batch, as for ``train``.
        callback: called with the record of each epoch.
        progress: whether to show it, as for ``train``.
        resume: folder in which the state is written after every epoch, as for ``train``. It is the
            same run only if all settings are the same.

    Returns:
        The trained parameters, aux and history.

    Raises:
        ConfigError: as ``train``.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2)
    >>> trained = pretrain(jnp.zeros(()), loss, jnp.ones(64),
    ...                    PretrainConfig(epochs=20, learning_rate=0.1, batch_size=8))
    >>> print(np.asarray(trained.params).round(1))
    1.0
    """
    if not isinstance(config, PretrainConfig):
        raise ConfigError(f"config must be a PretrainConfig, got a {type(config).__name__}")
    steps = config.steps(data)
    if resume is not None:
        _check_same(path_of(resume, FOLDER), config)
    return train(
        params,
        loss_fn,
        data,
        config.optimizer(steps),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        aux=aux,
        augment=augment,
        callback=callback,
        progress=progress,
        resume=resume,
    )


def _check_same(folder: Path, config: PretrainConfig) -> None:
    """Check that a folder has no run with other settings, and write these: ``train`` sees few.

    An optax optimiser is a pair of functions, which do not tell their learning rate.
    """
    settings = identity_of(settings=config, weights=(), data=())["settings"]
    file = folder / "settings"
    is_run = any(child.name.isdigit() for child in folder.glob("*"))
    if is_run and file.is_file() and file.read_text() != settings:
        raise CheckpointError(
            f"{folder} holds a run with other settings; choose a different folder, or delete this "
            "one to start again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(file, str(settings).encode())
