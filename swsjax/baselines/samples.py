"""What a layer of a net reads and computes at random positions of images.

The layer is found in the trace of the net, as the one matrix product or convolution that multiplies
with a kernel. It is linear in the kernel, so what it reads at a position is the derivative of one
output with respect to one filter: padding, strides and layouts need no rules of their own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.baselines.graph import PRODUCTS, Graph, Operation, traced
from swsjax.baselines.least_squares import Floats
from swsjax.baselines.leaves import chosen_leaves
from swsjax.errors import ConfigError

__all__ = ["Samples", "sample_layer"]


class Samples(NamedTuple):
    """What a layer reads and computes; one row per position."""

    patches: Floats
    """(rows, inputs): what the weights of a filter multiply, all axes but the last as one."""
    outputs: Floats
    """(rows, filters): the sums of these products, before a bias is added."""


def sample_layer(
    predict: Callable[[Any, Array], Array],
    nets: Sequence[Any],
    name: str,
    images: Array,
    *,
    positions: int,
    key: Array,
) -> list[Samples]:
    """Sample what a layer reads and computes, at the same positions for several nets.

    Args:
        predict: outputs of a net and images, in evaluation.
        nets: of the same shapes.
        name: of the layer's kernel (..., filters).
        images: (N, ...).
        positions: random positions per image, drawn with repetition; a dense layer has one.
        key: random key.

    Returns:
        for each net, samples with N positions rows.

    Raises:
        ConfigError: the kernel is not used once, in a product or convolution with its last axis as
            the last of the outputs.

    >>> net = {"w": jnp.array([[1.0, 2.0]]), "v": jnp.array([[3.0], [4.0]])}
    >>> (found,) = sample_layer(lambda net, x: jax.nn.relu(x @ net["w"]) @ net["v"], [net], "v",
    ...                         jnp.array([[5.0]]), positions=1, key=jax.random.key(0))
    >>> found
    Samples(patches=array([[ 5., 10.]]), outputs=array([[55.]]))
    """
    with jax.default_matmul_precision("highest"):
        graph = traced(predict, nets[0], images[:1])
        number, product = _product(graph, name)
        shape = graph.shapes[product.outputs[0]]
        kernel_shape = graph.shapes[number]
        size, filters = int(np.prod(shape)), kernel_shape[-1] if kernel_shape else 0
        if not filters or size % filters:
            raise ConfigError(_not_followed(name))
        drawn = jax.random.randint(key, (len(images), positions), 0, size // filters)

        def of_image(leaves: list[Any], image: Array, chosen: Array) -> tuple[Array, Array]:
            def outputs(kernel: Array) -> Array:
                given = [kernel if which == number else leaf for which, leaf in enumerate(leaves)]
                return _evaluated(graph, [*given, image[None]], product).reshape(-1, filters)

            values, pull = jax.vjp(outputs, leaves[number])

            def patch(position: Array) -> Array:
                (found,) = pull(jnp.zeros_like(values).at[position, 0].set(1))
                return found[..., 0].ravel()

            return jax.vmap(patch)(chosen), values[chosen]

        @jax.jit
        def of_images(leaves: list[Any]) -> tuple[Array, Array]:
            return jax.lax.map(lambda given: of_image(leaves, *given), (images, drawn))

        return [_checked(of_images(jax.tree.leaves(net)), net, name) for net in nets]


def _product(graph: Graph, name: str) -> tuple[int, Operation]:
    """The number of a kernel, and the operation that it has with activations."""
    if name not in graph.leaves:
        raise ConfigError(
            f"the net has no {name}; expected one of the names {', '.join(graph.leaves)}"
        )
    number = graph.leaves.index(name)
    derived, found = {number}, []
    for operation in graph.operations:
        if derived.intersection(operation.inputs):
            if graph.from_inputs.intersection(operation.outputs):
                found.append(operation)
            else:
                derived.update(operation.outputs)
    if len(found) != 1 or found[0].name not in PRODUCTS:
        raise ConfigError(_not_followed(name))
    return number, found[0]


def _evaluated(graph: Graph, given: Sequence[Any], last: Operation) -> Array:
    """The first result of an operation, from the arrays that a net is and is given."""
    known = dict(graph.constants) | dict(enumerate(given))
    for operation in graph.operations:
        operands = [known[number] for number in operation.inputs]
        results = operation.primitive.bind(*operands, **operation.params)
        if not operation.primitive.multiple_results:
            results = [results]
        known.update(zip(operation.outputs, results, strict=True))
        if operation is last:
            break
    return known[last.outputs[0]]


def _checked(found: tuple[Array, Array], net: Any, name: str) -> Samples:
    """Samples whose patches give their outputs: so the last axis of both is the filters."""
    patches, outputs = (
        np.asarray(array, float).reshape(-1, array.shape[-1]) for array in jax.device_get(found)
    )
    kernel = np.asarray(chosen_leaves(net, [name])[name], float).reshape(patches.shape[1], -1)
    # Loose, as 16-bit sums are; other layouts are off by more.
    if np.abs(patches @ kernel - outputs).max() > 0.05 * np.abs(outputs).max():
        raise ConfigError(_not_followed(name))
    return Samples(patches, outputs)


def _not_followed(name: str) -> str:
    return (
        f"{name} must be used once, in a matrix product or convolution whose last axis is the "
        "filters, as is the kernel's; leave this layer out"
    )
