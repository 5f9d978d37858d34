"""A linear net whose weights are near -1, 0 and 1, and settings that compress it quickly."""

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.sws.rates import LearningRates

RNG = np.random.default_rng(0)
TRUE = RNG.choice([0, 0, 0, -1, 1], (10, 4)).astype(np.float32)
INPUTS = RNG.normal(size=(500, 10)).astype(np.float32)
DATA = {"x": INPUTS, "y": INPUTS @ TRUE}
PARAMS = {"w": TRUE + RNG.normal(0, 0.03, TRUE.shape).astype(np.float32)}
QUICK = {
    "components": 24,
    "pi_zero": 0.9,
    "initial_std": 0.1,
    "soft_epochs": 2,
    "hard_epochs": 2,
    "batch_size": 50,
    "least_steps": 1,
}
ONE_STEP = {"components": 4, "soft_epochs": 1, "hard_epochs": 0}
ONE_STEP |= {"batch_size": 500, "least_steps": 1}
STILL = LearningRates(weights=0.0, means=0.0, precisions=0.0, mixing=0.0)


def loss_fn(params, batch):
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def distance(params):
    return np.abs(params["w"] - TRUE).max().item()


def assert_bit_equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
