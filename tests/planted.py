"""A two-layer net whose weights are near few values, and its retraining."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.sws.compression import Result, compress
from swsjax.sws.config import LEARNED
from swsjax.sws.rates import LearningRates

RNG = np.random.default_rng(0)
HIDDEN, OUT = (RNG.choice([0, 0, 0, -1, 1], shape) for shape in [(10, 6), (6, 4)])
INPUTS = RNG.normal(size=(520, 10)).astype(np.float32)
DATA = {"x": INPUTS, "y": np.float32(np.maximum(INPUTS @ HIDDEN, 0) @ OUT)}
# 87 weights: an odd number does not divide by any number of devices.
PARAMS = {
    "hidden": np.float32(HIDDEN + RNG.normal(0, 0.03, HIDDEN.shape)),
    "out": np.float32(OUT + RNG.normal(0, 0.03, OUT.shape)),
    "bias": np.float32([0.02, -0.01, 0.0]),
}


def loss_fn(params, batch):
    hidden = jax.nn.relu(batch["x"] @ params["hidden"])
    hidden = hidden.at[:, :3].add(params["bias"][None])
    return jnp.mean((hidden @ params["out"] - batch["y"]) ** 2)


def retrain(
    soft_epochs, hard_epochs, loss=loss_fn, data=DATA, *, prune_epochs=0, **arguments
) -> Result:
    """Retrain in steps of 64 examples, 8 per epoch."""
    config = replace(
        LEARNED,
        components=4,
        pi_zero=0.9,
        initial_std=0.1,
        soft_epochs=soft_epochs,
        hard_epochs=hard_epochs,
        prune_epochs=prune_epochs,
        hard_learning_rates=LearningRates(precisions=5e-4),
        batch_size=64,
        least_steps=1,
    )
    return compress(PARAMS, loss, data, config, **arguments)
