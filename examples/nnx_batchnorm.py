"""A Flax NNX convolutional net with BatchNorm, passed to ``compress`` as it is.

    python examples/nnx_batchnorm.py

The ``nnx.Param`` variables are compressed. All others (here the running statistics of BatchNorm,
elsewhere dropout's counters) are carried from step to step, as in ordinary training.

The net fits its few training images perfectly, and their labels alone do not hold it against the
prior. So it is also distilled from itself, in evaluation mode.
"""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import swsjax
from swsjax.lab.data import load_digits
from swsjax.lab.nets import PooledConv


class Net(nnx.Module):
    def __init__(self, *, rngs):
        # nnx.Conv and nnx.max_pool in one, which is faster on processors.
        self.conv1, self.norm1 = PooledConv(1, 16, 3, rngs=rngs), nnx.BatchNorm(16, rngs=rngs)
        self.conv2, self.norm2 = PooledConv(16, 32, 3, rngs=rngs), nnx.BatchNorm(32, rngs=rngs)
        self.hidden = nnx.Linear(4 * 32, 64, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        x = images[..., None] / 255
        x = nnx.relu(self.norm1(self.conv1(framed(x))))  # 4 x 4
        x = nnx.relu(self.norm2(self.conv2(framed(x))))  # 2 x 2
        return self.out(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def framed(x):
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def apply(net, images):
    """Outputs in training."""
    return net(images)


def predict(net, images):
    """Outputs in evaluation."""
    return nnx.view(net, use_running_average=True)(images)


loss = swsjax.cross_entropy(apply)


def train(net, data, *, epochs=20, batch_size=32):
    """Stands for your own training."""
    steps = len(data["labels"]) // batch_size
    schedule = optax.cosine_decay_schedule(3e-3, epochs * steps)
    optimizer = nnx.Optimizer(net, optax.adam(schedule), wrt=nnx.Param)

    @nnx.jit
    def step(net, optimizer, batch):
        optimizer.update(net, nnx.grad(loss)(net, batch))

    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for chosen in rng.permutation(len(data["labels"]))[: steps * batch_size].reshape(steps, -1):
            step(net, optimizer, {name: x[chosen] for name, x in data.items()})


def main(file="nnx.sws"):
    digits = load_digits()
    data = {"inputs": digits.train.images, "labels": digits.train.labels}
    # Nothing is chosen on the validation images, so they are held out with the test images.
    images, labels = map(np.concatenate, zip(digits.validation, digits.test, strict=True))

    def error(net):
        return swsjax.error_rate(predict, net, images, labels)

    net = Net(rngs=nnx.Rngs(0))
    train(net, data)
    before = error(net)
    taught = swsjax.with_teacher(data, predict, net)
    result = swsjax.compress(net, swsjax.distillation(apply), taught)  # net is not changed

    # Weights and running statistics together are the net.
    state = nnx.to_pure_dict(nnx.state(result.params))
    swsjax.save(file, state)

    decoded = Net(rngs=nnx.Rngs(0))
    nnx.update(decoded, swsjax.load(file))
    errors = {"pretrained": {"held out": before}, "decoded": {"held out": error(decoded)}}
    measured = swsjax.report(file, errors=errors)
    print(measured)
    return state, measured


if __name__ == "__main__":
    main()
