r"""Channels chosen so that the layer that reads them computes what it did, on training images.

ThiNet: Luo, Wu, Lin, *ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression*
(ICCV 2017, arXiv 1707.06342). Regression: He, Zhang, Sun, *Channel Pruning for Accelerating Very
Deep Neural Networks* (ICCV 2017, arXiv 1707.06168). Both prune layer by layer, and correct the
kernel that reads the channels by least squares. Nets run in evaluation.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.baselines.channels import Group, masked_channels
from swsjax.baselines.gradients import balanced_batches
from swsjax.baselines.least_squares import (
    Floats,
    discarded_channels,
    lasso_channels,
    least_squares_scales,
)
from swsjax.baselines.leaves import chosen_leaves, sibling, with_leaves
from swsjax.baselines.samples import Samples, sample_layer
from swsjax.baselines.shares import channels_kept
from swsjax.baselines.weights import check_finite
from swsjax.checks import check_integer
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.trees import named_leaves

__all__ = ["Tune", "contributions", "lasso_regression", "thinet"]

Tune = Callable[[Variables], Variables]
"""From a net to one that is trained further, with its zeros."""


def thinet(
    task: Task,
    net: Variables,
    layers: Sequence[tuple[Group, float]],
    *,
    key: Array,
    per_class: int = 10,
    positions: int = 10,
    tune: Tune | None = None,
) -> Variables:
    """Prune channels by ThiNet: the ones whose sum matters least to the next layer.

    For each layer in turn: contributions at random outputs of the next layer, the channels of
    ``discarded_channels`` set to zero, and those left scaled by ``least_squares_scales``, in the
    next kernel.

    Args:
        task: its training images.
        net: trained.
        layers: groups from ``channel_groups``, in the order of the net, each with the share of its
            channels to keep, see ``channels_kept``. One kernel must read the channels.
        key: random key of the images and outputs.
        per_class: images of each class.
        positions: random outputs per image.
        tune: after each layer, such as ``fine_tune`` for 1 or 2 epochs, as Luo et al. do.

    Raises:
        ConfigError: a share is out of its range, a kernel is not finite, or several kernels read a
            group, or one whose layer cannot be followed.

    >>> from swsjax.baselines.channels import channel_groups
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = task.init(0)
    >>> groups = channel_groups(task.predict, net, task.dataset.test.images[:1])
    >>> pruned = thinet(task, net, [(groups[1], 0.4)], key=jax.random.key(0), positions=2)
    >>> int((pruned.params["fc3"]["kernel"] != 0).any(1).sum())
    40
    """
    for number, (group, reader, left) in enumerate(_planned(net, layers)):
        images, of_rows, of_filters = _drawn(task, key, number, per_class)
        (samples,) = sample_layer(
            task.predict, [net], reader.name, images, positions=positions, key=of_rows
        )
        kernel = _array(net, reader.name)
        summed = contributions(samples, kernel, reader.inputs, of_filters)
        gone = discarded_channels(summed, group.size - left)
        kept = np.setdiff1d(np.arange(group.size), gone)
        scales = np.ones(samples.patches.shape[1])
        scales[reader.inputs[kept]] = least_squares_scales(summed, kept)[:, None]
        net = masked_channels(net, [(group, gone)])
        scaled = _array(net, reader.name) * scales.reshape(*kernel.shape[:-1], 1)
        net = _with(net, reader.name, scaled)
        net = tune(net) if tune else net
    return net


def lasso_regression(
    task: Task,
    net: Variables,
    layers: Sequence[tuple[Group, float]],
    *,
    key: Array,
    per_class: int = 10,
    positions: int = 10,
    tune: Tune | None = None,
) -> Variables:
    """Prune channels by LASSO, and fit the next layer to the outputs of the net as it was.

    For each layer in turn: the channels of ``lasso_channels``, for contributions in the net pruned
    so far to random outputs in the original one; then the weights of the next layer, and its bias
    if it has one, by least squares over all its filters. With fewer rows than weights there are
    many solutions; the closest to the present weights is taken. He et al. have enough rows, 10
    positions in each of 5,000 images.

    Args:
        task, net, layers, key, per_class, positions, tune: as for ``thinet``. Shares are of the
            fewest channels, as ``lasso_channels`` may keep a tenth more.

    Raises:
        ConfigError: as ``thinet``.
        DataError: scikit-learn is not installed.

    >>> from swsjax.baselines.channels import channel_groups
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = task.init(0)
    >>> groups = channel_groups(task.predict, net, task.dataset.test.images[:1])
    >>> pruned = lasso_regression(task, net, [(groups[1], 0.4)], key=jax.random.key(0), positions=2)
    >>> 40 <= int((pruned.params["fc3"]["kernel"] != 0).any(1).sum()) <= 44
    True
    """
    original = net
    for number, (group, reader, left) in enumerate(_planned(net, layers)):
        images, of_rows, of_filters = _drawn(task, key, number, per_class)
        wanted, now = sample_layer(
            task.predict, [original, net], reader.name, images, positions=positions, key=of_rows
        )
        kernel = _array(net, reader.name)
        summed = contributions(now, kernel, reader.inputs, of_filters)
        filters = _filters(wanted, of_filters)
        targets = wanted.outputs[np.arange(len(filters)), filters]
        kept = lasso_channels(summed, targets, left)
        gone = np.setdiff1d(np.arange(group.size), kept)
        net = masked_channels(net, [(group, gone)])
        inputs = reader.inputs[kept].ravel()
        net = _refitted(net, original, reader.name, inputs, (wanted, now))
        net = tune(net) if tune else net
    return net


def contributions(samples: Samples, kernel: Floats, inputs: np.ndarray, key: Array) -> Floats:
    r"""Contribution of each channel to one random output per row.

    .. math:: x_c = \sum_t W_{t,c,f} \, p_{t,c}

    over the taps t of a patch p, for a random filter f: the sum over c is the output, without bias.

    Args:
        samples: of a layer.
        kernel: (..., filters) of the layer.
        inputs: (channels, taps): the inputs of a filter that belong to each channel.
        key: random key of the filters.

    Returns:
        (rows, channels).

    >>> samples = Samples(np.array([[5.0, 10.0]]), np.array([[55.0]]))
    >>> inputs = np.array([[0], [1]])
    >>> contributions(samples, np.array([[3.0], [4.0]]), inputs, jax.random.key(0))
    array([[15., 40.]])
    """
    weights = kernel.reshape(samples.patches.shape[1], -1)
    products = samples.patches * weights[:, _filters(samples, key)].T
    return np.asarray(products[:, inputs].sum(2))


class _Reader(NamedTuple):
    """The kernel that reads the channels of a group."""

    name: str
    inputs: np.ndarray
    """(channels, taps): the inputs of a filter, as one axis, that belong to each channel."""


def _planned(
    net: Variables, layers: Sequence[tuple[Group, float]]
) -> list[tuple[Group, _Reader, int]]:
    """The layers that lose channels, with the number left; checked before any time is spent."""
    check_finite(net)
    planned = [
        (group, _reader(net, group), channels_kept(group.size, keep)) for group, keep in layers
    ]
    return [(group, reader, left) for group, reader, left in planned if left < group.size]


def _reader(net: Variables, group: Group) -> _Reader:
    shapes = {
        name: leaf.shape for name, leaf in chosen_leaves(net, [n for n, _ in group.members]).items()
    }
    found = [
        (name, axis)
        for name, axis in group.members
        if len(shapes[name]) > 1 and (name, axis) not in group.kernels
    ]
    if len(found) != 1 or found[0][1] == len(shapes[found[0][0]]) - 1:
        names = ", ".join(name for name, _ in found) or "none"
        raise ConfigError(
            "channels are reconstructed in the one kernel that reads them, with its filters last; "
            f"got {names}; leave this group out"
        )
    ((name, axis),) = found
    shape = shapes[name][:-1]
    inputs = np.moveaxis(np.arange(np.prod(shape)).reshape(shape), axis, 0)
    return _Reader(name, inputs[group.members[name, axis]].reshape(group.size, -1))


def _drawn(task: Task, key: Array, number: int, per_class: int) -> tuple[Array, Array, Array]:
    """Images of all classes, and the keys of positions and filters, for one layer."""
    of_images, of_rows, of_filters = jax.random.split(jax.random.fold_in(key, number), 3)
    train = task.dataset.train
    batches = balanced_batches(
        np.asarray(train.labels), 1, per_class=check_integer("per_class", per_class), key=of_images
    )
    return jnp.asarray(train.images[np.asarray(batches).ravel()]), of_rows, of_filters


def _filters(samples: Samples, key: Array) -> np.ndarray:
    rows, filters = samples.outputs.shape
    return np.asarray(jax.random.randint(key, (rows,), 0, filters))


def _refitted(
    net: Variables,
    original: Variables,
    name: str,
    inputs: np.ndarray,
    samples: tuple[Samples, Samples],
) -> Variables:
    """A net whose layer, with some inputs only, computes what the original did."""
    wanted, now = samples
    kernel, bias = _array(net, name), sibling(name, "bias")
    weights = kernel.reshape(-1, kernel.shape[-1]).copy()
    read, missing = now.patches[:, inputs], wanted.outputs - now.patches @ weights
    has_bias = bias in [leaf for leaf, _ in named_leaves(net)]
    if has_bias:
        read = np.concatenate([read, np.ones((len(read), 1))], axis=1)
        missing = missing + _array(original, bias) - _array(net, bias)
    change = np.linalg.lstsq(read, missing, rcond=1e-6)[0]
    weights[inputs] += change[: len(inputs)]
    net = _with(net, name, weights.reshape(kernel.shape))
    return _with(net, bias, _array(net, bias) + change[-1]) if has_bias else net


def _array(net: Variables, name: str) -> Floats:
    return np.asarray(chosen_leaves(net, [name])[name], float)


def _with(net: Variables, name: str, array: Floats) -> Variables:
    dtype = chosen_leaves(net, [name])[name].dtype
    replaced: Variables = with_leaves(net, {name: jnp.asarray(array, dtype)})
    return replaced
