"""One row of a results table: a net and a recipe, several seeds, from untrained to decoded file.

Pretrained nets and the states of retrainings are kept under ``runs/``. Recipes that differ only in
pruning share them up to the pruning stage, and an interrupted run resumes. Delete the folder after
a change of the code.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import swsjax
from common.results import RUNS, made_by, measured, write
from swsjax.file import load_checkpoint, save_checkpoint
from swsjax.file.atomic import write_bytes
from swsjax.lab import (
    NETS,
    Dataset,
    Split,
    Task,
    Variables,
    classification,
    load_cifar10,
    load_mnist,
    pretrain_task,
)
from swsjax.sws import LearningRates, Result
from swsjax.sws.recipes import Recipe, compress_task, errors_of, teacher_seeds
from swsjax.training import Epoch

__all__ = ["Row", "add_seeds", "halved", "pretrained_net", "pruned", "task_of", "unpruned"]


class Row(NamedTuple):
    """A row of a results table."""

    command: str
    """Script and arguments that make it."""
    net: str
    """Name in ``lab.NETS``."""
    setting: str
    """Name in the table."""
    recipe: Recipe
    folder: Path
    """For ``SETTING.json``, and ``SETTING-seedK.sws`` of each seed."""

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe and the pretraining as plain values."""
        config = {"config": self.recipe.config.to_dict()}
        return self.recipe._asdict() | config | {"pretraining": asdict(NETS[self.net].pretraining)}


def add_seeds(row: Row, seeds: Sequence[int]) -> None:
    """Run the seeds that the JSON of the row lacks for these settings; write it after each."""
    target = row.folder / f"{row.setting}.json"
    rows = measured(target, row.settings)
    for seed in seeds:
        if seed in [row["seed"] for row in rows]:
            continue
        rows = sorted([*rows, _run(row, seed)], key=lambda row: row["seed"])
        named = {"net": row.net, "setting": row.setting}
        found = {"summary": _summary(rows), "seeds": rows}
        write(target, made_by(row.command) | named | row.settings | found)


def _run(row: Row, seed: int) -> dict[str, Any]:
    """Pretrain, retrain, prune, write the file and measure what it decodes to.

    The test images are looked at once, at the end.
    """
    task = task_of(row.net)
    recipe = row.recipe._replace(config=replace(row.recipe.config, seed=seed))
    seeds = [seed, *teacher_seeds(seed, recipe.teachers)]
    nets, took = zip(*(pretrained_net(row.net, one) for one in seeds), strict=True)
    result, retraining = unpruned(row.net, recipe, nets)
    result, pruning = pruned(row.net, recipe, nets, result)

    path = row.folder / f"{row.setting}-seed{seed}.sws"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = task.whole(Variables(result.params, result.aux))
    swsjax.save(path, whole, metadata={"model": row.net, "data": "mnist"})
    decoded = task.parts(swsjax.load(path, like=whole))
    report = swsjax.report(path, errors=errors_of(task, nets[0], result, decoded))
    seconds = sum(took) + retraining + pruning
    print(f"{row.net}, {row.setting}, seed {seed}, {seconds:.0f} s\n{report}\n", flush=True)
    return {"seed": seed, "file": path.name, "seconds": seconds} | report.to_dict()


@cache
def task_of(net: str) -> Task:
    """A net of ``lab.NETS`` on MNIST or CIFAR-10; ResNet-8 on images of half the size."""
    data = load_mnist() if net.startswith("lenet") else load_cifar10()
    return classification(NETS[net].model, halved(data) if net == "resnet-8" else data)


