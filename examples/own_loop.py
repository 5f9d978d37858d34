"""The prior in a training loop of your own, with an optimiser of your own.

    python examples/own_loop.py

``take_apart`` sorts the weights of your net into groups, ``sws.init`` and ``sws.make_step`` replace
your optimiser's ``init`` and your step; the batches, the loop and the logging stay yours.
Here the precisions of the mixture are learned, as in the paper. ``swsjax.compress`` adds the rest:
weights in units of each array, targets, finer tables as the mixture narrows, checks, resuming.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import swsjax
from swsjax import sws
from swsjax.lab.data import load_digits
from swsjax.training import take_apart

EPOCHS = {"train": 40, "soft": 240, "hard": 160}
BATCH_SIZE = 32


def apply(params, images):
    x = images.reshape(len(images), -1) / 255
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ params[-1]["kernel"] + params[-1]["bias"]


def init(key, sizes=(64, 100, 100, 10)):
    return [
        {"kernel": jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, "bias": jnp.zeros(b)}
        for k, a, b in zip(jax.random.split(key, 3), sizes[:-1], sizes[1:], strict=True)
    ]


loss = swsjax.cross_entropy(apply)


def batches(data, rng):
    size = len(data["labels"])
    for chosen in rng.permutation(size)[: size - size % BATCH_SIZE].reshape(-1, BATCH_SIZE):
        yield {name: x[chosen] for name, x in data.items()}


def train(params, data, rng):
    """Your own loop."""
    optimizer = optax.sgd(0.1, momentum=0.9)
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state, batch):
        updates, opt_state = optimizer.update(jax.grad(loss)(params, batch), opt_state)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(EPOCHS["train"]):
        for batch in batches(data, rng):
            params, opt_state = step(params, opt_state, batch)
    return params


def retrain(params, mixture, data, rng, *, forward, epochs, precisions):
    """The same loop under the prior."""
    steps = len(data["labels"]) // BATCH_SIZE
    momentum = optax.sgd(optax.cosine_decay_schedule(0.1, epochs * steps), momentum=0.9)
    rates = swsjax.LearningRates(weights=momentum, precisions=precisions)
    optimizer = rates.optimizer(epochs, steps)  # over the weights and the mixture

    net = take_apart(params)  # without rules: one group, "weights"
    state = sws.init(net, {"weights": mixture}, optimizer, jax.random.key(0))
    step = jax.jit(
        sws.make_step(
            net.loss(loss),
            optimizer,
            forward=forward,
            tau=1.1e-6,
            hyper=swsjax.HyperPriors(),
        )
    )
    for _ in range(epochs):
        for batch in batches(data, rng):
            state, _ = step(state, batch)
    params, _ = net.rebuild(state.params.weights, state.aux)
    return params, sws.merge(state.params.mixtures["weights"])


def main(file="own_loop.sws"):
    digits = load_digits()
    data = {"inputs": digits.train.images, "labels": digits.train.labels}
    # Nothing is chosen on the validation images, so they are held out with the test images.
    images, labels = map(np.concatenate, zip(digits.validation, digits.test, strict=True))
    rng = np.random.default_rng(0)
    params = train(init(jax.random.key(0)), data, rng)
    before = swsjax.error_rate(apply, params, images, labels)

    weights = np.concatenate([x.ravel() for x in jax.tree.leaves(params)])
    mixture = sws.init_mixture(weights.min(), weights.max(), pi_zero=0.9)
    for forward, precisions in ((sws.soft, 7e-4), (sws.hard, 5e-4)):
        params, mixture = retrain(
            params,
            mixture,
            data,
            rng,
            forward=forward,
            epochs=EPOCHS[forward.__name__],
            precisions=precisions,
        )
    quantised = sws.quantize(mixture, params)
    swsjax.save(file, quantised)

    after = swsjax.error_rate(apply, swsjax.load(file, like=quantised), images, labels)
    errors = {"pretrained": {"held out": before}, "decoded": {"held out": after}}
    measured = swsjax.report(file, errors=errors)
    print(measured)
    return quantised, measured


if __name__ == "__main__":
    main()
