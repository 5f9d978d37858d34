"""The networks of the paper's tables, in Flax NNX.

Convolutions are written as patches and a matrix product: XLA:CPU runs its convolution about ten
times slower inside a compiled loop than outside, and a matrix product equally fast in both.
"""

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from swsjax.errors import ConfigError

__all__ = ["LeNet5Caffe", "LeNet300100", "PatchConv", "max_pool"]


class LeNet300100(nnx.Module):
    """Two hidden layers of 300 and 100 units: 266,610 parameters on 28 x 28 images.

    LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE 86 (1998).

    >>> from flax import nnx
    >>> model = LeNet300100((28, 28), 10, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((2, 28, 28))).shape
    (2, 10)
    >>> sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
    266610
    """

    def __init__(self, image_shape: tuple[int, int], classes: int, *, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(math.prod(image_shape), 300, rngs=rngs)
        self.fc2 = nnx.Linear(300, 100, rngs=rngs)
        self.fc3 = nnx.Linear(100, classes, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Logits (batch, classes) of images (batch, height, width) with values in [0, 1]."""
        x = images.reshape(images.shape[0], -1)
        x = nnx.relu(self.fc1(x))
        x = nnx.relu(self.fc2(x))
        return self.fc3(x)


class LeNet5Caffe(nnx.Module):
    """LeNet-5 as in Caffe, 20@5x5, pool, 50@5x5, pool, 500: 431,080 parameters on 28 x 28 images.

    >>> from flax import nnx
    >>> model = LeNet5Caffe((28, 28), 10, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((2, 28, 28))).shape
    (2, 10)
    >>> sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
    431080
    """

    def __init__(self, image_shape: tuple[int, int], classes: int, *, rngs: nnx.Rngs):
        height, width = (_pooled(_pooled(side)) for side in image_shape)
        if height < 1 or width < 1:
            raise ConfigError(f"LeNet-5 needs images of at least 16 x 16 pixels, got {image_shape}")
        self.conv1 = PatchConv(1, 20, 5, rngs=rngs)
        self.conv2 = PatchConv(20, 50, 5, rngs=rngs)
        self.fc1 = nnx.Linear(height * width * 50, 500, rngs=rngs)
        self.fc2 = nnx.Linear(500, classes, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Logits (batch, classes) of images (batch, height, width) with values in [0, 1]."""
        x = max_pool(self.conv1(images[..., None]))
        x = max_pool(self.conv2(x))
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return self.fc2(x)


class PatchConv(nnx.Module):
    """Convolution without padding, stride 1, as a matrix product over patches.

    The same numbers as ``nnx.Conv(..., padding="VALID")``, with the same kernel layout
    (height, width, in, out).

    >>> from flax import nnx
    >>> ours = PatchConv(3, 8, 5, rngs=nnx.Rngs(0))
    >>> theirs = nnx.Conv(3, 8, (5, 5), padding="VALID", rngs=nnx.Rngs(0))
    >>> theirs.kernel, theirs.bias = ours.kernel, ours.bias
    >>> x = jax.random.normal(jax.random.key(0), (2, 9, 9, 3))
    >>> bool(jnp.allclose(ours(x), theirs(x), atol=1e-5))
    True
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs):
        initializer = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(initializer(rngs.params(), (size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros((outputs,)))

    def __call__(self, x: Array) -> Array:
        """Map (batch, height, width, in) to (batch, height - size + 1, width - size + 1, out)."""
        size, _, _, outputs = self.kernel.shape
        height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
        shifted = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
        patches = jnp.concatenate(shifted, axis=-1)
        return patches @ self.kernel[...].reshape(-1, outputs) + self.bias[...]


def max_pool(x: Array) -> Array:
    """Maximum over 2 x 2 windows of (batch, height, width, channels), odd edges dropped.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel()
    Array([ 5.,  7., 13., 15.], dtype=float32)
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _pooled(side: int) -> int:
    return (side - 4) // 2
