"""A caller's net, taken apart into what is trained and what is carried along, and rebuilt.

Training works on lists of floating arrays. A net is often more: Flax NNX modules with statistics
and random keys, Equinox modules with functions among their leaves, trees with counters, parts that
must not change. Here each becomes a ``Net``, and the caller's loss a loss on its parts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from swsjax.checks import check_aux, check_untied, for_jax
from swsjax.errors import ConfigError
from swsjax.training.losses import Loss, LossWithAux, check_pair
from swsjax.training.selection import FROZEN, Rules, Selection, parameters, select
from swsjax.trees import holds_numbers, holds_variables, is_array, named_leaves

__all__ = ["Net", "Weights", "named_weights", "take_apart"]


class Weights(NamedTuple):
    """The arrays that are trained."""

    groups: dict[str, list[Array]]
    """The arrays that are compressed, by group, each group in the order of the caller's leaves."""
    free: list[Array]
    """The arrays that are trained but not compressed."""


class Net(NamedTuple):
    """A net in parts."""

    weights: Weights
    """What is trained."""
    carried: Any
    """A tuple of aux, what the loss may change from step to step, and constants: the frozen
    arrays."""
    selection: Selection
    """What happens to each leaf of the caller's net."""
    rebuild: Callable[[Weights, Any], tuple[Any, Any]]
    """From trained and carried parts to the caller's net and its auxiliary state."""
    loss: Callable[[Loss | LossWithAux], LossWithAux]
    """From the caller's loss to a loss of ``Weights``, carried part and batch."""


def take_apart(net: Any, aux: Any = None, rules: Rules = ()) -> Net:
    """Take a net apart by the rules of ``select``.

    Args:
        net: any pytree. Of a Flax NNX module, its state, or a tree that holds such, the
            ``nnx.Param`` variables are the weights, shared ones once. Others, and arrays beside
            them, are carried along; what the loss sows (``nnx.Intermediate``) is dropped after
            each step.
        aux: what the loss carries from step to step, for a net that is not of NNX.
        rules: see ``select``.

    Raises:
        ConfigError: as ``select``; or a weight is not finite; or one array would be trained under
            two names; or aux holds something other than arrays, or is passed with an NNX module.

    >>> net = take_apart({"w": jnp.ones(2), "steps": jnp.array(3), "activation": jax.nn.relu})
    >>> net.weights
    Weights(groups={'weights': [Array([1., 1.], dtype=float32)]}, free=[])
    >>> rebuilt, _ = net.rebuild(Weights({"weights": [jnp.zeros(2)]}, []), net.carried)
    >>> print(rebuilt["w"], rebuilt["steps"], rebuilt["activation"] is jax.nn.relu)
    [0. 0.] 3 True
    """
    return _of_module(net, aux, rules) if holds_variables(net) else _of_tree(net, aux, rules)


def _of_tree(net: Any, aux: Any, rules: Rules) -> Net:
    selection = select(net, rules)
    check_untied(_trained(net, selection), _frozen(net, selection))  # before `for_jax` may copy
    net, aux = for_jax("params", net), check_aux(aux)
    _check_finite(_trained(net, selection))
    leaves, structure = jax.tree.flatten(net)
    groups = [leaf.group for leaf in selection.leaves]
    constant = [
        group is FROZEN and holds_numbers(leaf) for leaf, group in zip(leaves, groups, strict=True)
    ]
    frozen = tuple(
        jnp.asarray(leaf) for leaf, is_constant in zip(leaves, constant, strict=True) if is_constant
    )

    def rebuild(weights: Weights, carried: Any) -> tuple[Any, Any]:
        aux, frozen = carried
        arrays, free = iter(frozen), iter(weights.free)
        compressed = {name: iter(group) for name, group in weights.groups.items()}
        rebuilt = []
        for leaf, group, is_constant in zip(leaves, groups, constant, strict=True):
            if group is FROZEN:
                rebuilt.append(next(arrays) if is_constant else leaf)
            else:
                rebuilt.append(next(free if group is None else compressed[group]))
        return jax.tree.unflatten(structure, rebuilt), aux

    def loss(loss_fn: Callable[..., Any]) -> LossWithAux:
        def on_parts(weights: Weights, carried: Any, batch: Any) -> tuple[Array, Any]:
            net, aux = rebuild(weights, carried)
            if aux is None:
                return loss_fn(net, batch), carried
            value, aux = check_pair(loss_fn(net, aux, batch))
            return value, (aux, carried[1])

        return on_parts

    return Net(_weights(leaves, selection), (aux, frozen), selection, rebuild, loss)


