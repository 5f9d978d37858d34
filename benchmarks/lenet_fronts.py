"""The front of error against bytes of one seed, from the small loss to the small file.

    SWSJAX_DATA=... python benchmarks/lenet_fronts.py [NET]

The points are the settings of the results table (run ``lenets.py`` first), and others between and
beyond them: the balanced recipe, or the smallest where more is pruned than in the balanced one,
with a different ``keep``. Writes ``results/NET/frontier/kept-KEEP.json`` for each of these,
``results/frontier-NET.json`` for all, and the figure ``docs/figures/front-NET.png`` (and PDF),
which also has the rows of the table (three seeds) and published results.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common.results import FIGURES, RESULTS, read, write
from common.rows import Row, add_seeds
from matplotlib.axes import Axes

from swsjax.lab import NETS
from swsjax.measure import published
from swsjax.measure.plot import Label, plot_front, save_pictures
from swsjax.measure.plot.style import GREEN, GREY, column_picture, light
from swsjax.sws.recipes import RECIPES, Recipe

KEEP = {"lenet-300-100": (0.8, 0.65, 0.4, 0.2), "lenet-5-caffe": (0.85, 0.5, 0.25)}
SEED = 0


def main(*nets: str) -> None:
    for net in nets or RECIPES:
        for keep in KEEP[net]:
            folder = RESULTS / net / "frontier"
            command = f"lenet_fronts.py {net}"
            add_seeds(Row(command, net, f"kept-{keep}", with_keep(net, keep), folder), [SEED])
        points = points_of(net)
        command = f"python benchmarks/lenet_fronts.py {net}"
        content = {"command": command, "seed": SEED, "points": points}
        write(RESULTS / f"frontier-{net}.json", content)
        draw(net, points)


def with_keep(net: str, keep: float) -> Recipe:
    """The nearer recipe of the table, with a different ``keep``."""
    recipes = RECIPES[net]
    below = keep < recipes.balanced.config.keep
    nearest = recipes.smallest if below else recipes.balanced
    return nearest._replace(config=replace(nearest.config, keep=keep))


def points_of(net: str) -> list[dict[str, Any]]:
    """The files of the seed, smallest first."""
    points = [
        {
            "setting": row["setting"],
            "file_bytes": point["file_bytes"],
            "han_rate": point["rates"]["han"],
            "validation_error": point["errors"]["decoded"]["validation"],
            "test_error": point["errors"]["decoded"]["test"],
            "pretrained_test_error": point["errors"]["pretrained"]["test"],
        }
        for row in rows(RESULTS / net) + rows(RESULTS / net / "frontier")
        for point in row["seeds"]
        if point["seed"] == SEED
    ]
    return sorted(points, key=lambda point: point["file_bytes"])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [read(path) for path in sorted(folder.glob("*.json"))]


def draw(net: str, points: list[dict[str, Any]]) -> None:
    # A seed gives different nets on different machines, hence a range.
    before = [100 * point["pretrained_test_error"] for point in points]
    sizes = [(point["file_bytes"], point["test_error"]) for point in points]
    summaries = [row["summary"] for row in rows(RESULTS / net)]
    means = [
        (summary["file_bytes"]["mean"], 100 * summary["test_error"]["mean"])
        for summary in summaries
    ]

    along = np.geomspace(*sizes[0][:1], *sizes[-1][:1], 12)
    in_band = [(size, (min(before) + max(before)) / 2) for size in along]

    def front(axes: Axes) -> None:
        axes.axhspan(min(before), max(before), color=light(GREY), zorder=0)
        for summary in summaries:
            draw_range(axes, summary)
        labels = [
            Label("three seeds: mean and range", means, GREEN),
            Label("pretrained nets of the one seed", in_band, GREY),
        ]
        others = published.BY_NET[net]
        plot_front(axes, sizes, published=others, label="one seed", others=labels)
        axes.set(title=f"{NETS[net].title} on MNIST", ylabel="test error (%)")

    caption = "Test error against file size; published errors are test errors."
    drawn = column_picture(f"front-{net}", caption, front, lambda figure: figure.subplots(), 4.2)
    save_pictures(FIGURES, [drawn])


def draw_range(axes: Axes, summary: dict[str, Any]) -> None:
    """Mean and range of a row of the table."""
    size, error = summary["file_bytes"], summary["test_error"]
    axes.errorbar(
        size["mean"],
        100 * error["mean"],
        xerr=[[size["mean"] - size["min"]], [size["max"] - size["mean"]]],
        yerr=[[100 * (error["mean"] - error["min"])], [100 * (error["max"] - error["mean"])]],
        fmt="s",
        markersize=3,
        linewidth=1,
        color=GREEN,
        capsize=2,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
