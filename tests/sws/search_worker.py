"""A worker of a search, in its own process: STORAGE TRIALS [slow].

Its trials do not retrain, which would take a minute, but round the same weights: coarsely with few
components and a large tau.
"""

import sys
import time
from dataclasses import replace

import numpy as np

from swsjax.file.files import dumps
from swsjax.sws import storage
from swsjax.sws.compression import Result
from swsjax.sws.config import LEARNED
from swsjax.sws.front import Front
from swsjax.sws.study import Study, search
from swsjax.training import Epoch, select

WEIGHTS = np.float32(np.random.default_rng(0).normal(size=(30, 20)))
BASE = replace(LEARNED, tau=0.1, components=16, soft_epochs=1, hard_epochs=2)


def run(config, *, evaluate=None, callback=None) -> Result:
    steps = config.components / 4
    rounded = np.round(WEIGHTS * steps) / np.float32(steps)
    params = {"w": np.where(np.abs(WEIGHTS) < config.tau, 0, rounded)}
    size = 1.25 * len(dumps(params))
    for number, stage in enumerate(["soft", "hard", "hard"], start=1):
        epoch = Epoch(stage, number, 3, 0.5, error=evaluate(params), non_zeros=9, bound_bytes=size)
        if callback is not None:
            callback(epoch)
    return Result(params, params, {}, [], select(params))


def error(params) -> float:
    return float(np.mean((params["w"] - WEIGHTS) ** 2))


def find(storage, trials, *, name="swsjax", seed=0, **arguments) -> Front:
    return search(
        **{"compress": run, "base": BASE, "evaluate": error} | arguments,
        study=Study(storage, name, seed),
        trials=trials,
    )


def finished(front) -> int:
    """Number of trials that are completed or stopped."""
    return len(front.points) + len(front.dominated) + front.stopped


def slow(trial, epoch) -> None:
    """Print the number of the running trial, and leave time to kill the worker in it."""
    sys.stdout.write(f"{trial}\n")
    sys.stdout.flush()
    time.sleep(1)


if __name__ == "__main__":
    storage._HEARTBEAT_SECONDS = 1
    place, trials, *is_slow = sys.argv[1:]
    find(place, int(trials), callback=slow if is_slow else None)
