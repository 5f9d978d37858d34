"""A worker of a search, in a process of its own: STORAGE TRIALS [slow].

What it searches is no retraining, which would take a minute, but rounding of the same weights: with
few components and a large tau coarse.
"""

import sys
import time

import numpy as np

from swsjax.sws.compression import Result
from swsjax.sws.config import Config
from swsjax.file.files import dumps
from swsjax.sws.study import Front, search
from swsjax.sws.stages import Progress

WEIGHTS = np.float32(np.random.default_rng(0).normal(size=(30, 20)))
BASE = Config(tau=0.1, components=16, soft_epochs=1, hard_epochs=2)


def run(config, *, evaluate=None, callback=None) -> Result:
    steps = config.components / 4
    rounded = np.round(WEIGHTS * steps) / np.float32(steps)
    params = {"w": np.where(np.abs(WEIGHTS) < config.tau, 0, rounded)}
    size = 1.25 * len(dumps(params))
    for epoch, stage in enumerate(["soft", "hard", "hard"], start=1):
        progress = Progress(stage, epoch, 3, 0.5, 9, 9, size, 9, 0.1, evaluate(params), 0.0, {})
        if callback is not None:
            callback(progress)
    return Result(params, params, {}, [])


def error(params) -> float:
    return float(np.mean((params["w"] - WEIGHTS) ** 2))


def find(storage, trials, **arguments) -> Front:
    return search(
        **{"compress": run, "base": BASE, "evaluate": error} | arguments,
        storage=storage,
        trials=trials,
    )


def slow(trial, progress) -> None:
    """Say which trial is at work, and leave time to be killed in it."""
    sys.stdout.write(f"{trial}\n")
    sys.stdout.flush()
    time.sleep(1)


if __name__ == "__main__":
    # The package has a function of that name, too.
    sys.modules["swsjax.search"]._HEARTBEAT_SECONDS = 1
    storage, trials, *is_slow = sys.argv[1:]
    find(storage, int(trials), callback=slow if is_slow else None)
