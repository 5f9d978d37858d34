"""Pytrees: the one spelling of a leaf's path, and which leaves hold numbers."""

from numbers import Real
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

__all__ = [
    "Params",
    "Path",
    "first_axes",
    "form_of",
    "holds_numbers",
    "is_array",
    "is_number",
    "is_numeric",
    "is_weight",
    "leaf_name",
    "name_of",
    "named_leaves",
    "unboxed_leaves",
]

Params = Any
"""A pytree of floating arrays."""
Path = tuple[str | int, ...]
"""The keys from the root of a tree to a leaf."""


def leaf_name(path: tuple[Any, ...]) -> str:
    """Return JAX's path of a leaf as rules and messages spell it.

    >>> [leaf_name(path) for path, _ in jax.tree.leaves_with_path({"fc": [1, {"w": 2}]})]
    ['fc/0', 'fc/1/w']
    """
    return name_of(tuple(map(_key, path)))


def name_of(path: Path) -> str:
    """Return the path of a leaf as one name.

    >>> name_of(("layers", 0, "kernel")), name_of(())
    ('layers/0/kernel', '(the tree itself)')
    """
    return "/".join(map(str, path)) or "(the tree itself)"


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Return each leaf with its name, in the order of ``jax.tree.leaves``.

    >>> named_leaves({"fc": {"bias": 1, "kernel": 2}})
    [('fc/bias', 1), ('fc/kernel', 2)]
    """
    return [(leaf_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def unboxed_leaves(tree: Any) -> list[tuple[Path, Any]]:
    """Return ``(path, leaf)`` pairs, without a trace of the box that Flax NNX puts around an array.

    Raises:
        TypeError: a key of the tree is neither a string nor a non-negative integer.

    >>> unboxed_leaves({"layers": [1.5, 2.5]})
    [(('layers', 0), 1.5), (('layers', 1), 2.5)]
    """
    out = []
    for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=_is_variable):
        keys = tuple(map(_checked_key, path))
        if _is_variable(leaf):
            inner = jax.tree.leaves_with_path(leaf)
            out += [(keys + tuple(map(_checked_key, rest[1:])), x) for rest, x in inner]
        else:
            out.append((keys, leaf))
    return out


def is_array(leaf: Any) -> bool:
    """Whether a leaf is a NumPy or JAX array.

    >>> is_array(np.ones(2)), is_array(1.5)
    (True, False)
    """
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def is_weight(leaf: Any) -> bool:
    """Whether a leaf can be trained: a floating array.

    >>> is_weight(jnp.ones(2)), is_weight(jnp.arange(2)), is_weight(jax.nn.relu)
    (True, False, False)
    """
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a real number, or an array that holds one.

    >>> is_number(0.1), is_number(jnp.float32(0.1)), is_number("0.1")
    (True, True, False)
    """
    return isinstance(value, Real) or (isinstance(value, jax.Array) and value.ndim == 0)


def holds_numbers(leaf: Any) -> bool:
    """Whether a leaf is an array that JAX can hold: of numbers or random keys.

    >>> holds_numbers(np.ones(2)), holds_numbers(np.array(["a"])), holds_numbers("a")
    (True, False, False)
    """
    dtype = getattr(leaf, "dtype", None)
    # Types that NumPy does not know (keys, other packages' tensors) are left to JAX.
    known = isinstance(dtype, np.dtype)
    return dtype is not None and not (known and (dtype.kind in "OSUMm" or dtype.names))


def is_numeric(leaf: Any) -> bool:
    """Whether a leaf is a number, or an array that JAX can hold.

    >>> is_numeric(0.1), is_numeric(np.ones(2)), is_numeric("a")
    (True, True, False)
    """
    return is_number(leaf) or holds_numbers(leaf)


def form_of(tree: Any) -> dict[str, str]:
    """Type and shape of each leaf by its name.

    >>> form_of({"x": jnp.zeros((2, 3)), "name": "net"})
    {'name': 'str', 'x': 'float32[2, 3]'}
    """
    return {
        name: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
        if is_numeric(leaf)
        else type(leaf).__name__
        for name, leaf in named_leaves(tree)
    }


def first_axes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Lengths of the first axes in a pytree, each with the name of one array that has it.

    >>> first_axes({"x": np.ones((5, 2)), "y": np.ones(5), "z": np.ones(4), "rate": 0.1})
    {'rate': (), 'x': (5,), 'z': (4,)}
    """
    found: dict[tuple[int, ...], str] = {}
    for name, leaf in named_leaves(tree):
        found.setdefault(np.shape(leaf)[:1], name)
    return {name: axis for axis, name in found.items()}


def _key(key: Any) -> Any:
    """One entry of a JAX path, without its type."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key


def _checked_key(entry: Any) -> str | int:
    key = _key(entry)
    if isinstance(key, str) or (type(key) is int and 0 <= key < 2**63):
        return key
    raise TypeError(f"tree key {key!r} is neither a string nor a non-negative integer")


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)
