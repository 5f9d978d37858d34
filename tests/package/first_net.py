"""What a new user writes: a Flax Linen net of one's own on digits, a rule and a target.

python first_net.py net.sws
"""

import sys

import jax
import numpy as np
from flax import linen as nn

import swsjax


class Net(nn.Module):
    @nn.compact
    def __call__(self, images):
        x = images[..., None] / 255
        for channels in (8, 16):
            x = nn.relu(nn.Conv(channels, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        return nn.Dense(10)(nn.relu(nn.Dense(48)(x)))


def apply(params, images):
    return Net().apply({"params": params}, images)


def main(file: str) -> None:
    train, validation, test = swsjax.lab.load_digits()[1:]
    data = {"inputs": train.images.astype(np.float32), "labels": train.labels}
    params = Net().init(jax.random.key(0), data["inputs"][:1])["params"]
    loss = swsjax.cross_entropy(apply)
    config = swsjax.PretrainConfig(epochs=20, batch_size=32)
    params = swsjax.pretrain(params, loss, data, config).params
    result = swsjax.compress(
        params,
        loss,
        data,
        rules=[("*/bias", None)],  # biases are trained with the rest, and stored in full
        evaluate=lambda net: swsjax.training.misclassified(apply, net, *validation),
        target_bytes=3_000,
        budget=6_000,
    )
    swsjax.save(file, result.params)
    print(result.outcomes[0])
    before, after = (swsjax.error_rate(apply, net, *test) for net in (params, result.params))
    print(f"test error {before:.4f} {after:.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
