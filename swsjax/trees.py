"""Pytrees: the one spelling of a leaf's path, and which leaves hold numbers."""

from collections.abc import Container, Iterator
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from swsjax.errors import WrongTypeError

__all__ = [
    "Params",
    "Path",
    "first_axes",
    "fits",
    "form_of",
    "holds_numbers",
    "holds_variables",
    "is_array",
    "is_integer",
    "is_number",
    "is_numeric",
    "is_weight",
    "leaf_name",
    "name_of",
    "named_leaves",
    "named_variables",
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

    >>> name_of(("layers", 0, "kernel")), name_of(("",)), name_of(())
    ('layers/0/kernel', '', '(the tree itself)')
    """
    return "/".join(map(str, path)) if path else "(the tree itself)"


def fits(name: str, pattern: str, names: Container[str]) -> bool:
    """Whether a name fits a pattern; a pattern that is a name itself, brackets and all, is it.

    >>> fits("fc/bias", "*/bias", []), fits("layers[1]", "layers[1]", ["layers[1]"])
    (True, True)
    """
    return name == pattern if pattern in names else fnmatchcase(name, pattern)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Return each leaf with its name, in the order of ``jax.tree.leaves``.

    The name has no trace of the box that Flax NNX puts around an array.

    >>> named_leaves({"fc": {"bias": 1, "kernel": nnx.Param(2)}})
    [('fc/bias', 1), ('fc/kernel', 2)]
    """
    return [(leaf_name(path), leaf) for path, leaf in _unboxed(tree)]


def unboxed_leaves(tree: Any) -> list[tuple[Path, Any]]:
    """Return ``(path, leaf)`` pairs, without a trace of the box that Flax NNX puts around an array.

    Raises:
        WrongTypeError: a key of the tree is neither a string nor a non-negative integer.

    >>> unboxed_leaves({"layers": [1.5, 2.5]})
    [(('layers', 0), 1.5), (('layers', 1), 2.5)]
    """
    return [(tuple(map(_checked_key, path)), leaf) for path, leaf in _unboxed(tree)]


def holds_variables(tree: Any) -> bool:
    """Whether a tree is a Flax NNX module, the state of one, or holds such.

    >>> holds_variables([nnx.Linear(2, 3, rngs=nnx.Rngs(0))]), holds_variables([jnp.ones(2)])
    (True, False)
    """
    # A module that is not a pytree is a leaf.
    leaves = jax.tree.leaves(tree, is_leaf=_is_variable)
    return any(isinstance(leaf, nnx.Variable | nnx.Module) for leaf in leaves)


def named_variables(tree: Any) -> list[tuple[str, "nnx.Variable[Any]"]]:
    """Return each variable of Flax NNX with its name; a shared one under each of its names.

    >>> [(name, type(x).__name__) for name, x in named_variables([1.5, nnx.BatchStat(2.5)])]
    [('1', 'BatchStat')]
    """
    leaves = jax.tree.leaves_with_path(tree, is_leaf=_is_variable)
    return [(leaf_name(path), leaf) for path, leaf in leaves if _is_variable(leaf)]


def is_array(leaf: Any) -> bool:
    """Whether a leaf is a NumPy or JAX array.

    >>> is_array(np.ones(2)), is_array(1.5)
    (True, False)
    """
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def is_weight(leaf: Any) -> bool:
    """Whether a leaf can be trained: a floating array, of 16 bits or more.

    Narrower types are for storage: JAX does not add a gradient or a product to them.

    >>> is_weight(jnp.ones(2)), is_weight(jnp.arange(2)), is_weight(jax.nn.relu)
    (True, False, False)
    """
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize > 1


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer, of Python or NumPy; True and False are none.

    >>> is_integer(3), is_integer(np.int64(3)), is_integer(3.0), is_integer(True)
    (True, True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


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


def _unboxed(tree: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """JAX's path of each leaf, without the key of the box around it, and the leaf."""
    for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=_is_variable):
        if _is_variable(leaf):
            yield from ((path + inner[1:], x) for inner, x in jax.tree.leaves_with_path(leaf))
        else:
            yield path, leaf


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
    raise WrongTypeError(f"tree key {key!r} is neither a string nor a non-negative integer")


def _is_variable(node: Any) -> TypeGuard[nnx.Variable[Any]]:
    return isinstance(node, nnx.Variable)
