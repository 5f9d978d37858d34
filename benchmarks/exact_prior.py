"""Does the table change the result? LeNet-300-100 with the exact and the tabulated prior.

    SWSJAX_DATA=... python benchmarks/exact_prior.py

From the same pretrained net and with the same order of examples, for several seeds. Rounding alone
makes two trainings diverge, so their difference is compared with that between seeds. Writes
``results/exact-prior-lenet-300-100.json``.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from common.results import RESULTS, made_by, measured, write
from common.rows import pretrained_net, task_of

import swsjax
from swsjax.lab import Variables
from swsjax.sws import LEARNED, non_zeros
from swsjax.sws.recipes import Recipe, compress_task

NET = "lenet-300-100"
SEEDS = (0, 1, 2)
PRIORS = ("exact", "tabulated")
# Soft and hard stage: in the pruning stage the prior does not act.
CONFIG = replace(LEARNED, tau=0.06 / 55_000)
OUT = RESULTS / f"exact-prior-{NET}.json"


def main() -> None:
    settings = {"config": CONFIG.to_dict()}
    rows = measured(OUT, settings)
    for seed in SEEDS[len(rows) :]:
        net, _ = pretrained_net(NET, seed)
        row = {prior: run(net, replace(CONFIG, seed=seed, prior=prior)) for prior in PRIORS}
        rows.append({"seed": seed} | row)
        print(rows[-1], flush=True)
        found = {"summary": summary(rows), "seeds": rows}
        write(OUT, made_by("exact_prior.py") | settings | found)


def run(net: Variables, config: swsjax.Config) -> dict[str, Any]:
    task = task_of(NET)
    started = time.perf_counter()
    result = compress_task(task, net, Recipe(config))
    seconds = time.perf_counter() - started
    compressed = Variables(result.params, result.aux)
    return {
        "validation_error": task.error(compressed, task.dataset.validation),
        "test_error": task.error(compressed, task.dataset.test),
        "file_bytes": len(swsjax.dumps(result.params)),
        "non_zeros": non_zeros(result.params),
        "largest_prior_error": max(epoch.details.prior_error for epoch in result.history),
        "seconds": seconds,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The two means, and the standard deviation between seeds with the exact prior."""
    found = {}
    for name in ("validation_error", "test_error", "file_bytes"):
        exact, tabulated = ([row[prior][name] for row in rows] for prior in PRIORS)
        found[name] = {
            "mean_of_exact": float(np.mean(exact)),
            "mean_of_tabulated": float(np.mean(tabulated)),
            "standard_deviation_between_seeds": float(np.std(exact, ddof=len(rows) > 1)),
        }
    return found


if __name__ == "__main__":
    main()
