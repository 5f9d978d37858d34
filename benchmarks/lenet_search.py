"""A search for settings of LeNet-300-100 on MNIST: the front of validation error against bytes.

    SWSJAX_DATA=... python benchmarks/lenet_search.py

``swsjax search`` around the balanced setting, from a net that ``swsjax pretrain`` makes. The same
command started again, or several times at once, is another worker of the same search. Of the points
that beat the first trial, which has the settings unchanged, in both error and bytes, the one with
the smallest error is run again and its file measured on the test images; so are the defaults of the
command. Writes ``results/search-lenet-300-100.json`` and the figure
``docs/figures/search-lenet-300-100.png`` (and PDF).
"""

import json
from typing import Any

from common.results import FIGURES, RESULTS, RUNS, made_by, read, write
from matplotlib.axes import Axes

from swsjax import cli
from swsjax.measure import published
from swsjax.measure.plot import Label, plot_front, save_pictures
from swsjax.measure.plot.style import column_picture

NET = "lenet-300-100"
TRIALS = 40
PRETRAINED, SEARCH, AGAIN = (RUNS / name for name in ("pretrained", "search", "searched"))


def main() -> None:
    on_mnist = (NET, "--data", "mnist")
    if not (PRETRAINED / "pretrain.json").exists():
        swsjax("pretrain", *on_mnist, "--out", PRETRAINED)
    from_it = (*on_mnist, "--pretrained", PRETRAINED / "checkpoint")
    swsjax("search", *from_it, "--trials", TRIALS, "--out", SEARCH)
    found = read(SEARCH / "front.json")

    first = first_of(found)
    better = [point for point in found["front"] if beats(point, first)]
    chosen = min(better, key=lambda point: point["error"]) if better else first
    name = f"trial-{chosen['trial']}"
    settings = SEARCH / f"chosen-{chosen['trial']}.json"
    settings.write_text(json.dumps(chosen["config"]))
    chosen_report = report_of(name, *from_it, "--config", settings)
    content = {
        "net": NET,
        "pretrained": read(PRETRAINED / "pretrain.json"),
        "better_than_the_first": [point["trial"] for point in better],
        "chosen": {"trial": chosen["trial"], "report": chosen_report},
        "defaults": report_of("defaults", *from_it),
        **found,
    }
    write(RESULTS / f"search-{NET}.json", made_by("lenet_search.py", "optuna") | content)
    draw(content)


def swsjax(*arguments: Any) -> None:
    if cli.main([str(argument) for argument in arguments]):
        raise SystemExit(1)


def report_of(name: str, *arguments: Any) -> dict[str, Any]:
    """The report of ``swsjax compress``, run if it has not been."""
    report = AGAIN / name / "report.json"
    if not report.exists():
        swsjax("compress", *arguments, "--out", report.parent)
    return read(report)


def first_of(found: dict[str, Any]) -> dict[str, Any]:
    (first,) = (point for point in found["front"] + found["dominated"] if point["trial"] == 0)
    return first


def beats(point: dict[str, Any], other: dict[str, Any]) -> bool:
    return point["error"] < other["error"] and point["file_bytes"] < other["file_bytes"]


def draw(content: dict[str, Any]) -> None:
    first = first_of(content)
    sizes = [
        (point["file_bytes"], point["error"]) for point in content["front"] + content["dominated"]
    ]

    start = (first["file_bytes"], 100 * first["error"])

    def front(axes: Axes) -> None:
        axes.plot(*start, "*", color="black", markersize=7, zorder=3)
        labels = [Label("start of the search", [start])]
        plot_front(axes, sizes, published=published.BY_NET[NET], others=labels)
        axes.set(title="Search on LeNet-300-100", ylabel="validation error (%)")

    caption = "Validation error against file size; published errors are test errors."
    drawn = column_picture(f"search-{NET}", caption, front, lambda figure: figure.subplots(), 3.6)
    save_pictures(FIGURES, [drawn])


if __name__ == "__main__":
    main()
