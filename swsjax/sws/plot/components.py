"""The mixture over the epochs: components that move, narrow, merge and vanish."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from swsjax.measure.plot.style import BLUE, GREY, ORANGE, light
from swsjax.sws.prior import GaussianMixture, component_means, log_mixing
from swsjax.training.history import Epoch
from swsjax.training.selection import WEIGHTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_components"]


_MOST_NAMES = 4  # towards a target there are tens of stages, and their names would overlap


def plot_components(
    axes: "Sequence[Axes]", history: Sequence[Epoch], *, name: str = WEIGHTS
) -> None:
    """Draw the components' means with their widths, and the non-zeros, over the epochs.

    The line of a component is more opaque the larger its mixing proportion, so that vanishing
    components fade. At the end of a stage, a vertical line, components merge: thin lines lead to
    the merged component.

    Args:
        axes: two axes over the same epochs: components (weights, no unit), and the number of
            non-zero weights with the error (%), if measured.
        history: of a result of ``compress``.
        name: of the group whose mixture is drawn.

    Ullrich, Meeds, Welling, ICLR 2017, figure 2.

    >>> from matplotlib.figure import Figure
    >>> from swsjax.sws import Details, init_mixture
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0)}
    >>> details = Details(17, 16, 0.25, mixtures)
    >>> history = [Epoch("soft", 1, 1, 0.5, non_zeros=100, details=details)]
    >>> plot_components(Figure().subplots(1, 2), history)
    """
    above, below = axes
    stages = [list(group) for _, group in groupby(history, key=lambda p: p.stage)]
    for stage in stages:
        _draw_paths(above, [p.epoch for p in stage], [p.details.mixtures[name] for p in stage])
        if len(stages) <= _MOST_NAMES:
            _draw_name(above, stage, len(stage[0].details.mixtures[name].means))
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
    """Opacity of each component: least at a thousandth of the largest proportion."""
    decades = np.asarray(log_mixing(mixture))[1:] / np.log(10)
    return np.concatenate([[1.0], np.clip(1 + (decades - decades.max()) / 3, 0.1, 1.0)])


def _draw_name(axes: "Axes", stage: list[Epoch], components: int) -> None:
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


def _draw_merges(axes: "Axes", last: Epoch, first: Epoch, name: str) -> None:
    """From each component to the one nearest to it after the merge."""
    old, new = (np.asarray(component_means(p.details.mixtures[name])) for p in (last, first))
    nearest = new[np.argmin(abs(old[:, None] - new), axis=1)]
    for start, end, alpha in zip(old, nearest, _opacity(last.details.mixtures[name]), strict=True):
        epochs = [last.epoch, first.epoch]
        axes.plot(epochs, [start, end], color=light(BLUE, alpha), linewidth=0.6)


def _draw_counts(axes: "Axes", history: Sequence[Epoch]) -> None:
    """Non-zero weights over the epochs, with the error if it was measured."""
    epochs = [p.epoch for p in history]
    axes.plot(epochs, [p.non_zeros or 0 for p in history], color=BLUE)
    axes.set(title="Non-zero weights and error", xlabel="epoch")
    axes.set_yscale("symlog", linthresh=1)  # logarithmic, but the number may be 0
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("non-zero weights", color=BLUE)
    if history[0].error is None:
        return
    twin = axes.twinx()
    errors = [np.nan if p.error is None else 100 * p.error for p in history]
    twin.plot(epochs, errors, color=ORANGE, linestyle="--")
    twin.set_yscale("symlog", linthresh=1)
    twin.yaxis.set_major_formatter("{x:g}")
    twin.set_ylabel("error once quantised (%)", color=ORANGE)
    twin.spines["right"].set_visible(True)
