"""Magnitude pruning and what follows it: fine-tuning, training from scratch, lottery tickets.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/finishers.py lenet-300-100

Liu et al., *Rethinking the Value of Network Pruning* (arXiv 1810.05270), Tables 6, 8, 15, 16 and
Figure 7: SGD with their momentum, decay and schedule, at a rate of 0.1, or 0.02 for
``lenet-5-caffe``, and of a tenth of it for the second pair of tickets. Their 160 epochs are 4 of a
LeNet here and 16 of ``resnet-8``, and their 40, 80 and 160 of fine-tuning are a quarter, half and
all of that. Of ``resnet-8``, whose kernels are 3 x 3, rows have the share of their slices that keep
each of the nine weights (Tables 19 and 20). Writes ``results/baselines/finishers-NET.json``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
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
    task_on_part,
)

from swsjax.baselines import (
    density,
    fine_tune,
    magnitude,
    retrain,
    rewind,
    scratch,
    scratch_b_epochs,
    sparsity_patterns,
)
from swsjax.lab import Task, Variables
from swsjax.measure import multiply_adds

KEEP = (0.2, 0.02)
MOST = 2
"""Scratch-B is at most as many times as long as Scratch-E, for time."""


EPOCHS = {"lenet-300-100": 4, "lenet-5-caffe": 4, "resnet-8": 16}
OF_SMALL_KERNELS = ("resnet-8",)
"""Nets of kernels of 3 x 3, whose places are counted."""
TRAINING = {net: replace(short(net), epochs=EPOCHS[net], weight_decay=1e-4) for net in EPOCHS}


Finish = Callable[[str, float, int], tuple[Variables, int]]
"""From a net's name, the share of its weights and a seed to a net and its epochs after pruning."""


def main() -> None:
    net, seeds = arguments(__doc__)
    settings = settings_of(net, training=TRAINING[net], most=MOST)
    for seed in seeds:
        for keep in (1.0, *KEEP):
            for finish, run in (dense_nets(net) if keep == 1 else finishers(net)).items():
                row = {"finish": finish, "keep": keep, "seed": seed}
                measure = partial(measured, run, net, keep, seed)
                command = f"baselines/finishers.py {net}"
                add(file_of("finishers", net), command, settings, row, measure)


def measured(run: Finish, net: str, keep: float, seed: int) -> dict[str, Any]:
    finished, epochs = run(net, keep, seed)
    found = {"density": density(finished), "epochs_after_pruning": epochs}
    places = {"places": places_kept(finished)} if net in OF_SMALL_KERNELS else {}
    return found | errors(task_on_part(net), finished) | {"layers": layers(finished)} | places


def places_kept(net: Variables) -> dict[str, list[float]]:
    """The share of the slices of each kernel of 3 x 3 that keep each of the nine weights."""
    kept = np.arange(512)[:, None] >> np.arange(9) & 1  # (patterns, weights)
    return {
        name.removesuffix("/kernel"): (counts @ kept / counts.sum()).tolist()
        for name, counts in sparsity_patterns(net).items()
    }


def dense(rate: float, net: str, keep: float, seed: int) -> tuple[Variables, int]:
    return pretrained(net, seed, at(net, rate)), 0


def pruned(net: str, keep: float, seed: int) -> Variables:
    return pruned_at(TRAINING[net].learning_rate, net, keep, seed)


def pruned_at(rate: float, net: str, keep: float, seed: int) -> Variables:
    return magnitude(dense(rate, net, 1.0, seed)[0], keep)


def not_finished(net: str, keep: float, seed: int) -> tuple[Variables, int]:
    return pruned(net, keep, seed), 0


def tuned(share: float, net: str, keep: float, seed: int) -> tuple[Variables, int]:
    """Fine-tuned for a share of the epochs of the dense net."""
    config = TRAINING[net]
    epochs = round(share * config.epochs)
    start, batch = pruned(net, keep, seed), config.batch_size
    found = fine_tune(
        task_on_part(net),
        start,
        epochs=epochs,
        key=key_of(seed),
        batch_size=batch,
        augment=config.augment(),
    )
    return found, epochs


def scratch_e(net: str, keep: float, seed: int) -> tuple[Variables, int]:
    config = TRAINING[net]
    found = scratch(task_on_part(net), pruned(net, keep, seed), config, key=key_of(seed))
    return found, config.epochs


def scratch_b(net: str, keep: float, seed: int) -> tuple[Variables, int]:
    task, config, start = task_on_part(net), TRAINING[net], pruned(net, keep, seed)
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
    task, config = task_on_part(net), at(net, rate)
    start = rewind(pruned_at(rate, net, keep, seed), task.init(init))
    return retrain(task, start, config, key=key_of(seed)), config.epochs


def at(net: str, rate: float) -> StepConfig:
    return replace(TRAINING[net], learning_rate=rate)


def key_of(seed: int) -> jax.Array:
    """Of the order of the images after pruning: not that of the dense net."""
    return jax.random.fold_in(jax.random.key(seed), 1)


def rates(net: str) -> tuple[float, float]:
    """The learning rate of the net, and a tenth of it."""
    rate = TRAINING[net].learning_rate
    return rate, rate / 10


def dense_nets(net: str) -> dict[str, Finish]:
    return {f"dense, {rate:g}": partial(dense, rate) for rate in rates(net)}


def finishers(net: str) -> dict[str, Finish]:
    tickets: dict[str, Finish] = {}
    for rate in rates(net):
        tickets[f"winning ticket, {rate:g}"] = partial(winning, rate)
        tickets[f"random ticket, {rate:g}"] = partial(losing, rate)
    return FINISHERS | tickets


FINISHERS: dict[str, Finish] = {
    "pruned only": not_finished,
    "fine-tune 1x": partial(tuned, 0.25),
    "fine-tune 2x": partial(tuned, 0.5),
    "fine-tune 4x": partial(tuned, 1.0),
    "Scratch-E": scratch_e,
    "Scratch-B": scratch_b,
}

if __name__ == "__main__":
    main()
