"""What can be had without training: codebooks and bits for a trained net, pruned or not.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/untrained.py lenet-300-100

The dense nets are those of ``sizes.py``. Also for ``lenet-5-caffe`` and ``resnet-8``. Writes
``results/baselines/untrained-NET.json``.
"""

from functools import partial
from typing import Any

from shared import add, arguments, errors, file_of, pretrained, settings_of, short, task_on_part

import swsjax
from swsjax.baselines import density, k_means, magnitude, quantize_affine
from swsjax.lab import Variables

LEVELS = (32, 16, 8)
"""Of k-means, in each array."""
BITS = (8, 4, 3)
"""Of affine quantisation, in each array."""
KEEP = (1.0, 0.4, 0.2)


def main() -> None:
    net, seeds = arguments(__doc__)
    settings = settings_of(net, training=short(net))
    for seed in seeds:
        for keep in KEEP:
            for name, size in (*(("k-means", k) for k in LEVELS), *(("affine", b) for b in BITS)):
                row = {"method": name, "size": size, "keep": keep, "seed": seed}
                measure = partial(run, net, name, size, keep, seed)
                add(
                    file_of("untrained", net),
                    f"baselines/untrained.py {net}",
                    settings,
                    row,
                    measure,
                )


def run(net: str, name: str, size: int, keep: float, seed: int) -> dict[str, Any]:
    task, dense = task_on_part(net), pretrained(net, seed, short(net))
    found: Variables = METHODS[name](dense if keep == 1 else magnitude(dense, keep), size)
    report = swsjax.report(swsjax.dumps(task.whole(found)))
    return {
        "density": density(found),
        "file_bytes": report.file_bytes,
        "file_rate": report.rates["file"],
        "lost": task.error(found, task.dataset.test) - task.error(dense, task.dataset.test),
    } | errors(task, found)


METHODS = {
    "k-means": lambda net, size: k_means(net, levels=size),
    "affine": lambda net, size: quantize_affine(net, bits=size),
}

if __name__ == "__main__":
    main()
