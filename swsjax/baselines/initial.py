r"""Pruning at initialisation: which weights to train, from gradients alone.

De Jorge, Sanyal, Behl, Torr, Rogez, Dokania, *Progressive Skeletonization: Trimming More Fat from a
Network at Initialization* (ICLR 2021, arXiv 2006.09081), and the methods that it compares with.
The saliency of a mask :math:`c` is measured after pruning (their Eq. 6),

.. math:: S(\theta, c) = \sum_{i: c_i = 1} |\theta_i \, \partial_i L(\theta \odot c)|

and the mask is found in steps :math:`t = 1, \dots, T`, each from the gradients of the step before
(Eq. 7): the :math:`n k^{t/T}` weights of highest score are kept, of n weights, for a share k in the
end. SNIP is a single step, with the gradients of the dense net.

Early pruning is the same functions on a net that was trained for a few epochs.

The gradient is the mean over batches, with its signs, of the cross-entropy: the authors' code takes
the negative log-likelihood of logits that are not normalised, and thresholds that keep too many
weights if scores are equal.
"""

from collections import deque
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.baselines.gradients import (
    balanced_batches,
    batch_gradients,
    check_gradients,
    curvature_product,
    finite,
    mean,
    mean_gradient,
    random_batches,
)
from swsjax.baselines.weights import (
    Kernels,
    highest,
    kept,
    kernels,
    weights_kept,
    with_kernels,
)
from swsjax.checks import check_integer
from swsjax.lab.task import Task, Variables

__all__ = [
    "force",
    "force_masks",
    "grasp",
    "iter_snip",
    "iter_snip_masks",
    "random",
    "saliency",
    "snip",
]

_PER_CLASS, _TEMPERATURE = 10, 200.0  # of GRASP, in its authors' code

_Step = tuple[int, np.ndarray]
"""The number of weights to keep, and the batches of the gradient, (batches, batch_size)."""


def random(net: Variables, keep: float, *, key: Array) -> Variables:
    """Prune at random: exactly round(n keep) of the n weights are kept, all equally likely.

    Args:
        net: any net.
        keep: share of the weights to keep, in (0, 1].
        key: random key.

    Raises:
        ConfigError: keep is out of its range, or the weights are not finite.

    >>> from swsjax.baselines import density
    >>> net = Variables({"kernel": jnp.ones((10, 10))}, {})
    >>> density(random(net, 0.3, key=jax.random.key(0)))
    0.3
    """
    k, found = weights_kept(net, keep), kernels(net)
    keys = jax.random.split(key, len(found))
    scores = {
        name: jax.random.uniform(one, kernel.shape)
        for one, (name, kernel) in zip(keys, found.items(), strict=True)
    }
    return kept(net, scores, k)


def snip(
    task: Task,
    net: Variables,
    keep: float,
    *,
    batches: int = 1,
    batch_size: int = 128,
    key: Array,
) -> Variables:
    r"""Keep the weights of highest :math:`|\theta_i \, \partial_i L(\theta)|`, in one step.

    Lee, Ajanthan, Torr, *SNIP: Single-shot Network Pruning based on Connection Sensitivity* (ICLR
    2019, arXiv 1810.02340). With more batches it is SNIP-MB of De Jorge et al.

    Args:
        task: its training loss and images.
        net: not trained.
        keep: share of the weights to keep, in (0, 1].
        batches: over which the gradient is averaged.
        batch_size: examples per batch.
        key: random key of the batches.

    Raises:
        ConfigError: a setting is out of its range, or the weights are not finite.
        RetrainingError: the gradient is not finite.

    >>> from swsjax.baselines import density
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> density(snip(task, task.init(0), 0.02, key=jax.random.key(0)))
    0.02
    """
    found = _force(task, net, _steps(task, net, keep, 1, batches, batch_size, key))
    return with_kernels(net, _last(found))