def named_weights(net: Any, selection: Selection, group: str | None = None) -> dict[str, Array]:
    """Arrays of a net by name, as they are selected: all that are trained, or those of one group.

    Args:
        net: like the one that the selection is of.
        selection: what happens to its leaves.
        group: name of a group.

    >>> net = {"kernel": jnp.ones(2), "bias": jnp.zeros(1)}
    >>> named_weights(net, select(net, [("bias", None)]), "weights")
    {'kernel': Array([1., 1.], dtype=float32)}
    """
    leaves = jax.tree.leaves(parameters(net))
    return {
        leaf.name: array
        for leaf, array in zip(selection.leaves, leaves, strict=True)
        if (leaf.group is not FROZEN if group is None else leaf.group == group)
    }


def _weights(leaves: list[Any], selection: Selection) -> Weights:
    weights = Weights({}, [])
    for array, leaf in zip(leaves, selection.leaves, strict=True):
        if leaf.group is None:
            weights.free.append(jnp.asarray(array))
        elif isinstance(leaf.group, str):
            weights.groups.setdefault(leaf.group, []).append(jnp.asarray(array))
    return weights


def _of_module(module: Any, aux: Any, rules: Rules) -> Net:
    """Take apart a module, or a tree with variables of NNX."""
    if aux is not None:
        raise ConfigError(
            "aux is passed with an NNX module, which carries its own variables; store it in one"
        )
    parts: Any = nnx.split(module, nnx.Param, nnx.Intermediate, ...)
    graph, params, sown, others = parts
    structure = jax.tree.structure(others)
    # By name: a message can then say which variable has changed its form.
    net = _of_tree(params, dict(named_leaves(others)), rules)
    names = [name for name, _ in named_leaves(others)]

    def merged(weights: Weights, carried: Any) -> Any:
        params, values = net.rebuild(weights, carried)
        others = jax.tree.unflatten(structure, [values[name] for name in names])
        return nnx.merge(graph, params, _rebuilt(sown), others)

    def loss(loss_fn: Callable[..., Any]) -> LossWithAux:
        def on_parts(weights: Weights, carried: Any, batch: Any) -> tuple[Array, Any]:
            module = merged(weights, carried)
            value = loss_fn(module, batch)
            others = nnx.state(module, nnx.Not(nnx.Any(nnx.Param, nnx.Intermediate)))
            return value, (dict(named_leaves(others)), carried[1])

        return on_parts

    return net._replace(
        rebuild=lambda weights, carried: (merged(weights, carried), None),
        loss=loss,
    )


def _rebuilt(state: Any) -> Any:
    """The same state in variables of its own, which what is traced may change."""
    return jax.tree.map(lambda leaf: leaf, state)


def _trained(net: Any, selection: Selection) -> list[tuple[str, Any]]:
    pairs = zip(selection.leaves, jax.tree.leaves(net), strict=True)
    return [(leaf.name, array) for leaf, array in pairs if leaf.group is not FROZEN]


def _frozen(net: Any, selection: Selection) -> list[tuple[str, Any]]:
    pairs = zip(selection.leaves, jax.tree.leaves(net), strict=True)
    return [(leaf.name, x) for leaf, x in pairs if leaf.group is FROZEN and is_array(x)]


def _check_finite(trained: list[tuple[str, Any]]) -> None:
    finite = _are_finite([array for _, array in trained])
    for (name, _), is_finite in zip(trained, finite, strict=True):
        if not is_finite:
            raise ConfigError(f"{name} holds values that are not finite; pretrain again")


@jax.jit
def _are_finite(arrays: list[Array]) -> list[Array]:
    return [jnp.all(jnp.isfinite(array)) for array in arrays]
