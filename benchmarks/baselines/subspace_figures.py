"""The figures of ``docs/subspaces.md``, from the results of ``subspaces.py``.

    PYTHONPATH=benchmarks python benchmarks/baselines/subspace_figures.py

Writes ``docs/figures/subspaces-NAME.png`` (and PDF). A mark is the mean over the seeds of the
results, a bar their range.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from common.results import FIGURES
from figures import draw_means, in_percent, plain
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from shared import Row, span
from subspace_tables import (
    DENSE,
    LINES,
    RESIDUAL,
    TITLES,
    files_of_others,
    files_of_subspaces,
    levels_of,
    means,
    probed,
    trained_levels,
)

from swsjax.measure.html import Picture
from swsjax.measure.plot import Label
from swsjax.measure.plot.figures import alone, save_pictures, two_high
from swsjax.measure.plot.labels import place_labels
from swsjax.measure.plot.style import BLUE, GREEN, GREY, ORANGE, PURPLE, column_picture, light

LOOKS: dict[str, dict[str, Any]] = {
    "line": {"color": ORANGE, "marker": "^", "linestyle": "-"},
    "point": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "line, high sparsity": {"color": ORANGE, "marker": "^", "linestyle": "--"},
    "point, high sparsity": {"color": BLUE, "marker": "o", "linestyle": "--"},
    "point, decaying": {"color": BLUE, "marker": "P", "linestyle": ":"},
    "universal slimming": {"color": GREEN, "marker": "s", "linestyle": "-"},
    "slimmable": {"color": PURPLE, "marker": "D", "linestyle": "-"},
    "LEC": {"color": GREY, "marker": "v", "linestyle": ":"},
}
TARGETS: list[dict[str, Any]] = [
    {"color": GREEN, "marker": "s", "linestyle": ":"},
    {"color": PURPLE, "marker": "D", "linestyle": ":"},
]
"""Of nets for one target, in the order of the results."""
AXES = {"share": "weights left (%)", "width": "channels left (%)", "bits": "bits"}


def main() -> None:
    save_pictures(FIGURES, pictures())


def pictures() -> list[Picture]:
    """All figures of the page."""

    def picture(name: str, caption: str, draw: Callable, layout: Callable, high: float) -> Picture:
        return column_picture(f"subspaces-{name}", caption, draw, layout, high)

    return [
        picture(
            "share",
            "Test error against the share of weights that are left.",
            partial(draw_both, kind="share"),
            two_high,
            5,
        ),
        picture(
            "width",
            "Test error against the share of channels that are left.",
            partial(draw_errors, net=RESIDUAL, kind="width"),
            alone,
            3,
        ),
        picture(
            "bits",
            "Test error against the number of bits of the weights.",
            partial(draw_both, kind="bits"),
            two_high,
            4.6,
        ),
        picture(
            "reversed",
            "Test error on the learned line and on the reversed one.",
            draw_reversed,
            partial(grid, rows=3),
            5,
        ),
        picture(
            "probe",
            "Distance of stored from observed means, and test error, by level.",
            draw_probe,
            partial(grid, rows=3),
            5,
        ),
        picture(
            "sizes",
            "Test error against the size of the file.",
            draw_sizes,
            alone,
            3.6,
        ),
    ]


def grid(figure: Figure, rows: int) -> list[Axes]:
    """Two axes in each row."""
    return list(figure.subplots(rows, 2).ravel())


def draw_both(axes: Sequence[Axes], kind: str) -> None:
    """Error against level of both nets, one above the other."""
    for axis, net in zip(axes, (DENSE, RESIDUAL), strict=True):
        draw_errors(axis, net, kind)


def draw_errors(axes: Axes, net: str, kind: str) -> None:
    """Error against level, one line per system with its name."""
    rows, labels = means(net, kind), []
    systems = list(dict.fromkeys(row["system"] for row in rows))
    targets = [system for system in systems if system not in LOOKS]
    looks = LOOKS | dict(zip(targets, TARGETS, strict=False))
    for system in systems:
        found = sorted(
            (row for row in rows if row["system"] == system), key=lambda row: row["level"]
        )
        levels = [on_axis(kind, row["level"]) for row in found]
        errors = [row["test_error"] for row in found]
        draw_means(axes, levels, errors, markersize=3, **looks[system])
        points = [(x, 100 * y["mean"]) for x, y in zip(levels, errors, strict=True)]
        labels.append(Label(label_of(system, kind), points, looks[system]["color"]))
    axes.set(title=TITLES[net], xlabel=AXES[kind], ylabel="test error (%)")
    scaled(axes, kind)
    place_labels(axes, labels)


def draw_reversed(axes: Sequence[Axes]) -> None:
    """Lines against themselves reversed, a line of a net in each axes."""
    found = []
    for net, kind in LINES:
        rows = [row for row in means(net, kind) if "reversed_test_error" in row]
        for system in dict.fromkeys(row["system"] for row in rows):
            found.append((net, kind, [row for row in rows if row["system"] == system]))
    for axis, (net, kind, rows) in zip(axes, found, strict=True):
        system = rows[0]["system"]
        levels = trained_levels(system, [row["level"] for row in rows])
        of_level = {row["level"]: row for row in rows}
        x = [on_axis(kind, level) for level in levels]
        for name, color, style in (("", ORANGE, "^-"), ("reversed_", GREY, "v--")):
            errors = [of_level[level][f"{name}test_error"] for level in levels]
            look = {"color": color, "marker": style[0], "linestyle": style[1:]}
            draw_means(axis, x, errors, markersize=3, **look)
        axis.set_title("LeNet, high sparsity" if "high" in system else TITLES[net])
        axis.set_xlabel(AXES[kind])
        scaled(axis, kind)
    axes[0].plot([], [], "^-", color=ORANGE, markersize=3, linewidth=1, label="learned")
    axes[0].plot([], [], "v--", color=GREY, markersize=3, linewidth=1, label="reversed")
    axes[0].legend()
    for axis in axes[::2]:
        axis.set_ylabel("test error (%)")


def draw_probe(axes: Sequence[Axes]) -> None:
    """Distances of all norms on the left, the error on the right; a kind of net in each row."""
    for (left, right), ((kind, system), rows) in zip(
        zip(axes[::2], axes[1::2], strict=True), probed().items(), strict=True
    ):
        levels = levels_of(rows)
        x = [on_axis(kind, level) for level in levels]
        at_level = [[row for row in rows if row["level"] == level] for level in levels]
        for layer in rows[0]["distances"]:
            means = [np.mean([row["distances"][layer] for row in found]) for found in at_level]
            left.plot(x, means, color=light(BLUE, 0.45), linewidth=0.8)
        averages = [
            [float(np.mean([*row["distances"].values()])) for row in found] for found in at_level
        ]
        draw_means(
            left, x, [span(found) for found in averages], 1, color=BLUE, marker="o", markersize=3
        )
        errors = [span([row["test_error"] for row in found]) for found in at_level]
        draw_means(right, x, errors, color=ORANGE, marker="^", markersize=3)
        for axis, title in ((left, "distance of means"), (right, "test error (%)")):
            axis.set_title(label_of(system, kind) if axis is left else " ")
            axis.set(xlabel=AXES[kind], ylabel=title)
            scaled(axis, kind, vertical=axis is right)
    last = axes[-2]
    last.plot([], [], "o-", color=BLUE, markersize=3, linewidth=1, label="mean of all norms")
    last.plot([], [], color=light(BLUE, 0.45), linewidth=0.8, label="each norm")
    last.legend(loc="upper center", bbox_to_anchor=(0.45, 0), borderaxespad=3.6)


def draw_sizes(axes: Axes) -> None:
    """Error against bytes of LeNet-300-100, with what other pages have."""
    curves: dict[str, list[tuple[float, Row]]] = {}
    looks: dict[str, dict[str, Any]] = {
        "line": LOOKS["line"],
        "point": LOOKS["point"],
        "line, high sparsity": LOOKS["line, high sparsity"],
        "point, high sparsity": LOOKS["point, high sparsity"],
        "line of bits": {"color": GREEN, "marker": "s", "linestyle": "-"},
        "point of bits": {"color": GREEN, "marker": "s", "linestyle": ":"},
        "universal slimming": {"color": PURPLE, "marker": "D", "linestyle": "-"},
        "magnitude": {"color": GREY, "marker": "o", "linestyle": ":"},
        "soft weight-sharing": {"color": "black", "marker": "*", "linestyle": ":"},
        "soft weight-sharing, longer": {"color": "black", "marker": "*", "linestyle": "-"},
    }
    for row in [*files_of_subspaces(), *files_of_others()]:
        name = row.family.removesuffix(", share").replace(", bits", " of bits")
        # Of nets of few weights, with codebooks only.
        if name in looks and (not row.family.endswith("share") or "k-means" in row.setting):
            curves.setdefault(name, []).append((row.file_bytes, row.test_error))
    labels = []
    for name, look in looks.items():
        points = sorted(curves[name], key=lambda point: point[0])
        sizes, errors = zip(*points, strict=True)
        draw_means(axes, sizes, errors, markersize=3, **look)
        where = [(size, 100 * error["mean"]) for size, error in zip(sizes, errors, strict=True)]
        labels.append(Label(name, where, look["color"]))
    axes.set(title=TITLES[DENSE], xlabel="file size (bytes)", ylabel="test error (%)")
    axes.set(xscale="log", yscale="log")
    plain(axes.xaxis, 1, 3)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    plain(axes.yaxis, 1, 2, 5)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    place_labels(axes, labels)


def on_axis(kind: str, level: float) -> float:
    return level if kind == "bits" else 100 * level


def label_of(system: str, kind: str) -> str:
    return f"{system} bits" if kind == "bits" and "target" in system else system


def scaled(axes: Axes, kind: str, *, vertical: bool = True) -> None:
    """Logarithmic scales with plain numbers for errors and shares; others are linear."""
    if vertical:
        in_percent(axes, "y")
        plain(axes.yaxis, 1, 1.5, 2, 3, 5, 7)
    if kind == "share":
        in_percent(axes, "x")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    main()
