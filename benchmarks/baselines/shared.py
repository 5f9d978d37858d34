"""What the scripts of this folder share: nets on some of the images, and rows measured once.

A results file has one entry per row and seed under ``seeds``, and the mean and range of each row
under ``summary``. A script that is started again measures what is missing; after a change of the
settings, everything.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from common.results import RESULTS, made_by, measured, write
from common.rows import task_of

from swsjax.baselines import kernels, retrain
from swsjax.lab import Split, Task, Variables
from swsjax.training import PretrainConfig, crop_and_flip
from swsjax.training.augment import Augment

__all__ = [
    "IMAGES",
    "SEEDS",
    "Row",
    "StepConfig",
    "add",
    "arguments",
    "errors",
    "file_of",
    "layers",
    "pretrained",
    "settings_of",
    "short",
    "task_on_part",
]

SEEDS = (0, 1, 2)
Row = dict[str, Any]


@dataclass(frozen=True)
class StepConfig(PretrainConfig):
    """SGD with momentum; the rate is divided by 10 after 50 % and 75 % of the steps.

    As De Jorge et al. and Liu et al. train on CIFAR-10, but for the number of epochs.
    """

    epochs: int = 5
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """The optimiser of a training of this many steps."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay),
            optax.sgd(self.schedule(steps), momentum=self.momentum),
        )

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rates of a training of this many steps."""
        drops = {steps // 2: 0.1, 3 * steps // 4: 0.1}
        return optax.piecewise_constant_schedule(self.learning_rate, drops)


@dataclass(frozen=True)
class StepConfigOfImages(StepConfig):
    """The same with random crops and flips, for CIFAR-10."""

    epochs: int = 15

    def augment(self) -> Augment:
        """Random crops and flips."""
        return partial(crop_and_flip, pad=4)


TRAINING = {
    "lenet-300-100": StepConfig(),
    "lenet-5-caffe": StepConfig(learning_rate=0.02),
    "resnet-8": StepConfigOfImages(batch_size=64),
}
"""Short, as what is compared is trained equally long. At the rate of 0.1, LeNet-5-Caffe diverges.
Batches of 64 are those of Liu et al."""


class Images(NamedTuple):
    """How many images of each split are used, the first ones."""

    train: int
    validation: int
    test: int


IMAGES = {
    "lenet-5-caffe": Images(10_000, 5_000, 10_000),
    "resnet-8": Images(10_000, 5_000, 10_000),
}
"""Of the nets that are not trained on all of them."""


def arguments(description: str | None, nets: Iterable[str] = TRAINING) -> tuple[str, Sequence[int]]:
    """The net, one of those given, and the seeds of the command line."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("net", choices=nets)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="SEED")
    found = parser.parse_args()
    return found.net, found.seeds


def add(file: Path, command: str, settings: Row, row: Row, measure: Callable[[], Row]) -> None:
    """Measure a row of a seed unless the file has it, and write the file with it.

    Args:
        file: of the results.
        command: script and arguments.
        settings: of all rows of the file, plain values.
        row: what tells the row from others, and its seed.
        measure: returns its figures.
    """
    rows = measured(file, settings)
    if any(row.items() <= done.items() for done in rows):
        return
    rows.append(row | measure())
    print(rows[-1], flush=True)
    names = [name for name in row if name != "seed"]
    write(file, made_by(command) | settings | {"summary": summary(rows, names), "seeds": rows})


def summary(rows: list[Row], names: list[str]) -> list[Row]:
    """Number of seeds, mean and range of each row's figures, in the order of the rows."""
    grouped: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault(tuple(row[name] for name in names), []).append(row)
    found = []
    for cell, of_seeds in grouped.items():
        figures = [
            name
            for name, value in of_seeds[0].items()
            if name not in [*names, "seed"] and isinstance(value, int | float)
        ]
        spans = {name: span([row[name] for row in of_seeds]) for name in figures}
        found.append(dict(zip(names, cell, strict=True)) | {"of": len(of_seeds)} | spans)
    return found


def span(values: Iterable[float]) -> dict[str, float]:
    """Mean and range."""
    found = list(values)
    return {"mean": float(np.mean(found)), "min": min(found), "max": max(found)}


def file_of(kind: str, net: str) -> Path:
    """The results of a script."""
    return RESULTS / "baselines" / f"{kind}-{net}.json"


def short(net: str) -> StepConfig:
    """The training of a net, dense or pruned."""
    return TRAINING[net]


def settings_of(net: str, **others: Any) -> Row:
    """Settings of a results file as plain values."""
    plain = {k: asdict(v) if isinstance(v, PretrainConfig) else v for k, v in others.items()}
    images = {"images": IMAGES[net]._asdict()} if net in IMAGES else {}
    return {"net": net} | images | plain


@cache
def task_on_part(net: str) -> Task:
    """A net of ``lab.NETS`` on the images that its rows use."""
    task = task_of(net)
    if net not in IMAGES:
        return task
    parts = {
        name: Split(*(array[:number] for array in getattr(task.dataset, name)))
        for name, number in IMAGES[net]._asdict().items()
    }
    return task._replace(dataset=task.dataset._replace(**parts))


@cache
def pretrained(net: str, seed: int, config: PretrainConfig) -> Variables:
    """The initialisation of a seed, trained."""
    task = task_on_part(net)
    return retrain(task, task.init(seed), config, key=jax.random.key(seed))


def errors(task: Task, net: Variables) -> Row:
    """Errors on validation and test images, from 0 to 1. Nothing is chosen by the latter."""
    return {
        "validation_error": task.error(net, task.dataset.validation),
        "test_error": task.error(net, task.dataset.test),
    }


def layers(net: Variables) -> dict[str, float]:
    """The share of the weights of each kernel that is left."""
    return {
        name.removesuffix("/kernel"): float(np.mean(np.asarray(kernel) != 0))
        for name, kernel in kernels(net).items()
    }
