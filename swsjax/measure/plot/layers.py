"""The layers of a file: densities, bytes, and the values that the weights share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from swsjax.measure.plot.style import BLUE, GREY, ORANGE, light
from swsjax.measure.reports import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST_LAYERS", "plot_codebook", "plot_layers"]

MOST_LAYERS = 24
"""Layers that ``plot_layers`` draws by default."""

_MOST_DENSE = 70  # per cent; a longer bar has its number inside, as the scale ends at 100
_MOST_LEVELS = 500  # more could not be distinguished
_LARGEST = 1e300  # the width of an axis with larger values may overflow


def plot_layers(axes: "Sequence[Axes]", report: Report, *, most: int = MOST_LAYERS) -> None:
    """Draw the share of non-zeros and the bytes of each layer.

    Args:
        axes: two axes side by side: density (% of a layer's weights that are not zero), and the
            size of the layer in the file (bytes).
        report: of the file.
        most: number of layers drawn at most: the largest in the file, in its order.

    >>> from matplotlib.figure import Figure
    >>> from swsjax.file import dumps
    >>> from swsjax.measure import report
    >>> plot_layers(Figure().subplots(1, 2), report(dumps({"w": np.eye(8)})))
    """
    largest = sorted(report.layers, key=lambda layer: -layer.coded_bits)[:most]
    layers = [layer for layer in report.layers if layer in largest]
    left, right = axes
    places = np.arange(len(layers))
    densities = [100 * layer.non_zeros / max(layer.size, 1) for layer in layers]
    sizes = [layer.coded_bits / 8 for layer in layers]
    percents = [_percent(density) for density in densities]
    for text, density in zip(
        left.bar_label(left.barh(places, densities, color=BLUE), percents, padding=2),
        densities,
        strict=True,
    ):
        if density > _MOST_DENSE:
            text.set(ha="right", color="white", position=(-2, 0))
    right.bar_label(right.barh(places, sizes, color=BLUE), fmt="{:,.0f}", padding=2)
    of = "" if len(layers) == len(report.layers) else f"\n{most} of {len(report.layers)} layers"
    left.set(title=f"Density{of}", xlabel="not zero (%)", xlim=(0, 100), xticks=[0, 50, 100])
    left.set_yticks(places, [_shortened(layer.name) for layer in layers])
    right.set(title=f"Size{of}", xlabel="bytes in the file", yticks=[])
    right.set_xlim(0, 1.5 * max([1.0, *sizes]))
    right.locator_params(axis="x", nbins=3)
    right.xaxis.set_major_formatter("{x:,.0f}")
    for axis in axes:
        axis.set_ylim(len(layers) - 0.4, -0.6)  # the first layer is on top


def plot_codebook(axes: "Axes", tree: Any) -> None:
    """Draw how many weights have each value.

    Args:
        axes: one axes; the scale of the numbers is logarithmic, values have no unit.
        tree: pytree of arrays, as ``load`` returns it. Complex arrays, and values that are not
            finite, have no place on the axis and are left out.

    >>> from matplotlib.figure import Figure
    >>> plot_codebook(Figure().subplots(), {"w": np.array([0.0, 0.0, 0.5])})
    """
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)]
    real = [leaf.astype(np.float64) for leaf in leaves if not np.iscomplexobj(leaf)]
    values = np.concatenate([*real, np.zeros(0)])
    values = values[np.abs(values) < _LARGEST]
    levels, counts = np.unique(values, return_counts=True)
    title = f"{levels.size:,} values of the weights"
    if levels.size > _MOST_LEVELS:
        counts, edges = np.histogram(values, _MOST_LEVELS)
        levels = (edges[1:] + edges[:-1])[counts > 0] / 2
        counts = counts[counts > 0]
        title += f", in {_MOST_LEVELS} bins"
    is_zero = levels == 0
    axes.vlines(levels[~is_zero], 0.5, counts[~is_zero], color=BLUE, linewidth=2)
    axes.vlines(levels[is_zero], 0.5, counts[is_zero], color=ORANGE, linewidth=2)
    for level, count in zip(levels[is_zero], counts[is_zero], strict=True):
        axes.annotate(f"  zero: {count:,}", (level, count), va="center", color=ORANGE)
    axes.set(title=title, xlabel="value", ylabel="weights", yscale="log", ylim=(0.5, None))
    axes.grid(axis="y", color=light(GREY), linewidth=0.5)
    axes.set_axisbelow(True)


def _percent(percent: float) -> str:
    return f"{percent:.1f}" if percent < 10 else f"{percent:.0f}"


def _shortened(name: str, most: int = 22) -> str:
    """The end of a long name, which tells the layers apart."""
    return name if len(name) <= most else "…" + name[1 - most :]
