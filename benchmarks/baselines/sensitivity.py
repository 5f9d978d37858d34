"""Which layers can lose channels: the norms of each, and the error with that layer alone pruned.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/sensitivity.py lenet-5-caffe

Norms of the channels of each hidden layer and their skewness, from which SPSRC draws what to prune;
and the validation error with the channels of small L1 norm removed in one layer at a time, without
fine-tuning, from which Li et al. (arXiv 1608.08710) do. Also for ``resnet-8``. Writes
``results/baselines/sensitivity-NET.json``.
"""

from functools import cache, partial

import jax
import numpy as np
from channel_tasks import channel_settings, dense, groups_of, inputs
from channels import scored
from shared import Row, add, file_of, task_on_part

from swsjax.baselines import Group, sensitivities, shares_by_sensitivity, skewness

SHARES = [round(0.1 * tenths, 1) for tenths in range(9, 0, -1)]
"""Of the channels of a layer that are kept."""
TOLERANCE = 0.01
"""Rise of the error up to which a layer may be pruned alone."""
NORMS = ("L1", "spectral", "nuclear", "Frobenius")


def main() -> None:
    net, seeds = inputs(__doc__)
    settings = channel_settings(net, shares=SHARES, tolerance=TOLERANCE)
    for seed in seeds:
        groups = groups_of(task_on_part(net), dense(net, seed))
        for number, group in enumerate(groups):
            measure = partial(run, net, group, number, seed)
            command = f"baselines/sensitivity.py {net}"
            row = {"layer": group.kernels[0][0].split("/")[-2], "seed": seed}
            add(file_of("sensitivity", net), command, settings, row, measure)


@cache
def norms_of(net: str, seed: int) -> dict[str, list[np.ndarray]]:
    """The norms of all layers."""
    task, start = task_on_part(net), dense(net, seed)
    return {name: scored(task, start, name, jax.random.key(seed)) for name in NORMS}


def run(net: str, group: Group, number: int, seed: int) -> Row:
    """Norms, skewness and sensitivity of a layer."""
    task, start = task_on_part(net), dense(net, seed)
    norms = {name: of_layers[number] for name, of_layers in norms_of(net, seed).items()}
    (errors,) = sensitivities(task, start, [group], [norms["L1"]], SHARES)
    before = task.error(start, task.dataset.validation)
    (share,) = shares_by_sensitivity(errors[None], SHARES, error=before, tolerance=TOLERANCE)
    return {
        "norms": {name: values.tolist() for name, values in norms.items()},
        "skewness": dict(zip(norms, skewness(list(norms.values())), strict=True)),
        "error_before": before,
        "errors": errors.tolist(),
        "share": share,
    }


if __name__ == "__main__":
    main()
