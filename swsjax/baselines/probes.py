"""Do the stored statistics of a net still hold? Its batches against them, layer by layer.

The probe of Figures 2, 7 and 8 of LCS (Nunez et al., WACV 2023, arXiv 2110.04252), for any net with
running statistics, such as those of BatchNorm: one that was pruned, narrowed or quantised, too.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.baselines.inputs import RANGES
from swsjax.baselines.leaves import with_leaves
from swsjax.checks import check_integer
from swsjax.errors import ConfigError
from swsjax.lab.data import Split
from swsjax.lab.task import Task, Variables
from swsjax.training.losses import ApplyWithAux
from swsjax.trees import is_weight, named_leaves

__all__ = ["Probe", "correlations", "probe"]


class Probe(NamedTuple):
    """What the batches of a net show."""

    distances: dict[str, np.ndarray]
    """(batches,) mean absolute difference between a statistic of a batch and the stored one, over
    its channels; by the name of the statistic, such as ``bn/mean``."""
    errors: np.ndarray
    """(batches,) fraction of misclassified images, from 0 to 1, with the stored statistics."""


def probe(task: Task, net: Variables, split: Split, *, batch_size: int = 128, key: Array) -> Probe:
    r"""Measure how far the statistics of batches are from the stored ones of a net.

    Running statistics are linear in themselves, :math:`s \mapsto m s + (1 - m) b` with momentum m
    and b of the batch. So training mode on zeros and on ones gives m and b, whatever the momentum
    is; the distance is the mean of :math:`|b - s|` over the channels, those that were cut to zero
    included: ``shrink`` a net of less width first. The net is not changed.

    Args:
        task: of the net.
        net: with running statistics.
        split: images and labels, such as the test images.
        batch_size: images per batch; those after the last full batch are left out.
        key: random key of the order of the images.

    Raises:
        ConfigError: the net has no statistics, or the images are fewer than a batch.

    >>> from functools import partial
    >>> from swsjax.lab import Dataset, ResidualNet, classification
    >>> split = Split(np.zeros((8, 4, 4, 3), np.uint8), np.arange(8) % 2)
    >>> model = partial(ResidualNet, widths=(2, 2, 2, 2), blocks=1)
    >>> task = classification(model, Dataset("black", split, split, split))
    >>> found = probe(task, task.init(0), split, batch_size=4, key=jax.random.key(0))
    >>> found.distances["g0b0bn1/mean"].shape, found.errors.mean()
    ((2,), np.float64(0.5))
    """
    stored = _statistics(net)
    if not stored:
        raise ConfigError(
            "the net has no statistics to compare with; expected floating arrays in aux, such as "
            "those of BatchNorm"
        )
    size, batch_size = len(split.labels), check_integer("batch_size", batch_size)
    if size < batch_size:
        raise ConfigError(
            f"the images are {size}, fewer than a batch of {batch_size}; set a smaller batch_size"
        )

    order = np.asarray(jax.random.permutation(key, size))[: size - size % batch_size]
    found = [
        _of_batch(task.apply, task.predict, net, split.images[batch], split.labels[batch])
        for batch in order.reshape(-1, batch_size)
    ]
    return Probe(
        {name: np.array([float(each[name]) for each, _ in found]) for name in stored},
        np.array([float(error) for _, error in found]),
    )


def _statistics(net: Variables) -> dict[str, Array]:
    """The running statistics of a net by name, without the ranges that what it computes needs."""
    return {
        name: leaf
        for name, leaf in named_leaves(net.aux)
        if is_weight(leaf) and not name.startswith(f"{RANGES}/")
    }


@partial(jax.jit, static_argnums=(0, 1))
def _of_batch(
    apply: ApplyWithAux,
    predict: Callable[[Variables, Array], Array],
    net: Variables,
    images: Array,
    labels: Array,
) -> tuple[dict[str, Array], Array]:
    """The distances and the error of a batch, compiled once per task."""
    stored = _statistics(net)

    def after(value: float) -> dict[str, Array]:
        filled = {name: jnp.full_like(leaf, value) for name, leaf in stored.items()}
        return dict(named_leaves(apply(net.params, with_leaves(net.aux, filled), images)[1]))

    zeros, ones = after(0.0), after(1.0)
    seen = {name: zeros[name] / (1 - (ones[name] - zeros[name])) for name in stored}
    distances = {name: jnp.mean(jnp.abs(seen[name] - leaf)) for name, leaf in stored.items()}
    wrong = jnp.argmax(predict(net, images), axis=-1) != labels
    return distances, jnp.mean(wrong)


def correlations(probes: Sequence[Probe]) -> dict[str, float]:
    """Correlation between the distance of a statistic and the error, over several nets.

    Args:
        probes: of nets of one kind, such as those of a family at several levels; of each the means
            over its batches are taken.

    Returns:
        For each statistic Pearson's correlation, from -1 to 1; NaN if its distance, or the error,
        does not change.

    Raises:
        ConfigError: fewer than two probes.

    >>> nets = [Probe({"bn/mean": np.array([x, x])}, np.array([2 * x])) for x in (0.1, 0.2, 0.4)]
    >>> round(correlations(nets)["bn/mean"], 6)
    1.0
    """
    if len(probes) < 2:
        raise ConfigError(f"a correlation needs at least two probes, got {len(probes)}")
    errors = np.array([each.errors.mean() for each in probes])

    def correlation(name: str) -> float:
        distances = np.array([each.distances[name].mean() for each in probes])
        if not np.ptp(distances) or not np.ptp(errors):
            return float("nan")
        return float(np.corrcoef(distances, errors)[0, 1])

    return {name: correlation(name) for name in probes[0].distances}
