"""An image classifier from untrained to compressed, with the splits kept apart.

The steps that the command line and the benchmarks share: train on the training images, watch the
validation images, report the test images.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from swsjax.compress import Result, compress
from swsjax.config import Config
from swsjax.data import Dataset, Split
from swsjax.losses import Apply, Params, cross_entropy, distillation, error_rate, logits_of
from swsjax.stages import Progress
from swsjax.train import PretrainConfig, PretrainProgress, pretrain

__all__ = [
    "PRUNE_TEMPERATURE",
    "TEMPERATURE",
    "Classifier",
    "build",
    "compress_classifier",
    "distillation_data",
    "errors_of",
    "pretrain_classifier",
    "teacher_seeds",
]

ModelClass = Callable[..., nnx.Module]

TEMPERATURE = 3.0
"""Of the distillation from the pretrained net, by default."""
PRUNE_TEMPERATURE = 6.0
"""The same in the pruning stage, where a softer teacher did better."""


class Classifier(NamedTuple):
    """A net as parameters and a pure function of them."""

    params: Params
    """Nested dictionaries of arrays."""
    apply: Apply
    """Logits (batch, classes) of parameters and uint8 images (batch, height, width)."""

    def error(self, split: Split) -> float:
        """Share of misclassified images, from 0 to 1."""
        return error_rate(self.apply, self.params, split.images, split.labels)


def build(model: ModelClass, dataset: Dataset, *, seed: int = 0) -> Classifier:
    """Make an untrained net for the images and classes of a data set.

    >>> from swsjax.data import load_digits
    >>> from swsjax.models import LeNet300100
    >>> digits = load_digits()
    >>> net = build(LeNet300100, digits)
    >>> net.apply(net.params, digits.test.images[:2]).shape
    (2, 10)
    """
    images, labels = dataset.train
    module = model(images.shape[1:], int(labels.max()) + 1, rngs=nnx.Rngs(seed))
    graph, state = nnx.split(module, nnx.Param)

    def apply(params: Params, images: Array) -> Array:
        return nnx.merge(graph, params)(jnp.asarray(images, jnp.float32) / 255)

    return Classifier(nnx.to_pure_dict(state), apply)


def pretrain_classifier(
    classifier: Classifier,
    dataset: Dataset,
    config: PretrainConfig = PretrainConfig(),
    *,
    callback: Callable[[PretrainProgress], None] | None = None,
) -> Classifier:
    """Train on the training images with cross-entropy; see ``pretrain``.

    >>> from swsjax.data import load_digits
    >>> digits = load_digits()
    >>> apply = lambda params, images: images.reshape(len(images), -1) / 255.0 @ params
    >>> net = pretrain_classifier(Classifier(jnp.zeros((64, 10)), apply), digits,
    ...                           PretrainConfig(epochs=20, learning_rate=0.1))
    >>> net.error(digits.validation) < 0.1
    True
    """
    loss = cross_entropy(classifier.apply)
    params = pretrain(classifier.params, loss, _batchable(dataset.train), config, callback=callback)
    return classifier._replace(params=params)


def compress_classifier(
    classifier: Classifier,
    dataset: Dataset,
    config: Config = Config(),
    *,
    share: float = 0.5,
    temperature: float = TEMPERATURE,
    teachers: Sequence[Classifier] = (),
    start: Result | None = None,
    mesh: Mesh | None = None,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | PathLike[str] | None = None,
) -> Result:
    """Compress a pretrained classifier, which teaches its own compressed version; see ``compress``.

    The loss is distillation from the pretrained net to the given share and cross-entropy for the
    rest, on the training images as they are (no augmentation), at the given temperature, and
    ``PRUNE_TEMPERATURE`` in the pruning stage. Where there are other ``teachers``, pretrained from
    other seeds, they and the net teach together: the mean of their logits is more often right, and
    surer of what is doubtful, than those of one (Hinton, Vinyals, Dean, arXiv 1503.02531). The
    error in the history is that of the validation images.

    >>> from swsjax.data import load_digits
    >>> digits = load_digits()
    >>> apply = lambda params, images: images.reshape(len(images), -1) / 255.0 @ params
    >>> net = pretrain_classifier(Classifier(jnp.zeros((64, 10)), apply), digits,
    ...                           PretrainConfig(epochs=20, learning_rate=0.1))
    >>> config = Config(components=8, pi_zero=0.5, soft_epochs=0, hard_epochs=1, method="exact")
    >>> result = compress_classifier(net, digits, config)
    >>> result.history[-1].levels < 10, result.history[-1].error < 0.1
    (True, True)
    """
    apply = classifier.apply
    return compress(
        classifier.params,
        distillation(apply, share=share, temperature=temperature),
        distillation_data(classifier, dataset.train, teachers),
        config,
        prune_loss_fn=distillation(apply, share=share, temperature=PRUNE_TEMPERATURE),
        start=start,
        mesh=mesh,
        evaluate=lambda params: classifier._replace(params=params).error(dataset.validation),
        callback=callback,
        checkpoint=checkpoint,
    )


def teacher_seeds(seed: int, number: int) -> list[int]:
    """Seeds of other nets to teach beside that of a seed, which no other seed's have.

    >>> teacher_seeds(0, 2), teacher_seeds(1, 2)
    ([100, 101], [200, 201])
    """
    return [100 * (seed + 1) + k for k in range(number)]


def distillation_data(
    classifier: Classifier, split: Split, teachers: Sequence[Classifier] = ()
) -> dict[str, Array]:
    """Images, labels and the mean logits of the net and others: what ``distillation`` takes.

    >>> from swsjax.data import load_digits
    >>> apply = lambda params, images: images.reshape(len(images), -1) / 255.0 @ params
    >>> net = Classifier(jnp.ones((64, 10)), apply)
    >>> data = distillation_data(net, load_digits().test)
    >>> data["inputs"].shape, data["labels"].shape, data["teacher"].shape
    ((300, 8, 8), (300,), (300, 10))
    """
    nets = [classifier, *teachers]
    logits = [logits_of(net.apply, net.params, split.images) for net in nets]
    return _batchable(split) | {"teacher": jnp.mean(jnp.stack(logits), axis=0)}


def errors_of(
    pretrained: Classifier, result: Result, decoded: Params, dataset: Dataset
) -> dict[str, float]:
    """Errors for a report: before, retrained but not quantised, and of what the file gives back.

    >>> from swsjax.data import load_digits
    >>> apply = lambda params, images: images.reshape(len(images), -1) / 255.0 @ params
    >>> net = Classifier(jnp.ones((64, 10)), apply)
    >>> result = Result(net.params, net.params, {}, [])
    >>> errors = errors_of(net, result, net.params, load_digits())
    >>> errors["decoded file (test)"] > 0.8  # the net is not trained
    True
    """
    retrained = pretrained._replace(params=result.retrained)
    compressed = pretrained._replace(params=decoded)
    return {
        "pretrained (validation)": pretrained.error(dataset.validation),
        "pretrained (test)": pretrained.error(dataset.test),
        "retrained (test)": retrained.error(dataset.test),
        "decoded file (validation)": compressed.error(dataset.validation),
        "decoded file (test)": compressed.error(dataset.test),
    }


def _batchable(split: Split) -> dict[str, Array]:
    return {"inputs": jnp.asarray(split.images), "labels": jnp.asarray(split.labels, jnp.int32)}
