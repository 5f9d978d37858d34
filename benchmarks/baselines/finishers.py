"""Magnitude pruning and what follows it: fine-tuning, training from scratch, lottery tickets.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/finishers.py lenet-300-100

Liu et al., *Rethinking the Value of Network Pruning* (arXiv 1810.05270), Tables 6, 8, 15, 16 and
Figure 7: SGD with their momentum, decay and schedule, at a rate of 0.1, and of 0.01 for the second
pair of tickets. Their 160 epochs are 4 of a LeNet here, and their 40, 80 and 160 of fine-tuning 1,
2 and 4. Also for ``lenet-5-caffe`` and ``resnet-8``. Writes
``results/baselines/finishers-NET.json``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from common.rows import task_of
from shared import (
    StepConfig,
    add,
    arguments,
    errors,
    file_of,
    layers,
    pretrained,
    settings_of,
    short,
)

from swsjax.baselines import (
    density,
    fine_tune,
    magnitude,
    retrain,
    rewind,
    scratch,
    scratch_b_epochs,
)
from swsjax.lab import Task, Variables
from swsjax.measure import multiply_adds

KEEP = (0.2, 0.02)
MOST = 2
"""Scratch-B is at most as many times as long as Scratch-E, for time."""


EPOCHS = {"lenet-300-100": 4, "lenet-5-caffe": 4, "resnet-8": 16}
TRAINING = {net: replace(short(net), epochs=EPOCHS[net], weight_decay=1e-4) for net in EPOCHS}


def main() -> None:
    net, seeds = arguments(__doc__)
    settings = settings_of(net, training=TRAINING[net], most=MOST)
    for seed in seeds:
        for keep in (1.0, *KEEP):
            for finish, run in (DENSE if keep == 1 else FINISHERS).items():
                row = {"finish": finish, "keep": keep, "seed": seed}
                measure = partial(measured, run, net, keep, seed)
                command = f"baselines/finishers.py {net}"
                add(file_of("finishers", net), command, settings, row, measure)


def measured(run: Callable[..., tuple[Variables, int]], net: str, keep: float, seed: int) -> Any:
    finished, epochs = run(net, keep, seed)
    found = {"density": density(finished), "epochs_after_pruning": epochs}
    return found | errors(task_of(net), finished) | {"layers": layers(finished)}


def dense(net: str, keep: float, seed: int, rate: float = 0.1) -> tuple[Variables, int]:
    return pretrained(net, seed, at(net, rate)), 0


def pruned(net: str, keep: float, seed: int, rate: float = 0.1) -> Variables:
    return magnitude(dense(net, 1.0, seed, rate)[0], keep)


def not_finished(net: str, keep: float, seed: int) -> tuple[Variables, int]:
    return pruned(net, keep, seed), 0


def tuned(share: float, net: str, keep: float, seed: int) -> tuple[Variables, int]:
    """Fine-tuned for a share of the epochs of the dense net."""
    config = TRAINING[net]
    epochs = round(share * config.epochs)
    start, batch = pruned(net, keep, seed), config.batch_size
    found = fine_tune(
        task_of(net),
        start,
        epochs=epochs,
        key=key_of(seed),
        batch_size=batch,
        augment=config.augment(),
    )
    return found, epochs


def scratch_e(net: str, keep: float, seed: int) -> tuple[Variables, int]:
    config = TRAINING[net]
    found = scratch(task_of(net), pruned(net, keep, seed), config, key=key_of(seed))
    return found, config.epochs


def scratch_b(net: str, keep: float, seed: int) -> tuple[Variables, int]:
    task, config, start = task_of(net), TRAINING[net], pruned(net, keep, seed)
    cost = operations(task, start)
    epochs = scratch_b_epochs(config.epochs, cost.total, cost.masked(start))
    config = replace(config, epochs=min(epochs, MOST * config.epochs))
    return scratch(task, start, config, key=key_of(seed)), config.epochs


def operations(task: Task, net: Variables) -> Any:
    """Multiply-adds of a net for one image."""
    image = task.dataset.train.images[:1]
    return multiply_adds(task.predict, net, jax.ShapeDtypeStruct(image.shape, image.dtype))


def winning(rate: float, net: str, keep: float, seed: int) -> tuple[Variables, int]:
    """The initialisation that the dense net was trained from, under the mask of the latter."""
    return ticket(net, keep, seed, rate, seed)


def losing(rate: float, net: str, keep: float, seed: int) -> tuple[Variables, int]:
    """Another initialisation under the same mask, not rescaled."""
    return ticket(net, keep, seed, rate, seed + 1_000)


def ticket(net: str, keep: float, seed: int, rate: float, init: int) -> tuple[Variables, int]:
    task, config = task_of(net), at(net, rate)
    start = rewind(pruned(net, keep, seed, rate), task.init(init))
    return retrain(task, start, config, key=key_of(seed)), config.epochs


def at(net: str, rate: float) -> StepConfig:
    return replace(TRAINING[net], learning_rate=rate)


def key_of(seed: int) -> jax.Array:
    """Of the order of the images after pruning: not that of the dense net."""
    return jax.random.fold_in(jax.random.key(seed), 1)


DENSE = {"dense, 0.1": dense, "dense, 0.01": partial(dense, rate=0.01)}
FINISHERS = {
    "pruned only": not_finished,
    "fine-tune 1x": partial(tuned, 0.25),
    "fine-tune 2x": partial(tuned, 0.5),
    "fine-tune 4x": partial(tuned, 1.0),
    "Scratch-E": scratch_e,
    "Scratch-B": scratch_b,
    "winning ticket, 0.1": partial(winning, 0.1),
    "random ticket, 0.1": partial(losing, 0.1),
    "winning ticket, 0.01": partial(winning, 0.01),
    "random ticket, 0.01": partial(losing, 0.01),
}

if __name__ == "__main__":
    main()
