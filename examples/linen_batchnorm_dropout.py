"""A Flax Linen net with batch statistics and dropout: ``aux`` carries what is not trained.

    python examples/linen_batchnorm_dropout.py

``aux`` is any pytree of arrays. The loss receives it after the params and returns it for the next
step; here it holds the running statistics and the key of the dropout masks. Statistics are
re-estimated for the compressed net.
"""

import jax
import numpy as np
import optax
from flax import linen as nn

import swsjax
from swsjax.lab.data import load_digits

EPOCHS, BATCH_SIZE = 40, 32


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = x.reshape(len(x), -1) / 255
        for width in (128, 64):
            x = nn.Dense(width, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(10)(x)


net = Net()


def loss(params, aux, batch):
    key, dropout = jax.random.split(aux["key"])
    logits, updated = net.apply(
        {"params": params, "batch_stats": aux["batch_stats"]},
        batch["inputs"],
        train=True,
        rngs={"dropout": dropout},
        mutable=["batch_stats"],
    )
    value = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()
    return value, {"batch_stats": updated["batch_stats"], "key": key}


def main(file="linen.sws"):
    digits = load_digits()
    data = {"inputs": digits.train.images.astype(np.float32), "labels": digits.train.labels}
    # Nothing is chosen on the validation images, so they are held out with the test images.
    images, labels = map(np.concatenate, zip(digits.validation, digits.test, strict=True))

    def error(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        logits = net.apply(variables, images.astype(np.float32), train=False)
        return float((logits.argmax(axis=1) != labels).mean())

    variables = net.init(jax.random.key(0), data["inputs"][:1], train=False)
    aux = {"batch_stats": variables["batch_stats"], "key": jax.random.key(1)}
    # Your own training, or this: any optax optimiser, with the same loss and aux.
    steps = EPOCHS * (len(data["labels"]) // BATCH_SIZE)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    trained = swsjax.train(
        variables["params"], loss, data, optimizer, epochs=EPOCHS, batch_size=BATCH_SIZE, aux=aux
    )
    before = error(trained.params, trained.aux["batch_stats"])

    result = swsjax.compress(trained.params, loss, data, aux=trained.aux)
    small = {"params": result.params, "batch_stats": result.aux["batch_stats"]}
    swsjax.save(file, small)

    after = error(**swsjax.load(file))
    errors = {"pretrained": {"held out": before}, "decoded": {"held out": after}}
    measured = swsjax.report(file, errors=errors)
    print(measured)
    return small, measured


if __name__ == "__main__":
    main()
