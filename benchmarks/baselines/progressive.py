"""FORCE and Iter SNIP by number of steps: saliency, layers, what returns, time against error.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/progressive.py lenet-300-100

De Jorge et al. (arXiv 2006.09081), Figures 4 and 6 to 9. With one step both are SNIP. The saliency
of all masks of a seed is measured on the same batches, which none of them was made from; nets of
one density are also trained, as in ``density.py``. Also for ``lenet-5-caffe`` and ``resnet-8``.
Writes ``results/baselines/progressive-NET.json``.
"""

import time
from functools import partial
from typing import Any

import jax
import numpy as np
from shared import add, arguments, errors, file_of, layers, settings_of, short, task_on_part

from swsjax.baselines import force_masks, iter_snip_masks, masked, retrain, saliency

KEEP = (0.1, 0.01, 0.003, 0.001)
TRAINED = 0.01
STEPS = (1, 4, 15, 60)
METHODS = {"FORCE": force_masks, "Iter SNIP": iter_snip_masks}
SALIENCY_BATCHES = 100
"""Whose mean gradient gives a saliency; the other is the mean of those of 20 single batches."""


def main() -> None:
    net, seeds = arguments(__doc__)
    settings = settings_of(
        net, trained=TRAINED, saliency_batches=SALIENCY_BATCHES, training=short(net)
    )
    for seed in seeds:
        for keep in KEEP:
            for steps in STEPS:
                for method in METHODS:
                    row = {"method": method, "keep": keep, "steps": steps, "seed": seed}
                    measure = partial(run, net, method, keep, steps, seed)
                    command = f"baselines/progressive.py {net}"
                    add(file_of("progressive", net), command, settings, row, measure)


def run(net: str, method: str, keep: float, steps: int, seed: int) -> dict[str, Any]:
    task, key = task_on_part(net), jax.random.key(seed)
    init, masks_of = task.init(seed), METHODS[method]
    masks_of(task, init, keep, steps=2, key=key)  # compiles
    started = time.process_time()
    masks = jax.block_until_ready(masks_of(task, init, keep, steps=steps, key=key))
    seconds = time.process_time() - started
    pruned = masked(init, masks[-1])
    unseen = jax.random.fold_in(key, 1)
    single = [saliency(task, pruned, key=one) for one in jax.random.split(unseen, 20)]
    found = {
        "saliency": float(np.mean(single)),
        "saliency_of_mean_gradient": saliency(task, pruned, batches=SALIENCY_BATCHES, key=unseen),
        "mask_processor_seconds": seconds,
        "layers": [layers(masked(init, mask)) for mask in masks],
        **changes(masks),
    }
    if keep != TRAINED:
        return found
    return found | errors(task, retrain(task, pruned, short(net), key=key))


def changes(masks: list[dict[str, jax.Array]]) -> dict[str, list[int]]:
    """How many weights each step prunes, and how many pruned ones come back."""
    left = [
        np.concatenate([np.asarray(kernel).ravel() for kernel in mask.values()]) for mask in masks
    ]
    before = [np.ones_like(left[0]), *left[:-1]]
    return {
        "pruned": [int(np.sum(a & ~b)) for a, b in zip(before, left, strict=True)],
        "recovered": [int(np.sum(b & ~a)) for a, b in zip(before, left, strict=True)],
    }


if __name__ == "__main__":
    main()
