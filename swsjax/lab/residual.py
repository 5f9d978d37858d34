"""Residual nets for CIFAR-10, in Flax NNX, with BatchNorm or other norms."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jax import Array

from swsjax.errors import ConfigError

__all__ = ["Norm", "ResidualNet", "group_norm", "instance_norm", "resnet_8", "wide_resnet_16_4"]

_MEAN = (0.4914, 0.4822, 0.4465)  # of the red, green and blue of CIFAR-10's training images
_STD = (0.2470, 0.2435, 0.2616)
_STRIDES = (1, 2, 2)

Norm = Callable[..., nnx.Module]
"""From a number of channels and ``rngs`` to the norm of a layer."""

_batch_norm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5)
instance_norm = partial(nnx.InstanceNorm, epsilon=1e-5)
"""Norm of each channel of each image over its positions, for ``ResidualNet``."""


def group_norm(groups: int) -> Norm:
    """Norm of each group of channels of each image, for ``ResidualNet``.

    A layer of fewer channels has a group for each of them: up to the number of groups it is
    instance norm. 32 groups are usual (Wu and He, arXiv 1803.08494).

    Args:
        groups: most groups of a layer; they divide its number of channels.

    >>> norm = group_norm(32)
    >>> [norm(channels, rngs=nnx.Rngs(0)).group_size for channels in (16, 32, 64)]
    [1, 1, 2]
    """

    def norm(channels: int, *, rngs: nnx.Rngs) -> nnx.GroupNorm:
        return nnx.GroupNorm(channels, num_groups=min(groups, channels), epsilon=1e-5, rngs=rngs)

    return norm


class ResidualNet(nnx.Module):
    """Pre-activation residual net in three groups, the wide ResNet of Zagoruyko and Komodakis.

    A convolution, three groups of blocks with strides 1, 2 and 2, a norm, the mean over
    positions and a dense layer (arXiv 1605.07146). A block adds two convolutions, each after
    a norm and ReLU, to its input; if it changes channels or size, a convolution of size 1 maps
    the input. Convolutions have no biases and are initialised as by He et al. (arXiv 1502.01852).
    Layers have flat names: ``g1b0conv2`` is the second convolution in block 0 of group 1.

    Args:
        image_shape: of colour images (height, width, 3), or of grey images (height, width), which
            are taken as colour images.
        classes: number of logits.
        widths: channels of the first convolution and of the three groups.
        blocks: per group.
        norm: of each layer, by default BatchNorm; ``group_norm(32)`` and ``instance_norm`` are
            others. Layers have the same names with any norm.
        rngs: random numbers of the initialisation.

    Raises:
        ConfigError: images of another shape, or another number of widths.

    >>> model = ResidualNet((8, 8, 3), 10, widths=(4, 4, 8, 8), blocks=1, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((2, 8, 8, 3))).shape
    (2, 10)
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        classes: int,
        *,
        widths: tuple[int, ...],
        blocks: int,
        norm: Norm = _batch_norm,
        rngs: nnx.Rngs,
    ):
        if len(image_shape) != 2 and image_shape[2:] != (3,):
            raise ConfigError(
                "a residual net needs images of shape (height, width) or (height, width, 3), got "
                f"{image_shape}"
            )
        if len(widths) != 1 + len(_STRIDES) or blocks < 1:
            raise ConfigError(
                f"a residual net needs 4 widths and at least 1 block, got {widths} and {blocks}"
            )
        self.blocks = blocks
        self.conv0 = _convolution(3, widths[0], 3, 1, rngs)
        for group, (before, width) in enumerate(pairwise(widths)):
            for block in range(blocks):
                inputs, stride = (width, 1) if block else (before, _STRIDES[group])
                self._add_block(f"g{group}b{block}", inputs, width, stride, norm, rngs)
        self.bn = norm(widths[-1], rngs=rngs)
        self.fc = nnx.Linear(widths[-1], classes, rngs=rngs)

    def _add_block(
        self, name: str, inputs: int, outputs: int, stride: int, norm: Norm, rngs: nnx.Rngs
    ) -> None:
        setattr(self, f"{name}bn1", norm(inputs, rngs=rngs))
        setattr(self, f"{name}conv1", _convolution(inputs, outputs, 3, stride, rngs))
        setattr(self, f"{name}bn2", norm(outputs, rngs=rngs))
        setattr(self, f"{name}conv2", _convolution(outputs, outputs, 3, 1, rngs))
        if inputs != outputs or stride != 1:
            setattr(self, f"{name}short", _convolution(inputs, outputs, 1, stride, rngs))

    def __call__(self, images: Array) -> Array:
        """Logits (batch, classes) of images (batch, height, width[, 3]) with values in [0, 1]."""
        colours = images[..., None] if images.ndim == 3 else images
        mean, std = (jnp.array(values)[None, None, None] for values in (_MEAN, _STD))
        x = self.conv0((colours - mean) / std)
        for group in range(len(_STRIDES)):
            for block in range(self.blocks):
                x = self._block(f"g{group}b{block}", x)
        return self.fc(jnp.mean(nnx.relu(self.bn(x)), axis=(1, 2)))

    def _block(self, name: str, x: Array) -> Array:
        bn1, conv1, bn2, conv2 = (
            getattr(self, name + layer) for layer in ("bn1", "conv1", "bn2", "conv2")
        )
        before = nnx.relu(bn1(x))
        added = conv2(nnx.relu(bn2(conv1(before))))
        short = getattr(self, f"{name}short", None)
        return added + (x if short is None else short(before))


def _convolution(inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding="SAME",
        use_bias=False,
        kernel_init=nnx.initializers.he_normal(),
        rngs=rngs,
    )


wide_resnet_16_4 = partial(ResidualNet, widths=(16, 64, 128, 256), blocks=2)
"""WRN-16-4: 2,748,890 parameters on CIFAR-10."""
resnet_8 = partial(ResidualNet, widths=(16, 16, 32, 64), blocks=1)
"""ResNet-8: 77,850 parameters on CIFAR-10."""
