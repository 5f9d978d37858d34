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

from swsjax.checks import check_pair
from swsjax.errors import ConfigError
from swsjax.training.losses import Loss, LossWithAux
from swsjax.training.selection import FROZEN, Rules, Selection, select
from swsjax.trees import holds_numbers, is_numeric, named_leaves

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
        net: any pytree, or a Flax NNX module, whose ``nnx.Param`` variables are its weights; its
            other variables are carried along.
        aux: what the loss carries from step to step, for a net that is not an NNX module.
        rules: see ``select``.

    Raises:
        ConfigError: as ``select``; or a weight is not finite; or aux holds something other than
            arrays, or is passed with an NNX module.

    >>> net = take_apart({"w": jnp.ones(2), "steps": jnp.array(3), "activation": jax.nn.relu})
    >>> net.weights
    Weights(groups={'weights': [Array([1., 1.], dtype=float32)]}, free=[])
    >>> rebuilt, _ = net.rebuild(Weights({"weights": [jnp.zeros(2)]}, []), net.carried)
    >>> print(rebuilt["w"], rebuilt["steps"], rebuilt["activation"] is jax.nn.relu)
    [0. 0.] 3 True
    """
    if isinstance(net, nnx.Module):
        return _of_module(net, aux, rules)
    selection = select(net, rules)
    for name, leaf in named_leaves(aux):
        if not is_numeric(leaf):
            raise ConfigError(f"aux must hold arrays, got {name} of type {type(leaf).__name__}")
    leaves, structure = jax.tree.flatten(net)
    _check_finite(leaves, selection)
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
    if isinstance(net, nnx.Module):
        net = nnx.to_pure_dict(nnx.state(net, nnx.Param))
    return {
        leaf.name: array
        for leaf, array in zip(selection.leaves, jax.tree.leaves(net), strict=True)
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


def _of_module(module: nnx.Module, aux: Any, rules: Rules) -> Net:
    if aux is not None:
        raise ConfigError(
            "aux is passed with an NNX module, which carries its own variables; store it in one"
        )
    graph, *states = nnx.split(module, nnx.Param, ...)
    params, others = map(nnx.to_pure_dict, states)
    net = take_apart(params, others, rules)

    def merged(weights: Weights, carried: Any) -> nnx.Module:
        params, others = net.rebuild(weights, carried)
        return nnx.merge(graph, params, others)

    def loss(loss_fn: Callable[..., Any]) -> LossWithAux:
        def on_parts(weights: Weights, carried: Any, batch: Any) -> tuple[Array, Any]:
            module = merged(weights, carried)
            value = loss_fn(module, batch)
            others = nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))
            return value, (others, carried[1])

        return on_parts

    return net._replace(
        rebuild=lambda weights, carried: (merged(weights, carried), None),
        loss=loss,
    )


def _check_finite(leaves: list[Any], selection: Selection) -> None:
    for array, leaf in zip(leaves, selection.leaves, strict=True):
        if leaf.group is not FROZEN and not jnp.all(jnp.isfinite(array)):
            raise ConfigError(f"{leaf.name} holds values that are not finite; pretrain again")
