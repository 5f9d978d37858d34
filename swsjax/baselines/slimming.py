r"""Network slimming: channels are removed whose BatchNorm scales training has made small.

Liu, Li, Shen, Huang, Yan, Zhang, *Learning Efficient Convolutional Networks through Network
Slimming* (ICCV 2017, arXiv 1708.06519), Eq. 1: the loss gets the penalty
:math:`s \sum_j |\gamma_j|` over all scales, of which the subgradient is added. A channel with scale
and bias 0 is 0 behind its BatchNorm. In a pre-activation residual net this selects the channels
that a block reads of the sum; the sum itself keeps them, unless nothing reads them.

    scales = batch_norm_scales(task.init(0))
    start = with_scales(task.init(0), scales)
    net = network_slimming(task, start, 0.3, config, key=key)
"""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.baselines.in_training import train_task
from swsjax.baselines.leaves import chosen_leaves, sibling, with_leaves
from swsjax.baselines.weights import check_finite, number_kept
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.training.history import Epoch
from swsjax.training.masks import keep_top
from swsjax.training.pretraining import PretrainConfig
from swsjax.trees import Params, is_number, named_leaves

__all__ = ["add_scale_signs", "batch_norm_scales", "network_slimming", "slim", "with_scales"]


def batch_norm_scales(net: Variables) -> tuple[str, ...]:
    """Return the names in params of the scales of all BatchNorms, the layers that have a mean.

    Raises:
        ConfigError: there are none.

    >>> net = Variables({"bn": {"scale": jnp.ones(2)}, "ln": {"scale": jnp.ones(2)}},
    ...                 {"bn": {"mean": jnp.zeros(2), "var": jnp.ones(2)}})
    >>> batch_norm_scales(net)
    ('bn/scale',)
    """
    statistics = {name for name, _ in named_leaves(net.aux)}
    found = tuple(
        name
        for name, _ in named_leaves(net.params)
        if name == sibling(name, "scale") and sibling(name, "mean") in statistics
    )
    if not found:
        raise ConfigError(
            "slimming needs the scales of BatchNorms, and the net has none; expected a leaf "
            "called scale in params, with one called mean in aux"
        )
    return found


def with_scales(net: Variables, scales: Sequence[str], value: float = 0.5) -> Variables:
    """Return a net with all entries of its scales set to a value.

    Args:
        net: untrained.
        scales: names in params.
        value: where the scales start; 0.5 in the code of Liu et al.

    Raises:
        ConfigError: params lack a name.

    >>> net = Variables({"bn": {"bias": jnp.zeros(2), "scale": jnp.ones(2)}}, {})
    >>> with_scales(net, ["bn/scale"]).params["bn"]["scale"]
    Array([0.5, 0.5], dtype=float32)
    """
    found = chosen_leaves(net.params, scales)
    new = {name: jnp.full_like(leaf, value) for name, leaf in found.items()}
    return net._replace(params=with_leaves(net.params, new))


