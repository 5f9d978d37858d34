"""An image classification task: a net, a data set with its splits, and the losses between them.

The steps that the command line and the benchmarks share: train on the training images, watch the
validation images, report the test images. A net with statistics (BatchNorm) goes the same way as
one without: its statistics are ``aux``.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from swsjax.errors import ConfigError
from swsjax.lab.data import Dataset, Split
from swsjax.training.history import Epoch
from swsjax.training.losses import (
    ApplyWithAux,
    LossWithAux,
    MakeLoss,
    cross_entropy,
    error_rate,
    logits_of,
    with_aux,
)
from swsjax.training.pretraining import PretrainConfig, pretrain
from swsjax.trees import Params, named_leaves

__all__ = ["Task", "Variables", "classification", "pretrain_task"]


class Variables(NamedTuple):
    """A net of a task: what is trained, and what training carries along."""

    params: Params
    """Nested dictionaries of arrays."""
    aux: Any
    """Statistics, as nested dictionaries of arrays; empty for a net without."""


class Task(NamedTuple):
    """A net to be trained on a data set."""

    dataset: Dataset
    """Images and labels, in three splits."""
    init: Callable[[int], Variables]
    """From a seed to an untrained net."""
    apply: ApplyWithAux
    """In training: logits (batch, classes) of params, aux and uint8 images, and aux after them."""
    predict: Callable[[Variables, Array], Array]
    """In evaluation: logits of a net and uint8 images."""

    def loss(self, make: MakeLoss = cross_entropy) -> LossWithAux:
        """Loss of params, aux and a batch, for ``train`` and ``compress``."""
        return with_aux(make, self.apply)

    def logits(self, net: Variables, images: Any) -> Array:
        """Logits of all images, (N, classes)."""
        return logits_of(self.predict, net, images)

    def error(self, net: Variables, split: Split) -> float:
        """Fraction of misclassified images, from 0 to 1."""
        return error_rate(self.predict, net, split.images, split.labels)

    def data(self, teachers: Sequence[Variables] = ()) -> dict[str, Array]:
        """Training images, labels and, with teachers, the mean of their logits: a batch of all."""
        data = {
            "inputs": jnp.asarray(self.dataset.train.images),
            "labels": jnp.asarray(self.dataset.train.labels, jnp.int32),
        }
        return self.taught(data, teachers) if teachers else data

    def taught(self, batch: dict[str, Array], teachers: Sequence[Variables]) -> dict[str, Array]:
        """A batch with the mean of the teachers' logits under ``"teacher"``."""
        logits = [self.logits(net, batch["inputs"]) for net in teachers]
        return batch | {"teacher": jnp.mean(jnp.stack(logits), axis=0)}

    def whole(self, net: Variables) -> dict[str, Any]:
        """One tree of parameters and statistics, as a file holds it."""
        return _merged(net.params, net.aux)

    def parts(self, whole: Mapping[str, Any]) -> Variables:
        """Parameters and statistics of a tree as a file holds it."""
        like = jax.eval_shape(lambda: self.init(0))
        return Variables(_part(whole, like.params), _part(whole, like.aux))


def classification(model: Callable[..., nnx.Module], dataset: Dataset) -> Task:
    """Make the task of a Flax NNX net on the images and classes of a data set.

    Args:
        model: from image shape, number of classes and ``rngs`` to an untrained net. Its variables
            are parameters (``nnx.Param``) and statistics; it takes float images in [0, 1].
        dataset: uint8 images and labels.

    Raises:
        ConfigError: the net has variables that are neither.

    >>> from swsjax.lab import LeNet300100, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> task.logits(task.init(0), task.dataset.test.images[:2]).shape
    (2, 10)
    """
    images, labels = dataset.train
    classes = int(labels.max()) + 1

    def untrained(seed: int) -> nnx.Module:
        return model(images.shape[1:], classes, rngs=nnx.Rngs(seed))

    def split(module: nnx.Module, *, training: bool) -> tuple[Any, Any, Any]:
        module.train() if training else module.eval()
        others = nnx.state(module, nnx.Not(nnx.Any(nnx.Param, nnx.BatchStat)))
        if others:
            raise ConfigError(
                f"the variables of a {type(module).__name__} must be of type nnx.Param or "
                "nnx.BatchStat, got also "
                f"{', '.join(name for name, _ in named_leaves(nnx.to_pure_dict(others)))}; "
                "remove the layers that have them, such as dropout"
            )
        parts: Any = nnx.split(module, nnx.Param, nnx.BatchStat)
        return parts

    def init(seed: int) -> Variables:
        _, *states = split(untrained(seed), training=True)
        return Variables(*map(nnx.to_pure_dict, states))

    abstract = nnx.eval_shape(lambda: untrained(0))  # no weights are drawn to see the form
    in_training, in_evaluation = (
        split(abstract, training=training)[0] for training in (True, False)
    )

    def apply(params: Params, aux: Any, images: Array) -> tuple[Array, Any]:
        module = nnx.merge(in_training, params, aux)
        logits = module(_scaled(images))
        return logits, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    def predict(net: Variables, images: Array) -> Array:
        return nnx.merge(in_evaluation, *net)(_scaled(images))

    return Task(dataset, init, apply, predict)


def pretrain_task(
    task: Task,
    config: PretrainConfig = PretrainConfig(),
    *,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train an untrained net of a task with the loss of the settings; see ``pretrain``.

    Args:
        task: net and data.
        config: settings, loss and augmentation; its seed is that of the net, too.
        callback: called with the record of each epoch.
        resume: folder in which the state is written after every epoch, as for ``pretrain``.

    Raises:
        CheckpointError: the folder holds a different run.

    >>> from swsjax.lab import LeNet300100, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = pretrain_task(task, PretrainConfig(epochs=5, batch_size=32))
    >>> task.error(net, task.dataset.validation) < 0.15
    True
    """
    net = task.init(config.seed)
    trained = pretrain(
        net.params,
        task.loss(config.loss),
        task.data(),
        config,
        aux=net.aux,
        augment=config.augment(),
        callback=callback,
        resume=resume,
    )
    return Variables(trained.params, trained.aux)


def _scaled(images: Array) -> Array:
    return jnp.asarray(images, jnp.float32) / 255


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for name, value in second.items():
        merged[name] = _merged(merged.get(name, {}), value) if isinstance(value, Mapping) else value
    return merged


def _part(whole: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a nested dictionary that another one has, too."""
    return {
        name: _part(whole[name], value) if isinstance(value, Mapping) else whole[name]
        for name, value in like.items()
    }
