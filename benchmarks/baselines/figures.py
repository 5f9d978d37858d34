"""The figures of ``docs/baselines.md``, from the results of the scripts in this folder.

    PYTHONPATH=benchmarks python benchmarks/baselines/figures.py lenet-300-100

Writes ``docs/figures/baselines-NAME-NET.png`` (and PDF). A mark is the mean over the seeds of the
results, a bar their range.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from common.results import FIGURES, RESULTS, read
from density import KEEP
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter
from shared import Row, arguments, file_of, span

from swsjax.lab import NETS
from swsjax.measure.html import Picture
from swsjax.measure.plot import Label, save_pictures
from swsjax.measure.plot.figures import alone, beside, two_high
from swsjax.measure.plot.labels import place_labels
from swsjax.measure.plot.style import BLUE, GREEN, GREY, ORANGE, PURPLE, column_picture, light

LOOKS: dict[str, dict[str, Any]] = {
    "Random": {"color": GREY, "marker": "o", "linestyle": ":"},
    "SNIP": {"color": BLUE, "marker": "o", "linestyle": "--"},
    "SNIP-MB": {"color": BLUE, "marker": "s", "linestyle": "-"},
    "Iter SNIP": {"color": GREEN, "marker": "D", "linestyle": "-"},
    "FORCE": {"color": ORANGE, "marker": "^", "linestyle": "-"},
    "GRASP": {"color": PURPLE, "marker": "o", "linestyle": "--"},
    "GRASP-MB": {"color": PURPLE, "marker": "s", "linestyle": "-"},
    "SNIP-MB after an epoch": {"color": "black", "marker": "v", "linestyle": ":"},
    "FORCE after an epoch": {"color": "black", "marker": "^", "linestyle": ":"},
}
"""Of the methods in the figures; pruning after more epochs is in the table only."""


def main() -> None:
    net, _ = arguments(__doc__)
    save_pictures(FIGURES, pictures(net))


def pictures(net: str) -> list[Picture]:
    """The figures of a net that there are results for."""
    made = {
        "density": density_pictures,
        "progressive": progressive_pictures,
        "finishers": finishers_pictures,
        "sizes": sizes_pictures,
    }
    kinds = (kind for kind in made if file_of(kind, net).exists())
    return [picture for kind in kinds for picture in made[kind](net, read(file_of(kind, net)))]


def density_pictures(net: str, content: Row) -> list[Picture]:
    """Error against density, and what is left of each layer."""
    title, keep = NETS[net].title, KEEP[net][0]
    return [
        column_picture(
            f"baselines-density-{net}",
            f"Test error of {title} against the share of weights that are left.",
            partial(draw_density, rows=content["summary"], title=title),
            alone,
            3.6,
        ),
        column_picture(
            f"baselines-layers-{net}",
            "The share of the weights of each layer that each method leaves.",
            partial(draw_layers, rows=content["seeds"], keep=keep),
            alone,
            3.2,
        ),
    ]


def progressive_pictures(net: str, content: Row) -> list[Picture]:
    """Masks of one density and of several, by the number of steps."""
    return [
        column_picture(
            f"baselines-saliency-{net}",
            "Saliency of the masks against the number of steps, relative to one step.",
            partial(draw_saliency, rows=content["seeds"]),
            beside,
            2.4,
        ),
        column_picture(
            f"baselines-steps-{net}",
            "What each of 60 steps prunes and lets return, and what is left of each layer.",
            partial(draw_steps, rows=content["seeds"], keep=content["trained"]),
            two_high,
            4.2,
        ),
        column_picture(
            f"baselines-time-{net}",
            "Test error against the time that a mask takes, by number of steps.",
            partial(draw_time, rows=content["summary"], keep=content["trained"]),
            alone,
            2.4,
        ),
    ]


def finishers_pictures(net: str, content: Row) -> list[Picture]:
    """Errors of each way to finish."""
    rate = content["training"]["learning_rate"]
    return [
        column_picture(
            f"baselines-finishers-{net}",
            "Test error by what follows pruning by magnitude.",
            partial(
                draw_finishers,
                rows=content["summary"],
                dense=f"dense, {rate:g}",
                title=NETS[net].title,
            ),
            alone,
            3.2,
        )
    ]


def sizes_pictures(net: str, content: Row) -> list[Picture]:
    """Error against bytes."""
    published = RESULTS / f"targets-{net}.json"
    targets = read(published)["summary"] if published.exists() else {}
    return [
        column_picture(
            f"baselines-sizes-{net}",
            "Test error against the size of the file.",
            partial(draw_sizes, rows=content["summary"], targets=targets, title=NETS[net].title),
            alone,
            3.4,
        )
    ]


def draw_density(axes: Axes, rows: Sequence[Row], title: str) -> None:
    """Error against density, one line per method."""
    for method, look in LOOKS.items():
        of_method = [row for row in rows if row["method"] == method]
        if not of_method:
            continue
        of_method.sort(key=lambda row: row["keep"])
        draw_means(
            axes,
            [100 * row["keep"] for row in of_method],
            [row["test_error"] for row in of_method],
            label=method,
            markersize=3.5,
            linewidth=1,
            **look,
        )
    (dense,) = (row["test_error"]["mean"] for row in rows if row["method"] == "dense")
    axes.axhline(100 * dense, color=light(GREY, 0.6), linewidth=1, label="dense")
    axes.set(title=title, xlabel="weights left (%)", ylabel="test error (%)")
    in_percent(axes, "both")
    under(axes, columns=3)


def draw_layers(axes: Axes, rows: Sequence[Row], keep: float) -> None:
    """The share of each layer that is left, one line of marks per layer."""
    chosen = [row for row in rows if row["keep"] == keep]
    names = list(chosen[0]["layers"])
    for number, (method, look) in enumerate(LOOKS.items()):
        shares = [list(row["layers"].values()) for row in chosen if row["method"] == method]
        if not shares:
            continue
        places = np.arange(len(names)) + 0.09 * (number - (len(LOOKS) - 1) / 2)
        draw_means(
            axes,
            places,
            [span(values) for values in zip(*shares, strict=True)],
            label=method,
            markersize=3.5,
            **look | {"linestyle": ""},
        )
    axes.set(title=f"{100 * keep:g} % of the weights", ylabel="left of the layer (%)")
    axes.set_xticks(range(len(names)), names)
    in_percent(axes, "y")
    under(axes, columns=3)


def draw_saliency(axes: Sequence[Axes], rows: Sequence[Row]) -> None:
    """Saliency relative to one step, for each density; one axes per kind of gradient."""
    # A density whose masks of one step let no gradient through has nothing to be relative to.
    dead = {row["keep"] for row in rows if row["steps"] == 1 and not row["saliency"]}
    keeps = sorted({row["keep"] for row in rows} - dead)
    colors = dict(zip(keeps, (ORANGE, BLUE, GREY), strict=False))
    for axis, method in zip(axes, ("FORCE", "Iter SNIP"), strict=True):
        for keep, color in colors.items():
            chosen = [row for row in rows if (row["method"], row["keep"]) == (method, keep)]
            alone = {row["seed"]: row["saliency"] for row in chosen if row["steps"] == 1}
            steps = sorted({row["steps"] for row in chosen})
            relative = [
                span(
                    row["saliency"] / alone[row["seed"]] for row in chosen if row["steps"] == number
                )
                for number in steps
            ]
            label = f"{100 * keep:g} %"
            draw_means(axis, steps, relative, 1, label=label, marker="o", markersize=3, color=color)
        axis.axhline(1, color=light(GREY, 0.5), linewidth=0.8, zorder=0)
        axis.set(title=method, xlabel="steps", xscale="log", yscale="log")
        axis.set_xticks(steps, map(str, steps))
        axis.minorticks_off()
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        plain(axis.yaxis, 1, 1.2, 1.5, 2, 3, 5, 8)
        axis.set_ylim(low, high)
    axes[0].set_ylabel("saliency, relative to one step")
    axes[0].legend(title="weights left", title_fontsize=7)


def draw_steps(axes: Sequence[Axes], rows: Sequence[Row], keep: float) -> None:
    """Weights pruned and recovered in each step above, shares of layers left below; one seed."""
    changes, shares = axes
    chosen = [row for row in rows if row["keep"] == keep and row["seed"] == rows[0]["seed"]]
    longest = max(row["steps"] for row in chosen)
    for method, style in (("FORCE", "-"), ("Iter SNIP", "--")):
        (row,) = (row for row in chosen if (row["method"], row["steps"]) == (method, longest))
        steps = np.arange(1, longest + 1)
        for name, color in (("pruned", BLUE), ("recovered", ORANGE)):
            values = np.array(row[name], float)
            if values.any():
                label = f"{name}, {method}"
                changes.plot(steps, values, style, color=color, linewidth=1, label=label)
        for color, name in zip((BLUE, GREEN, PURPLE, ORANGE), row["layers"][0], strict=False):
            left = [100 * layers[name] for layers in row["layers"]]
            label = f"{name}, {method}"
            shares.plot(steps, left, style, color=color, linewidth=1, label=label)
    changes.set(title=f"To {100 * keep:g} %", ylabel="weights", yscale="log")
    changes.legend()
    shares.set(xlabel="step", ylabel="left of the layer (%)", yscale="log")
    in_percent(shares, "y")
    shares.legend(ncols=2)


def draw_time(axes: Axes, rows: Sequence[Row], keep: float) -> None:
    """Error against processor seconds of the mask; numbers of steps as labels."""
    labels = []
    for method in ("FORCE", "Iter SNIP"):
        chosen = [row for row in rows if row["method"] == method and "test_error" in row]
        chosen.sort(key=lambda row: row["steps"])
        seconds = [row["mask_processor_seconds"]["mean"] for row in chosen]
        errors = [row["test_error"] for row in chosen]
        look = LOOKS[method]
        draw_means(axes, seconds, errors, label=method, markersize=3.5, linewidth=1, **look)
        if method == "FORCE":
            labels = [
                Label(f"{row['steps']} steps" if row["steps"] > 1 else "SNIP", [(second, y)])
                for row, second, y in zip(
                    chosen, seconds, [100 * error["mean"] for error in errors], strict=True
                )
            ]
    axes.set(title=f"{100 * keep:g} % of the weights", ylabel="test error (%)")
    axes.set(xlabel="processor seconds for the mask", xscale="log")
    plain(axes.xaxis, 1, 2, 5)
    axes.legend()
    place_labels(axes, labels)


def draw_finishers(axes: Axes, rows: Sequence[Row], dense: str, title: str) -> None:
    """Errors in lines, one for each way to finish; colours are densities."""
    pruned = [row for row in rows if row["keep"] < 1]
    names = list(dict.fromkeys(row["finish"] for row in pruned if row["finish"] != "pruned only"))
    densities = sorted({row["keep"] for row in pruned}, reverse=True)
    for keep, color, mark in zip(densities, (BLUE, ORANGE, GREEN), "osD", strict=False):
        found = {row["finish"]: row["test_error"] for row in pruned if row["keep"] == keep}
        present = [name for name in names if name in found]
        means = [100 * found[name]["mean"] for name in present]
        low = [mean - 100 * found[name]["min"] for name, mean in zip(present, means, strict=True)]
        high = [100 * found[name]["max"] - mean for name, mean in zip(present, means, strict=True)]
        label = f"{100 * keep:g} % of the weights"
        places = [names.index(name) for name in present]
        axes.errorbar(
            means, places, xerr=[low, high], fmt=mark, color=color, markersize=4, label=label
        )
    (unpruned,) = (row["test_error"]["mean"] for row in rows if row["finish"] == dense)
    axes.axvline(100 * unpruned, color=GREY, linestyle=":", linewidth=1, label="dense")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="test error (%)", xscale="log")
    plain(axes.xaxis, 1, 2, 3, 5)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    under(axes, columns=3)


def draw_sizes(axes: Axes, rows: Sequence[Row], targets: dict[str, Row], title: str) -> None:
    """Error against bytes: filled marks with a codebook, hollow ones before it."""
    labels = []
    for method in dict.fromkeys(row["method"] for row in rows):
        look = LOOKS.get(method, {"color": GREEN, "marker": "s"})
        chosen = [row for row in rows if row["method"] == method]
        chosen.sort(key=lambda row: row["keep"])
        for kind, fill in (("", look["color"]), ("raw_", "none")):
            sizes = [row[f"{kind}file_bytes"]["mean"] for row in chosen]
            draw_means(
                axes,
                sizes,
                [row[f"{kind}test_error"] for row in chosen],
                markersize=3.5,
                linewidth=1,
                **look | {"markerfacecolor": fill, "linestyle": "-" if fill != "none" else ":"},
            )
            name = f"{method}{' + k-means' if not kind else ''}"
            points = [
                (size, 100 * row[f"{kind}test_error"]["mean"])
                for size, row in zip(sizes, chosen, strict=True)
            ]
            labels.append(Label(name, points, look["color"]))
    found = sorted(
        (row["file_bytes"]["mean"], 100 * row["test_error"]["mean"]) for row in targets.values()
    )
    if found:
        axes.plot(*zip(*found, strict=True), "*-", color="black", markersize=5, linewidth=1)
        labels.append(Label("soft weight-sharing (longer)", found))
    axes.set(title=title, xlabel="file size (bytes)", ylabel="test error (%)")
    axes.set(xscale="log", yscale="log")
    plain(axes.xaxis, 1, 2, 5)
    plain(axes.yaxis, 1, 2, 3, 4, 5, 7)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    place_labels(axes, labels)


def draw_means(
    axes: Axes, x: Iterable[float], spans: Sequence[Row], scale: float = 100, **look: Any
) -> None:
    """Means with their ranges; shares in percent."""
    means = scale * np.array([one["mean"] for one in spans])
    low = means - scale * np.array([one["min"] for one in spans])
    high = scale * np.array([one["max"] for one in spans]) - means
    axes.errorbar(x, means, yerr=[low, high], elinewidth=0.7, **{"linewidth": 1} | look)


def in_percent(axes: Axes, which: str) -> None:
    """Logarithmic scales with plain numbers."""
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if which in (name, "both"):
            axes.set(**{f"{name}scale": "log"})
            plain(axis, 1, 2, 5)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


def plain(axis: Axis, *leading: float) -> None:
    """Plain numbers on a logarithmic scale, those that begin with these digits."""
    axis.set_major_locator(LogLocator(subs=leading))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def under(axes: Axes, columns: int) -> None:
    """A legend below the scale."""
    axes.legend(
        ncols=columns,
        loc="upper center",
        bbox_to_anchor=(0.45, 0),
        borderaxespad=3.6,
        columnspacing=1,
        handlelength=2.2,
    )


if __name__ == "__main__":
    main()