def add_scale_signs(strength: float, scales: Sequence[str]) -> optax.GradientTransformation:
    r"""Add the subgradient of a penalty on magnitudes to the gradient of some leaves.

    .. math:: g_\gamma + s \, \mathrm{sign}(\gamma), \quad \mathrm{sign}(0) = 0

    The first link of an ``optax.chain``.

    Args:
        strength: s; 1e-4 for VGG nets and 1e-5 for residual nets in the paper.
        scales: names of the leaves.

    Raises:
        ConfigError: strength is negative; or, in training, a leaf is not there.

    >>> added = add_scale_signs(0.25, ["scale"])
    >>> params = {"bias": jnp.ones(2), "scale": jnp.array([3.0, -2.0])}
    >>> updates, _ = added.update(jax.tree.map(jnp.zeros_like, params), added.init(params), params)
    >>> updates
    {'bias': Array([0., 0.], dtype=float32), 'scale': Array([ 0.25, -0.25], dtype=float32)}
    """
    if not is_number(strength) or not 0 <= strength < float("inf"):
        raise ConfigError(f"strength must be finite and not negative, got {strength!r}")

    def update(updates: Any, state: Any, params: Params) -> tuple[Any, Any]:
        gradients = chosen_leaves(updates, scales)
        new = {
            name: gradients[name] + strength * jnp.sign(leaf)
            for name, leaf in chosen_leaves(params, scales).items()
        }
        return with_leaves(updates, new), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def slim(net: Variables, keep: float, scales: Sequence[str]) -> Variables:
    """Set the smallest scales to zero, over all layers together, and the biases of their channels.

    The round(n keep) largest of the n scales stay, and the largest of each layer, so that none is
    emptied. Behind ReLU, scale and bias of a channel that is pruned have no gradient any more.

    Args:
        net: trained with ``add_scale_signs``.
        keep: share of the scales to keep, in (0, 1].
        scales: names in params; the biases are the leaves called bias beside them, if any.

    Raises:
        ConfigError: keep is out of its range, or params lack a name.

    >>> net = Variables({"a": {"bias": jnp.ones(2), "scale": jnp.array([0.1, -0.8])},
    ...                  "b": {"scale": jnp.array([0.01, 0.02])}}, {})
    >>> slim(net, 0.25, ["a/scale", "b/scale"]).params["a"]
    {'bias': Array([0., 1.], dtype=float32), 'scale': Array([ 0. , -0.8], dtype=float32)}
    """
    leaves = dict(named_leaves(net.params))
    sizes = {name: jnp.abs(leaf) for name, leaf in chosen_leaves(net.params, scales).items()}
    number = number_kept(sum(size.size for size in sizes.values()), keep, "the scales")
    kept = keep_top(jax.tree.map(jnp.ones_like, sizes), sizes, number)
    new = {}
    for name, size in sizes.items():
        stays = (kept[name] != 0) | (jnp.arange(size.size) == jnp.argmax(size))
        for leaf in (name, sibling(name, "bias")):
            if leaf in leaves:
                new[leaf] = jnp.where(stays, leaves[leaf], 0)
    return net._replace(params=with_leaves(net.params, new))


def network_slimming(
    task: Task,
    net: Variables,
    keep: float,
    config: PretrainConfig = PretrainConfig(),
    *,
    key: Array,
    scales: Sequence[str] | None = None,
    strength: float = 1e-4,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train with the penalty on BatchNorm scales, and set the smallest to zero.

    Args:
        task: its images.
        net: untrained, its scales at 0.5: see ``with_scales``.
        keep: share of the scales to keep, in (0, 1], as for ``slim``.
        config: the loss, augmentation, optimiser and schedule; SGD in the paper, as Adam rescales
            the penalty with the gradient. Its seed is not used.
        key: random key of the order of the examples and of the augmentation.
        scales: names in params; by default those of all BatchNorms.
        strength: of the penalty, as for ``add_scale_signs``.
        callback: called with each epoch's record, as for ``train``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: a kernel is not finite, the net has no BatchNorms, or as ``add_scale_signs``
            and ``slim``.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from flax import nnx
    >>> from swsjax.lab import classification, load_digits
    >>> class Net(nnx.Module):
    ...     def __init__(self, image_shape, classes, *, rngs):
    ...         self.fc1 = nnx.Linear(64, 20, rngs=rngs)
    ...         self.bn = nnx.BatchNorm(20, rngs=rngs)
    ...         self.fc2 = nnx.Linear(20, classes, rngs=rngs)
    ...     def __call__(self, x):
    ...         return self.fc2(nnx.relu(self.bn(self.fc1(x.reshape(len(x), -1)))))
    >>> task = classification(Net, load_digits())
    >>> start = with_scales(task.init(0), ["bn/scale"])
    >>> config = PretrainConfig(epochs=1)
    >>> net = network_slimming(task, start, 0.4, config, key=jax.random.key(0))
    >>> int(jnp.count_nonzero(net.params["bn"]["scale"]))
    8
    """
    check_finite(net)
    scales = batch_norm_scales(net) if scales is None else scales
    added = add_scale_signs(strength, scales)
    slim(net, keep, scales)  # finds what is wrong before any time is spent
    trained = train_task(
        task,
        net,
        config,
        key=key,
        around=lambda optimizer: optax.chain(added, optimizer),
        callback=callback,
        resume=resume,
    )
    return slim(trained, keep, scales)
