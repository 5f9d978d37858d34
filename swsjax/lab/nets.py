"""The LeNets of the paper's tables, in Flax NNX, and the one table of what is known of each net.

Convolution and pooling are written as patches and a matrix product: XLA:CPU runs its convolution
about ten times slower inside a compiled loop than outside, and a matrix product equally fast in
both.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from swsjax.errors import ConfigError
from swsjax.file.safetensors import Sources, flax_kernel, flax_kernel_after_flatten
from swsjax.lab.residual import resnet_8, wide_resnet_16_4
from swsjax.training.pretraining import PretrainConfig, SgdConfig
from swsjax.trees import Params, leaf_name

__all__ = [
    "NETS",
    "Channels",
    "KnownNet",
    "LeNet5Caffe",
    "LeNet300100",
    "PooledConv",
    "take_channels",
]


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
        if len(image_shape) != 2:
            raise ConfigError(f"LeNet-5 needs grey images (height, width), got {image_shape}")
        height, width = (_pooled(_pooled(side)) for side in image_shape)
        if height < 1 or width < 1:
            raise ConfigError(f"LeNet-5 needs images of at least 16 x 16 pixels, got {image_shape}")
        self.conv1 = PooledConv(1, 20, 5, rngs=rngs)
        self.conv2 = PooledConv(20, 50, 5, rngs=rngs)
        self.fc1 = nnx.Linear(height * width * 50, 500, rngs=rngs)
        self.fc2 = nnx.Linear(500, classes, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Logits (batch, classes) of images (batch, height, width) with values in [0, 1]."""
        x = self.conv2(self.conv1(images[..., None]))
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return self.fc2(x)


