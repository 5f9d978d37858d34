"""A training with everything that has a state, to be killed and run again: FOLDER."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from swsjax.training.loop import Trained, train
from swsjax.training.masks import hold_zeros

RNG = np.random.default_rng(0)
DATA = {
    "x": np.float32(RNG.normal(size=(2000, 30))),
    "y": np.float32(RNG.normal(size=(2000, 10))),
}
PARAMS = {"w": np.float32(RNG.normal(size=(30, 10))), "b": np.zeros(10, np.float32)}
AUX = {"key": jax.random.key(1), "mean": jnp.zeros(30), "steps": jnp.zeros((), jnp.int32)}
EPOCHS, BATCH_SIZE = 10, 20
STEPS = EPOCHS * (2000 // BATCH_SIZE)


def loss_fn(params, aux, batch):
    """With dropout and a running mean."""
    key, drop = jax.random.split(aux["key"])
    kept = jax.random.bernoulli(drop, 0.9, batch["x"].shape)
    error = (batch["x"] * kept / 0.9) @ params["w"] + params["b"][None] - batch["y"]
    mean = 0.9 * aux["mean"] + 0.1 * batch["x"].mean(axis=0)
    return jnp.mean(error**2), {"key": key, "mean": mean, "steps": aux["steps"] + 1}


def prune(params, number):
    """Set a few more weights to zero before each epoch."""
    size = jnp.abs(params["w"])
    return params | {"w": jnp.where(size < jnp.quantile(size, number / 20), 0, params["w"])}


def project(params):
    """Keep the weights in a box."""
    return params | {"w": jnp.clip(params["w"], -1, 1)}


def run(folder=None, *, params=PARAMS, data=DATA, loss_fn=loss_fn, **options) -> Trained:
    schedule = optax.cosine_decay_schedule(0.05, STEPS)
    return train(
        params,
        loss_fn,
        data,
        optax.chain(optax.sgd(schedule, momentum=0.9), hold_zeros()),
        aux=AUX,
        project=project,
        before_epoch=prune,
        evaluate=lambda params, aux: float(jnp.abs(params["w"]).max() + aux["mean"].sum()),
        resume=folder,
        **{"epochs": EPOCHS, "batch_size": BATCH_SIZE} | options,
    )


def everything(trained: Trained) -> dict:
    """All that training returns, as arrays that can be written."""
    return {
        "params": trained.params,
        "aux": trained.aux | {"key": jax.random.key_data(trained.aux["key"])},
        "history": np.array([(p.epoch, p.epochs, p.loss, p.error) for p in trained.history]),
    }


if __name__ == "__main__":
    run(sys.argv[1], callback=lambda _: (sys.stdout.write("epoch\n"), sys.stdout.flush()))
