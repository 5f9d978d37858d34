"""Checks that several modules share, of settings and of data."""

from dataclasses import fields
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.errors import ConfigError

__all__ = [
    "check_floating",
    "check_numbers",
    "check_scalar",
    "first_axes",
    "holds_numbers",
    "is_number",
    "is_numeric",
    "leaf_name",
    "path_of",
]


def check_numbers(settings: Any) -> None:
    """Check that the fields of a dataclass annotated ``int`` or ``float`` hold such.

    Raises:
        ConfigError: one does not.

    >>> from swsjax.train import PretrainConfig
    >>> PretrainConfig(epochs=1.5)
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: epochs must be an integer, got 1.5
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.type is int and not isinstance(value, Integral):
            raise ConfigError(f"{field.name} must be an integer, got {value!r}")
        if field.type is float and not is_number(value):
            raise ConfigError(f"{field.name} must be a number, got {value!r}")


def check_floating(what: str, tree: Any) -> None:
    """Check that all leaves of a pytree are floating arrays or numbers.

    Raises:
        ConfigError: one is not; the message begins with ``what``.

    >>> check_floating("weights", {"w": jnp.ones(2), "steps": jnp.array(3)})
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: weights must be floating arrays, got steps of type int32; leave it \
out
    """
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not is_numeric(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise ConfigError(
                f"{what} must be floating arrays, got {leaf_name(path)} of type {kind}; leave it "
                "out"
            )


def check_scalar(value: Any) -> Any:
    """Return what a loss returned, having checked that it is a floating scalar.

    Raises:
        ConfigError: it is none.

    >>> check_scalar(jnp.ones(3))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: loss_fn must return a scalar, got an array of shape (3,); take \
the mean over the batch
    """
    if not is_numeric(value):
        aux = "; give what it carries as aux" if isinstance(value, tuple | list) else ""
        raise ConfigError(f"loss_fn must return a scalar, got a {type(value).__name__}{aux}")
    if jnp.shape(value) != ():
        raise ConfigError(
            f"loss_fn must return a scalar, got an array of shape {jnp.shape(value)}; take the "
            "mean over the batch"
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise ConfigError(f"loss_fn must return a floating number, got {jnp.result_type(value)}")
    return value


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a real number, or an array that holds one.

    >>> is_number(0.1), is_number(jnp.float32(0.1)), is_number("0.1")
    (True, True, False)
    """
    return isinstance(value, Real) or (isinstance(value, jax.Array) and value.ndim == 0)


def holds_numbers(leaf: Any) -> bool:
    """Whether a leaf is an array that JAX can hold, as of numbers or random keys, or another's.

    >>> holds_numbers(np.ones(2)), holds_numbers(np.array(["a"])), holds_numbers("a")
    (True, False, False)
    """
    dtype = getattr(leaf, "dtype", None)
    # What is no NumPy type at all (keys, other packages' tensors) is for JAX to say.
    known = isinstance(dtype, np.dtype)
    return dtype is not None and not (known and (dtype.kind in "OSUMm" or dtype.names))


def is_numeric(leaf: Any) -> bool:
    """Whether a leaf is a number, or an array that JAX can hold.

    >>> is_numeric(0.1), is_numeric(np.ones(2)), is_numeric("a")
    (True, True, False)
    """
    return is_number(leaf) or holds_numbers(leaf)


def leaf_name(path: tuple[Any, ...]) -> str:
    """Return the path of a leaf as rules and messages spell it.

    >>> [leaf_name(path) for path, _ in jax.tree.leaves_with_path({"fc": [1, {"w": 2}]})]
    ['fc/0', 'fc/1/w']
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def first_axes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Lengths of the first axes in a pytree, each with the path of one array that has it.

    >>> first_axes({"x": np.ones((5, 2)), "y": np.ones(5), "z": np.ones(4), "rate": 0.1})
    {"['rate']": (), "['x']": (5,), "['z']": (4,)}
    """
    found: dict[tuple[int, ...], str] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        found.setdefault(np.shape(leaf)[:1], jax.tree_util.keystr(path))
    return {path: axis for axis, path in found.items()}


def path_of(given: str | PathLike[str], advice: str) -> Path:
    """Return a path as one, having checked that it is not what goes beside it.

    Args:
        given: path of a file or folder.
        advice: what to do if it is none.

    Raises:
        TypeError: it is none.

    >>> path_of({"w": 1}, "save takes the path first")
    Traceback (most recent call last):
        ...
    TypeError: expected a path, got a dict; save takes the path first
    """
    if not isinstance(given, str | PathLike):
        raise TypeError(f"expected a path, got a {type(given).__name__}; {advice}")
    return Path(given)
