"""How many channels each layer keeps, and the ones with the highest scores.

A share for each layer is given beforehand, found by one rank over all layers, or by the layers'
sensitivity (``sensitivity``). Layers are groups of channels, see ``channel_groups``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.baselines.channels import Group, masked_channels
from swsjax.baselines.leaves import chosen_leaves
from swsjax.baselines.weights import check_share, number_kept
from swsjax.errors import ConfigError

__all__ = [
    "Criterion",
    "channel_scores",
    "channels_kept",
    "check_one_per_group",
    "global_shares",
    "prune_channels",
]

Criterion = Callable[[str, Array], Array]
"""From the name of a kernel and the kernel (..., outputs) to a score for each output channel."""


def channels_kept(size: int, keep: float) -> int:
    r"""Return how many channels of a layer a share is.

    .. math:: \max(1, \lfloor C k \rfloor)

    of C channels, as the papers round; none of them empties a layer.

    Args:
        size: number of channels.
        keep: share of them to keep, in (0, 1].

    Raises:
        ConfigError: keep is not in (0, 1].

    >>> channels_kept(10, 0.7), channels_kept(10, 0.79), channels_kept(10, 0.01)
    (7, 7, 1)
    """
    check_share("keep", keep)
    # Of 100 channels at 0.29 it is 29, though 100 * 0.29 is below 29 in binary.
    return max(1, math.floor(size * float(keep) + 1e-9))


def channel_scores(net: Any, groups: Sequence[Group], criterion: Criterion) -> list[np.ndarray]:
    """Score the channels of groups by the kernels that make them.

    If several do, in a residual sum, their scores are added.

    Args:
        net: that the groups are of.
        groups: from ``channel_groups``.
        criterion: such as ``lambda name, kernel: l1_norms(kernel)``.

    Returns:
        (size,) scores for each group.

    Raises:
        ConfigError: the channels of a group are not outputs of a kernel, or a score is not finite.

    >>> from swsjax.baselines.channels import channel_groups
    >>> from swsjax.baselines.filters import l1_norms
    >>> net = {"v": jnp.ones((2, 1)), "w": jnp.array([[1.0, -3.0]])}
    >>> groups = channel_groups(lambda net, x: x @ net["w"] @ net["v"], net, jnp.ones((1, 1)))
    >>> channel_scores(net, groups, lambda name, kernel: l1_norms(kernel))
    [array([1., 3.], dtype=float32)]
    """

    def scores(group: Group) -> np.ndarray:
        if not group.kernels:
            raise ConfigError(
                "channels are scored by the kernels that make them, and no kernel makes those of "
                f"{', '.join(name for name, _ in group.members)}; leave the group out"
            )
        found = []
        for name, axis in group.kernels:
            kernel = chosen_leaves(net, [name])[name]
            of_outputs = np.asarray(criterion(name, jnp.moveaxis(kernel, axis, -1)))
            if not np.isfinite(of_outputs).all():
                raise ConfigError(
                    f"scores must be finite, got NaN or infinity for {name}; load or train the net "
                    "again"
                )
            found.append(of_outputs[group.members[name, axis]].sum(1))
        return np.sum(found, axis=0)

    return [scores(group) for group in groups]


def prune_channels(
    net: Any,
    groups: Sequence[Group],
    scores: Sequence[np.ndarray],
    keeps: Sequence[float],
) -> Any:
    """Set the channels of each group to zero except those with the highest scores.

    Args:
        net: that the groups are of, such as ``Variables``.
        groups: from ``channel_groups``; those left out stay as they are.
        scores: (size,) of each group; of equal ones the first are kept.
        keeps: share of the channels to keep of each group, in (0, 1], as for ``channels_kept``.

    Raises:
        ConfigError: a share is out of its range, or there is not one of each for each group.

    >>> from swsjax.baselines.channels import channel_groups
    >>> net = {"v": jnp.ones((2, 1)), "w": jnp.array([[1.0, -3.0]])}
    >>> groups = channel_groups(lambda net, x: x @ net["w"] @ net["v"], net, jnp.ones((1, 1)))
    >>> prune_channels(net, groups, [np.array([1.0, 3.0])], [0.5])["w"]
    Array([[ 0., -3.]], dtype=float32)
    """
    check_one_per_group(groups, scores=scores, keeps=keeps)
    removed = [
        (group, np.argsort(-score, kind="stable")[channels_kept(group.size, keep) :])
        for group, score, keep in zip(groups, scores, keeps, strict=True)
    ]
    return masked_channels(net, removed)


def global_shares(scores: Sequence[np.ndarray], keep: float) -> list[float]:
    """Return the share that each group keeps if all channels are ranked together.

    The round(n keep) highest scores of n are kept; a group that has none of them keeps one channel.
    Scores must be of one scale: those of layers with more inputs are larger for most criteria.

    Args:
        scores: (size,) of each group.
        keep: share of all channels to keep, in (0, 1].

    Raises:
        ConfigError: keep is out of its range.

    >>> global_shares([np.array([1.0, 3.0]), np.array([2.0, 4.0, 5.0, 0.0])], 0.5)
    [0.5, 0.5]
    """
    joined = np.concatenate(scores)
    ranked = np.argsort(-joined, kind="stable")[: number_kept(joined.size, keep, "the layers")]
    group_of = np.repeat(np.arange(len(scores)), [score.size for score in scores])
    counts = np.bincount(group_of[ranked], minlength=len(scores))
    return [max(int(count), 1) / score.size for count, score in zip(counts, scores, strict=True)]


def check_one_per_group(groups: Sequence[Group], **given: Sequence[Any]) -> None:
    """Check that arguments have an entry for each group.

    Args:
        groups: any.
        given: sequences by the names of the arguments.

    Raises:
        ConfigError: one has another number of them.

    >>> check_one_per_group([], keeps=[0.5])
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: keeps must have one entry for each of 0 groups, got 1
    """
    for name, entries in given.items():
        if len(entries) != len(groups):
            raise ConfigError(
                f"{name} must have one entry for each of {len(groups)} groups, got {len(entries)}"
            )
