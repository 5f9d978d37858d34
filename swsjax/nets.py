"""A caller's net, taken apart into what is trained and what is carried along, and put together.

Retraining works on a pytree of floating arrays. What people have is more: Flax NNX modules with
statistics and random keys, Equinox modules with functions among their leaves, trees with counters,
parts that must not change. Here each becomes a ``Net``, and a loss on the caller's terms a loss on
those of retraining.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from swsjax.checks import holds_numbers, is_numeric, leaf_name
from swsjax.errors import ConfigError
from swsjax.losses import Loss, LossWithAux, Params
from swsjax.select import FROZEN, Rules, select

__all__ = ["Net", "take_apart"]


class Net(NamedTuple):
    """A net in parts; the carried part is ``(aux, frozen arrays)``."""

    params: Params
    """What is trained: the caller's tree, with None in place of what is not."""
    carried: tuple[Any, tuple[Array, ...]]
    """What the loss may change from step to step, and arrays that stay as they are."""
    labels: tuple[str | None, ...]
    """Name of the mixture of each trained leaf, in order, or None."""
    whole: Callable[[Params, Any], tuple[Any, Any]]
    """From trained and carried part to the caller's net and its auxiliary state."""
    loss: Callable[[Loss | LossWithAux], LossWithAux]
    """From the caller's loss to one on trained part, carried part and batch."""


def take_apart(net: Any, aux: Any = None, rules: Rules = ()) -> Net:
    """Take a net apart by the rules of ``select``.

    Args:
        net: any pytree, or a Flax NNX module, whose ``nnx.Param`` variables are its weights; its
            other variables are carried along.
        aux: what the loss carries from step to step beside a net that is no NNX module.
        rules: see ``select``.

    Raises:
        ConfigError: as ``select``; or a weight is not finite, or aux holds what is no array, or
            is given with an NNX module.

    >>> net = take_apart({"w": jnp.ones(2), "steps": jnp.array(3), "activation": jax.nn.relu})
    >>> net.params, net.labels
    ({'activation': None, 'steps': None, 'w': Array([1., 1.], dtype=float32)}, ('weights',))
    >>> whole, _ = net.whole({"activation": None, "steps": None, "w": jnp.zeros(2)}, net.carried)
    >>> print(whole["w"], whole["steps"], whole["activation"] is jax.nn.relu)
    [0. 0.] 3 True
    """
    if isinstance(net, nnx.Module):
        return _of_module(net, aux, rules)
    labels = [leaf.label for leaf in select(net, rules).leaves]
    for path, leaf in jax.tree.leaves_with_path(aux):
        if not is_numeric(leaf):
            raise ConfigError(
                f"aux must be of arrays, got {leaf_name(path)} of type {type(leaf).__name__}"
            )
    found, structure = jax.tree.flatten(net)
    _check_finite(net, labels)
    trained = [
        None if label is FROZEN else jnp.asarray(leaf)
        for leaf, label in zip(found, labels, strict=True)
    ]
    is_carried = [
        label is FROZEN and holds_numbers(leaf) for leaf, label in zip(found, labels, strict=True)
    ]
    frozen = tuple(
        jnp.asarray(leaf) for leaf, carried in zip(found, is_carried, strict=True) if carried
    )

    def whole(params: Params, carried: Any) -> tuple[Any, Any]:
        aux, frozen = carried
        weights, arrays = iter(jax.tree.leaves(params)), iter(frozen)
        leaves = [
            next(arrays) if carried else leaf if label is FROZEN else next(weights)
            for leaf, label, carried in zip(found, labels, is_carried, strict=True)
        ]
        return jax.tree.unflatten(structure, leaves), aux

    def loss(loss_fn: Callable[..., Any]) -> LossWithAux:
        def on_parts(params: Params, carried: Any, batch: Any) -> tuple[Array, Any]:
            net, aux = whole(params, carried)
            if aux is None:
                return loss_fn(net, batch), carried
            returned = loss_fn(net, aux, batch)
            if not (isinstance(returned, tuple | list) and len(returned) == 2):
                came = f"a {type(returned).__name__}"
                if holds_numbers(returned):
                    came = f"an array of shape {jnp.shape(returned)}"
                raise ConfigError(
                    f"loss_fn must return (scalar, aux), as aux is given to compress, got {came}"
                )
            value, aux = returned
            return value, (aux, carried[1])

        return on_parts

    kept = tuple(label for label in labels if label is not FROZEN)
    params = jax.tree.unflatten(structure, trained)
    return Net(params, (aux, frozen), kept, whole, loss)


def _of_module(module: nnx.Module, aux: Any, rules: Rules) -> Net:
    if aux is not None:
        raise ConfigError(
            "aux is given with an NNX module, which carries its own variables; put it into one"
        )
    graph, *states = nnx.split(module, nnx.Param, ...)
    weights, others = map(nnx.to_pure_dict, states)
    net = take_apart(weights, others, rules)

    def merged(params: Params, carried: Any) -> nnx.Module:
        weights, others = net.whole(params, carried)
        return nnx.merge(graph, weights, others)

    def loss(loss_fn: Callable[..., Any]) -> LossWithAux:
        def on_parts(params: Params, carried: Any, batch: Any) -> tuple[Array, Any]:
            module = merged(params, carried)
            value = loss_fn(module, batch)
            others = nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))
            return value, (others, carried[1])

        return on_parts

    return net._replace(
        whole=lambda params, carried: (merged(params, carried), None),
        loss=loss,
    )


def _check_finite(net: Any, labels: list[Any]) -> None:
    for (path, leaf), label in zip(jax.tree.leaves_with_path(net), labels, strict=True):
        if label is not FROZEN and not jnp.all(jnp.isfinite(leaf)):
            raise ConfigError(f"{leaf_name(path)} holds values that are not finite; pretrain again")
