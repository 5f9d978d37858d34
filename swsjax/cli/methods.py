"""The methods that prune, by their names on the command line: single weights, or whole channels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from swsjax.baselines import (
    Convolution,
    Group,
    accelerated_proximal,
    batch_norm_scales,
    channel_groups,
    channel_scores,
    convolution_kernels,
    convolutions,
    force,
    frobenius_norms,
    grasp,
    iter_snip,
    kernels,
    l1_norms,
    lasso_regression,
    last_layers,
    lottery_ticket,
    magnitude,
    magnitude_per_layer,
    narrowed,
    network_slimming,
    nuclear_norms,
    prune_channels,
    random,
    shrink,
    snip,
    soft_filter_pruning,
    sparse_structure_selection,
    spectral_norms,
    thinet,
    with_scales,
)
from swsjax.lab.task import Task, Variables
from swsjax.training.history import Epoch
from swsjax.training.pretraining import PretrainConfig
from swsjax.trees import named_leaves

__all__ = ["METHODS", "STRUCTURED", "WEIGHTS", "Start", "check_fits", "shrunk"]

# Names of the last layers of the blocks of a ResidualNet.
_LAST_LAYERS = "g*b*conv2"


class Start(NamedTuple):
    """What a net is pruned with, and what is left of it trained."""

    task: Task
    """Net and data."""
    initial: Variables
    """The net before its pretraining."""
    pretrained: Variables
    """The net after it."""
    config: PretrainConfig
    """Of the pretraining."""
    key: Array
    """Of all that is random."""
    folder: Path
    """For the state of a training."""
    callback: Callable[[Epoch], None]
    """Shows each epoch of a training."""

    @property
    def run(self) -> dict[str, Any]:
        """What each training takes: it is shown, and can be resumed."""
        return {"key": self.key, "callback": self.callback, "resume": self.folder}


Method = Callable[..., Variables]
"""From a start and the share to keep to a pruned net; further arguments are options."""

WEIGHTS: dict[str, Method] = {
    "random": lambda at, keep: random(at.initial, keep, key=at.key),
    "snip": lambda at, keep, batches=1: snip(
        at.task, at.initial, keep, batches=batches, key=at.key
    ),
    "iter-snip": lambda at, keep, steps=60, batches=1: iter_snip(
        at.task, at.initial, keep, steps=steps, batches=batches, key=at.key
    ),
    "force": lambda at, keep, steps=60, batches=1: force(
        at.task, at.initial, keep, steps=steps, batches=batches, key=at.key
    ),
    "grasp": lambda at, keep, batches=1: grasp(
        at.task, at.initial, keep, batches=batches, key=at.key
    ),
    "magnitude": lambda at, keep: magnitude(at.pretrained, keep),
    "magnitude-per-layer": lambda at, keep: magnitude_per_layer(at.pretrained, keep),
    "lottery": lambda at, keep, steps=1: lottery_ticket(
        at.task, at.initial, keep, at.config, rounds=steps, **at.run
    ),
}
"""Those that prune single weights."""
STRUCTURED: dict[str, Method] = {
    "l1-filters": lambda at, keep: _highest(at, keep, lambda kernel, _: l1_norms(kernel)),
    "spectral": lambda at, keep: _highest(at, keep, spectral_norms),
    "nuclear": lambda at, keep: _highest(at, keep, nuclear_norms),
    "frobenius": lambda at, keep: _highest(at, keep, frobenius_norms),
    "thinet": lambda at, keep: thinet(
        at.task, at.pretrained, [(group, keep) for group in _groups(at)], key=at.key
    ),
    "lasso": lambda at, keep: lasso_regression(
        at.task, at.pretrained, [(group, keep) for group in _groups(at)], key=at.key
    ),
    "slimming": lambda at, keep, strength=1e-4: network_slimming(
        at.task,
        with_scales(at.initial, batch_norm_scales(at.initial)),
        keep,
        at.config,
        strength=strength,
        **at.run,
    ),
    "soft-filters": lambda at, keep: soft_filter_pruning(
        at.task, at.initial, keep, at.config, **at.run
    ),
    "structures": lambda at, strength=0.01: sparse_structure_selection(
        at.task,
        at.initial,
        last_layers(at.initial, _LAST_LAYERS),
        at.config,
        proximal=accelerated_proximal(
            at.config.schedule(at.config.steps(at.task.data())), strength
        ),
        **at.run,
    ),
}
"""Those that prune whole channels or blocks, which are then removed; their weights are trained."""
METHODS = WEIGHTS | STRUCTURED
"""All of them, in the order of the help."""


def check_fits(method: str, net: Variables) -> None:
    """Check that a net has what a method prunes, before any work.

    Args:
        method: name of any method.
        net: its shapes are enough.

    Raises:
        ConfigError: it has no BatchNorms for slimming, no convolutions for soft filter pruning, or
            no residual blocks for structure selection.

    >>> check_fits("slimming", Variables({"fc": {"kernel": jnp.ones((2, 2))}}, {}))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: slimming needs the scales of BatchNorms, and the net has none; \
expected a leaf called scale in params, with one called mean in aux
    """
    if method == "slimming":
        batch_norm_scales(net)
    elif method == "soft-filters":
        jax.eval_shape(lambda net: len(convolution_kernels(net)), net)
    elif method == "structures":
        last_layers(net, _LAST_LAYERS)


def shrunk(task: Task, net: Variables) -> tuple[Task, Variables]:
    """Return a net without its dead channels, and the task of such nets.

    Args:
        task: of the net.
        net: with channels of zeros.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = task.init(0)
    >>> net.params["fc2"]["kernel"] = net.params["fc2"]["kernel"].at[:120].set(0)
    >>> task, net = shrunk(task, net)
    >>> net.params["fc1"]["kernel"].shape, task.init(1).params["fc2"]["kernel"].shape
    ((64, 180), (180, 100))
    """
    small = shrink(task.predict, net, _image(task))
    return narrowed(task, small), small


def _highest(at: Start, keep: float, criterion: Callable[[Array, Convolution], Array]) -> Variables:
    """The pretrained net with the channels of the highest scores, the same share of each layer."""
    seen = _convolutions(at.task, at.pretrained)
    dense = Convolution((1, 1))
    groups = _groups(at)
    scores = channel_scores(
        at.pretrained, groups, lambda name, kernel: criterion(kernel, seen.get(name, dense))
    )
    pruned: Variables = prune_channels(at.pretrained, groups, scores, [keep] * len(groups))
    return pruned


def _groups(at: Start) -> list[Group]:
    """The channels that one kernel makes and one reads: those of residual sums stay."""
    axes = {name: jnp.ndim(leaf) for name, leaf in named_leaves(at.pretrained)}
    found = channel_groups(at.task.predict, at.pretrained, _image(at.task))
    return [
        group
        for group in found
        if len(group.kernels) == 1 and sum(axes[name] > 1 for name, _ in group.members) == 2
    ]


def _convolutions(task: Task, net: Variables) -> dict[str, Convolution]:
    """What each convolution of a net does; in a trace, those of LeNet-5 are matrix products."""
    found = convolutions(task.predict, net, _image(task))
    height, width = task.dataset.test.images.shape[1:3]
    for name, kernel in kernels(net).items():
        if kernel.ndim == 4 and f"params/{name}" not in found:
            found[f"params/{name}"] = Convolution((height, width), padding="VALID")
            height, width = ((side - kernel.shape[0] + 1) // 2 for side in (height, width))
    return found


def _image(task: Task) -> Any:
    return task.dataset.test.images[:1]
