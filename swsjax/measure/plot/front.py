"""The front of error against size, with published results."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from swsjax.measure.front import pareto
from swsjax.measure.page import Picture
from swsjax.measure.plot.style import BLUE, GREEN, GREY, ORANGE, PURPLE, column_png
from swsjax.measure.published import Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["front_picture", "plot_front"]

_STYLES = [("^", GREEN), ("s", ORANGE), ("X", GREY), ("D", PURPLE)]
_PLACES = [(0, 6), (0, -6), (7, 0), (-7, 0), (6, 6), (-6, -6), (6, -6), (-6, 6)]  # points


def plot_front(
    axes: "Axes",
    points: Sequence[tuple[float, float]],
    *,
    published: Sequence[Published] = (),
    label: str = "on the front",
) -> None:
    """Draw error (%) against size (bytes, logarithmic), and the Pareto front of the points.

    Points on the front are filled and joined by steps: the smallest error up to each size.
    Published results are numbered, and the legend says what their size counts.

    Args:
        axes: one axes.
        points: pairs of bytes and error, the error from 0 to 1.
        published: results to compare with.
        label: of the points in the legend.

    Ullrich, Meeds, Welling, ICLR 2017, section 6.2.

    >>> from matplotlib.figure import Figure
    >>> paper = Published("soft weight-sharing, 2017", 16_663, 0.0194, "Han format")
    >>> plot_front(Figure().subplots(), [(4963, 0.0185), (3217, 0.022)], published=[paper])
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    front = pareto(points)
    sizes, errors = np.array([points[i] for i in front]).reshape(-1, 2).T
    axes.step(sizes, 100 * errors, "o-", where="post", color=BLUE, markersize=4, label=label)
    beaten = [points[i] for i in range(len(points)) if i not in front]
    if beaten:
        x, y = np.array(beaten).T
        axes.plot(x, 100 * y, "o", color=BLUE, markerfacecolor="none", label="beaten", markersize=4)
    kinds = list(dict.fromkeys(result.kind for result in published))
    for number, result in enumerate(published, start=1):
        marker, color = _STYLES[kinds.index(result.kind) % len(_STYLES)]
        axes.plot(
            result.size_bytes,
            100 * result.error,
            marker,
            color=color,
            markersize=4,
            label=f"{number}  {result.label} ({result.kind})",
        )
    axes.set(title="Test error against size", xscale="log", xlabel="bytes", ylabel="error (%)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0), borderaxespad=5)  # below the scale
    _number(axes, points, published)


def front_picture(
    points: Sequence[tuple[float, float]], published: Sequence[Published] = ()
) -> Picture:
    """Draw the result of a search: validation error against size.

    Args:
        points: pairs of bytes and error, the error from 0 to 1.
        published: results to compare with; their errors are test errors.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> front_picture([(4963, 0.0185), (3217, 0.022)]).name
    'front'
    """

    def draw(axes: "Axes") -> None:
        plot_front(axes, points, published=published)
        axes.set(title="Validation error against size")

    height = 2.4 + 0.17 * len(published)
    caption = "Validation error against file size; published errors are test errors."
    return Picture("front", caption, column_png(draw, lambda figure: figure.subplots(), height))


def _number(
    axes: "Axes", points: Sequence[tuple[float, float]], published: Sequence[Published]
) -> None:
    """Put its number next to each published result, away from points and other numbers."""
    axes.autoscale_view()
    to_points = 72 / axes.figure.dpi
    given = [*points, *((result.size_bytes, result.error) for result in published)]
    taken = [to_points * axes.transData.transform((x, 100 * y)) for x, y in given]
    for number, result in enumerate(published, start=1):
        place = (result.size_bytes, 100 * result.error)
        here = to_points * axes.transData.transform(place)

        def room(offset: tuple[int, int], here: np.ndarray = here) -> float:
            return min(6.0, *(np.hypot(*(here + offset - other)) for other in taken))

        offset = max(_PLACES, key=room)
        taken.append(here + offset)
        axes.annotate(
            str(number), place, offset, textcoords="offset points", ha="center", va="center", size=6
        )
