"""Soft weight-sharing at the cost of the pruned nets of ``sizes.py``, alone and after pruning.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/sharing.py lenet-300-100

Ten epochs each, all counted, as in ``sizes.py``: five of a dense net, which is then pruned by
magnitude or not at all, or five of a net that FORCE pruned at initialisation; then three in the
soft stage and two in the hard one, by labels alone. Pruned weights stay pruned. Also for
``lenet-5-caffe`` and ``resnet-8``, with three times the epochs for the latter. Writes
``results/baselines/sharing-NET.json``.
"""

from functools import partial
from typing import Any

import jax
from shared import add, arguments, errors, file_of, pretrained, settings_of, short, task_on_part
from sizes import STEPS

import swsjax
from swsjax.baselines import density, force, magnitude, retrain
from swsjax.lab import Variables
from swsjax.sws.recipes import Recipe, compress_task

ALONE = (3e-7, 1e-6, 3e-6, 1e-5)
"""Weights of the prior (nats of the mean loss per weight) for a net that was not pruned."""
AFTER = 1e-6
"""The same for a pruned one."""
KEEP = (0.1, 0.05, 0.02)
ROWS = [
    *[("sharing", 1.0, tau) for tau in ALONE],
    *[(f"{name} + sharing", keep, AFTER) for name in ("magnitude", "FORCE") for keep in KEEP],
]


def main() -> None:
    net, seeds = arguments(__doc__)
    given = settings_of(net, steps=STEPS, training=short(net), sharing=epochs_of(net))
    for seed in seeds:
        for method, keep, tau in ROWS:
            row = {"method": method, "keep": keep, "tau": tau, "seed": seed}
            measure = partial(run, net, method, keep, tau, seed)
            add(file_of("sharing", net), f"baselines/sharing.py {net}", given, row, measure)


def epochs_of(net: str) -> dict[str, int]:
    """Of each stage: half of those of ``sizes.py`` in all."""
    unit = short(net).epochs // 5
    return {"soft_epochs": 3 * unit, "hard_epochs": 2 * unit, "prune_epochs": 0}


def run(net: str, method: str, keep: float, tau: float, seed: int) -> dict[str, Any]:
    task, training = task_on_part(net), short(net)
    config = swsjax.Config(
        tau=tau,
        seed=seed,
        batch_size=training.batch_size,
        least_steps=1,  # an epoch is one pass, however few the images
        **epochs_of(net),
    )
    result = compress_task(
        task,
        start_of(net, method, keep, seed),
        Recipe(config, teacher_weight=0.0),
        augment=training.augment(),
    )
    found = Variables(result.params, result.aux)
    report = swsjax.report(swsjax.dumps(task.whole(found)))
    epochs = 2 * training.epochs
    steps = epochs * (len(task.dataset.train.images) // training.batch_size)
    return {
        "density": density(found),
        "gradient_steps": steps + (STEPS if method.startswith("FORCE") else 0),
        "file_bytes": report.file_bytes,
        "file_rate": report.rates["file"],
        "han_rate": report.rates["han"],
    } | errors(task, found)


def start_of(net: str, method: str, keep: float, seed: int) -> Variables:
    """The trained net, pruned before or after its training, or not at all."""
    task, training = task_on_part(net), short(net)
    if method.startswith("FORCE"):
        start = force(task, task.init(seed), keep, steps=STEPS, key=jax.random.key(seed))
        return retrain(task, start, training, key=jax.random.fold_in(jax.random.key(seed), 1))
    dense = pretrained(net, seed, training)
    return dense if keep == 1 else magnitude(dense, keep)


if __name__ == "__main__":
    main()
