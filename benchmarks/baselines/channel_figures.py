"""The figures of ``docs/channels.md``, from the results of the scripts in this folder.

    PYTHONPATH=benchmarks python benchmarks/baselines/channel_figures.py lenet-5-caffe

Writes ``docs/figures/channels-NAME-NET.png`` (and PDF): errors by score, histograms of the norms of
each layer, the channels that each norm keeps, and how many each method keeps, if any chooses the
layers. Marks and bars of means are over the seeds, thin lines their range.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from channel_tasks import inputs
from common.results import FIGURES, read
from figures import draw_means, in_percent, under
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from shared import Row, file_of, span

from swsjax.baselines import channels_kept
from swsjax.lab import NETS
from swsjax.measure.html import Picture
from swsjax.measure.plot import save_pictures
from swsjax.measure.plot.figures import alone
from swsjax.measure.plot.style import BLUE, GREEN, GREY, ORANGE, PURPLE, column_picture

NORMS = ("L1", "spectral")
"""Whose histograms are drawn."""
AUTOMATIC = {"slimming", "SSS"}
HALF = 0.5
"""The share of the channels of each layer in the figure of the structure."""


def main() -> None:
    net, _ = inputs(__doc__)
    save_pictures(FIGURES, pictures(net))


def pictures(net: str) -> Iterator[Picture]:
    """All figures of a net that has results."""
    title = NETS[net].title
    scores = read(file_of("channels", net))["summary"]
    yield column_picture(
        f"channels-scores-{net}",
        f"Errors of {title} by the score of the channels, before and after fine-tuning.",
        partial(draw_scores, rows=scores, title=title),
        alone,
        3.0,
    )
    layers = [row for row in read(file_of("sensitivity", net))["seeds"] if row["seed"] == 0]
    yield column_picture(
        f"channels-norms-{net}",
        f"Histograms of the norms of the channels of each hidden layer of {title}.",
        partial(draw_norms, rows=layers),
        partial(grid, rows=len(layers), columns=len(NORMS)),
        0.4 + 0.8 * len(layers),
    )
    yield column_picture(
        f"channels-structure-{net}",
        f"Which channels of each hidden layer of {title} are kept by each norm.",
        partial(draw_structure, rows=layers),
        partial(grid, rows=len(layers), columns=1),
        0.5 + 0.9 * len(layers),
    )
    finished = read(file_of("channel-finishers", net))["seeds"]
    if AUTOMATIC & {row["method"] for row in finished}:
        yield column_picture(
            f"channels-widths-{net}",
            f"The channels of each layer of {title} that each method keeps.",
            partial(draw_widths, rows=finished, title=title),
            alone,
            3.0,
        )


def draw_scores(axes: Axes, rows: Sequence[Row], title: str) -> None:
    """Error by score, one colour per ratio: hollow before fine-tuning, full after it."""
    pruned = [row for row in rows if row["keep"] < 1]
    names = list(dict.fromkeys(row["method"] for row in pruned))
    keeps = sorted({row["keep"] for row in pruned}, reverse=True)
    for number, (keep, color) in enumerate(zip(keeps, (BLUE, ORANGE), strict=True)):
        found = {row["method"]: row for row in pruned if row["keep"] == keep}
        places = np.arange(len(names)) + 0.16 * (number - 0.5)
        for figure, fill, when in (
            ("pruned_validation_error", "none", "not tuned"),
            ("validation_error", color, "fine-tuned"),
        ):
            draw_means(
                axes,
                places,
                [found[name][figure] for name in names],
                color=color,
                marker="o",
                linestyle="",
                markersize=4,
                markerfacecolor=fill,
                label=f"{100 * keep:g} %, {when}",
            )
    axes.set(title=title, ylabel="validation error (%)")
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    in_percent(axes, "y")
    under(axes, columns=2)


def grid(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """Axes in rows, one per layer."""
    axes: np.ndarray = figure.subplots(rows, columns, squeeze=False)
    return axes


def draw_norms(axes: np.ndarray, rows: Sequence[Row]) -> None:
    """Number of channels by norm, relative to the largest of the layer, with the skewness."""
    for of_layer, row in zip(axes, rows, strict=True):
        of_layer[0].set_ylabel(row["layer"])
        for place, norm in zip(of_layer, NORMS, strict=True):
            norms = np.array(row["norms"][norm])
            place.hist(norms / norms.max(), bins=np.linspace(0, 1, 21), color=BLUE)
            place.text(
                0.03, 0.95, f"{row['skewness'][norm]:.1f}", transform=place.transAxes, va="top"
            )
            place.yaxis.get_major_locator().set_params(integer=True, nbins=3)
            place.tick_params(labelbottom=row is rows[-1])
    for place, norm in zip(axes[0], NORMS, strict=True):
        place.set_title(norm)
    for place in axes[-1]:
        place.set_xlabel("norm / largest norm")


def draw_structure(axes: np.ndarray, rows: Sequence[Row]) -> None:
    """The channels that each norm keeps, in a row; columns are channels, by their L1 norm."""
    for (place,), row in zip(axes, rows, strict=True):
        norms = {name: np.array(values) for name, values in row["norms"].items()}
        order = np.argsort(-norms["L1"])
        kept = channels_kept(len(order), HALF)
        drawn = [np.isin(order, np.argsort(-values)[:kept]) for values in norms.values()]
        place.pcolormesh(drawn, cmap=ListedColormap(["white", BLUE]), vmin=0, vmax=1)
        place.hlines(range(1, len(norms)), 0, len(order), color="white", linewidth=2)
        place.set_yticks(np.arange(len(norms)) + 0.5, list(norms))
        place.tick_params(axis="y", length=0)
        place.invert_yaxis()
        place.set_title(row["layer"])
        place.xaxis.get_major_locator().set_params(integer=True)
    place.set_xlabel("channels, from the largest L1 norm")


def draw_widths(axes: Axes, rows: Sequence[Row], title: str) -> None:
    """The share of the channels of each layer that is kept, methods side by side."""
    (whole, *_) = (row["channels"] for row in rows if row["method"] == "dense")
    pruned = [row for row in rows if row["finish"] == "pruned only"]
    names = list(dict.fromkeys(row["method"] for row in pruned))
    width = 0.8 / len(names)
    colors = (BLUE, GREEN, PURPLE, GREY, ORANGE, "black")
    for number, (name, color) in enumerate(zip(names, colors, strict=False)):
        shares = [
            span(
                100 * row["channels"].get(layer, 0) / size
                for row in pruned
                if row["method"] == name
            )
            for layer, size in whole.items()
        ]
        means = np.array([share["mean"] for share in shares])
        ranges = [
            means - [share["min"] for share in shares],
            [share["max"] for share in shares] - means,
        ]
        places = np.arange(len(whole)) + width * (number - (len(names) - 1) / 2)
        axes.bar(places, means, width, yerr=ranges, color=color, label=name, error_kw={"lw": 0.7})
    axes.set(title=title, ylabel="channels kept (%)")
    axes.set_xticks(range(len(whole)), list(whole))
    under(axes, columns=3)


if __name__ == "__main__":
    main()