def iter_snip(
    task: Task,
    net: Variables,
    keep: float,
    *,
    steps: int = 60,
    batches: int = 1,
    batch_size: int = 128,
    key: Array,
) -> Variables:
    r"""Prune in steps by :math:`|\theta_i \, \partial_i L(\theta \odot c)|`, for good (Iter SNIP).

    After step t exactly round(n keep^(t/T)) of the n weights are left, T being the number of steps.
    In one step it is ``snip``.

    Args:
        task: its training loss and images.
        net: not trained.
        keep: share of the weights to keep, in (0, 1].
        steps: number T of steps.
        batches: over which each step's gradient is averaged, fresh ones for each step.
        batch_size: examples per batch.
        key: random key of the batches.

    Raises:
        ConfigError: a setting is out of its range, or the weights are not finite.
        RetrainingError: a gradient is not finite.

    >>> from swsjax.baselines import density
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> density(iter_snip(task, task.init(0), 0.02, steps=3, key=jax.random.key(0)))
    0.02
    """
    found = _iter_snip(task, net, _steps(task, net, keep, steps, batches, batch_size, key))
    return with_kernels(net, _last(found))


def iter_snip_masks(
    task: Task,
    net: Variables,
    keep: float,
    *,
    steps: int = 60,
    batches: int = 1,
    batch_size: int = 128,
    key: Array,
) -> list[dict[str, Array]]:
    """Return the mask of the kernels after each step of ``iter_snip``, with the same arguments.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> masks = iter_snip_masks(task, task.init(0), 0.02, steps=3, key=jax.random.key(0))
    >>> [sum(int(kernel.sum()) for kernel in mask.values()) for mask in masks]
    [13626, 3699, 1004]
    """
    found = _iter_snip(task, net, _steps(task, net, keep, steps, batches, batch_size, key))
    return _masks(found)


def force(
    task: Task,
    net: Variables,
    keep: float,
    *,
    steps: int = 60,
    batches: int = 1,
    batch_size: int = 128,
    key: Array,
) -> Variables:
    r"""Prune in steps by :math:`|\theta_i \, \partial_i L(\theta \odot c)|`, revocably (FORCE).

    As ``iter_snip``, but weights that are zero keep their gradient, and are ranked in each step by
    the values that they had: they may come back (foresight connection sensitivity; the paper calls
    it sparsification instead of pruning).

    Args:
        task, net, keep, steps, batches, batch_size, key: as for ``iter_snip``.

    Raises:
        ConfigError: a setting is out of its range, or the weights are not finite.
        RetrainingError: a gradient is not finite.

    >>> from swsjax.baselines import density
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> density(force(task, task.init(0), 0.02, steps=3, key=jax.random.key(0)))
    0.02
    """
    found = _force(task, net, _steps(task, net, keep, steps, batches, batch_size, key))
    return with_kernels(net, _last(found))


def force_masks(
    task: Task,
    net: Variables,
    keep: float,
    *,
    steps: int = 60,
    batches: int = 1,
    batch_size: int = 128,
    key: Array,
) -> list[dict[str, Array]]:
    """Return the mask of the kernels after each step of ``force``, with the same arguments.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> masks = force_masks(task, task.init(0), 0.02, steps=3, key=jax.random.key(0))
    >>> bool((masks[1]["fc1/kernel"] & ~masks[0]["fc1/kernel"]).any())  # some come back
    True
    """
    found = _force(task, net, _steps(task, net, keep, steps, batches, batch_size, key))
    return _masks(found)


def grasp(task: Task, net: Variables, keep: float, *, batches: int = 1, key: Array) -> Variables:
    r"""Remove the weights of highest :math:`-\theta_i (H g)_i`, which hold back the gradient.

    Wang, Zhang, Grosse, *Picking Winning Tickets Before Training by Preserving Gradient Flow* (ICLR
    2020, arXiv 2002.07376), Eq. 8: H is the Hessian and g the gradient of the loss. As in their
    code, logits are divided by 200, and a batch is ten examples of each class, in two halves, over
    which g and H are averaged. Theirs have half of the classes each; here both have all classes.
    With more batches it is GRASP-MB of De Jorge et al.

    Args:
        task: its training loss and images.
        net: not trained.
        keep: share of the weights to keep, in (0, 1].
        batches: over which gradient and Hessian are averaged.
        key: random key of the batches.

    Raises:
        ConfigError: a setting is out of its range, or the weights are not finite.
        RetrainingError: the gradient or the product is not finite.

    >>> from swsjax.baselines import density
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> density(grasp(task, task.init(0), 0.02, key=jax.random.key(0)))
    0.02
    """
    k, labels = weights_kept(net, keep), task.dataset.train.labels
    drawn = balanced_batches(labels, batches, per_class=_PER_CLASS, key=key)
    halves = drawn.reshape(2 * len(drawn), -1)
    gradient = mean_gradient(task, net, halves, temperature=_TEMPERATURE)
    product = curvature_product(task, net, gradient, halves, temperature=_TEMPERATURE)
    return kept(net, _times(kernels(net), product), k)


