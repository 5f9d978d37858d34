"""Which indices of the arrays of a net can only be cut together: labels through its operations.

Each index of each axis of an array has a label; an index is cut if its label is. The label 0 is
that of indices that cannot be cut.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from swsjax.baselines.graph import POINTWISE, REDUCING, Graph, Operation
from swsjax.errors import ConfigError

__all__ = ["Label", "Labels", "followed"]

Label = npt.NDArray[np.intp]
"""The labels of the indices of an axis."""
Labels = Sequence[Sequence[Label]]
"""Of each axis of each array."""


def followed(graph: Graph) -> list[list[Label]]:
    """Label the indices of all arrays of a graph; equal labels are cut together.

    Args:
        graph: from ``traced``.

    Raises:
        ConfigError: an operation on an axis that could be cut is not known.

    >>> from swsjax.baselines.graph import traced
    >>> net = {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}
    >>> labels = followed(traced(lambda net, x: x @ net["a"] @ net["b"], net, jnp.ones((1, 3))))
    >>> [[axis.tolist() for axis in labelled] for labelled in labels[:2]]
    [[[0, 0, 0], [4, 5]], [[4, 5], [0, 0]]]
    """
    nodes = _Nodes()
    used = {number for operation in graph.operations for number in operation.inputs}
    known: dict[int, list[Label]] = {}
    for number, shape in enumerate(graph.shapes):
        free = number < len(graph.leaves) and number in used
        known[number] = [nodes.new(size) if free else _fixed(size) for size in shape]
    for operation in graph.operations:
        operands = [known[number] for number in operation.inputs]
        shapes = [graph.shapes[number] for number in operation.outputs]
        rule = _Rule(nodes, operation, shapes)
        known.update(zip(operation.outputs, rule.results(operands), strict=True))
    for number in graph.results:
        nodes.fix(*known[number])
    return [[nodes.roots(axis) for axis in known[number]] for number in range(len(known))]


def _fixed(size: int) -> Label:
    return np.zeros(size, np.intp)


class _Nodes:
    """Labels that can be united, a disjoint-set forest. The smallest label of a set stands for it,
    so that what is united with 0 is fixed."""

    def __init__(self) -> None:
        self.parents = [0]

    def new(self, size: int) -> Label:
        """Labels for an axis. A single index cannot be cut."""
        if size == 1:
            return _fixed(1)
        first = len(self.parents)
        self.parents += range(first, first + size)
        return np.arange(first, first + size)

    def root(self, label: int) -> int:
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def roots(self, labels: Label) -> Label:
        return np.array([self.root(label) for label in labels.tolist()], np.intp)

    def unite(self, first: Label, *others: Label) -> Label:
        for other in others:
            if np.array_equal(first, other):
                continue
            for pair in zip(first.tolist(), other.tolist(), strict=True):
                low, high = sorted(map(self.root, pair))
                self.parents[high] = low
        return first

    def fix(self, *axes: Label) -> None:
        for labels in axes:
            self.unite(labels, np.zeros_like(labels))

    def are_fixed(self, labels: Label) -> bool:
        return not self.roots(labels).any()


class _Rule:
    """What one operation does to labels: each method takes those of the operands' axes."""

    def __init__(self, nodes: _Nodes, operation: Operation, shapes: list[tuple[int, ...]]) -> None:
        self.nodes, self.operation, self.shapes = nodes, operation, shapes
        self.params, self.shape = operation.params, shapes[0] if shapes else ()

    def results(self, operands: list[list[Label]]) -> list[list[Label]]:
        """The labels of the results."""
        name = self.operation.name
        if name in POINTWISE:
            return [self.united(operands)]
        if name in REDUCING:
            return [self.left(operands[0], self.params["axes"])]
        # As follows, the method is that of the name in JAX.
        rule = getattr(self, f"of_{name}", None)
        if rule is not None:
            found: list[Label] = rule(*operands)
            return [found]
        if name == "split":
            return self.halves(operands[0])
        if not all(self.nodes.are_fixed(axis) for operand in operands for axis in operand):
            raise ConfigError(
                f"the channels of the net cannot be followed through the operation {name}; write "
                "it with other operations, or pass a part of the net without it"
            )
        return [[_fixed(size) for size in shape] for shape in self.shapes]

    def united(self, operands: Sequence[Sequence[Label]]) -> list[Label]:
        """Axes of the same sizes; an operand without axes, or with one of size 1, is repeated."""
        return [
            self.nodes.unite(*(o[axis] for o in operands if o and len(o[axis]) == size))
            for axis, size in enumerate(self.shape)
        ]

    def left(self, operand: Sequence[Label], axes: Sequence[int]) -> list[Label]:
        return [labels for axis, labels in enumerate(operand) if axis not in axes]

    def held(self, operand: Sequence[Label]) -> list[Label]:
        """Axes whose number of indices changes cannot be cut."""
        for labels, size in zip(operand, self.shape, strict=True):
            if len(labels) != size:
                self.nodes.fix(labels)
        return [
            labels if len(labels) == size else _fixed(size)
            for labels, size in zip(operand, self.shape, strict=True)
        ]

    def halves(self, operand: list[Label]) -> list[list[Label]]:
        self.nodes.fix(operand[self.params["axis"]])
        return [
            [
                labels if len(labels) == size else _fixed(size)
                for labels, size in zip(operand, shape, strict=True)
            ]
            for shape in self.shapes
        ]

    def along(self, operand: list[Label]) -> list[Label]:
        """The order along one axis matters."""
        axis = self.params["axis" if "axis" in self.params else "dimension"]
        self.nodes.fix(operand[axis])
        return operand

    of_cumsum = of_cumprod = of_cummax = of_cummin = of_cumlogsumexp = along

    def of_argmax(self, operand: list[Label]) -> list[Label]:
        self.nodes.fix(*(operand[axis] for axis in self.params["axes"]))
        return self.left(operand, self.params["axes"])

    of_argmin = of_argmax

    def of_slice(self, operand: list[Label]) -> list[Label]:
        return self.held(operand)

    def of_dynamic_slice(self, operand: list[Label], *starts: list[Label]) -> list[Label]:
        return self.held(operand)

    def of_gather(self, operand: list[Label], places: list[Label]) -> list[Label]:
        """Such as an embedding: axes that are taken whole can be cut."""
        numbers, sizes = self.params["dimension_numbers"], self.params["slice_sizes"]
        gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
        left = [axis for axis in range(len(operand)) if axis not in gone]
        found = [_fixed(size) for size in self.shape]
        for place, axis in zip(numbers.offset_dims, left, strict=True):
            if sizes[axis] == len(operand[axis]):
                found[place] = operand[axis]
        cut = [axis for axis in range(len(operand)) if sizes[axis] != len(operand[axis])]
        self.nodes.fix(*places, *(operand[axis] for axis in {*gone, *cut}))
        return found

    def of_pad(self, operand: list[Label], value: list[Label]) -> list[Label]:
        for labels, config in zip(operand, self.params["padding_config"], strict=True):
            if any(config):  # as many may be cut as added
                self.nodes.fix(labels)
        return self.held(operand)

    def of_window(self, operand: list[Label], *others: list[Label]) -> list[Label]:
        for axis, labels in enumerate(operand):
            if self.params["window_dimensions"][axis] != 1:
                self.nodes.fix(labels)
        return self.held(operand)

    of_reduce_window = of_reduce_window_sum = of_reduce_window_max = of_window
    of_reduce_window_min = of_window

    def of_transpose(self, operand: list[Label]) -> list[Label]:
        return [operand[axis] for axis in self.params["permutation"]]

    def of_squeeze(self, operand: list[Label]) -> list[Label]:
        return self.left(operand, self.params["dimensions"])

    def of_rev(self, operand: list[Label]) -> list[Label]:
        turned = self.params["dimensions"]
        return [labels[::-1] if axis in turned else labels for axis, labels in enumerate(operand)]

    def of_iota(self) -> list[Label]:
        return [
            _fixed(size) if axis == self.params["dimension"] else self.nodes.new(size)
            for axis, size in enumerate(self.shape)
        ]

    def of_broadcast_in_dim(self, operand: list[Label], *sizes: list[Label]) -> list[Label]:
        """Repeated entries can be repeated as often as what they meet has indices."""
        found = [self.nodes.new(size) for size in self.shape]
        for labels, axis in zip(operand, self.params["broadcast_dimensions"], strict=True):
            if len(labels) == self.shape[axis]:
                found[axis] = labels
        return found

    def of_concatenate(self, *operands: list[Label]) -> list[Label]:
        joined = self.params["dimension"]
        return [
            np.concatenate(axes) if axis == joined else self.nodes.unite(*axes)
            for axis, axes in enumerate(zip(*operands, strict=True))
        ]

    def of_stack(self, *operands: list[Label]) -> list[Label]:
        found = [self.nodes.unite(*axes) for axes in zip(*operands, strict=True)]
        found.insert(self.params["axis"], _fixed(len(operands)))
        return found

    def of_dot_general(self, left: list[Label], right: list[Label]) -> list[Label]:
        (of_left, of_right), (batch_left, batch_right) = self.params["dimension_numbers"]
        for a, b in zip(of_left, of_right, strict=True):
            self.nodes.unite(left[a], right[b])
        batch = [
            self.nodes.unite(left[a], right[b])
            for a, b in zip(batch_left, batch_right, strict=True)
        ]
        rest = self.left(left, [*of_left, *batch_left])
        return batch + rest + self.left(right, [*of_right, *batch_right])

    def of_conv_general_dilated(self, left: list[Label], right: list[Label]) -> list[Label]:
        numbers = self.params["dimension_numbers"]
        of_batch, of_inputs, *spatial = numbers.lhs_spec
        of_outputs, of_taps, *taps = numbers.rhs_spec
        inputs, outputs = left[of_inputs], right[of_outputs]
        self.nodes.fix(*(left[axis] for axis in spatial), *(right[axis] for axis in taps))
        if self.params["feature_group_count"] == self.params["batch_group_count"] == 1:
            self.nodes.unite(inputs, right[of_taps])
        elif self.params["batch_group_count"] == 1 and len(right[of_taps]) == 1:  # depthwise
            self.nodes.unite(np.repeat(inputs, len(outputs) // len(inputs)), outputs)
        else:
            self.nodes.fix(left[of_batch], inputs, right[of_taps], outputs)
        found = [_fixed(size) for size in self.shape]
        found[numbers.out_spec[0]], found[numbers.out_spec[1]] = left[of_batch], outputs
        return found

    def of_reshape(self, operand: list[Label], *sizes: list[Label]) -> list[Label]:
        found: list[Label] = []
        start = 0
        for axes, sizes_after in _blocks([len(labels) for labels in operand], self.shape):
            found += self.reshaped(operand[start : start + axes], sizes_after)
            start += axes
        return found

    def reshaped(self, operand: list[Label], shape: list[int]) -> list[Label]:
        """Axes that are merged, split, or both. Of several that could be cut, the last still can;
        an axis that is split can be if its labels are those of one of its parts, repeated."""
        cut = [axis for axis, labels in enumerate(operand) if not self.nodes.are_fixed(labels)]
        found = [_fixed(size) for size in shape]
        if not cut:
            return found
        *others, last = cut
        self.nodes.fix(*(operand[axis] for axis in others))
        after = prod(len(labels) for labels in operand[last + 1 :])
        before = prod(shape) // (after * len(operand[last]))
        labels = np.tile(np.repeat(operand[last], after), before)
        roots = self.nodes.roots(labels).reshape(shape)
        for axis in range(len(shape)):
            first = tuple(slice(None) if a == axis else slice(0, 1) for a in range(len(shape)))
            if shape[axis] > 1 and (roots == roots[first]).all():
                found[axis] = labels.reshape(shape)[first].ravel()
                return found
        self.nodes.fix(labels)
        return found


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Split a reshape where products of sizes agree: numbers of old axes, and new sizes."""
    found, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        old, new = list(before[i : i + 1]), list(after[j : j + 1])
        while prod(old) != prod(new):
            if prod(old) < prod(new):
                old.append(before[i + len(old)])
            else:
                new.append(after[j + len(new)])
        found.append((len(old), new))
        i, j = i + len(old), j + len(new)
    return found
