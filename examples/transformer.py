"""A small transformer, with a rule for its LayerNorms.

    python examples/transformer.py

The images are read as sequences of eight rows. The scales and offsets of LayerNorm are few, and the
net is sensitive to them, so a rule leaves them out: they are trained with the rest and stored in
full.
"""

import jax
import jax.numpy as jnp
import numpy as np

import swsjax
from swsjax.lab.data import load_digits

WIDTH, HEADS, BLOCKS = 32, 4, 1


def init(key):
    keys = iter(jax.random.split(key, 99))

    def dense(rows, columns):
        kernel = jax.random.normal(next(keys), (rows, columns)) / rows**0.5
        return {"kernel": kernel, "bias": jnp.zeros(columns)}

    def norm():
        return {"scale": jnp.ones(WIDTH), "bias": jnp.zeros(WIDTH)}

    def block():
        return {
            "norm1": norm(),
            "qkv": dense(WIDTH, 3 * WIDTH),
            "mixed": dense(WIDTH, WIDTH),
            "norm2": norm(),
            "wide": dense(WIDTH, 4 * WIDTH),
            "narrow": dense(4 * WIDTH, WIDTH),
        }

    return {
        "rows": dense(8, WIDTH),
        "positions": jax.random.normal(next(keys), (8, WIDTH)) / 2,
        "blocks": [block() for _ in range(BLOCKS)],
        "norm": norm(),
        "out": dense(WIDTH, 10),
    }


def apply(params, images):
    x = linear(params["rows"], images / 255) + params["positions"]
    for block in params["blocks"]:
        qkv = linear(block["qkv"], normed(block["norm1"], x))
        qkv = qkv.reshape(*qkv.shape[:2], 3, HEADS, WIDTH // HEADS)
        heads = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        x = x + linear(block["mixed"], heads.reshape(x.shape))
        x = x + linear(
            block["narrow"], jax.nn.relu(linear(block["wide"], normed(block["norm2"], x)))
        )
    return linear(params["out"], normed(params["norm"], x).mean(axis=1))


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def normed(params, x):
    return jax.nn.standardize(x) * params["scale"] + params["bias"]


def main(file="transformer.sws"):
    digits = load_digits()
    data = {"inputs": digits.train.images, "labels": digits.train.labels}
    # Nothing is chosen on the validation images, so they are held out with the test images.
    images, labels = map(np.concatenate, zip(digits.validation, digits.test, strict=True))
    loss = swsjax.cross_entropy(apply)
    config = swsjax.PretrainConfig(epochs=30, learning_rate=2e-3, batch_size=32)
    params = swsjax.pretrain(init(jax.random.key(0)), loss, data, config).params
    before = swsjax.error_rate(apply, params, images, labels)

    rules = [("*norm*", None)]
    print(swsjax.select(params, rules), end="\n\n")  # a dry run: what will happen to each leaf
    result = swsjax.compress(params, loss, data, rules=rules)
    swsjax.save(file, result.params)

    decoded = swsjax.load(file, like=result.params)  # with lists where lists were
    after = swsjax.error_rate(apply, decoded, images, labels)
    errors = {"pretrained": {"held out": before}, "decoded": {"held out": after}}
    measured = swsjax.report(file, errors=errors)
    print(measured)
    return result.params, measured


if __name__ == "__main__":
    main()
