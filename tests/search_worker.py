"""A worker of a search on a tiny net, in a process of its own: STORAGE TRIALS [slow]."""

import sys
import time
from functools import partial

import jax.numpy as jnp
import numpy as np

from swsjax.compress import compress
from swsjax.config import Config
from swsjax.search import Front, search

RNG = np.random.default_rng(0)
TRUE = RNG.choice([-1.0, 0.0, 0.0, 1.0], (30, 10))
INPUTS = np.float32(RNG.normal(size=(500, 30)))
DATA = {"x": INPUTS, "y": np.float32(INPUTS @ TRUE)}
PARAMS = {"w": np.float32(TRUE + RNG.normal(0, 0.03, TRUE.shape))}
BASE = Config(
    tau=1e-3,
    components=4,
    pi_zero=0.9,
    initial_std=0.1,
    soft_epochs=1,
    hard_epochs=2,
    batch_size=100,
    least_steps=1,
)


def loss_fn(params, batch):
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def error(params) -> float:
    return float(loss_fn(params, DATA))


RUN = partial(compress, PARAMS, loss_fn, DATA)


def find(storage, trials, **arguments) -> Front:
    return search(
        **{"compress": RUN, "base": BASE, "evaluate": error} | arguments,
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
