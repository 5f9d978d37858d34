"""Tasks that take no time: tiny nets on random images."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.lab import Dataset, ResidualNet, Split, Variables, classification

CLASSES = 3
BATCH = 32


class TwoLayers(nnx.Module):
    """152 weights in two kernels, on images of 4 x 4 pixels."""

    def __init__(self, image_shape, classes, *, rngs):
        self.fc1 = nnx.Linear(int(np.prod(image_shape)), 8, rngs=rngs)
        self.fc2 = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, images):
        return self.fc2(jnp.tanh(self.fc1(images.reshape(len(images), -1))))


class OneLayer(nnx.Module):
    """48 weights in one kernel, on images of 4 x 4 pixels."""

    def __init__(self, image_shape, classes, *, rngs):
        self.fc = nnx.Linear(int(np.prod(image_shape)), classes, rngs=rngs)

    def __call__(self, images):
        return self.fc(images.reshape(len(images), -1))


class Normalised(nnx.Module):
    """120 weights in two kernels: a convolution with BatchNorm, on images of 4 x 4 pixels."""

    def __init__(self, image_shape, classes, *, rngs):
        self.conv = nnx.Conv(image_shape[-1], 4, (3, 3), use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.fc = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, images):
        return self.fc(nnx.relu(self.bn(self.conv(images))).mean((1, 2)))


class OneBlock(nnx.Module):
    """A residual block of two convolutions of size 1, named as in ``ResidualNet``."""

    def __init__(self, image_shape, classes, *, rngs):
        self.g0b0conv1 = nnx.Conv(image_shape[-1], 4, (1, 1), use_bias=False, rngs=rngs)
        self.g0b0conv2 = nnx.Conv(4, image_shape[-1], (1, 1), use_bias=False, rngs=rngs)
        self.fc = nnx.Linear(image_shape[-1], classes, rngs=rngs)

    def __call__(self, images):
        added = self.g0b0conv2(nnx.relu(self.g0b0conv1(images)))
        return self.fc((images + added).mean((1, 2)))


def images(*shape):
    """Random images of three classes, told apart by one corner; 96 to train on."""
    rng = np.random.default_rng(0)

    def split(size):
        labels = np.arange(size, dtype=np.uint8) % CLASSES
        pixels = rng.integers(0, 255, (size, *shape), dtype=np.uint8)
        pixels[:, 0, 0] = (100 * labels).reshape(-1, *[1] * (len(shape) - 2))
        return Split(pixels, labels)

    return Dataset("random", split(96), split(30), split(30))


def in_bfloat16(task):
    def init(seed):
        params, aux = task.init(seed)
        return Variables(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params), aux)

    return task._replace(init=init)


TASKS = {
    "two layers": lambda: classification(TwoLayers, images(4, 4)),
    "one layer": lambda: classification(OneLayer, images(4, 4)),
    "bfloat16": lambda: in_bfloat16(classification(TwoLayers, images(4, 4))),
    "normalised": lambda: classification(Normalised, images(4, 4, 3)),
    "one block": lambda: classification(OneBlock, images(4, 4, 3)),
    "BatchNorm": lambda: classification(
        partial(ResidualNet, widths=(2, 2, 3, 4), blocks=1), images(4, 4, 3)
    ),
}


@cache
def small(name):
    """The task of this name, compiled once."""
    return TASKS[name]()


@cache
def untrained(name):
    return jax.jit(partial(small(name).init, 0))()


def interrupted_and_resumed(run, folder):
    """The end of a run of two epochs that is interrupted after the first, which is not repeated."""

    def interrupted(epoch):
        seen.append(epoch.epoch)
        if len(seen) == 1:
            raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        run(callback=interrupted, resume=folder)
    resumed = run(callback=interrupted, resume=folder)
    assert seen == [1, 2]
    return resumed
