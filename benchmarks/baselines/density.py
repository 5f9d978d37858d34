"""Error against density of nets pruned at initialisation, and early in training.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/density.py lenet-300-100

Seven methods of De Jorge et al. (arXiv 2006.09081), early pruning, and the dense net. Each is
trained for the same number of epochs in all, 5 of a LeNet, with the optimiser of the paper; but a
net that is pruned after all of them is trained as long again. Also for ``lenet-5-caffe`` and, on
CIFAR-10, ``resnet-8``, each with some of the images. A training whose loss ceases to be finite
counts as a net that answers one class. Writes ``results/baselines/density-NET.json``.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from shared import (
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

from swsjax.baselines import density, force, grasp, iter_snip, random, retrain, snip
from swsjax.errors import RetrainingError
from swsjax.lab import Task, Variables

KEEP = {
    "lenet-300-100": (0.01, 0.1, 0.001, 0.003, 0.03, 0.5),
    "lenet-5-caffe": (0.01, 0.1, 0.003),
    "resnet-8": (0.1, 0.02),
}
"""The most telling first: an interrupted run has them for all methods."""
STEPS = 60
"""Of FORCE and Iter SNIP, with a batch each; SNIP-MB and GRASP-MB have as many batches."""
DENSE = "dense"
EARLY = {
    "SNIP-MB after an epoch": 1,
    "SNIP-MB after 2 epochs": 2,
    "SNIP-MB after 5 epochs": 5,
    "FORCE after an epoch": 1,
    "FORCE after 2 epochs": 2,
    "FORCE after 5 epochs": 5,
}
"""Epochs before pruning, by a whole schedule of their own."""

Prune = Callable[..., Variables]
AT_START: dict[str, Prune] = {
    "Random": lambda task, net, keep, *, key: random(net, keep, key=key),
    "SNIP": snip,
    "SNIP-MB": partial(snip, batches=STEPS),
    "Iter SNIP": partial(iter_snip, steps=STEPS),
    "FORCE": partial(force, steps=STEPS),
    "GRASP": grasp,
    "GRASP-MB": partial(grasp, batches=STEPS),
}
METHODS = AT_START | {name: AT_START[name.partition(" after")[0]] for name in EARLY}
LATER = [name for name, epochs in EARLY.items() if epochs > 1]
"""Of ``lenet-300-100`` alone, for time."""


def main() -> None:
    net, seeds = arguments(__doc__)
    settings = settings_of(net, steps=STEPS, training=short(net))
    for seed in seeds:
        for keep, method in [(1.0, DENSE), *product(KEEP[net], METHODS)]:
            if method in LATER and net != "lenet-300-100":
                continue
            row = {"method": method, "keep": keep, "seed": seed}
            measure = partial(run, net, method, keep, seed)
            add(file_of("density", net), f"baselines/density.py {net}", settings, row, measure)


def run(net: str, method: str, keep: float, seed: int) -> dict[str, Any]:
    task, training, key = task_on_part(net), short(net), jax.random.key(seed)
    if method == DENSE:
        return errors(task, pretrained(net, seed, training))
    start, early = task.init(seed), EARLY.get(method, 0)
    if early:
        start = pretrained(net, seed, replace(training, epochs=early))
        training = replace(training, epochs=training.epochs - early or training.epochs)
    pruned, seconds = timed(METHODS[method], task, start, keep, key)
    found = {"density": density(pruned), "mask_processor_seconds": seconds}
    try:
        trained = retrain(task, pruned, training, key=key)
        diverged = False
    except RetrainingError:  # it answers one class whatever the image, as a net of zeros does
        trained, diverged = jax.tree.map(jnp.zeros_like, pruned), True
    return found | errors(task, trained) | {"diverged": diverged, "layers": layers(pruned)}


def timed(
    prune: Prune, task: Task, net: Variables, keep: float, key: Array
) -> tuple[Variables, float]:
    """A pruned net, and its processor seconds, which the machine's other work does not change."""
    started = time.process_time()
    pruned = jax.block_until_ready(prune(task, net, keep, key=key))
    return pruned, time.process_time() - started


if __name__ == "__main__":
    main()
