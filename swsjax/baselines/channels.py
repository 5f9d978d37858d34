"""The channels of a net, found in the trace of what it computes: what must be cut together.

A dependency graph, as that of Fang, Ma, Song, Mi, Wang, *DepGraph: Towards Any Structural Pruning*
(CVPR 2023, arXiv 2301.12900), but of single indices: each index of each axis of a leaf is a node,
and each operation joins the nodes that can only be cut together. So nothing is said of the net, and
flattened positions, concatenations and residual sums need no rules of their own.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from swsjax.baselines.graph import PRODUCTS, Graph, contracted, traced
from swsjax.baselines.labels import Labels, followed
from swsjax.errors import ConfigError
from swsjax.lab.task import Variables
from swsjax.trees import named_leaves

__all__ = ["Axis", "Group", "channel_groups", "masked_channels", "remove_channels", "without"]

Axis = tuple[str, int]
"""Name of a leaf, and number of one of its axes."""
Indices = npt.NDArray[np.intp]


class Group(NamedTuple):
    """Channels that run through the same axes of the same leaves, such as those of one layer."""

    members: Mapping[Axis, Indices]
    """For each axis, its indices of each channel: (size, positions). After flattening, each
    position of a channel has an index of its own; otherwise there is one."""
    kernels: tuple[Axis, ...]
    """The axes that are outputs of products or convolutions with the leaf: the channels are made
    there. Several in a residual sum."""

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(next(iter(self.members.values())))


def channel_groups(apply: Callable[..., Any], net: Any, *inputs: Any) -> tuple[Group, ...]:
    """Find the channels of a net that can be cut, in groups.

    The function is traced, not run, and must read all sizes of channels from its arrays. Channels
    of inputs and outputs are in no group, nor are those that are padded, sliced, split or sorted
    along their axis, or in a grouped convolution that is not depthwise.

    Args:
        apply: from the net and inputs to outputs: in evaluation, as statistics that it returns
            would be outputs.
        net: pytree of arrays or their shapes, such as ``Variables``.
        inputs: arrays or shapes; a batch of one example will do.

    Returns:
        groups in the order in which the net uses them first.

    Raises:
        ConfigError: an operation on the channels is not known.

    >>> net = {"fc1": {"bias": jnp.ones(4), "kernel": jnp.ones((6, 4))}, "fc2": jnp.ones((4, 2))}
    >>> def apply(net, x):
    ...     return jax.nn.relu(x @ net["fc1"]["kernel"] + net["fc1"]["bias"][None]) @ net["fc2"]
    >>> (group,) = channel_groups(apply, net, jnp.ones((1, 6)))
    >>> group.size, list(group.members), group.kernels
    (4, [('fc1/bias', 0), ('fc1/kernel', 1), ('fc2', 0)], (('fc1/kernel', 1),))
    """
    graph = traced(apply, net, *inputs)
    labels = followed(graph)
    made = _made_by(graph, labels)
    members: dict[int, dict[Axis, list[int]]] = {
        label: defaultdict(list) for label in _in_order(graph, labels)
    }
    for number, name in enumerate(graph.leaves):
        for axis, labelled in enumerate(labels[number]):
            for index, label in enumerate(labelled.tolist()):
                if label:
                    members[label][name, axis].append(index)
    groups: dict[Any, list[dict[Axis, list[int]]]] = defaultdict(list)
    for channel in filter(None, members.values()):
        groups[tuple((axis, len(indices)) for axis, indices in channel.items())].append(channel)
    return tuple(
        Group(
            {axis: np.array([channel[axis] for channel in channels]) for axis in channels[0]},
            tuple(axis for axis in channels[0] if axis in made),
        )
        for channels in groups.values()
    )


def remove_channels(net: Any, removed: Iterable[tuple[Group, Any]]) -> Any:
    """Cut channels out of all the leaves that they run through.

    What the net computes changes, unless they are dead; ``shrink`` finds those.

    Args:
        net: pytree of arrays.
        removed: groups of the net, each with the numbers of its channels that go.

    Returns:
        net with smaller arrays.

    Raises:
        ConfigError: a number is out of range, or a group would lose all of its channels.

    >>> net = {"w": jnp.eye(3)[:, :2], "v": jnp.ones((2, 1))}
    >>> (group,) = channel_groups(lambda net, x: x @ net["w"] @ net["v"], net, jnp.ones((1, 3)))
    >>> remove_channels(net, [(group, [0])])["w"].ravel()
    Array([0., 1., 0.], dtype=float32)
    """
    return without(net, _indices(removed, all_may_go=False))


def masked_channels(net: Any, removed: Iterable[tuple[Group, Any]]) -> Any:
    """Set channels to zero in all parameters that they run through.

    With the weights that make a channel and the parameters of its norms, those that read it are
    zero, too: so a finisher, which holds the zeros of kernels, leaves it dead, and ``shrink``
    removes it. The statistics of norms stay, as a variance of zero would be no statistic.

    Args:
        net: ``Variables``, or a pytree of parameters.
        removed: groups of the net, each with the numbers of its channels that go.

    Raises:
        ConfigError: a number is out of range.

    >>> net = {"w": jnp.ones((3, 2)), "v": jnp.ones((2, 1))}
    >>> (group,) = channel_groups(lambda net, x: x @ net["w"] @ net["v"], net, jnp.ones((1, 3)))
    >>> masked_channels(net, [(group, [0])])["v"].ravel()
    Array([0., 1.], dtype=float32)
    """
    indices = _indices(removed, all_may_go=True)
    statistics = named_leaves(net._replace(params=())) if isinstance(net, Variables) else []
    held = {name for name, _ in statistics}
    leaves, structure = jax.tree.flatten(net)
    for number, (name, leaf) in enumerate(named_leaves(net)):
        for axis in range(jnp.ndim(leaf)):
            if (name, axis) in indices and name not in held:
                place = (slice(None),) * axis + (indices[name, axis],)
                leaves[number] = jnp.asarray(leaves[number]).at[place].set(0)
    return jax.tree.unflatten(structure, leaves)


def without(net: Any, indices: Mapping[Axis, Indices]) -> Any:
    """Return a net without some indices of some axes of its leaves.

    Args:
        net: pytree of arrays.
        indices: to leave out, for each axis that has any.

    >>> without({"w": jnp.arange(6).reshape(2, 3)}, {("w", 1): np.array([0, 1])})["w"].tolist()
    [[2], [5]]
    """
    leaves, structure = jax.tree.flatten(net)
    # Far faster than `jnp.delete`, which checks each index and goes through a mask.
    known: dict[str, Any] = {"mode": "clip", "unique_indices": True, "indices_are_sorted": True}
    for number, (name, leaf) in enumerate(named_leaves(net)):
        for axis, size in enumerate(jnp.shape(leaf)):
            if (name, axis) in indices:
                left = np.delete(np.arange(size), indices[name, axis])
                leaves[number] = jnp.take(jnp.asarray(leaves[number]), left, axis, **known)
    return jax.tree.unflatten(structure, leaves)


def _in_order(graph: Graph, labels: Labels) -> list[int]:
    """The labels of channels, in the order of the operations that take them first."""
    numbers = dict.fromkeys(number for operation in graph.operations for number in operation.inputs)
    axes = [labelled.tolist() for number in numbers for labelled in labels[number]]
    return [label for label in dict.fromkeys(itertools.chain(*axes)) if label]


def _made_by(graph: Graph, labels: Labels) -> set[Axis]:
    """The axes of leaves that products with activations keep: those of their outputs."""
    leaves, kernels, read = dict(enumerate(graph.leaves)), set(), set()
    origins: dict[int, set[int]] = {number: {number} for number in leaves}
    for operation in graph.operations:
        for output in operation.outputs:
            origins[output] = set().union(*(origins.get(n, set()) for n in operation.inputs))
        if operation.name not in PRODUCTS:
            continue
        for side, number in enumerate(operation.inputs):
            if number in graph.from_inputs:
                origins[operation.outputs[0]] = set()
                continue
            summed = [pair[side] for pair in contracted(operation, graph.shapes)]
            cut = {label for axis in summed for label in labels[number][axis].tolist() if label}
            for leaf in origins[number]:
                kernels.add(leaf)
                read |= {
                    (leaf, axis)
                    for axis, labelled in enumerate(labels[leaf])
                    if cut.intersection(labelled.tolist())
                }
    return {
        (leaves[leaf], axis)
        for leaf in kernels
        for axis in range(len(graph.shapes[leaf]))
        if (leaf, axis) not in read and len(graph.shapes[leaf]) > 1
    }


def _indices(removed: Iterable[tuple[Group, Any]], *, all_may_go: bool) -> dict[Axis, Indices]:
    """The indices of each axis that channels of several groups have."""
    found: dict[Axis, list[Indices]] = defaultdict(list)
    for group, numbers in removed:
        chosen: Sequence[int] = np.unique(np.asarray(numbers, int)).tolist()
        if chosen and not 0 <= chosen[0] <= chosen[-1] < group.size:
            raise ConfigError(
                f"a group of {group.size} channels has numbers from 0 to {group.size - 1}, got "
                f"{chosen}"
            )
        if len(chosen) == group.size and not all_may_go:
            raise ConfigError(
                f"a layer needs at least one channel, got all {group.size} of "
                f"{', '.join(name for name, _ in group.members)} to remove"
            )
        for axis, indices in group.members.items():
            found[axis].append(indices[chosen].ravel())
    return {axis: np.concatenate(parts) for axis, parts in found.items()}
