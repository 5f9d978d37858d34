"""A retraining with every kind of state, to be killed and started again: FOLDER RESULT."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.file import save
from swsjax.sws.compression import Result, compress
from swsjax.sws.config import LEARNED
from swsjax.sws.rates import LearningRates
from swsjax.training import stream_arrays

RNG = np.random.default_rng(0)
TRUE = RNG.choice([-1.0, 0.0, 0.0, 1.0], (30, 10))
INPUTS = np.float32(RNG.normal(size=(1000, 30)))
DATA = {"x": INPUTS, "y": np.float32(INPUTS @ TRUE)}
PARAMS = {"w": np.float32(TRUE + RNG.normal(0, 0.03, TRUE.shape)), "b": np.zeros(10, np.float32)}
AUX = {"key": jax.random.key(1), "mean": jnp.zeros(30), "steps": jnp.zeros((), jnp.int32)}
RULES = [("b", None)]
CONFIG = replace(
    LEARNED,
    components=4,
    pi_zero=0.9,
    initial_std=0.1,
    soft_epochs=2,
    hard_epochs=2,
    prune_epochs=2,
    keep=0.9,
    soft_learning_rates=LearningRates(precisions=0.01),
    hard_learning_rates=LearningRates(weights=1e-4),
    batch_size=50,
    least_steps=40,  # two passes
)


def loss_fn(params, aux, batch):
    """With dropout and a running mean."""
    key, drop = jax.random.split(aux["key"])
    kept = jax.random.bernoulli(drop, 0.9, batch["x"].shape)
    error = (batch["x"] * kept / 0.9) @ params["w"] + params["b"][None] - batch["y"]
    mean = 0.9 * aux["mean"] + 0.1 * batch["x"].mean(axis=0)
    return jnp.mean(error**2), {"key": key, "mean": mean, "steps": aux["steps"] + 1}


def run(
    folder=None, *, data=DATA, loss_fn=loss_fn, rules=RULES, config=CONFIG, callback=None
) -> Result:
    return compress(
        PARAMS,
        loss_fn,
        data,
        config,
        aux=AUX,
        rules=rules,
        evaluate=lambda params, aux: float(jnp.abs(params["w"] - TRUE).max() + aux["mean"].sum()),
        callback=callback,
        resume=folder,
    )


def stream():
    return stream_arrays(DATA, batch_size=CONFIG.batch_size)


def everything(result: Result) -> dict:
    """All that a result holds, as arrays that a file can hold."""
    details = [epoch.details for epoch in result.history]
    epochs = [
        (epoch.epoch, epoch.epochs, epoch.loss, epoch.error, epoch.non_zeros, epoch.bound_bytes)
        for epoch in result.history
    ]
    measured = [(d.levels, d.components, d.smallest_sigma, d.prior_error) for d in details]
    return {
        "params": result.params,
        "retrained": result.retrained,
        "mixtures": result.mixtures,
        "key": jax.random.key_data(result.aux["key"]),
        "mean": result.aux["mean"],
        "steps": result.aux["steps"],
        "history": np.array(epochs),
        "details": np.array(measured),
        "nodes": np.array([d.nodes["weights"] for d in details]),
        "reported": [d.mixtures for d in details],
    }


if __name__ == "__main__":
    folder, target = map(Path, sys.argv[1:])
    result = run(folder, callback=lambda _: (sys.stdout.write("epoch\n"), sys.stdout.flush()))
    save(target, everything(result))
