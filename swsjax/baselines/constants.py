"""What a net computes whatever its inputs are: the entries of its arrays that are constants.

Zero times anything is zero, so the outputs of a filter of zeros are constants, and so is what the
following norm makes of them. Inputs must be finite.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from swsjax.baselines.graph import MOVING, POINTWISE, PRODUCTS, REDUCING, Graph, Operation

__all__ = ["Array", "Known", "known_arrays", "run"]

Array = npt.NDArray[Any]
"""Of NumPy."""


class Known(NamedTuple):
    """An array of which some entries are constants."""

    value: Array
    """Zero where it is not known."""
    unknown: npt.NDArray[np.bool_]
    """The entries that depend on the inputs."""

    def is_zero(self, axis: int) -> npt.NDArray[np.bool_]:
        """For each index of an axis: whether all of its entries are known to be zero."""
        others = tuple(other for other in range(self.value.ndim) if other != axis)
        return np.asarray(~(self.unknown | (self.value != 0)).any(others))

    def is_known(self, axis: int) -> npt.NDArray[np.bool_]:
        """For each index of an axis: whether all of its entries are known."""
        others = tuple(other for other in range(self.value.ndim) if other != axis)
        return np.asarray(~self.unknown.any(others))


def known_arrays(graph: Graph, leaves: Sequence[Any]) -> list[Known]:
    """Compute the constants among the arrays of a graph.

    Args:
        graph: from ``traced``.
        leaves: of the net.

    >>> from swsjax.baselines.graph import traced
    >>> net = {"w": jnp.array([[1.0, 0.0]])}
    >>> graph = traced(lambda net, x: jnp.exp(x @ net["w"]), net, jnp.ones((1, 1)))
    >>> known_arrays(graph, [net["w"]])[-1]
    Known(value=array([[0., 1.]], dtype=float32), unknown=array([[ True, False]]))
    """
    known: dict[int, Known] = {}
    for number, (shape, dtype) in enumerate(zip(graph.shapes, graph.dtypes, strict=True)):
        if number < len(leaves):
            known[number] = _constant(np.asarray(leaves[number]))
        elif number in graph.constants:
            known[number] = _constant(np.asarray(graph.constants[number], dtype))
        else:
            known[number] = Known(np.zeros(shape, dtype), np.ones(shape, bool))
    for operation in graph.operations:
        operands = [known[number] for number in operation.inputs]
        if operands and all(operand.unknown.all() for operand in operands):
            continue
        unknown = _unknown(operation, operands)
        if unknown is None:
            continue
        values = [operand.value for operand in operands]
        if operation.name == "div":  # zero by something that is not known is zero
            values[1] = np.where(operands[1].unknown, np.ones((), values[1].dtype), values[1])
        for number, value in zip(operation.outputs, run(operation, *values), strict=True):
            mask = np.broadcast_to(unknown, value.shape)
            known[number] = Known(np.where(mask, np.zeros((), value.dtype), value), mask)
    return [known[number] for number in range(len(known))]


def run(operation: Operation, *operands: Any) -> list[Array]:
    """Compute one operation.

    >>> from swsjax.baselines.graph import traced
    >>> graph = traced(jnp.negative, jnp.ones(2))
    >>> run(graph.operations[0], np.arange(2.0))
    [array([-0., -1.], dtype=float32)]
    """
    if operation.name in _IN_NUMPY:
        with np.errstate(all="ignore"):  # as JAX does
            return [_IN_NUMPY[operation.name](operation.params, *operands)]
    found = operation.primitive.bind(*map(jax.numpy.asarray, operands), **operation.params)
    return [np.asarray(array) for array in (found if isinstance(found, list | tuple) else [found])]


def _broadcast(params: Mapping[str, Any], x: Array, *sizes: Array) -> Array:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _slice(params: Mapping[str, Any], x: Array) -> Array:
    strides = params["strides"] or [1] * x.ndim
    return x[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


# JAX would compile each of them for each shape.
_IN_NUMPY: Mapping[str, Callable[..., Array]] = {
    "add": lambda params, x, y: x + y,
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda params, *arrays: np.concatenate(arrays, params["dimension"]),
    "max": lambda params, x, y: np.maximum(x, y),
    "mul": lambda params, x, y: x * y,
    "reshape": lambda params, x, *sizes: x.reshape(params["new_sizes"]),
    "slice": _slice,
    "squeeze": lambda params, x: x.squeeze(params["dimensions"]),
    "stack": lambda params, *arrays: np.stack(arrays, params["axis"]),
    "sub": lambda params, x, y: x - y,
    "transpose": lambda params, x: x.transpose(params["permutation"]),
}


def _constant(value: Array) -> Known:
    return Known(value, np.zeros(value.shape, bool))


def _unknown(operation: Operation, operands: Sequence[Known]) -> Array | None:
    """Which entries of the results depend on the inputs; None: all of them, or some other ones."""
    name, masks = operation.name, [operand.unknown for operand in operands]
    if not any(mask.any() for mask in masks):
        return np.zeros((), bool)
    if name in POINTWISE:
        unknown = functools.reduce(np.logical_or, masks)
        # Zero times, or by, anything.
        for operand in operands[: {"mul": 2, "div": 1}.get(name, 0)]:
            unknown = unknown & (operand.unknown | (operand.value != 0))
        return unknown
    if name in REDUCING:
        return np.asarray(masks[0].any(operation.params["axes"]))
    if name in MOVING or name in ("reduce_window_max", "reduce_window_sum"):
        return run(operation, *(o.unknown.astype(o.value.dtype) for o in operands))[0] > 0
    if name in PRODUCTS:
        return _unknown_of_product(operation, *operands)
    return None


def _unknown_of_product(operation: Operation, left: Known, right: Known) -> Array:
    """An entry depends on the inputs if one of its products does: of which no factor is zero."""
    found = np.zeros((), bool)
    for which, (a, b) in enumerate([(left, right), (right, left)]):
        if a.unknown.any():
            counted = [
                a.unknown.astype(a.value.dtype),
                (b.unknown | (b.value != 0)).astype(b.value.dtype),
            ]
            found = found | (run(operation, *counted[:: -1 if which else 1])[0] > 0)
    return found
