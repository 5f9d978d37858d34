"""Training by the settings of the pretraining, with what a method adds to it."""

from collections.abc import Callable
from os import PathLike

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.lab.task import Task, Variables
from swsjax.training.history import Epoch
from swsjax.training.loop import train
from swsjax.training.pretraining import PretrainConfig
from swsjax.trees import Params

__all__ = ["Around", "seed_of", "train_task"]

Around = Callable[[optax.GradientTransformation], optax.GradientTransformation]
"""From the optimiser of the pretraining to the one that a method takes."""


def train_task(
    task: Task,
    net: Variables,
    config: PretrainConfig,
    *,
    key: Array,
    around: Around = lambda optimizer: optimizer,
    before_epoch: Callable[[Params, int], Params] | None = None,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train a net of a task by the full schedule of its pretraining.

    Args:
        task: its images.
        net: to start from.
        config: the loss, augmentation, optimiser and schedule. Its seed is not used.
        key: random key of the order of the examples and of the augmentation.
        around: what is added to the optimiser.
        before_epoch: as for ``train``.
        callback: called with each epoch's record, as for ``train``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: the data are fewer than a batch.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> config = PretrainConfig(epochs=5, batch_size=32)
    >>> net = train_task(task, task.init(0), config, key=jax.random.key(0))
    >>> task.error(net, task.dataset.validation) < 0.15
    True
    """
    data = task.data()
    trained = train(
        net.params,
        task.loss(config.loss),
        data,
        around(config.optimizer(config.steps(data))),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=seed_of(key),
        aux=net.aux,
        augment=config.augment(),
        before_epoch=before_epoch,
        callback=callback,
        resume=resume,
    )
    return Variables(trained.params, trained.aux)


def seed_of(key: Array) -> int:
    """Draw an integer seed, for ``train`` and ``Task.init``.

    >>> seed_of(jax.random.key(0)) == seed_of(jax.random.key(0)) != seed_of(jax.random.key(1))
    True
    """
    return jax.random.randint(key, (), 0, jnp.iinfo(jnp.int32).max).item()
