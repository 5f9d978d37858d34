"""The whole frontier of error against bytes: one seed, from the small loss to the small file.

    SWSJAX_DATA=... python benchmarks/frontier.py [NET]

The points are that seed's of the settings of the results table (run ``table1.py`` before), and
others between and beyond them, which differ from the balanced one in how much is pruned. Points
that are done are not run again, unless the settings changed. Writes
``results/NET/frontier/kept-KEPT.json`` for each, ``results/frontier-NET.json`` for all, and the
figure ``docs/frontier-NET.png``, in which the rows of the table (three seeds) and published sizes
of real files stand too. On two cores a point of LeNet-300-100 takes a minute, one of LeNet-5-Caffe
about eight.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter
from row import RESULTS, run_row
from table1 import NETS

from swsjax.atomic import write_bytes

KEPT = {"lenet-300-100": (0.8, 0.65, 0.4, 0.2), "lenet-5-caffe": (0.85, 0.5, 0.25)}
SEED = 0
DOCS = Path(__file__).parent.parent / "docs"
TITLES = {"lenet-300-100": "LeNet-300-100 on MNIST", "lenet-5-caffe": "LeNet-5-Caffe on MNIST"}
# Bytes of decodable files and test error (%), as their papers give them.
PUBLISHED = {
    "lenet-300-100": {"entropy-penalised reparameterisation, 2019": [(8560, 1.9)]},
    "lenet-5-caffe": {
        "entropy-penalised reparameterisation, 2019": [(2840, 1.0)],
        "MIRACLE, 2018 (with shared randomness)": [(3030, 0.69), (1520, 0.96)],
    },
}


def run(name: str) -> None:
    net = NETS[name]
    balanced = net.settings.balanced
    for kept in KEPT[name]:
        run_row(
            command=f"python benchmarks/frontier.py {name}",
            net=name,
            model=net.model,
            pretraining=net.pretraining,
            setting=f"kept-{kept}",
            recipe=balanced._replace(config=replace(balanced.config, kept=kept)),
            seeds=(SEED,),
            folder=RESULTS / name / "frontier",
        )


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
    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    points = frontier(name)
    axes.plot(
        [point["file_bytes"] for point in points],
        [100 * point["test_error"] for point in points],
        "o-",
        color="C0",
        label="one seed",
    )
    for row in rows(RESULTS / name):
        x, y = row["summary"]["file_bytes"], row["summary"]["test_error"]
        axes.errorbar(
            x["mean"],
            100 * y["mean"],
            xerr=[[x["mean"] - x["min"]], [x["max"] - x["mean"]]],
            yerr=[[100 * (y["mean"] - y["min"])], [100 * (y["max"] - y["mean"])]],
            fmt="s",
            color="C1",
            capsize=3,
            label="settings of the table, three seeds, mean and range",
        )
    before = points[0]["pretrained_test_error"]
    axes.axhline(100 * before, color="0.5", linestyle=":", label="pretrained, that seed")
    for marker, (label, sizes) in zip("^D", PUBLISHED[name].items(), strict=False):
        axes.plot(*zip(*sizes, strict=True), marker, color="C2", label=label)
    axes.set(xscale="log", xlabel="file (bytes)", ylabel="test error (%)", title=TITLES[name])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / f"frontier-{name}.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    for net_name in sys.argv[1:] or NETS:
        run(net_name)
        draw(net_name)
