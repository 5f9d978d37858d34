"""What follows a channel that is removed: the constant that it added moves on to a bias.

Let a product lose the summands of channels that were constant. Its outputs are lower by a shift. It
moves on through what is linear, and through maxima that it is the same under, until a leaf that is
added takes it: a bias, or with the other sign the mean of a norm.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from swsjax.baselines.constants import Array, Known, run
from swsjax.baselines.graph import MOVING, PRODUCTS, Graph, Operation, contracted, moved_leaves
from swsjax.baselines.labels import Labels

__all__ = ["Folded", "folded"]

_LINEAR = frozenset(
    ("convert_element_type", "copy", "neg", "reduce_sum", "reduce_window_sum", "stop_gradient")
)


class Folded(NamedTuple):
    """Where the shifts go."""

    changes: dict[int, Array]
    """What to add to leaves, by their number."""
    failed: frozenset[int]
    """Outputs of the products whose shifts nothing takes."""


def folded(graph: Graph, labels: Labels, known: Sequence[Known], dead: Array) -> Folded:
    """Follow the shifts of all products that lose channels.

    Args:
        graph: from ``traced``.
        labels: of its arrays, from ``followed``.
        known: its constants, from ``known_arrays``.
        dead: labels of the channels to remove; constant, or multiplied with zeros.

    >>> from swsjax.baselines.constants import known_arrays
    >>> from swsjax.baselines.graph import traced
    >>> from swsjax.baselines.labels import followed
    >>> net = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([[1.0, 0.0]]), "c": jnp.ones(1),
    ...        "d": jnp.array([[1.0], [2.0]])}
    >>> graph = traced(
    ...     lambda net, x: (x @ net["b"] + net["a"][None]) @ net["d"] + net["c"][None],
    ...     net, jnp.ones((1, 1)))
    >>> labels, known = followed(graph), known_arrays(graph, list(net.values()))
    >>> folded(graph, labels, known, labels[0][0][1:]).changes
    {2: array([2.], dtype=float32)}
    """
    shifts = _Shifts(graph, labels, known, dead)
    for operation in graph.operations:
        shifts.follow(operation)
    for number in graph.results:
        shifts.fail(number)
    return Folded(shifts.changes, frozenset(shifts.failed))


class _Shift(NamedTuple):
    value: Array
    of: frozenset[int]
    """Outputs of the products that lost it."""


class _Shifts:
    """The shifts of the arrays so far; arrays without any are left out."""

    def __init__(self, graph: Graph, labels: Labels, known: Sequence[Known], dead: Array) -> None:
        self.graph, self.labels, self.known, self.dead = graph, labels, known, dead
        self.shifts: dict[int, _Shift] = {}
        self.changes: dict[int, Array] = {}
        self.failed: set[int] = set()
        self.sources, self.uses = moved_leaves(graph)

    def follow(self, operation: Operation) -> None:
        """Find the shift of what an operation makes."""
        shifted = [number for number in operation.inputs if number in self.shifts]
        if operation.name in PRODUCTS:
            self.of_product(operation)
        elif shifted:
            of = frozenset[int]().union(*(self.shifts[number].of for number in shifted))
            value = self.moved(operation, [self.value(number) for number in operation.inputs])
            if value is None:
                self.failed |= of
            elif value.any():
                self.shifts[operation.outputs[0]] = _Shift(value, of)

    def fail(self, number: int) -> None:
        if number in self.shifts:
            self.failed |= self.shifts[number].of

    def value(self, number: int) -> Array:
        """The shift of an array, zeros if it has none."""
        if number in self.shifts:
            return self.shifts[number].value
        return np.zeros(self.graph.shapes[number], self.graph.dtypes[number])

    def of_product(self, operation: Operation) -> None:
        """The product of what its operand lost: shifts, and the values of dead channels."""
        of_inputs = [number in self.graph.from_inputs for number in operation.inputs]
        if sum(of_inputs) != 1:
            for number in operation.inputs:
                self.fail(number)
            return
        side = of_inputs.index(True)
        number = operation.inputs[side]
        lost = self.value(number)
        of = self.shifts[number].of if number in self.shifts else frozenset()
        for pair in contracted(operation, self.graph.shapes):
            gone = self.gone(number, pair[side])
            own = np.where(gone, self.known[number].value, 0)
            of |= {operation.outputs[0]} if own.any() else set()
            lost = np.where(gone, self.known[number].value, lost)
        if not lost.any():
            return
        operands = [self.known[n].value for n in operation.inputs]
        operands[side] = lost
        (value,), output = run(operation, *operands), operation.outputs[0]
        for axis in range(value.ndim):
            value = np.where(self.gone(output, axis), 0, value)
        if value.any():
            self.shifts[output] = _Shift(value, of)

    def gone(self, number: int, axis: int) -> Array:
        """Which indices of an axis are removed, in a shape that fits the array."""
        gone = np.isin(self.labels[number][axis], self.dead)
        return gone.reshape([-1 if a == axis else 1 for a in range(len(self.labels[number]))])

    def moved(self, operation: Operation, values: list[Array]) -> Array | None:
        """The shift of the result; None if it is not one constant for each entry."""
        name, params = operation.name, operation.params
        if name in MOVING or name in _LINEAR:
            return run(operation, *values)[0]
        if name in ("add", "add_any", "sub"):
            return self.added(operation, values)
        if name == "mul" or (name == "div" and not values[1].any()):
            return self.scaled(operation, values)
        if name in ("reduce_max", "reduce_min"):
            return _uniform(values[0], params["axes"], keep=False)
        if name == "reduce_window_max":
            axes = [a for a, size in enumerate(params["window_dimensions"]) if size != 1]
            one = _uniform(values[0], axes, keep=True)
            shape = self.graph.shapes[operation.outputs[0]]
            return None if one is None else np.array(np.broadcast_to(one, shape))
        return None

    def scaled(self, operation: Operation, values: list[Array]) -> Array | None:
        """Times, or by, something that does not depend on the inputs."""
        side = int(values[1].any())
        other = operation.inputs[1 - side]
        if values[1 - side].any() or other in self.graph.from_inputs:
            return None
        values[1 - side] = self.known[other].value
        return run(operation, *values)[0]

    def added(self, operation: Operation, values: list[Array]) -> Array:
        """A leaf that is added takes the shift if it can; otherwise it goes on."""
        shift = np.broadcast_to(run(operation, *values)[0], self.graph.shapes[operation.outputs[0]])
        for side, number in enumerate(operation.inputs):
            leaf = self.sources.get(number)
            if leaf is None or self.uses[leaf] != 1:
                continue
            entries = np.broadcast_to(self.entries(number), shift.shape)
            change = np.zeros(self.graph.shapes[leaf], shift.dtype).ravel()
            change[entries] = shift
            if _are_close(change[entries], shift):
                sign = -1 if operation.name == "sub" and side == 1 else 1
                self.changes[leaf] = sign * change.reshape(self.graph.shapes[leaf])
                return np.zeros_like(shift)
        return shift

    def entries(self, number: int) -> Array:
        """The place in its leaf of each entry of an array that is only a leaf moved."""
        made = {operation.outputs[0]: operation for operation in self.graph.operations}
        path = []
        while number in made:
            path.append(made[number])
            number = made[number].inputs[0]
        shape = self.graph.shapes[number]
        found = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
        for operation in reversed(path):
            found = run(operation, found)[0] if operation.name in MOVING else found
        return found


def _uniform(value: Array, axes: Sequence[int], *, keep: bool) -> Array | None:
    """A shift without some axes if it is the same along them."""
    one: Array = value.max(tuple(axes), keepdims=True)
    if not _are_close(np.broadcast_to(one, value.shape), value):
        return None
    return one if keep else one.squeeze(tuple(axes))


def _are_close(first: Array, second: Any) -> bool:
    """Whether two shifts are equal, to rounding: they are sums of many products."""
    limit = 64 * float(jnp.finfo(first.dtype).eps) * float(np.abs(second).max(initial=0))
    return bool((np.abs(first - second) <= limit).all())