def halved(data: Dataset) -> Dataset:
    """Colour images of half the height and width: each pixel is the mean of four.

    A step of a residual net then takes a seventh of the time on a processor.
    """

    def half(split: Split) -> Split:
        count, height, width, colours = split.images.shape
        fours = split.images.reshape(count, height // 2, 2, width // 2, 2, colours)
        return split._replace(images=np.rint(fours.mean((2, 4))).astype(np.uint8))

    splits = map(half, (data.train, data.validation, data.test))
    return Dataset(f"{data.name}, {data.train.images.shape[1] // 2} pixels wide", *splits)


def pretrained_net(net: str, seed: int) -> tuple[Variables, float]:
    """The pretrained net of a seed, and the seconds that the pretraining took."""
    task, config = task_of(net), replace(NETS[net].pretraining, seed=seed)
    folder = _folder(f"{net}-pretrained-seed{seed}", config)
    if not folder.exists():
        trained = pretrain_task(task, config, callback=_stopwatch(folder))
        save_checkpoint(folder, task.whole(trained))
    like = task.whole(task.init(seed))
    return task.parts(load_checkpoint(folder, like)), _seconds(folder)


def unpruned(net: str, recipe: Recipe, nets: Sequence[Variables]) -> tuple[Result, float]:
    """The result of soft and hard stage, and the seconds that they took.

    Args:
        net: name in ``lab.NETS``.
        recipe: with the seed of the run.
        nets: the pretrained net, and the recipe's further teachers.
    """
    # The same for all recipes that differ only in pruning.
    settings = {"prune_epochs": 0, "keep": 1.0, "prune_learning_rates": LearningRates()}
    recipe = recipe._replace(config=replace(recipe.config, **settings))
    return _retrained(_folder_of(net, "unpruned", recipe), net, recipe, nets)


def pruned(
    net: str, recipe: Recipe, nets: Sequence[Variables], start: Result
) -> tuple[Result, float]:
    """The result of the pruning stage, if there is one, and the seconds that it took."""
    if not recipe.config.prune_epochs:
        return start, 0.0
    folder = _folder_of(net, "pruned", recipe)
    recipe = recipe._replace(config=replace(recipe.config, soft_epochs=0, hard_epochs=0))
    return _retrained(folder, net, recipe, nets, start)


def _retrained(
    folder: Path, net: str, recipe: Recipe, nets: Sequence[Variables], start: Result | None = None
) -> tuple[Result, float]:
    """What ``compress_task`` returns, with its state in the folder, and the seconds it took."""
    pretrained, *teachers = nets
    result = compress_task(
        task_of(net),
        pretrained,
        recipe,
        teachers=teachers,
        start=start,
        callback=_stopwatch(folder),
        resume=folder,
    )
    return result, _seconds(folder)


def _folder_of(net: str, stage: str, recipe: Recipe) -> Path:
    name = f"{net}-{stage}-seed{recipe.config.seed}"
    return _folder(name, NETS[net].pretraining, recipe)


def _folder(name: str, *settings: Any) -> Path:
    """A folder under ``runs/`` for these settings alone."""
    return RUNS / f"{name}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:12]}"


def _stopwatch(folder: Path) -> Callable[[Epoch], None]:
    """Make a callback that keeps the seconds of a run next to its folder.

    If the run has a state there, the seconds up to it count too.
    """
    kept, started = folder.with_suffix(".seconds"), time.perf_counter()
    before = _seconds(folder) if folder.exists() and kept.exists() else 0.0

    def write_seconds(_: Epoch) -> None:
        write_bytes(kept, str(before + time.perf_counter() - started).encode())

    RUNS.mkdir(exist_ok=True)
    return write_seconds


def _seconds(folder: Path) -> float:
    return float(folder.with_suffix(".seconds").read_text())


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and range over the seeds."""
    figures = {
        "pretrained_test_error": [row["errors"]["pretrained"]["test"] for row in rows],
        "test_error": [row["errors"]["decoded"]["test"] for row in rows],
        "density": [row["density"] for row in rows],
        "file_bytes": [row["file_bytes"] for row in rows],
        "file_rate": [row["rates"]["file"] for row in rows],
        "han_rate": [row["rates"]["han"] for row in rows],
        "entropy_bound_rate": [row["rates"]["entropy_bound"] for row in rows],
        "seconds": [row["seconds"] for row in rows],
    }
    return {
        name: {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}
        for name, values in figures.items()
    }