def saliency(
    task: Task, net: Variables, *, batches: int = 1, batch_size: int = 128, key: Array
) -> float:
    r"""Saliency of a pruned net's mask, :math:`\sum_i |\theta_i \, \partial_i L(\theta)|`.

    Of De Jorge et al., Eq. 6, which FORCE makes large: the sum runs over the weights that are left,
    as all others are zero.

    Args:
        task: its training loss and images.
        net: pruned.
        batches: over which the gradient is averaged.
        batch_size: examples per batch.
        key: random key of the batches.

    Raises:
        ConfigError: batches or batch_size is out of its range.
        RetrainingError: the gradient is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task, key = classification(LeNet300100, load_digits()), jax.random.key(0)
    >>> dense = task.init(0)
    >>> saliency(task, dense, key=key) > saliency(task, random(dense, 0.5, key=key), key=key) > 0
    True
    """
    drawn = random_batches(task.dataset.train, batches, batch_size=batch_size, key=key)
    scores = _magnitudes(kernels(net), mean_gradient(task, net, drawn))
    return float(sum(jnp.sum(score) for score in scores.values()))


def _steps(
    task: Task,
    net: Variables,
    keep: float,
    steps: int,
    batches: int,
    batch_size: int,
    key: Array,
) -> Iterator[_Step]:
    """The steps of progressive pruning, each with batches of its own."""
    steps, batches = check_integer("steps", steps), check_integer("batches", batches)
    weights_kept(net, keep)  # raises before any gradient is computed
    size, data = sum(kernel.size for kernel in kernels(net).values()), task.dataset.train
    drawn = random_batches(data, steps * batches, batch_size=batch_size, key=key)
    for step, of_step in enumerate(drawn.reshape(steps, batches, batch_size), start=1):
        yield round(size * keep ** (step / steps)), of_step


def _force(task: Task, net: Variables, steps: Iterator[_Step]) -> Iterator[Kernels]:
    dense = kernels(net)
    return _pruned(task, net, steps, lambda _: dense)


def _iter_snip(task: Task, net: Variables, steps: Iterator[_Step]) -> Iterator[Kernels]:
    return _pruned(task, net, steps, lambda left: left)


def _pruned(
    task: Task,
    net: Variables,
    steps: Iterator[_Step],
    ranked: Callable[[Kernels], Kernels],
) -> Iterator[Kernels]:
    """Kernels after each step; ``ranked`` says which weights it ranks, given those it starts from.

    Gradients are checked at the end: the device need not be waited for in every step.
    """
    weights: Kernels = kernels(net)
    are_finite = []
    for k, batches in steps:
        gradients = batch_gradients(task, net, weights, batches)
        weights, is_finite = _most_salient(ranked(weights), gradients, k)
        are_finite.append(is_finite)
        yield weights
    check_gradients(are_finite)


@jax.jit
def _most_salient(
    weights: Kernels, gradients: list[dict[str, Array]], k: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The weights with the k most salient, and whether the mean gradient is finite."""
    gradient = mean(gradients)
    return highest(weights, _magnitudes(weights, gradient), k), finite(gradient)


def _last(found: Iterator[Kernels]) -> Kernels:
    return deque(found, maxlen=1).pop()


def _masks(found: Iterator[Kernels]) -> list[dict[str, Array]]:
    return [{name: kernel != 0 for name, kernel in weights.items()} for weights in found]


@jax.jit
def _times(weights: Kernels, gradient: Kernels) -> dict[str, Array]:
    """Product of weights and gradients, which may be too small for 16 bits."""

    def product(weight: Array, slope: Array) -> Array:
        wide = jnp.promote_types(weight.dtype, jnp.float32)
        return weight.astype(wide) * slope.astype(wide)

    return {name: product(weights[name], gradient[name]) for name in weights}


@jax.jit
def _magnitudes(weights: Kernels, gradient: Kernels) -> dict[str, Array]:
    return {name: jnp.abs(product) for name, product in _times(weights, gradient).items()}
