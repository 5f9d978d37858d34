"""The whole frontier of error against bytes: one seed, from the small loss to the small file.

    SWSJAX_DATA=... python benchmarks/frontier.py [NET]

The points are that seed's of the settings of the results table (run ``table1.py`` before), and
others between and beyond them: the settings of the balanced row, or of the smallest where more is
pruned than in the balanced one, with another share kept. Points that are done are not run again,
unless the settings changed. Writes ``results/NET/frontier/kept-KEPT.json`` for each,
``results/frontier-NET.json`` for all, and the figure ``docs/figures/front-NET.png``, in which the
rows of the table (three seeds) and published results stand too. On two cores a point of
LeNet-300-100 takes a minute, one of LeNet-5-Caffe about ten.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from row import RESULTS, run_row
from table1 import NETS

from swsjax import published
from swsjax.file.atomic import write_bytes
from swsjax.measure.plot import plot_front
from swsjax.measure.plot.style import BLUE, GREY, column_png
from swsjax.sws.recipes import Recipe, Settings

KEPT = {"lenet-300-100": (0.8, 0.65, 0.4, 0.2), "lenet-5-caffe": (0.85, 0.5, 0.25)}
SEED = 0
FIGURES = Path(__file__).parent.parent / "docs" / "figures"
TITLES = {"lenet-300-100": "LeNet-300-100 on MNIST", "lenet-5-caffe": "LeNet-5-Caffe on MNIST"}


def run(name: str) -> None:
    net = NETS[name]
    for kept in KEPT[name]:
        run_row(
            command=f"python benchmarks/frontier.py {name}",
            net=name,
            model=net.model,
            pretraining=net.pretraining,
            setting=f"kept-{kept}",
            recipe=with_kept(net.settings, kept),
            seeds=(SEED,),
            folder=RESULTS / name / "frontier",
        )


def with_kept(settings: Settings, kept: float) -> Recipe:
    """Between and beyond the rows of the table: the nearer one's settings, another share kept."""
    below = kept < settings.balanced.config.kept
    nearest = settings.smallest if below else settings.balanced
    return nearest._replace(config=replace(nearest.config, kept=kept))


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows in a folder."""
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def frontier(name: str) -> list[dict[str, Any]]:
    """The points of one seed, smallest file first; written to ``results/frontier-NET.json``."""
    points = [
        {
            "setting": row["setting"],
            "file_bytes": point["file_bytes"],
            "han_rate": point["rates"]["han"],
            "validation_error": point["errors"]["decoded file (validation)"],
            "test_error": point["errors"]["decoded file (test)"],
            "pretrained_test_error": point["errors"]["pretrained (test)"],
        }
        for row in rows(RESULTS / name) + rows(RESULTS / name / "frontier")
        for point in row["seeds"]
        if point["seed"] == SEED
    ]
    points.sort(key=lambda point: point["file_bytes"])
    content = {"command": f"python benchmarks/frontier.py {name}", "seed": SEED, "points": points}
    text = json.dumps(content, indent=1) + "\n"
    write_bytes(RESULTS / f"frontier-{name}.json", text.encode())
    return points


def draw(name: str) -> None:
    points = frontier(name)
    # One seed gives other nets on other machines.
    before = [100 * point["pretrained_test_error"] for point in points]

    def front(axes: Axes) -> None:
        axes.axhspan(min(before), max(before), color=GREY, alpha=0.4, label="pretrained, that seed")
        for number, row in enumerate(rows(RESULTS / name)):
            size, error = row["summary"]["file_bytes"], row["summary"]["test_error"]
            axes.errorbar(
                size["mean"],
                100 * error["mean"],
                xerr=[[size["mean"] - size["min"]], [size["max"] - size["mean"]]],
                yerr=[
                    [100 * (error["mean"] - error["min"])],
                    [100 * (error["max"] - error["mean"])],
                ],
                fmt="s",
                markersize=3,
                color=BLUE,
                capsize=2,
                label=None if number else "settings of the table, mean and range of the seeds",
            )
        sizes = [(point["file_bytes"], point["test_error"]) for point in points]
        plot_front(axes, sizes, published=published.BY_NET[name], label="files of one seed")
        axes.set(
            title=TITLES[name], xlabel="file, or as published (bytes)", ylabel="test error (%)"
        )

    FIGURES.mkdir(exist_ok=True)
    png = column_png(front, lambda figure: figure.subplots(), height=4.2)
    write_bytes(FIGURES / f"front-{name}.png", png)


if __name__ == "__main__":
    for net_name in sys.argv[1:] or NETS:
        run(net_name)
        draw(net_name)
