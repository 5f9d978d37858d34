"""What one default and a target make of a net: three seeds, no search, no settings.

    SWSJAX_DATA=... python benchmarks/targets.py lenet-300-100
    SWSJAX_DATA=... python benchmarks/targets.py lenet-5-caffe
    SWSJAX_DATA=... python benchmarks/targets.py resnet-8

ResNet-8 has images of half the size, and a budget. From pretrained nets, distilled from the net
itself, with the augmentation of its pretraining. One run per seed passes all sizes, a second one
goes on from its levels to the loss that may be lost. The nets on the way are under ``runs/``, and
an interrupted run resumes. Writes ``results/targets-NET.json``.
"""

import argparse
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from common.results import RESULTS, RUNS, levels, made_by, measured, write
from common.rows import pretrained_net, task_of

import swsjax
from swsjax.lab import NETS, Variables
from swsjax.sws import Outcome
from swsjax.sws.recipes import Recipe, compress_task

SEEDS = (0, 1, 2)


class Wanted(NamedTuple):
    """What is asked for."""

    sizes: tuple[int, ...]
    """Bytes of files; none for the loss alone."""
    max_loss: float
    """Of the validation error."""
    budget: int | None = None
    """Steps of retraining; None for the default."""


NETS_AND_TARGETS = {
    "lenet-300-100": Wanted((8_000, 4_000, 3_000), 0.003),
    "lenet-5-caffe": Wanted((2_400, 1_500), 0.002),
    "resnet-8": Wanted((), 0.01, budget=28_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("net", choices=NETS_AND_TARGETS)
    net = parser.parse_args().net
    wanted = NETS_AND_TARGETS[net]
    out = RESULTS / f"targets-{net}.json"
    settings = {
        "net": net,
        "config": swsjax.Config().to_dict(),
        "target_bytes": list(wanted.sizes),
        "max_loss": wanted.max_loss,
        "pretraining": asdict(NETS[net].pretraining),
    }
    if wanted.budget is not None:
        settings["budget"] = wanted.budget
    rows = measured(out, settings)
    for seed in SEEDS[len(rows) :]:
        rows.append(run(net, wanted, seed))
        found = {"summary": summary(rows), "seeds": rows}
        write(out, made_by(f"targets.py {net}") | settings | found)


def run(net: str, wanted: Wanted, seed: int) -> dict[str, Any]:
    """Both runs of a seed; the test images are looked at once, at the end."""
    task = task_of(net)
    pretrained, _ = pretrained_net(net, seed)
    compressed = partial(
        compress_task,
        task,
        pretrained,
        Recipe(swsjax.Config(seed=seed)),
        augment=NETS[net].pretraining.augment(),
        budget=wanted.budget,
        resume=RUNS / f"{net}-targets-seed{seed}",
    )
    runs = {"sizes": compressed(target_bytes=wanted.sizes)} if wanted.sizes else {}
    runs["loss"] = compressed(max_loss=wanted.max_loss)
    names = [*(f"{size:,} bytes" for size in wanted.sizes), f"{100 * wanted.max_loss:g} points"]
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

    outcomes = [outcome for result in runs.values() for outcome in result.outcomes]
    found = {
        "seed": seed,
        "pretrained": {name: task.error(pretrained, split) for name, split in splits.items()},
        "targets": dict(zip(names, map(figures, outcomes), strict=True)),
        "levels": {name: levels(result) for name, result in runs.items()},
    }
    print(found, flush=True)
    return found


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
