r"""Codebooks by k-means, and training through them, as in Deep Compression.

Han, Mao, Dally, *Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
Quantization and Huffman Coding* (ICLR 2016, arXiv 1510.00149), section 3. Weights of a cluster
share a value; zeros stay zeros and are in no cluster. Deep Compression is three functions,

    k_means(fine_tune(task, magnitude(net, 0.08), epochs=40, key=key), levels=32)

and ``tune_codebooks`` for its section 3.3. Biases and the parameters of norms are shared, too, each
array with a codebook of its own; with as many levels as it has values or more it stays as it is.
"""

from collections.abc import Callable
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from swsjax.baselines.finish import FINE_TUNING
from swsjax.baselines.in_training import seed_of
from swsjax.checks import check_floating, check_integer
from swsjax.errors import ConfigError, DataError
from swsjax.lab.task import Task, Variables
from swsjax.training.augment import Augment
from swsjax.training.history import Epoch
from swsjax.training.loop import train
from swsjax.trees import Params, named_leaves

__all__ = ["k_means", "k_means_of_net", "tune_codebook_of_net", "tune_codebooks"]


def k_means(net: Variables, levels: int = 32) -> Variables:
    r"""Replace the weights of each array by the means of at most ``levels`` clusters.

    .. math:: \min_{c_1, \dots, c_k} \sum_{i: w_i \ne 0} \min_j (w_i - c_j)^2

    by Lloyd's algorithm from means evenly spaced from the smallest to the largest of the weights
    that are not zero (Deep Compression, sections 3.1 and 3.2), in scikit-learn. Zeros stay, and no
    mean is zero.

    Args:
        net: pruned or not.
        levels: number k of means; 32 take five bits each.

    Returns:
        The net with at most k values and zero in each array of params. Statistics are unchanged.

    Raises:
        ConfigError: levels is not a positive integer, or a leaf of params is not a floating array,
            or not finite.
        DataError: scikit-learn is missing; the message names the extra that brings it.

    >>> net = Variables({"w": jnp.array([0.0, 0.9, 1.1, -2.0]), "b": jnp.array([0.3])}, {})
    >>> k_means(net, levels=2).params["w"].tolist()
    [0.0, 1.0, 1.0, -2.0]
    """
    leaves, structure = _leaves(net)
    return net._replace(params=structure.unflatten([_clustered(leaf, levels) for leaf in leaves]))


def k_means_of_net(net: Variables, levels: int = 32) -> Variables:
    """Replace all weights of a net by the means of at most ``levels`` clusters.

    As ``k_means``, but all arrays of params have one codebook. Deep Compression does not share
    across layers; soft weight-sharing does.

    Args:
        net: pruned or not.
        levels: number of means.

    Raises:
        ConfigError: as for ``k_means``.
        DataError: scikit-learn is missing; the message names the extra that brings it.

    >>> net = Variables({"w": jnp.array([0.0, 0.9, -2.0]), "b": jnp.array([1.1])}, {})
    >>> found = k_means_of_net(net, levels=2).params
    >>> found["w"].tolist(), found["b"].tolist()
    ([0.0, 1.0, -2.0], [1.0])
    """
    leaves, structure = _leaves(net)
    joined = _clustered(_joined(leaves), levels)
    return net._replace(params=structure.unflatten(_split(joined, leaves)))


