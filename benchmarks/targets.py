"""What one default and a target make of LeNet-300-100: three seeds, no search, no settings.

    SWSJAX_DATA=... python benchmarks/targets.py

From the pretrained nets of the rows, distilled from the net itself. One run per seed passes all
sizes, a second one goes on from its levels to the loss that may be lost. The nets on the way are
under ``runs/``, and an interrupted run resumes. Writes ``results/targets-lenet-300-100.json``.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from common.results import RESULTS, RUNS, made_by, measured, write
from common.rows import mnist, pretrained_net

import swsjax
from swsjax.lab import NETS, Variables
from swsjax.sws import Outcome, Result
from swsjax.sws.recipes import Recipe, compress_task

NET = "lenet-300-100"
SEEDS = (0, 1, 2)
SIZES = (8_000, 4_000, 3_000)
MAX_LOSS = 0.003
OUT = RESULTS / f"targets-{NET}.json"


def main() -> None:
    settings = {
        "net": NET,
        "config": swsjax.Config().to_dict(),
        "target_bytes": list(SIZES),
        "max_loss": MAX_LOSS,
        "pretraining": asdict(NETS[NET].pretraining),
    }
    rows = measured(OUT, settings)
    for seed in SEEDS[len(rows) :]:
        rows.append(run(seed))
        found = {"summary": summary(rows), "seeds": rows}
        write(OUT, made_by("targets.py") | settings | found)


def run(seed: int) -> dict[str, Any]:
    """Both runs of a seed; the test images are looked at once, at the end."""
    task = mnist(NET)
    net, _ = pretrained_net(NET, seed)
    folder = RUNS / f"{NET}-targets-seed{seed}"
    recipe = Recipe(swsjax.Config(seed=seed))
    sizes = compress_task(task, net, recipe, target_bytes=SIZES, resume=folder)
    loss = compress_task(task, net, recipe, max_loss=MAX_LOSS, resume=folder)
    names = [*(f"{size:,} bytes" for size in SIZES), f"{100 * MAX_LOSS:g} points"]
    splits = {"validation": task.dataset.validation, "test": task.dataset.test}

    def figures(outcome: Outcome) -> dict[str, Any]:
        small = Variables(outcome.params, outcome.aux)
        data = swsjax.dumps(task.whole(small))
        decoded = task.parts(swsjax.loads(data, like=task.whole(small)))
        return {
            "errors": {name: task.error(decoded, split) for name, split in splits.items()},
            "file_bytes": len(data),
            "reached": outcome.reached,
            "text": outcome.text,
        }

    outcomes = [*sizes.outcomes, *loss.outcomes]
    found = {
        "seed": seed,
        "pretrained": {name: task.error(net, split) for name, split in splits.items()},
        "targets": dict(zip(names, map(figures, outcomes), strict=True)),
        "levels": {"sizes": levels(sizes), "loss": levels(loss)},
    }
    print(found, flush=True)
    return found


def levels(result: Result) -> list[dict[str, Any]]:
    """The nets on the way."""
    return [
        level.move._asdict() | {"loss": level.loss, "file_bytes": level.file_bytes}
        for level in result.levels
    ]


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and range over the seeds, for each target."""
    found = {}
    for name in rows[0]["targets"]:
        ends = [row["targets"][name] for row in rows]
        values = {
            "validation_error": [end["errors"]["validation"] for end in ends],
            "test_error": [end["errors"]["test"] for end in ends],
            "file_bytes": [end["file_bytes"] for end in ends],
        }
        found[name] = {
            figure: {"mean": float(np.mean(each)), "min": min(each), "max": max(each)}
            for figure, each in values.items()
        }
    return found


if __name__ == "__main__":
    main()
