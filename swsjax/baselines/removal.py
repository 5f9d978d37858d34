"""Physical removal of dead channels: smaller arrays, and the same outputs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from swsjax.baselines.channels import without
from swsjax.baselines.constants import Known, known_arrays
from swsjax.baselines.graph import PRODUCTS, REDUCING, Graph, contracted, traced
from swsjax.baselines.labels import Labels, followed
from swsjax.baselines.shifts import folded
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.trees import form_of

__all__ = ["narrowed", "narrowed_module", "shrink"]


def shrink(apply: Callable[..., Any], net: Any, *inputs: Any) -> Any:
    """Remove the channels of a net that its outputs do not depend on, exactly.

    A channel goes if everything that reads it either multiplies it with zeros, or reads a constant:
    zero, or one that can be added to what follows, a bias or the mean of a norm. In a residual sum
    all branches must be dead. A constant that is not zero stays before a convolution with padding,
    as it is not the same at the borders; before a layer without a bias; and before attention.
    Channels under a LayerNorm, or a GroupNorm of several channels, stay, as its statistics count
    them. A layer whose channels are all dead keeps one.

    ``apply`` is found as ``channel_groups`` does, and must read all sizes from its arrays, as the
    result is for the same function.

    Args:
        apply: from the net and inputs to outputs, in evaluation, such as ``Task.predict``.
        net: pytree of arrays, such as ``Variables``.
        inputs: arrays or shapes; a batch of one example will do. Their values are not used.

    Returns:
        net of smaller arrays: ``apply`` gives the same outputs, to rounding, for finite inputs.

    Raises:
        ConfigError: an operation on the channels is not known, or ``apply`` has their number from
            elsewhere than its arrays.

    >>> net = {"a": jnp.array([[1.0, 0.0, 2.0]]), "b": jnp.array([1.0, 4.0, -1.0]),
    ...        "c": jnp.array([[1.0], [2.0], [3.0]]), "d": jnp.zeros(1)}
    >>> def apply(net, x):
    ...     return jax.nn.relu(x @ net["a"] + net["b"][None]) @ net["c"] + net["d"][None]
    >>> small = shrink(apply, net, jnp.ones((1, 1)))
    >>> small["a"].tolist(), small["d"].tolist()
    ([[1.0, 2.0]], [8.0])
    >>> apply(net, jnp.ones((1, 1))) == apply(small, jnp.ones((1, 1)))
    Array([[ True]], dtype=bool)
    """
    graph = traced(apply, net, *inputs)
    leaves, structure = jax.tree.flatten(net)
    labels, known = followed(graph), known_arrays(graph, leaves)
    failed: frozenset[int] = frozenset()
    while True:
        dead = _dead(graph, labels, known, failed)
        found = folded(graph, labels, known, dead)
        if not found.failed:
            break
        failed |= found.failed
    for number, change in found.changes.items():
        leaves[number] = jnp.asarray(leaves[number] + change, leaves[number].dtype)
    gone = {
        (name, axis): np.flatnonzero(np.isin(labelled, dead))
        for number, name in enumerate(graph.leaves)
        for axis, labelled in enumerate(labels[number])
        if np.isin(labelled, dead).any()
    }
    small = without(jax.tree.unflatten(structure, leaves), gone)
    _check_same(graph, apply, small, inputs)
    return small


def narrowed(task: Task, net: Variables) -> Task:
    r"""Return a task whose untrained nets have the shapes of a shrunk one.

    .. math:: W' = \sqrt{n / n'} \, W[:s_1, ..., :s_k]

    for a kernel W of shape s' in the full net, and s in the shrunk one; n and n' are the products
    of all but its last axis, its inputs. A part of a random kernel is random, and this gives it the
    scale of an initialiser that divides by the number of inputs, as those of ``lab`` do. Other
    leaves are cut only. So Scratch-E needs no module of these widths.

    Args:
        task: of the full net; its functions must read all sizes of channels from their arrays.
        net: shrunk.

    Raises:
        ConfigError: the net's arrays are not parts of those of the task.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> from swsjax.baselines.channels import channel_groups, remove_channels
    >>> groups = channel_groups(task.predict, task.init(0), task.dataset.test.images[:1])
    >>> small = remove_channels(task.init(0), [(groups[0], range(200))])
    >>> narrowed(task, small).init(1).params["fc2"]["kernel"].shape
    (100, 100)
    """
    _check_part(net, jax.eval_shape(lambda: task.init(0)), "task")
    wanted = [leaf.shape for leaf in jax.tree.leaves(net)]

    def init(seed: int) -> Variables:
        leaves, structure = jax.tree.flatten(task.init(seed))
        return jax.tree.unflatten(structure, map(_part, leaves, wanted))

    return task._replace(init=init)


def narrowed_module(module: nnx.Module, net: Variables) -> nnx.Module:
    """Return a Flax NNX module with the arrays of a shrunk net, and features of their sizes.

    Features are those of dense layers, convolutions and norms (``in_features``, ``out_features``,
    ``kernel_shape`` and ``num_features``). The module is an ordinary one, in training or evaluation
    as the given one, which stays as it is; ``narrowed`` gives the task of such nets.

    Args:
        module: of the full net.
        net: shrunk, such as ``task.parts(load("small.sws"))``.

    Raises:
        ConfigError: the net's arrays are not parts of those of the module.

    >>> from swsjax.lab import LeNet300100
    >>> module = LeNet300100((8, 8), 10, rngs=nnx.Rngs(0))
    >>> net = Variables(nnx.to_pure_dict(nnx.state(module, nnx.Param)), {})
    >>> net.params["fc2"]["kernel"] = net.params["fc2"]["kernel"].at[:200].set(0)
    >>> small = shrink(lambda net, x: nnx.merge(nnx.graphdef(module), net.params)(x), net,
    ...                jnp.ones((1, 8, 8)))
    >>> narrow = narrowed_module(module, small)
    >>> narrow.fc1.out_features, narrow.fc2.in_features, narrow(jnp.ones((2, 8, 8))).shape
    (100, 100, (2, 10))
    """
    parts: Any = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    definition, params, statistics, others = parts
    full = Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(statistics))
    _check_part(net, full, "module")
    narrow = nnx.merge(definition, *jax.tree.map(jnp.asarray, net), others)
    for _, layer in nnx.iter_graph(narrow):
        if isinstance(layer, nnx.Linear | nnx.Conv):
            *_, inputs, layer.out_features = layer.kernel.shape
            layer.in_features = inputs * getattr(layer, "feature_group_count", 1)
        if isinstance(layer, nnx.Conv):
            layer.kernel_shape = layer.kernel.shape
        if isinstance(layer, nnx.BatchNorm | nnx.InstanceNorm | nnx.LayerNorm | nnx.RMSNorm):
            sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(layer))]
            layer.num_features = sizes[0] if sizes else layer.num_features
    return narrow


def _dead(
    graph: Graph, labels: Labels, known: Sequence[Known], failed: frozenset[int]
) -> np.ndarray[Any, Any]:
    """Labels of the channels that go, but for one of each layer.

    Args:
        failed: outputs of products to which no constants can be added.
    """
    alive = {0}
    for operation in graph.operations:
        if operation.name in REDUCING:
            for axis in operation.params["axes"]:
                alive.update(labels[operation.inputs[0]][axis].tolist())
        if operation.name not in PRODUCTS:
            continue
        left, right = operation.inputs
        of_inputs = [number in graph.from_inputs for number in operation.inputs]
        for a, b in contracted(operation, graph.shapes):
            may_go = known[left].is_zero(a) | known[right].is_zero(b)
            if all(of_inputs):  # attention, which is scaled by the number of channels
                may_go = np.zeros_like(may_go)
            elif any(of_inputs) and operation.outputs[0] not in failed:
                may_go |= known[left].is_known(a) if of_inputs[0] else known[right].is_known(b)
            alive.update(labels[left][a][~may_go].tolist())
    axes = [axis.tolist() for number in range(len(graph.leaves)) for axis in labels[number]]
    for axis in axes:
        if axis and not alive.intersection(axis):
            alive.add(axis[0])
    return np.array(sorted({label for axis in axes for label in axis} - alive), np.intp)


def _check_same(graph: Graph, apply: Callable[..., Any], small: Any, inputs: Sequence[Any]) -> None:
    """Check that a function does the same to a smaller net, with the same constants."""
    advice = "it must read the number of channels from its arrays, and compute nothing from it"
    try:
        after = traced(apply, small, *inputs)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"apply does not run on the shrunk net; {advice}: {error}") from error
    names = [[operation.name for operation in g.operations] for g in (graph, after)]
    if names[0] != names[1] or any(
        np.asarray(value).tobytes() != np.asarray(after.constants.get(number)).tobytes()
        for number, value in graph.constants.items()
    ):
        raise ConfigError(f"apply computes something else with the shrunk net; {advice}")


def _check_part(net: Variables, full: Variables, what: str) -> None:
    """Check that the arrays of a net are parts of those of a full one, which is of a task, say."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (full, net)]
    wanted, have = ([leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (net, full))
    if structures[0] != structures[1] or not all(map(_is_part, wanted, have)):
        raise ConfigError(
            f"expected a net whose arrays are parts of {form_of(full)}, got {form_of(net)}; pass "
            f"the shrunk net of this {what}"
        )


def _is_part(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return len(shape) == len(whole) and all(map(int.__le__, shape, whole))


def _part(leaf: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    part = leaf[tuple(map(slice, shape))]
    if leaf.ndim < 2:
        return part
    inputs = [int(np.prod(of[:-1])) for of in (leaf.shape, shape)]
    return (part * np.sqrt(inputs[0] / inputs[1])).astype(leaf.dtype)
