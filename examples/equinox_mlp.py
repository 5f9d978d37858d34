"""An Equinox module, passed to ``compress`` as it is.

    pip install equinox
    python examples/equinox_mlp.py

An Equinox module is a pytree with functions among its leaves. Its floating arrays are compressed,
everything else comes back unchanged, and the result is a module again.
"""

import equinox as eqx
import jax
import numpy as np
import optax

import swsjax
from swsjax.lab.data import load_digits


def loss(net, batch):
    logits = jax.vmap(net)(batch["inputs"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()


def train(net, data, *, epochs=40, batch_size=32):
    """Stands for your own training."""
    steps = len(data["labels"]) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, epochs * steps))
    state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(net, state, batch):
        gradients = eqx.filter_grad(loss)(net, batch)
        updates, state = optimizer.update(gradients, state)
        return eqx.apply_updates(net, updates), state

    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for chosen in rng.permutation(len(data["labels"]))[: steps * batch_size].reshape(steps, -1):
            net, state = step(net, state, {name: x[chosen] for name, x in data.items()})
    return net


def flat(images):
    return images.reshape(len(images), -1).astype(np.float32) / 255


def main(file="equinox_mlp.sws"):
    digits = load_digits()
    data = {"inputs": flat(digits.train.images), "labels": digits.train.labels}
    # Nothing is chosen on the validation images, so they are held out with the test images.
    images, labels = map(np.concatenate, zip(digits.validation, digits.test, strict=True))

    def error(net):
        logits = jax.vmap(net)(flat(images))
        return float((logits.argmax(axis=1) != labels).mean())

    net = train(eqx.nn.MLP(64, 10, width_size=100, depth=2, key=jax.random.key(0)), data)
    result = swsjax.compress(net, loss, data)

    # Files hold arrays. The rest of the module is code, which whoever loads the file has.
    arrays, code = eqx.partition(result.params, eqx.is_array)
    swsjax.save(file, arrays)

    decoded = eqx.combine(swsjax.load(file, like=arrays), code)
    errors = {"pretrained": {"held out": error(net)}, "decoded": {"held out": error(decoded)}}
    measured = swsjax.report(file, errors=errors)
    print(measured)
    return arrays, measured


if __name__ == "__main__":
    main()
