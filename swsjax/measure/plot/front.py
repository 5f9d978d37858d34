"""The front of error against size, with published results."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from swsjax.measure.front import pareto
from swsjax.measure.html import Picture
from swsjax.measure.plot.labels import Label, place_labels
from swsjax.measure.plot.style import BLUE, ORANGE, column_picture, light
from swsjax.measure.published import Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["comparison_picture", "front_picture", "plot_front"]

_MARKS = "^sDv"  # by what a published size counts; further kinds share the last


def plot_front(
    axes: "Axes",
    points: Sequence[tuple[float, float]],
    *,
    published: Sequence[Published] = (),
    label: str = "front",
    others: Sequence[Label] = (),
) -> None:
    """Draw error (%) against size (bytes, logarithmic), and the Pareto front of the points.

    The front is joined by steps: the smallest error up to each size. Points that it dominates are
    pale. Published results are hollow marks with their names, and the legend says what their size
    counts.

    Args:
        axes: one axes, whose scales must not change afterwards, since labels are placed by them.
        points: pairs of bytes and error, the error from 0 to 1.
        published: results to compare with.
        label: of the front.
        others: of what is drawn already, in percent, to be placed with those of the front.

    Ullrich, Meeds, Welling, ICLR 2017, section 6.2.

    >>> from matplotlib.figure import Figure
    >>> paper = Published("soft weight-sharing, 2017", 16_663, 0.0194, "Han format")
    >>> plot_front(Figure().subplots(), [(4963, 0.0185), (3217, 0.022)], published=[paper])
    """
    front = pareto(points)
    inside = [points[i] for i in front]
    dominated = [points[i] for i in range(len(points)) if i not in front]
    sizes, errors = np.array(inside).reshape(-1, 2).T
    axes.step(sizes, 100 * errors, "o-", where="post", color=BLUE, markersize=4)
    if dominated:
        x, y = np.array(dominated).T
        axes.plot(x, 100 * y, "o", color=light(BLUE, 0.45), markersize=4)
    axes.set(title="Test error against size", xlabel="file size (bytes)", ylabel="error (%)")
    _scale(axes)
    _draw_published(axes, published)
    named = [
        Label(label, _percent(inside), BLUE),
        Label("dominated", _percent(dominated), BLUE),
        *others,
        *_published_labels(published),
    ]
    place_labels(axes, named)


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
        axes.set(title="Validation error against size", ylabel="validation error (%)")

    caption = "Validation error against file size; published errors are test errors."
    height = 3.4 if published else 2.6
    return column_picture("front", caption, draw, lambda figure: figure.subplots(), height)


def comparison_picture(
    points: Mapping[str, tuple[float, float]], published: Sequence[Published] = ()
) -> Picture:
    """Draw several nets: test error against size, with the name of each.

    Args:
        points: bytes and error of each net by its name, the error from 0 to 1.
        published: results to compare with.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> comparison_picture({"pruned": (9_000, 0.018), "shared": (3_000, 0.02)}).name
    'comparison'
    """

    def draw(axes: "Axes") -> None:
        sizes, errors = np.array(list(points.values())).T
        axes.plot(sizes, 100 * errors, "o", color=BLUE, markersize=4)
        axes.set(title="Test error against size", xlabel="file size (bytes)", ylabel="error (%)")
        _scale(axes)
        _draw_published(axes, published)
        named = [Label(name, _percent([point]), BLUE) for name, point in points.items()]
        place_labels(axes, [*named, *_published_labels(published)])

    caption = "Test error against file size, of each net."
    if published:
        caption += " Hollow marks are published results."
    height = 3.4 if published else 2.6
    return column_picture("comparison", caption, draw, lambda figure: figure.subplots(), height)


def _published_labels(published: Sequence[Published]) -> list[Label]:
    return [Label(each.label, _percent([each[1:3]]), ORANGE) for each in published]


def _scale(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


def _draw_published(axes: "Axes", published: Sequence[Published]) -> None:
    """One series for each kind of size, and a legend of the kinds below the scale."""
    kinds = list(dict.fromkeys(result.kind for result in published))
    last = len(_MARKS) - 1
    for number, mark in enumerate(_MARKS[: len(kinds)]):
        shared = kinds[number:] if number == last else kinds[number : number + 1]
        series = [result for result in published if result.kind in shared]
        axes.plot(
            [result.size_bytes for result in series],
            [100 * result.error for result in series],
            mark,
            color=ORANGE,
            markerfacecolor="none",
            markersize=4,
            label=" or ".join(shared),
        )
    if published:
        axes.legend(
            title="Published test errors, by what the size counts",
            fontsize=7,
            title_fontsize=7,
            frameon=False,
            ncols=2,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            borderaxespad=4.5,  # below the scale
        )


def _percent(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(size, 100 * error) for size, error in points]
