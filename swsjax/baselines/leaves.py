"""Leaves of a net by name: chosen, and replaced."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax import Array

from swsjax.errors import ConfigError
from swsjax.trees import named_leaves

__all__ = ["chosen_leaves", "sibling", "with_leaves"]


def chosen_leaves(tree: Any, names: Iterable[str]) -> dict[str, Array]:
    """Return leaves of a tree by their names.

    Args:
        tree: pytree of arrays.
        names: of some of its leaves.

    Raises:
        ConfigError: the tree lacks one of them.

    >>> chosen_leaves({"fc": {"bias": jnp.zeros(1), "kernel": jnp.ones((1, 1))}}, ["fc/bias"])
    {'fc/bias': Array([0.], dtype=float32)}
    """
    leaves, names = dict(named_leaves(tree)), list(names)
    missing = [name for name in names if name not in leaves]
    if missing:
        raise ConfigError(
            f"the net has no {', '.join(missing)}; expected names among {', '.join(leaves)}"
        )
    return {name: leaves[name] for name in names}


def with_leaves(tree: Any, replaced: Mapping[str, Any]) -> Any:
    """Return a tree with other arrays under some of its names.

    Args:
        tree: pytree of arrays.
        replaced: arrays by the names of leaves of the tree.

    >>> with_leaves({"bias": jnp.zeros(1), "scale": jnp.ones(1)}, {"scale": jnp.zeros(1)})
    {'bias': Array([0.], dtype=float32), 'scale': Array([0.], dtype=float32)}
    """
    leaves, structure = jax.tree.flatten(tree)
    names = [name for name, _ in named_leaves(tree)]
    new = [replaced.get(name, leaf) for name, leaf in zip(names, leaves, strict=True)]
    return jax.tree.unflatten(structure, new)


def sibling(name: str, last: str) -> str:
    """Return the name of another leaf of the same layer.

    >>> sibling("block/conv1/kernel", "bias"), sibling("scale", "bias")
    ('block/conv1/bias', 'bias')
    """
    layer, slash, _ = name.rpartition("/")
    return f"{layer}{slash}{last}"
