r"""How important the output channels of a layer are, from its kernel alone.

Each score is a function of a kernel with its outputs last, as Flax has them: (inputs, outputs) or
(height, width, inputs, outputs). Of Li, Kadav, Durdanovic, Samet, Graf, *Pruning Filters for
Efficient ConvNets* (ICLR 2017, arXiv 1608.08710): ``l1_norms``, whose negative removes the largest
first, ``l2_norms`` and ``random_scores``. Of structured pruning by the spectrum of the map that a
convolution is (SPSRC): norms of the singular values of the matrix :math:`A_o` from all input maps
of a convolution to its output map o, on images of the size that it sees in the net.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from swsjax.baselines.graph import moved_leaves, traced
from swsjax.errors import ConfigError

__all__ = [
    "Convolution",
    "circular_singular_values",
    "convolutions",
    "frobenius_norms",
    "l1_norms",
    "l2_norms",
    "nuclear_norms",
    "random_scores",
    "singular_values",
    "spectral_norms",
]


class Convolution(NamedTuple):
    """What a convolution does beside its kernel."""

    image_shape: tuple[int, int]
    """Height and width of its input."""
    strides: tuple[int, int] = (1, 1)
    """Between the positions of the kernel."""
    padding: str | Sequence[tuple[int, int]] = "SAME"
    """As ``jax.lax.conv_general_dilated`` takes it."""

    def apply(self, images: Array, kernel: Array) -> Array:
        """Convolve (batch, height, width, inputs)."""
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            self.strides,
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )


def convolutions(apply: Callable[..., Any], net: Any, *inputs: Any) -> dict[str, Convolution]:
    """Find the convolutions of a net that it computes as such, by the names of their kernels.

    Those in groups, dilated, or of another layout than ``nnx.Conv``'s are left out, as is
    ``PooledConv``, which is one matrix product.

    Args:
        apply: from the net and inputs to outputs.
        net: pytree of arrays or their shapes.
        inputs: arrays or shapes, of the size that the net is for.

    >>> from swsjax.lab import classification, load_digits, resnet_8
    >>> task = classification(resnet_8, load_digits())
    >>> found = convolutions(task.predict, task.init(0), task.dataset.test.images[:1])
    >>> found["params/g1b0conv1/kernel"]
    Convolution(image_shape=(8, 8), strides=(2, 2), padding=((0, 1), (0, 1)))
    """
    graph = traced(apply, net, *inputs)
    sources, _ = moved_leaves(graph)
    found = {}
    for operation in graph.operations:
        if operation.name != "conv_general_dilated":
            continue
        params, (left, right) = operation.params, operation.inputs
        numbers, image = params["dimension_numbers"], graph.shapes[left]
        groups = params["feature_group_count"], params["batch_group_count"]
        dilations = (*params["lhs_dilation"], *params["rhs_dilation"])
        if right in sources and numbers.rhs_spec == (3, 2, 0, 1) and {*groups, *dilations} == {1}:
            height, width = (image[axis] for axis in numbers.lhs_spec[2:])
            padding = tuple((int(low), int(high)) for low, high in params["padding"])
            found[graph.leaves[sources[right]]] = Convolution(
                (height, width), tuple(params["window_strides"]), padding
            )
    return found


def l1_norms(kernel: Array) -> Array:
    """Sum of the magnitudes of each output's weights (Li et al.).

    Args:
        kernel: (..., outputs).

    >>> l1_norms(jnp.array([[1.0, -3.0], [-2.0, 0.0]]))
    Array([3., 3.], dtype=float32)
    """
    return jnp.abs(kernel).sum(tuple(range(kernel.ndim - 1)))


def l2_norms(kernel: Array) -> Array:
    """Root of the sum of the squares of each output's weights.

    Args:
        kernel: (..., outputs).

    >>> l2_norms(jnp.array([[3.0, -3.0], [-4.0, 0.0]]))
    Array([5., 3.], dtype=float32)
    """
    return jnp.sqrt(jnp.square(kernel).sum(tuple(range(kernel.ndim - 1))))


def random_scores(kernel: Array, key: Array) -> Array:
    """Uniform random numbers, one for each output: what a criterion must do better than.

    Args:
        kernel: (..., outputs); only its shape is used.
        key: random key.

    >>> random_scores(jnp.ones((3, 2)), jax.random.key(0)).shape
    (2,)
    """
    return jax.random.uniform(key, kernel.shape[-1:])


def singular_values(kernel: Array, convolution: Convolution) -> Array:
    r"""Singular values of the map from all input maps to each output map, in ascending order.

    .. math:: G_o = A_o A_o^T = \sum_c A_{o,c} A_{o,c}^T, \quad \sigma_i = \sqrt{\lambda_i(G_o)}

    with :math:`A_o = [A_{o,1} ... A_{o,C}]`. :math:`G_o` is the convolution after its transpose,
    on each unit map, so no matrix :math:`A_o` is built. SPSRC builds it, for the same values; the
    smallest are exact to the root of the rounding of the largest. Filters are taken in turn: the
    memory is that of one.

    Args:
        kernel: (height, width, inputs, outputs), or (inputs, outputs), a map with one singular
            value for each output.
        convolution: with the size of its input; not used for a dense kernel.

    Returns:
        (outputs, positions), positions being the entries of an output map.

    Raises:
        ConfigError: the kernel has other axes.

    >>> singular_values(jnp.ones((1, 1, 4, 1)), Convolution((2, 1)))
    Array([[2., 2.]], dtype=float32)
    """
    if not _is_convolution(kernel):
        return l2_norms(kernel)[:, None]
    image = jax.ShapeDtypeStruct((1, *convolution.image_shape, kernel.shape[2]), kernel.dtype)
    (_, height, width, _) = jax.eval_shape(convolution.apply, image, kernel).shape
    units = jnp.eye(height * width, dtype=kernel.dtype).reshape(-1, 1, height, width, 1)

    def of_filter(weights: Array) -> Array:
        def forward(images: Array) -> Array:
            return convolution.apply(images, weights[..., None])

        backward = jax.linear_transpose(forward, image)
        gram = jax.vmap(lambda unit: forward(*backward(unit)).ravel())(units)
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram), 0))

    return jax.lax.map(of_filter, jnp.moveaxis(kernel, 3, 0))


def circular_singular_values(kernel: Array, image_shape: tuple[int, int]) -> Array:
    r"""Singular values with circular padding and stride 1: the cheap way for large maps.

    .. math:: \sigma_f = \Big( \sum_c |\hat K_{o,c}(f)|^2 \Big)^{1/2}

    over the frequencies f of the image, as circular convolutions are diagonal in them. For zero
    padding, this is an approximation, better for larger images.

    Args:
        kernel: (height, width, inputs, outputs), at most as large as the image; or (inputs,
            outputs).
        image_shape: height and width of the input.

    Returns:
        (outputs, positions), not in order.

    Raises:
        ConfigError: the kernel has other axes, or is larger than the image.

    >>> circular_singular_values(jnp.ones((1, 2, 1, 1)), (1, 2))
    Array([[2., 0.]], dtype=float32)
    """
    if not _is_convolution(kernel):
        return l2_norms(kernel)[:, None]
    if any(size > side for size, side in zip(kernel.shape, image_shape, strict=False)):
        raise ConfigError(
            f"the kernel must fit into the image of {image_shape}, got {kernel.shape[:2]}; use "
            "singular_values"
        )
    spectrum = jnp.fft.fft2(kernel, image_shape, (0, 1))
    return jnp.sqrt(jnp.square(jnp.abs(spectrum)).sum(2)).reshape(-1, kernel.shape[3]).T


def spectral_norms(kernel: Array, convolution: Convolution) -> Array:
    """Largest singular value of each output (SPSRC).

    Args:
        kernel: as for ``singular_values``; on a dense one this is the L2 norm.
        convolution: with the size of its input.

    Raises:
        ConfigError: as ``singular_values``.

    >>> spectral_norms(jnp.ones((1, 1, 4, 1)), Convolution((2, 1)))
    Array([2.], dtype=float32)
    """
    return singular_values(kernel, convolution).max(1)


def nuclear_norms(kernel: Array, convolution: Convolution) -> Array:
    """Sum of the singular values of each output (SPSRC).

    Args:
        kernel: as for ``singular_values``; on a dense one this is the L2 norm.
        convolution: with the size of its input.

    Raises:
        ConfigError: as ``singular_values``.

    >>> nuclear_norms(jnp.ones((1, 1, 4, 1)), Convolution((2, 1)))
    Array([4.], dtype=float32)
    """
    return singular_values(kernel, convolution).sum(1)


def frobenius_norms(kernel: Array, convolution: Convolution) -> Array:
    r"""Root of the sum of the squared singular values of each output (SPSRC), in closed form.

    .. math:: \|A_o\|_F^2 = \sum_t n_t \sum_c K_{t,c,o}^2

    over the taps t of the kernel, :math:`n_t` being the number of positions at which the tap is
    inside the image. So it is the L2 norm up to what the borders do.

    Args:
        kernel: as for ``singular_values``; on a dense one this is the L2 norm.
        convolution: with the size of its input.

    Raises:
        ConfigError: as ``singular_values``.

    >>> frobenius_norms(jnp.ones((1, 1, 4, 1)), Convolution((2, 1)))
    Array([2.828427], dtype=float32)
    """
    if not _is_convolution(kernel):
        return l2_norms(kernel)
    ones = jnp.ones((1, *convolution.image_shape, 1))
    taps = jnp.zeros((*kernel.shape[:2], 1, 1))
    counts = jax.grad(lambda taps: convolution.apply(ones, taps).sum())(taps)
    return jnp.sqrt((counts * jnp.square(kernel)).sum((0, 1, 2)))


def _is_convolution(kernel: Array) -> bool:
    if kernel.ndim not in (2, 4):
        raise ConfigError(
            "a kernel must be (inputs, outputs) or (height, width, inputs, outputs), got "
            f"{kernel.shape}"
        )
    return kernel.ndim == 4