class PooledConv(nnx.Module):
    """Convolution without padding and stride, and the maximum over 2 x 2 windows of it.

    Odd edges are dropped. The same numbers as ``nnx.Conv(..., padding="VALID")`` and
    ``nnx.max_pool``, with the same kernel layout (height, width, in, out), but one matrix product:
    the four convolutions under a window of the maximum read the same patch, ``size + 1`` pixels
    wide, and are four groups of outputs. Patches two pixels apart are made of blocks of 2 x 2
    pixels, so there are few of them to copy.

    >>> from flax import nnx
    >>> ours = PooledConv(3, 8, 5, rngs=nnx.Rngs(0))
    >>> theirs = nnx.Conv(3, 8, (5, 5), padding="VALID", rngs=nnx.Rngs(0))
    >>> theirs.kernel, theirs.bias = ours.kernel, ours.bias
    >>> x = jax.random.normal(jax.random.key(0), (2, 9, 9, 3))
    >>> bool(jnp.allclose(ours(x), nnx.max_pool(theirs(x), (2, 2), strides=(2, 2)), atol=1e-5))
    True
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs):
        if size % 2 == 0:
            raise ConfigError(f"size of the convolution must be odd, got {size}")
        initializer = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(initializer(rngs.params(), (size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros((outputs,)))

    def __call__(self, x: Array) -> Array:
        """Map (batch, height, width, in) to (batch, pooled height, pooled width, out)."""
        size, _, inputs, outputs = self.kernel.shape
        side = (size + 1) // 2  # of a patch, in blocks
        height, width = ((pixels - size + 1) // 2 for pixels in x.shape[1:3])
        rows, columns = height + side - 1, width + side - 1
        blocks = x[:, : 2 * rows, : 2 * columns].reshape(-1, rows, 2, columns, 2, inputs)
        blocks = blocks.swapaxes(2, 3).reshape(-1, rows, columns, 4 * inputs)
        shifted = [
            blocks[:, i : i + height, j : j + width] for i in range(side) for j in range(side)
        ]
        patches = jnp.concatenate(shifted, axis=-1)
        shifts = [(i, j) for i in (0, 1) for j in (0, 1)]
        kernels = jnp.stack(
            [
                jnp.pad(self.kernel[...], ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
                for i, j in shifts
            ],
            axis=3,
        )
        kernels = kernels.reshape(side, 2, side, 2, inputs, 4 * outputs).swapaxes(1, 2)
        under_window = patches @ kernels.reshape(-1, 4 * outputs)
        under_window = under_window.reshape(-1, height, width, 4, outputs)
        return jnp.max(under_window, axis=3) + self.bias[None, None, None]


def _pooled(side: int) -> int:
    return (side - 4) // 2


Channels = Mapping[str, int]
"""The channels of one hidden layer: the leaves that they run through, each with its axis. Where a
convolution is flattened into a dense layer, several positions share a channel; the channel is the
faster index. Leaves that a tree lacks, such as statistics, are left out of it."""


class KnownNet(NamedTuple):
    """A net of the papers, and what the command line and the benchmarks need to know of it."""

    title: str
    """Its name in figures."""
    model: Callable[..., nnx.Module]
    """From image shape, number of classes and ``rngs`` to the untrained net."""
    pretraining: PretrainConfig
    """Settings of its pretraining, on MNIST or, for residual nets, CIFAR-10."""
    channels: tuple[Channels, ...]
    """The channels of each hidden layer whose channels can be reordered alone. Those that a
    residual net adds up cannot."""
    torch: Sources
    """For ``from_safetensors``: its leaves from the state dict of a PyTorch module with layers of
    the same names; empty if there is no such module. A convolution is unpadded and followed by a
    maximum over 2 x 2 windows only."""


def take_channels(params: Params, channels: Channels, index: Array) -> Params:
    """Select or reorder the channels of a hidden layer.

    Args:
        params: nested dictionaries of arrays, with or without statistics.
        channels: of the layer.
        index: numbers of the channels to take.

    >>> params = {"fc1": {"bias": jnp.array([1.0, 2.0])}, "fc2": {"bias": jnp.array([3.0])}}
    >>> take_channels(params, {"fc1/bias": 0}, jnp.array([1, 0]))["fc1"]["bias"]
    Array([2., 1.], dtype=float32)
    """
    leaves, structure = jax.tree.flatten_with_path(params)
    named = [(leaf_name(path), leaf) for path, leaf in leaves]
    size = min(leaf.shape[channels[name]] for name, leaf in named if name in channels)

    def taken(leaf: Array, axis: int) -> Array:
        before, after = leaf.shape[:axis], leaf.shape[axis + 1 :]
        split = leaf.reshape(*before, -1, size, *after)
        return jnp.take(split, index, axis + 1).reshape(*before, -1, *after)

    return jax.tree.unflatten(
        structure,
        [taken(leaf, channels[name]) if name in channels else leaf for name, leaf in named],
    )


def _channels_in_blocks(blocks: int) -> tuple[Channels, ...]:
    """The channels between the two convolutions of each block of a ``ResidualNet``."""
    norm = ("scale", "bias", "mean", "var")
    return tuple(
        {f"{name}conv1/kernel": 3}
        | {f"{name}bn2/{leaf}": 0 for leaf in norm}
        | {f"{name}conv2/kernel": 2}
        for name in (f"g{group}b{block}" for group in range(3) for block in range(blocks))
    )


NETS: dict[str, KnownNet] = {
    "lenet-300-100": KnownNet(
        title="LeNet-300-100",
        model=LeNet300100,
        pretraining=PretrainConfig(epochs=40),
        channels=(
            {"fc1/kernel": 1, "fc1/bias": 0, "fc2/kernel": 0},
            {"fc2/kernel": 1, "fc2/bias": 0, "fc3/kernel": 0},
        ),
        torch={
            "fc1/kernel": ("fc1.weight", flax_kernel),
            "fc1/bias": "fc1.bias",
            "fc2/kernel": ("fc2.weight", flax_kernel),
            "fc2/bias": "fc2.bias",
            "fc3/kernel": ("fc3.weight", flax_kernel),
            "fc3/bias": "fc3.bias",
        },
    ),
    "lenet-5-caffe": KnownNet(
        title="LeNet-5-Caffe",
        model=LeNet5Caffe,
        pretraining=PretrainConfig(epochs=20),
        channels=(
            {"conv1/kernel": 3, "conv1/bias": 0, "conv2/kernel": 2},
            {"conv2/kernel": 3, "conv2/bias": 0, "fc1/kernel": 0},
            {"fc1/kernel": 1, "fc1/bias": 0, "fc2/kernel": 0},
        ),
        torch={
            "conv1/kernel": ("conv1.weight", flax_kernel),
            "conv1/bias": "conv1.bias",
            "conv2/kernel": ("conv2.weight", flax_kernel),
            "conv2/bias": "conv2.bias",
            "fc1/kernel": ("fc1.weight", flax_kernel_after_flatten(50)),
            "fc1/bias": "fc1.bias",
            "fc2/kernel": ("fc2.weight", flax_kernel),
            "fc2/bias": "fc2.bias",
        },
    ),
    "resnet-8": KnownNet(
        title="ResNet-8",
        model=resnet_8,
        pretraining=SgdConfig(),
        channels=_channels_in_blocks(1),
        torch={},
    ),
    "wrn-16-4": KnownNet(
        title="WRN-16-4",
        model=wide_resnet_16_4,
        pretraining=SgdConfig(),
        channels=_channels_in_blocks(2),
        torch={},
    ),
}
"""The one table of nets, by the name on the command line and in the results."""
