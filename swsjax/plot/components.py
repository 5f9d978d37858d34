"""The mixture over the epochs: components that move, narrow, merge and die out."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from swsjax.plot.style import BLUE, GREY, ORANGE, light
from swsjax.prior import GaussianMixture, component_means, log_mixing
from swsjax.select import WEIGHTS
from swsjax.stages import Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_components"]


def plot_components(
    axes: "Sequence[Axes]", history: Sequence[Progress], *, name: str = WEIGHTS
) -> None:
    """Draw the components' means with their widths, and the non-zeros, over the epochs.

    A component's line is the more opaque the larger its share of the free components is, so that
    those which die out fade. Where a stage ends, at a vertical line, components merge: thin lines
    lead to the one that took them in.

    Args:
        axes: two axes: components (weights, no unit), and non-zero weights (number) with the error
            (%) where it was measured; the second over the same epochs as the first.
        history: the history of a result of ``compress``.
        name: of the mixture whose components are drawn.

    Ullrich, Meeds, Welling, ICLR 2017, figure 2.

    >>> from matplotlib.figure import Figure
    >>> from swsjax.prior import init_mixture
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0)}
    >>> history = [Progress("soft", 1, 1, 0.5, 100, 17, 90.0, 16, 0.25, None, 0.0, mixtures)]
    >>> plot_components(Figure().subplots(1, 2), history)
    """
    above, below = axes
    stages = [list(group) for _, group in groupby(history, key=lambda p: p.stage)]
    for stage in stages:
        _draw_paths(above, [p.epoch for p in stage], [p.mixtures[name] for p in stage])
        _draw_name(above, stage, len(stage[0].mixtures[name].means))
    _draw_counts(below, history)
    for stage, following in pairwise(stages):
        _draw_merges(above, stage[-1], following[0], name)
        for axis in axes:
            axis.axvline(following[0].epoch - 0.5, color=GREY, linewidth=0.8, linestyle=":")
    above.set_title("Components: mean ± standard deviation", pad=18)
    above.set(xlabel="epoch", ylabel="weight")


def _draw_paths(axes: "Axes", x: list[int], mixtures: Sequence[GaussianMixture]) -> None:
    from matplotlib.collections import LineCollection

    means = np.stack([component_means(mixture) for mixture in mixtures])
    deviations = np.exp(-0.5 * np.stack([mixture.log_precisions for mixture in mixtures]))
    opacity = np.stack([_opacity(mixture) for mixture in mixtures])
    for j in range(means.shape[1]):
        color = GREY if j == 0 else BLUE
        mean, deviation = means[:, j], deviations[:, j]
        axes.fill_between(
            x, mean - deviation, mean + deviation, color=color, alpha=0.25 * opacity[-1, j], lw=0
        )
        points = np.stack([x, mean], axis=-1)
        steps = np.stack([points[:-1], points[1:]], axis=1)
        colors = [light(color, alpha) for alpha in opacity[1:, j]]
        axes.add_collection(LineCollection(list(steps), colors=colors, linewidths=1))
        axes.plot(*points[-1], ".", color=light(color, opacity[-1, j]), markersize=4)


def _opacity(mixture: GaussianMixture) -> np.ndarray:
    """Of each component, in decades: a thousandth of the largest share is next to nothing."""
    shares = np.asarray(log_mixing(mixture))[1:] / np.log(10)
    return np.concatenate([[1.0], np.clip(1 + (shares - shares.max()) / 3, 0.1, 1.0)])


def _draw_name(axes: "Axes", stage: list[Progress], components: int) -> None:
    """Name of the stage and the number of its free components, over its middle."""
    place = (stage[0].epoch + stage[-1].epoch) / 2
    axes.annotate(
        f"{stage[0].stage}\n{components} free",
        (place, 1.01),
        xycoords=("data", "axes fraction"),
        ha="center",
        fontsize="small",
        color=GREY,
        linespacing=0.95,
    )


def _draw_merges(axes: "Axes", last: Progress, first: Progress, name: str) -> None:
    """From each component to the one nearest to it after the merge."""
    old, new = (np.asarray(component_means(p.mixtures[name])) for p in (last, first))
    nearest = new[np.argmin(abs(old[:, None] - new), axis=1)]
    for start, end, alpha in zip(old, nearest, _opacity(last.mixtures[name]), strict=True):
        epochs = [last.epoch, first.epoch]
        axes.plot(epochs, [start, end], color=light(BLUE, alpha), linewidth=0.6)


def _draw_counts(axes: "Axes", history: Sequence[Progress]) -> None:
    """Non-zero weights over the epochs, with the error where it was measured."""
    epochs = [p.epoch for p in history]
    axes.plot(epochs, [p.non_zeros for p in history], color=BLUE)
    axes.set(title="Non-zero weights and error", xlabel="epoch")
    axes.set_yscale("symlog", linthresh=1)  # logarithmic, but there may be none at first
    axes.set_ylabel("non-zero weights", color=BLUE)
    if history[0].error is None:
        return
    twin = axes.twinx()
    errors = [np.nan if p.error is None else 100 * p.error for p in history]
    twin.plot(epochs, errors, color=ORANGE, linestyle="--")
    twin.set_yscale("symlog", linthresh=1)
    twin.set_ylabel("error once quantised (%)", color=ORANGE)
    twin.spines["right"].set_visible(True)
