"""A net of plain functions over a nested dict of arrays: the simplest case.

    python examples/plain_dict.py

``swsjax.compress`` takes the dict, a loss and the training data, and returns a dict of the same
form, in which the weights have few distinct values and most are zero.
"""

import jax
import jax.numpy as jnp
import numpy as np

import swsjax
from swsjax.lab.data import load_digits


def apply(params, images):
    x = images.reshape(len(images), -1) / 255
    x = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return x @ params["out"]["kernel"] + params["out"]["bias"]


def init(key):
    one, two = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(one, (64, 160)) / 8, "bias": jnp.zeros(160)},
        "out": {"kernel": jax.random.normal(two, (160, 10)) / 13, "bias": jnp.zeros(10)},
    }


def main(file="plain_dict.sws"):
    digits = load_digits()
    data = {"inputs": digits.train.images, "labels": digits.train.labels}
    # Nothing is chosen on the validation images, so they are held out with the test images.
    images, labels = map(np.concatenate, zip(digits.validation, digits.test, strict=True))

    # Your net:
    loss = swsjax.cross_entropy(apply)  # or any function (params, batch) -> scalar
    config = swsjax.PretrainConfig(epochs=40, batch_size=32)
    params = swsjax.pretrain(init(jax.random.key(0)), loss, data, config).params
    before = swsjax.error_rate(apply, params, images, labels)

    # A small one, in a file:
    result = swsjax.compress(params, loss, data)
    swsjax.save(file, result.params)

    # Measured on the net that comes back from the file:
    after = swsjax.error_rate(apply, swsjax.load(file), images, labels)
    errors = {"pretrained": {"held out": before}, "decoded": {"held out": after}}
    measured = swsjax.report(file, errors=errors)
    print(measured)
    return result.params, measured


if __name__ == "__main__":
    main()
