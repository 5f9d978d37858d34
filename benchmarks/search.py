"""A search for settings of LeNet-300-100 on MNIST: the front of validation error against bytes.

    SWSJAX_DATA=... python benchmarks/search.py

``swsjax search`` around the balanced setting, from a net that ``swsjax pretrain`` makes; the same
line started again, or beside it, is another worker of the same search. What is kept under ``runs/``
goes on where it was; delete it after a change of the code. Of the points that beat the first trial,
which has the settings as they were, in both error and bytes, that of the smallest error is run
again, its file decoded, and the test images looked at; so are the defaults of the command. Writes
``results/search-lenet-300-100.json`` and the figure ``docs/figures/search-lenet-300-100.png``. A
trial takes about three minutes on two cores.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optuna
from matplotlib.axes import Axes
from row import RESULTS, RUNS

from swsjax import published
from swsjax.file.atomic import write_bytes
from swsjax.cli.main import main
from swsjax.measure.plot import plot_front
from swsjax.measure.plot.style import column_png

NET = "lenet-300-100"
TRIALS = 40
TARGET = RESULTS / f"search-{NET}.json"
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / f"search-{NET}.png"
PRETRAINED, SEARCH = RUNS / "pretrained", RUNS / "search"


def run() -> dict[str, Any]:
    """Pretrain, search, run the chosen point again; what was done is not done again."""
    on_mnist = [NET, "--data", "mnist"]
    if not (PRETRAINED / "pretrain.json").exists():
        command("pretrain", *on_mnist, "--out", str(PRETRAINED))
    from_it = [*on_mnist, "--checkpoint", str(PRETRAINED / "checkpoint")]
    command("search", *from_it, "--trials", str(TRIALS), "--out", str(SEARCH))
    found = json.loads((SEARCH / "front.json").read_text())
    first = first_of(found)
    better = [point for point in found["front"] if beats(point, first)]
    chosen = min(better, key=lambda point: point["error"]) if better else first
    settings = SEARCH / f"chosen-{chosen['trial']}.json"
    settings.write_text(json.dumps(chosen["config"]))
    return {
        "command": "python benchmarks/search.py",
        "net": NET,
        "versions": {one.__name__: one.__version__ for one in (jax, np, optuna)},
        "pretrained": json.loads((PRETRAINED / "pretrain.json").read_text()),
        "better_than_the_first": [point["trial"] for point in better],
        "chosen": {
            "trial": chosen["trial"],
            "report": compressed(f"trial-{chosen['trial']}", *from_it, "--config", str(settings)),
        },
        "defaults": compressed("defaults", *from_it),
        **found,
    }


def compressed(name: str, *arguments: str) -> dict[str, Any]:
    """The report of ``swsjax compress``."""
    folder = RUNS / "searched" / name
    if not (folder / "report.json").exists():
        command("compress", *arguments, "--out", str(folder))
    return json.loads((folder / "report.json").read_text())


def command(*arguments: str) -> None:
    if main(list(arguments)):
        raise SystemExit(1)


def first_of(found: dict[str, Any]) -> dict[str, Any]:
    (first,) = (point for point in found["front"] + found["beaten"] if point["trial"] == 0)
    return first


def beats(point: dict[str, Any], other: dict[str, Any]) -> bool:
    return point["error"] < other["error"] and point["file_bytes"] < other["file_bytes"]


def draw(content: dict[str, Any]) -> None:
    points = content["front"] + content["beaten"]
    first = first_of(content)

    def front(axes: Axes) -> None:
        axes.plot(
            first["file_bytes"],
            100 * first["error"],
            "*",
            color="black",
            markersize=7,
            zorder=3,
            label="the settings that the search began with",
        )
        sizes = [(point["file_bytes"], point["error"]) for point in points]
        plot_front(axes, sizes, published=published.BY_NET[NET])
        axes.set(
            title="Search on LeNet-300-100",
            xlabel="file, or as published (bytes)",
            ylabel="validation error,\nor test error as published (%)",
        )

    write_bytes(FIGURE, column_png(front, lambda figure: figure.subplots(), height=3.6))


if __name__ == "__main__":
    content = run()
    write_bytes(TARGET, (json.dumps(content, indent=1) + "\n").encode())
    draw(content)
