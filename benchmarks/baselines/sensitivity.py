"""Which layers can lose channels: the norms of each, and the error with that layer alone pruned.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/sensitivity.py lenet-5-caffe

Norms of the channels of each hidden layer and their skewness, from which SPSRC draws what to prune;
and the validation error with the channels of small L1 norm removed in one layer at a time, without
fine-tuning, from which Li et al. (arXiv 1608.08710) do. Also for ``resnet-8``. Writes
``results/baselines/sensitivity-NET.json``.
"""

from functools import partial

import jax
import numpy as np
from channel_tasks import channel_settings, dense, groups_of, inputs, task_on_part
from channels import scored
from shared import Row, add, file_of

from swsjax.baselines import sensitivities, shares_by_sensitivity, skewness

SHARES = [round(0.1 * tenths, 1) for tenths in range(9, 0, -1)]
"""Of the channels of a layer that are kept."""
TOLERANCE = 0.01
"""Rise of the error up to which a layer may be pruned alone."""
NORMS = ("L1", "spectral", "nuclear", "Frobenius")


def main() -> None:
    net, seeds = inputs(__doc__)
    settings = channel_settings(net, shares=SHARES, tolerance=TOLERANCE)
    for seed in seeds:
        names = [group.kernels[0][0].split("/")[-2] for group in groups_of_seed(net, seed)]
        for number, name in enumerate(names):
            measure = partial(run, net, number, seed)
            command = f"baselines/sensitivity.py {net}"
            row = {"layer": name, "seed": seed}
            add(file_of("sensitivity", net), command, settings, row, measure)


def groups_of_seed(net: str, seed: int) -> list:
    return groups_of(task_on_part(net), dense(net, seed))


def run(net: str, number: int, seed: int) -> Row:
    """Norms, skewness and sensitivity of a layer."""
    task, start = task_on_part(net), dense(net, seed)
    norms = {name: scored(task, start, name, jax.random.key(seed))[number] for name in NORMS}
    group = groups_of(task, start)[number]
    (errors,) = sensitivities(task, start, [group], [norms["L1"]], SHARES)
    before = task.error(start, task.dataset.validation)
    (share,) = shares_by_sensitivity(errors[None], SHARES, error=before, tolerance=TOLERANCE)
    return {
        "norms": {name: np.sort(values).tolist() for name, values in norms.items()},
        "skewness": dict(zip(norms, skewness(list(norms.values())), strict=True)),
        "error_before": before,
        "errors": errors.tolist(),
        "share": share,
    }


if __name__ == "__main__":
    main()
