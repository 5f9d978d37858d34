"""A Flax Linen net with batch statistics and dropout: ``aux`` carries what is not trained.

    python examples/linen_batchnorm_dropout.py

``aux`` is any pytree of arrays. The loss gets it beside the params and returns it as it is to be in
the next step; here it holds the running statistics and the key of the dropout masks.

Before a normalisation the scale of a kernel does not matter, so nothing but the prior acts on it,
and where the training data are learned by heart it pulls whole layers into its zero component.
Every hidden layer here is normalised: a smaller ``tau`` and ``pi_zero`` leave the loss its say.
"""

import jax
import numpy as np
import optax
from flax import linen as nn

import swsjax
from swsjax.lab.data import load_digits


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


def train(params, aux, data, *, epochs=40, batch_size=32):
    """Stands for your own training."""
    steps = len(data["labels"]) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, epochs * steps))
    state = optimizer.init(params)

    @jax.jit
    def step(params, aux, state, batch):
        gradients, aux = jax.grad(loss, has_aux=True)(params, aux, batch)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), aux, state

    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for chosen in rng.permutation(len(data["labels"]))[: steps * batch_size].reshape(steps, -1):
            batch = {name: x[chosen] for name, x in data.items()}
            params, aux, state = step(params, aux, state, batch)
    return params, aux


def main(file="linen.sws"):
    digits = load_digits()
    data = {"inputs": digits.train.images.astype(np.float32), "labels": digits.train.labels}
    # Nothing is chosen on the validation images, so they are held out like the test images.
    images, labels = map(np.concatenate, zip(digits.validation, digits.test, strict=True))

    def error(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        logits = net.apply(variables, images.astype(np.float32), train=False)
        return float((logits.argmax(axis=1) != labels).mean())

    variables = net.init(jax.random.key(0), data["inputs"][:1], train=False)
    aux = {"batch_stats": variables["batch_stats"], "key": jax.random.key(1)}
    params, aux = train(variables["params"], aux, data)
    before = error(params, aux["batch_stats"])

    tau = 0.3 * swsjax.TAU_PER_EXAMPLE * len(data["labels"])
    result = swsjax.compress(params, loss, data, swsjax.Config(tau=tau, pi_zero=0.9), aux=aux)
    small = {"params": result.params, "batch_stats": result.aux["batch_stats"]}
    swsjax.save(file, small)

    measured = swsjax.report(file, errors={"before": before, "after": error(**swsjax.load(file))})
    print(measured)
    return small, measured


if __name__ == "__main__":
    main()
