"""Does the table change the result? LeNet-300-100 with the exact and the tabulated prior.

    SWSJAX_DATA=... python benchmarks/exact.py

From the same pretrained net and the same order of examples, for several seeds. Rounding alone
makes two trainings part ways, so what counts is the difference against that between seeds. About
ten minutes a seed on two cores, most of it for the exact prior.
"""

import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from row import RESULTS
from table1 import SEEDS

import swsjax
from swsjax.file.atomic import write_bytes
from swsjax.lab.task import build, compress_classifier, pretrain_classifier
from swsjax.lab.data import load_mnist
from swsjax.lab.nets import LeNet300100
from swsjax.sws.recipes import LENET_300_100_PRETRAINING

METHODS = ("exact", "tabulated")
CONFIG = swsjax.Config(tau=0.06)  # soft and hard stage: in the pruning stage the prior does not act


def run(seed: int) -> dict[str, Any]:
    dataset = load_mnist()
    pretrained = pretrain_classifier(
        build(LeNet300100, dataset, seed=seed),
        dataset,
        replace(LENET_300_100_PRETRAINING, seed=seed),
    )
    row: dict[str, Any] = {"seed": seed}
    for method in METHODS:
        config = replace(CONFIG, seed=seed, method=method)
        started = time.perf_counter()
        result = compress_classifier(pretrained, dataset, config)
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            size = swsjax.save(Path(folder) / "net.sws", result.params)
        compressed = pretrained._replace(params=result.params)
        row[method] = {
            "validation_error": compressed.error(dataset.validation),
            "test_error": compressed.error(dataset.test),
            "file_bytes": size,
            "non_zeros": swsjax.non_zeros(result.params),
            "largest_prior_error": max(progress.prior_error for progress in result.history),
            "seconds": seconds,
        }
        print(seed, method, row[method], flush=True)
    return row


def main() -> None:
    rows = [run(seed) for seed in SEEDS]
    summary = {
        name: {
            "mean_of_exact": float(np.mean([row["exact"][name] for row in rows])),
            "mean_of_tabulated": float(np.mean([row["tabulated"][name] for row in rows])),
            "standard_deviation_between_seeds": float(
                np.std([row["exact"][name] for row in rows], ddof=1)
            ),
        }
        for name in ("validation_error", "test_error", "file_bytes")
    }
    content = {
        "command": "python benchmarks/exact.py",
        "config": repr(CONFIG),
        "machine": f"{platform.machine()}, {jax.default_backend()}, {jax.device_count()} device(s)",
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
        "summary": summary,
        "seeds": rows,
    }
    path = RESULTS / "exact-lenet-300-100.json"
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