def tune_codebooks(
    task: Task,
    net: Variables,
    *,
    epochs: int,
    key: Array,
    optimizer: optax.GradientTransformation = FINE_TUNING,
    batch_size: int = 64,
    augment: Augment | None = None,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    r"""Train the values that the weights of each array share; which weights share one stays.

    .. math:: \frac{\partial L}{\partial c_j} = \sum_{i: w_i = c_j} \frac{\partial L}{\partial w_i}

    (Deep Compression, Eq. 3). Zeros are not trained. An array without repeated values is trained as
    usual.

    Args:
        task: its images, and its cross-entropy as the loss.
        net: quantised; its equal values are its codebooks.
        epochs: passes through the data.
        key: random key of the order of the examples and of the augmentation.
        optimizer: over the shared values, with a schedule of its own. As the gradient of a value is
            a sum, a rate that is right for single weights may be too large.
        batch_size: examples per step.
        augment: changes every batch, as for ``train``.
        callback: called with each epoch's record, as for ``train``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: a leaf of params is not a floating array, or not finite; or as ``train``.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = k_means(task.init(0), levels=4)
    >>> tuned = tune_codebooks(task, net, epochs=1, key=jax.random.key(0))
    >>> len(jnp.unique(tuned.params["fc1"]["kernel"]))
    4
    """
    leaves, structure = _leaves(net)
    books = list(map(_book, leaves))

    def weights(values: list[Array], indices: list[Array]) -> Params:
        return structure.unflatten(list(map(_looked_up, values, indices)))

    return _tuned(
        task,
        net,
        _Book([book.values for book in books], [book.indices for book in books]),
        weights,
        optimizer=optimizer,
        epochs=epochs,
        seed=seed_of(key),
        batch_size=batch_size,
        augment=augment,
        callback=callback,
        resume=resume,
    )


def tune_codebook_of_net(
    task: Task,
    net: Variables,
    *,
    epochs: int,
    key: Array,
    optimizer: optax.GradientTransformation = FINE_TUNING,
    batch_size: int = 64,
    augment: Augment | None = None,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train the values that the weights of a net share, in whatever arrays they are.

    As ``tune_codebooks``, after ``k_means_of_net``.

    Args:
        task, net, epochs, key, optimizer, batch_size, augment, callback, resume: as for
            ``tune_codebooks``.

    Raises:
        ConfigError: as for ``tune_codebooks``.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = k_means_of_net(task.init(0), levels=8)
    >>> tuned = tune_codebook_of_net(task, net, epochs=1, key=jax.random.key(0))
    >>> len(jnp.unique(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tuned)])))
    9
    """
    leaves, structure = _leaves(net)

    def weights(values: Array, indices: Array) -> Params:
        return structure.unflatten(_split(_looked_up(values, indices), leaves))

    return _tuned(
        task,
        net,
        _book(_joined(leaves)),
        weights,
        optimizer=optimizer,
        epochs=epochs,
        seed=seed_of(key),
        batch_size=batch_size,
        augment=augment,
        callback=callback,
        resume=resume,
    )


class _Book(NamedTuple):
    """What the weights of an array share, or of a list of arrays."""

    values: Any
    """(k,) distinct values, without zero."""
    indices: Any
    """For each weight, 0 for a zero or 1 + the number of its value."""


def _book(array: Array) -> _Book:
    weights = np.asarray(array)
    values = np.unique(weights[weights != 0])
    indices = np.where(weights != 0, 1 + np.searchsorted(values, weights), 0)
    return _Book(jnp.asarray(values), jnp.asarray(indices, jnp.int32))


def _looked_up(values: Array, indices: Array) -> Array:
    """The weights; the gradient of a value is the sum of theirs."""
    return jnp.concatenate([jnp.zeros(1, values.dtype), values])[indices]


def _tuned(
    task: Task, net: Variables, book: _Book, weights: Callable[..., Params], **options: Any
) -> Variables:
    """Train shared values; the indices are carried along, as constants would be compiled."""
    loss_fn = task.loss()

    def loss(values: Any, carried: Any, batch: Any) -> tuple[Array, Any]:
        aux, indices = carried
        value, aux = loss_fn(weights(values, indices), aux, batch)
        return value, (aux, indices)

    trained = train(book.values, loss, task.data(), aux=(net.aux, book.indices), **options)
    return Variables(weights(trained.params, book.indices), trained.aux[0])


def _clustered(array: Array, levels: int) -> Array:
    levels, weights = check_integer("levels", levels), np.asarray(array)
    values, which, counts = np.unique(
        weights[weights != 0], return_inverse=True, return_counts=True
    )
    if len(values) <= levels:
        return array
    means = _means(values.astype(float), counts, levels).astype(weights.dtype)
    # A mean of zero would be a pruned weight.
    means[means == 0] = jnp.finfo(means.dtype).tiny
    clustered = weights.copy()
    clustered[weights != 0] = means[which]
    return jnp.asarray(clustered)


def _means(values: np.ndarray, counts: np.ndarray, levels: int) -> np.ndarray:
    """The mean of each value's cluster."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise DataError("k-means needs scikit-learn: pip install 'swsjax[digits]'") from error
    start = np.linspace(values[0], values[-1], levels)[:, None]
    found = KMeans(levels, init=start, n_init=1, tol=0).fit(values[:, None], sample_weight=counts)
    # Summed in order here: the sums of several threads would differ in their last bits.
    labels: np.ndarray = found.labels_
    return (np.bincount(labels, counts * values) / np.bincount(labels, counts))[labels]


def _leaves(net: Variables) -> tuple[list[Array], jax.tree_util.PyTreeDef]:
    """The arrays of params, which must be finite to be compared."""
    check_floating("weights to share", net.params)
    for name, leaf in named_leaves(net.params):
        if not jnp.isfinite(leaf).all():
            raise ConfigError(
                f"weights to share must be finite, got NaN or infinity in {name}; load or train "
                "the net again"
            )
    leaves, structure = jax.tree.flatten(net.params)
    return list(map(jnp.asarray, leaves)), structure


def _joined(leaves: list[Array]) -> Array:
    return jnp.concatenate([leaf.ravel() for leaf in leaves])


def _split(joined: Array, like: list[Array]) -> list[Array]:
    ends = np.cumsum([leaf.size for leaf in like])
    parts = jnp.split(joined, ends[:-1])
    return [
        part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, like, strict=True)
    ]
