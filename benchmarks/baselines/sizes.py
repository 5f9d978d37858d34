"""Error against the bytes of the file: pruned nets with a codebook, at the same number of steps.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/sizes.py lenet-300-100

Three methods, ten epochs each, all counted: magnitude (a dense net of five, three after pruning),
FORCE and SNIP (eight after pruning), then k-means with 32 levels in each array and two epochs on
the values of the codebooks. Also for ``lenet-5-caffe`` and ``resnet-8``, with three times the
epochs for the latter. Writes ``results/baselines/sizes-NET.json``.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from shared import add, arguments, errors, file_of, pretrained, settings_of, short, task_on_part

import swsjax
from swsjax.baselines import density, force, k_means, magnitude, retrain, snip, tune_codebooks
from swsjax.lab import Task, Variables
from swsjax.training import PretrainConfig

KEEP = (0.1, 0.05, 0.02, 0.01)
LEVELS = 32
STEPS = 60
"""Of FORCE, a batch each."""
TUNING = 1e-3
"""Adam's rate for the values of the codebooks: of 1e-3, 1e-4 and SGD at 1e-3, the best on the
validation images for one net of seed 0 that was trained more briefly."""


class Finished(NamedTuple):
    """A pruned and trained net with its codebooks, and before them."""

    net: Variables
    raw: Variables
    mask_steps: int
    """Batches whose gradient the mask took."""


def main() -> None:
    net, seeds = arguments(__doc__)
    settings = settings_of(net, levels=LEVELS, steps=STEPS, tuning=TUNING, training=short(net))
    for seed in seeds:
        for keep in KEEP:
            for method in METHODS:
                row = {"method": method, "keep": keep, "seed": seed}
                measure = partial(run, net, method, keep, seed)
                add(file_of("sizes", net), f"baselines/sizes.py {net}", settings, row, measure)


def run(net: str, method: str, keep: float, seed: int) -> dict[str, Any]:
    task, training = task_on_part(net), short(net)
    unit = training.epochs // 5
    finished = METHODS[method](task, net, keep, seed, unit)
    sizes = {}
    for name, found in (("", finished.net), ("raw_", finished.raw)):
        report = swsjax.report(swsjax.dumps(task.whole(found)))
        sizes[f"{name}file_bytes"] = report.file_bytes
        sizes[f"{name}file_rate"] = report.rates["file"]
        sizes[f"{name}han_rate"] = report.rates["han"]
        sizes |= {f"{name}{key}": value for key, value in errors(task, found).items()}
    steps = 10 * unit * (len(task.dataset.train.images) // training.batch_size)
    gradients = steps + finished.mask_steps
    return {"density": density(finished.net), "gradient_steps": gradients} | sizes


def by_magnitude(task: Task, net: str, keep: float, seed: int, unit: int) -> Finished:
    dense = pretrained(net, seed, short(net))
    return finish(task, short(net), magnitude(dense, keep), seed, 3 * unit, unit)


def by_force(task: Task, net: str, keep: float, seed: int, unit: int) -> Finished:
    start = force(task, task.init(seed), keep, steps=STEPS, key=jax.random.key(seed))
    finished = finish(task, short(net), start, seed, 8 * unit, unit)
    return finished._replace(mask_steps=STEPS)


def by_snip(task: Task, net: str, keep: float, seed: int, unit: int) -> Finished:
    start = snip(task, task.init(seed), keep, key=jax.random.key(seed))
    return finish(task, short(net), start, seed, 8 * unit, unit)._replace(mask_steps=1)


def finish(
    task: Task, training: PretrainConfig, net: Variables, seed: int, epochs: int, unit: int
) -> Finished:
    """Trained under its zeros, clustered, and its codebooks tuned."""
    of_training, of_tuning = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    raw = retrain(task, net, replace(training, epochs=epochs), key=of_training)
    tuned = tune_codebooks(
        task,
        k_means(raw, levels=LEVELS),
        epochs=2 * unit,
        key=of_tuning,
        optimizer=optax.adam(TUNING),
        batch_size=training.batch_size,
        augment=training.augment(),
    )
    return Finished(tuned, raw, 0)


METHODS = {
    "magnitude": by_magnitude,
    "FORCE": by_force,
    "SNIP": by_snip,
}

if __name__ == "__main__":
    main()
