"""Soft filter pruning: the smallest filters are zeroed again and again, while everything trains.

He, Kang, Dong, Fu, Yang, *Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks*
(IJCAI 2018, arXiv 1808.06866). Biases and norms behind a filter stay: a filter of zeros still emits
a constant.
"""

import math
from collections.abc import Callable, Sequence
from os import PathLike

import jax.numpy as jnp
from jax import Array

from swsjax.baselines.filters import l2_norms
from swsjax.baselines.in_training import train_task
from swsjax.baselines.leaves import chosen_leaves, with_leaves
from swsjax.baselines.weights import check_finite, check_share, kernels
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.training.history import Epoch
from swsjax.training.pretraining import PretrainConfig
from swsjax.trees import Params

__all__ = ["convolution_kernels", "soft_filter_pruning", "zero_smallest_filters"]


def convolution_kernels(net: Variables) -> tuple[str, ...]:
    """Return the names in params of the kernels of convolutions, the kernels with four axes.

    Raises:
        ConfigError: there are none.

    >>> net = Variables({"conv": jnp.ones((3, 3, 1, 2)), "fc": jnp.ones((2, 2))}, {})
    >>> convolution_kernels(net)
    ('conv',)
    """
    found = tuple(name for name, kernel in kernels(net).items() if kernel.ndim == 4)
    if not found:
        raise ConfigError(
            "the net has no convolutions, which have kernels of four axes; pass the names of the "
            "kernels to prune"
        )
    return found


def zero_smallest_filters(params: Params, rate: float, names: Sequence[str]) -> Params:
    r"""Set the filters with the smallest L2 norms to zero, in each kernel.

    .. math:: \lfloor C (1 - r) \rfloor

    of the C filters of a kernel, the indices of its last axis; of equal norms the last. They are
    ranked again each time: a filter that was zeroed comes back if it has grown.

    Args:
        params: parameters of a net.
        rate: share r of the filters to keep, in (0, 1]; 0.7 to 0.9 in the paper.
        names: of the kernels.

    Raises:
        ConfigError: rate is out of its range, or params lack a name.

    >>> zero_smallest_filters({"fc": jnp.array([[3.0, -1.0, 2.0]])}, 0.5, ["fc"])
    {'fc': Array([[3., 0., 2.]], dtype=float32)}
    """
    check_share("rate", rate)

    def pruned(kernel: Array) -> Array:
        filters = kernel.shape[-1]
        # Of 10 filters at 0.9 it is one, though 10 * (1 - 0.9) is below 1 in binary.
        zeroed = min(math.floor(filters * (1 - float(rate)) + 1e-9), filters - 1)
        ranked = jnp.argsort(-l2_norms(kernel), stable=True)
        return kernel.at[..., ranked[filters - zeroed :]].set(0)

    found = chosen_leaves(params, names)
    return with_leaves(params, {name: pruned(kernel) for name, kernel in found.items()})


def soft_filter_pruning(
    task: Task,
    net: Variables,
    rate: float,
    config: PretrainConfig = PretrainConfig(),
    *,
    key: Array,
    names: Sequence[str] | None = None,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train a net, with the smallest filters set to zero before each epoch and after the last.

    Between, zeroed filters train like all others.

    Args:
        task: its images.
        net: to start from: untrained or pretrained.
        rate: share of the filters of each kernel to keep, in (0, 1].
        config: the loss, augmentation, optimiser and schedule. Its seed is not used.
        key: random key of the order of the examples and of the augmentation.
        names: of kernels in params; by default those of all convolutions.
        callback: called with each epoch's record, as for ``train``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: a kernel is not finite, the net has no convolutions, or as
            ``zero_smallest_filters``.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = soft_filter_pruning(task, task.init(0), 0.7, PretrainConfig(epochs=1),
    ...                           key=jax.random.key(0), names=["fc1/kernel"])
    >>> int((net.params["fc1"]["kernel"] != 0).any(0).sum())
    210
    """
    check_finite(net)
    check_share("rate", rate)
    chosen = convolution_kernels(net) if names is None else names
    trained = train_task(
        task,
        net,
        config,
        key=key,
        before_epoch=lambda params, number: zero_smallest_filters(params, rate, chosen),
        callback=callback,
        resume=resume,
    )
    return trained._replace(params=zero_smallest_filters(trained.params, rate, chosen))
