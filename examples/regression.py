"""Regression: the lower half of a digit from its upper half.

    python examples/regression.py

Any mean loss will do. The prior weighs in against it as against a cross-entropy in nats, so bring
the targets to a scale on which the loss lies between about 0.1 and 1: standardise them.
"""

import jax
import jax.numpy as jnp
import numpy as np

import swsjax
from swsjax.data import load_digits

SIZES = (32, 128, 64, 32)


def init(key):
    return [
        {"kernel": jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, "bias": jnp.zeros(b)}
        for k, a, b in zip(jax.random.split(key, 3), SIZES[:-1], SIZES[1:], strict=True)
    ]


def apply(params, x):
    *hidden, out = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ out["kernel"] + out["bias"]


def loss(params, batch):
    return jnp.mean((apply(params, batch["inputs"]) - batch["targets"]) ** 2)


def halves(images, mean=0.0, std=1.0):
    pixels = (images.reshape(len(images), 64) - mean) / std
    return {"inputs": pixels[:, :32], "targets": pixels[:, 32:]}


def main(file="regression.sws"):
    digits = load_digits()
    mean, std = digits.train.images.mean(), digits.train.images.std()
    data = halves(digits.train.images, mean, std)
    held_out = halves(np.concatenate([digits.validation.images, digits.test.images]), mean, std)

    def error(params):
        """Share of the variance that is not explained, 1 - R2."""
        targets = held_out["targets"]
        return float(loss(params, held_out) / np.mean((targets - targets.mean(axis=0)) ** 2))

    config = swsjax.PretrainConfig(epochs=60, learning_rate=3e-3, batch_size=32, weight_decay=0.1)
    params = swsjax.pretrain(init(jax.random.key(0)), loss, data, config)
    result = swsjax.compress(params, loss, data)
    swsjax.save(file, result.params)

    decoded = swsjax.load(file, like=result.params)
    measured = swsjax.report(file, errors={"before": error(params), "after": error(decoded)})
    print(measured)
    return result.params, measured


if __name__ == "__main__":
    main()
