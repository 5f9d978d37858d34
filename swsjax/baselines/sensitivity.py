"""Which layers can be pruned, and how far: each pruned alone, and the shape of its norms.

As Li et al. (ICLR 2017, arXiv 1608.08710) find the layers to skip, and SPSRC the shares of layers.
"""

from collections.abc import Sequence

import numpy as np

from swsjax.baselines.channels import Group
from swsjax.baselines.shares import check_one_per_group, prune_channels
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables

__all__ = ["sensitivities", "shares_by_sensitivity", "skewness"]


def sensitivities(
    task: Task,
    net: Variables,
    groups: Sequence[Group],
    scores: Sequence[np.ndarray],
    keeps: Sequence[float],
) -> np.ndarray:
    """Measure the validation error with one group pruned alone, at several shares.

    Nothing is trained, and BatchNorm keeps its statistics.

    Args:
        task: its validation images.
        net: trained.
        groups: from ``channel_groups``.
        scores: (size,) of each group, from ``channel_scores``.
        keeps: shares of a group's channels to keep, in (0, 1].

    Returns:
        (groups, keeps) errors, from 0 to 1.

    Raises:
        ConfigError: as ``prune_channels``.

    >>> from swsjax.baselines.channels import channel_groups
    >>> from swsjax.baselines.filters import l1_norms
    >>> from swsjax.baselines.shares import channel_scores
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = task.init(0)
    >>> groups = channel_groups(task.predict, net, task.dataset.test.images[:1])
    >>> scores = channel_scores(net, groups, lambda name, kernel: l1_norms(kernel))
    >>> sensitivities(task, net, groups, scores, [1.0, 0.5]).shape
    (2, 2)
    """
    check_one_per_group(groups, scores=scores)
    validation = task.dataset.validation

    def error(group: Group, score: np.ndarray, keep: float) -> float:
        return task.error(prune_channels(net, [group], [score], [keep]), validation)

    return np.array(
        [
            [error(group, score, keep) for keep in keeps]
            for group, score in zip(groups, scores, strict=True)
        ]
    )


def shares_by_sensitivity(
    errors: np.ndarray, keeps: Sequence[float], *, error: float, tolerance: float
) -> list[float]:
    """Return the smallest share of each layer down to which it can be pruned alone.

    At it and at all larger shares the error is at most ``error + tolerance``. A layer without such
    a share keeps all channels.

    Args:
        errors: (layers, keeps), from ``sensitivities``.
        keeps: the shares, in any order.
        error: of the net that is not pruned, on the same images.
        tolerance: rise of the error that is allowed; 0.01 is one point.

    Raises:
        ConfigError: errors are not of this shape.

    >>> errors = np.array([[0.02, 0.03, 0.2], [0.1, 0.02, 0.5]])
    >>> shares_by_sensitivity(errors, [0.9, 0.5, 0.1], error=0.02, tolerance=0.01)
    [0.5, 1.0]
    """
    if np.ndim(errors) != 2 or np.shape(errors)[1] != len(keeps):
        raise ConfigError(
            f"errors must be of shape (layers, {len(keeps)}), one for each share, got "
            f"{np.shape(errors)}"
        )
    order = np.argsort(keeps)[::-1]
    fine = np.logical_and.accumulate(np.asarray(errors)[:, order] <= error + tolerance, axis=1)
    shares = np.concatenate([[1.0], np.asarray(keeps, float)[order]])
    return [float(shares[number]) for number in fine.sum(1)]


def skewness(scores: Sequence[np.ndarray]) -> list[float]:
    r"""Skewness of the scores of each layer.

    .. math:: \frac{1}{C} \sum_c \Big( \frac{s_c - \bar s}{\sigma} \Big)^3

    Zero if all are equal. SPSRC prunes layers with negative skewness, whose histograms have a tail
    of small norms, and skips others.

    Args:
        scores: (size,) of each layer, from ``channel_scores``.

    >>> [round(value, 3) for value in skewness([np.array([0.0, 3.0, 3.0, 3.0]), np.ones(4)])]
    [-1.155, 0.0]
    """
    from scipy import stats

    spread = [np.ptp(score) > 1e-6 * np.abs(score).max() for score in scores]
    return [
        float(stats.skew(np.asarray(score, float))) if is_spread else 0.0
        for score, is_spread in zip(scores, spread, strict=True)
    ]
