"""Checks of settings and arguments that several modules share."""

from dataclasses import fields
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from swsjax.errors import ConfigError
from swsjax.trees import first_axes, holds_numbers, is_number, is_numeric, named_leaves

__all__ = [
    "check_data",
    "check_floating",
    "check_numbers",
    "check_pair",
    "check_scalar",
    "path_of",
]


def check_numbers(settings: Any) -> None:
    """Check that the fields of a dataclass annotated ``int`` or ``float`` hold such numbers.

    Raises:
        ConfigError: a field holds something else.

    >>> from swsjax.training import PretrainConfig
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

    Args:
        what: what the tree holds; the message begins with it.
        tree: any pytree.

    Raises:
        ConfigError: a leaf is not floating.

    >>> check_floating("weights", {"w": jnp.ones(2), "steps": jnp.array(3)})
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: weights must be floating arrays, got steps of type int32; leave it \
out
    """
    for name, leaf in named_leaves(tree):
        if not is_numeric(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise ConfigError(
                f"{what} must be floating arrays, got {name} of type {kind}; leave it out"
            )


def check_data(data: Any, batch_size: int) -> int:
    """Return the number of examples in the data, checked to make at least one batch.

    Raises:
        ConfigError: the arrays disagree on the number of examples, hold fewer than a batch, or do
            not hold numbers.

    >>> check_data({"x": jnp.zeros((10, 3)), "y": jnp.zeros(10)}, batch_size=5)
    10
    """
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ConfigError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
    axes = first_axes(data)
    if len(axes) != 1 or () in axes.values():
        raise ConfigError(
            "data must be a pytree of arrays with the same number of examples along the first "
            f"axis, got {f'first axes {axes}' if axes else 'no arrays'}"
        )
    for name, leaf in named_leaves(data):
        if not holds_numbers(leaf):
            raise ConfigError(f"data must hold numbers, got {name} of type {leaf.dtype}")
    ((size,),) = axes.values()
    if size < batch_size:
        raise ConfigError(
            f"data hold {size} examples, fewer than a batch of {batch_size}; set a smaller "
            "batch_size"
        )
    return size


def check_scalar(value: Any) -> Any:
    """Return the value of a loss, checked to be a floating scalar.

    Raises:
        ConfigError: it is not.

    >>> check_scalar(jnp.ones(3))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: loss_fn must return a scalar, got an array of shape (3,); take \
the mean over the batch
    """
    if not is_numeric(value):
        aux = "; pass its state as aux" if isinstance(value, tuple | list) else ""
        found = "None" if value is None else f"a {type(value).__name__}"
        raise ConfigError(f"loss_fn must return a scalar, got {found}{aux}")
    if jnp.shape(value) != ():
        raise ConfigError(
            f"loss_fn must return a scalar, got an array of shape {jnp.shape(value)}; take the "
            "mean over the batch"
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise ConfigError(f"loss_fn must return a floating number, got {jnp.result_type(value)}")
    return value


def check_pair(returned: Any) -> tuple[Any, Any]:
    """Return what a loss with aux returned, checked to be a pair.

    Raises:
        ConfigError: it is not.

    >>> check_pair(jnp.ones(()))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: loss_fn must return (scalar, aux) if aux is passed, got an array of \
shape ()
    """
    if isinstance(returned, tuple | list) and len(returned) == 2:
        return returned[0], returned[1]
    found = f"a {type(returned).__name__}"
    if holds_numbers(returned):
        found = f"an array of shape {jnp.shape(returned)}"
    raise ConfigError(f"loss_fn must return (scalar, aux) if aux is passed, got {found}")


def path_of(given: str | PathLike[str], advice: str) -> Path:
    """Convert to ``Path``; raise if it is not a path.

    Args:
        given: path of a file or folder.
        advice: what to do if it is not one.

    Raises:
        TypeError: neither a string nor a path.

    >>> path_of({"w": 1}, "save takes the path first")
    Traceback (most recent call last):
        ...
    TypeError: expected a path, got a dict; save takes the path first
    """
    if not isinstance(given, str | PathLike):
        raise TypeError(f"expected a path, got a {type(given).__name__}; {advice}")
    return Path(given)
