"""Checks of settings and arguments that several modules share."""

from collections.abc import Iterable
from dataclasses import fields
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from swsjax.errors import ConfigError, WrongTypeError
from swsjax.trees import (
    first_axes,
    holds_numbers,
    is_array,
    is_integer,
    is_number,
    is_numeric,
    is_weight,
    named_leaves,
    named_variables,
)

__all__ = [
    "check_aux",
    "check_data",
    "check_examples",
    "check_floating",
    "check_integer",
    "check_numbers",
    "check_params",
    "check_scalar",
    "check_types",
    "check_untied",
    "for_jax",
    "path_of",
]

_WIDEST = {"f": 8, "c": 16}  # bytes of JAX's widest types, by NumPy's kind
_Named = Iterable[tuple[str, Any]]
_NUMPY = np.ndarray | np.generic
_MOST = 2**63 - 1  # what JAX and NumPy hold


def check_numbers(settings: Any) -> None:
    """Check that the fields of a dataclass annotated ``int`` or ``float`` hold such numbers.

    Integers of NumPy become those of Python, which do not overflow.

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
        if field.type is int:
            object.__setattr__(settings, field.name, check_integer(field.name, value, least=None))
        if field.type is float and not is_number(value):
            raise ConfigError(f"{field.name} must be a number, got {value!r}")


def check_integer(name: str, value: Any, least: int | None = 1, most: int = _MOST) -> int:
    """Return an argument that is an integer, as one of Python, which does not overflow.

    Args:
        name: of the argument.
        value: of any type.
        least: smallest value that is allowed; None: any of 64 bits.
        most: largest value that is allowed.

    Raises:
        ConfigError: it is something else, too small or too large.

    >>> check_integer("epochs", 0)
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: epochs must be an integer of at least 1, got 0
    """
    lowest = -_MOST - 1 if least is None else least
    if is_integer(value) and lowest <= value <= most:
        return int(value)
    bound = "" if least is None else f" of at least {least}"
    if is_integer(value) and (value > most or least is None):
        bound = f" from {lowest} to {most}"
    raise ConfigError(f"{name} must be an integer{bound}, got {value!r}")


def check_types(what: str, tree: Any) -> None:
    """Check that JAX can take the NumPy arrays of a tree without loss.

    Args:
        what: what the tree holds.
        tree: any pytree.

    Raises:
        ConfigError: a masked array, whose mask would be lost, or one of a wider type than JAX has.

    >>> check_types("data", {"x": np.ma.array([1.0, 9.9], mask=[False, True])})
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: x in data is a masked array, whose mask would be lost; fill it, and \
if the mask is needed, pass it as an array of its own
    """
    for name, leaf in named_leaves(tree):
        if isinstance(leaf, np.ma.MaskedArray):
            raise ConfigError(
                f"{name} in {what} is a masked array, whose mask would be lost; fill it, and if "
                "the mask is needed, pass it as an array of its own"
            )
        if isinstance(leaf, _NUMPY) and leaf.dtype.itemsize > _WIDEST.get(leaf.dtype.kind, np.inf):
            raise ConfigError(
                f"{name} in {what} is of type {leaf.dtype}, which JAX does not have; convert it to "
                "a narrower one"
            )


def for_jax(what: str, tree: Any) -> Any:
    """Return a tree with its NumPy arrays in the byte order of the machine, as JAX takes them.

    JAX holds 32 bits unless ``jax_enable_x64`` is set: floats are rounded, but no value is lost.

    Args:
        what: what the tree holds.
        tree: any pytree; other leaves stay as they are.

    Raises:
        ConfigError: as ``check_types``; or an integer, or a finite number, is out of the range of
            the type that JAX converts it to.

    >>> for_jax("data", {"x": np.array([1.5], ">f4")})
    {'x': array([1.5], dtype=float32)}
    """
    check_types(what, tree)
    native = jax.tree.map(_native, tree)
    _check_values(what, native, _NUMPY)
    return native


def check_untied(leaves: _Named, frozen: _Named = ()) -> None:
    """Check that no array that is trained has two names, as it would become two.

    JAX knows values, not objects, so weights are not tied by being one object. An array whose
    entries are all equal may have several names: it is an initial value, such as the zeros of
    biases, which code that makes nets often shares. Equal arrays that are different objects were
    never tied. Variables of NNX that are shared stay so, as NNX knows objects.

    Args:
        leaves: names and arrays that are trained.
        frozen: names and arrays that are not; they may be one array among themselves.

    Raises:
        ConfigError: two names have one array, or NumPy arrays that are one memory.

    >>> table = jnp.arange(3.0)
    >>> check_untied([("embed", table), ("head", table)])
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: embed and head are one array, which training would make two; keep \
it under one name and use it twice in the net, or pass copies if they are not tied
    """
    names: dict[Any, str] = {}
    named = [(name, leaf, names.setdefault(_place(leaf), name)) for name, leaf in leaves]
    named += [(name, leaf, names.get(_place(leaf), name)) for name, leaf in frozen]
    for name, leaf, first in named:
        if first is not name and leaf.size and jnp.any(leaf != leaf.ravel()[0]):
            raise ConfigError(
                f"{first} and {name} are one array, which training would make two; keep it under "
                "one name and use it twice in the net, or pass copies if they are not tied"
            )


def check_params(params: Any) -> Any:
    """Return what is trained as it is, as JAX takes it: floating arrays, each under one name.

    Variables of Flax NNX must be parameters. A module is trained as the tree of its variables, so
    that others would be trained as weights, and shared ones would no longer be.

    Raises:
        ConfigError: a leaf is something else, or has two names; or as ``for_jax``.

    >>> check_params({"bias": nnx.Param(jnp.zeros(2)), "mean": nnx.BatchStat(jnp.zeros(2))})
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: params hold mean, a BatchStat of Flax NNX, which would be trained; \
split the module by nnx.split(module, nnx.Param, ...), and pass the other state as aux
    """
    names: dict[int, str] = {}
    for name, variable in named_variables(params):
        if not isinstance(variable, nnx.Param):
            raise ConfigError(
                f"params hold {name}, a {type(variable).__name__} of Flax NNX, which would be "
                "trained; split the module by nnx.split(module, nnx.Param, ...), and pass the "
                "other state as aux"
            )
        if (first := names.setdefault(id(variable), name)) is not name:
            raise ConfigError(
                f"{first} and {name} are one variable of Flax NNX, which training would make two; "
                "split the module by nnx.split(module, nnx.Param, ...), and pass the parameters"
            )
    check_floating("params", params)
    check_untied(named_leaves(params))  # before `for_jax` may copy
    _check_values("params", params, float)
    return for_jax("params", params)


def check_aux(aux: Any) -> Any:
    """Return what a loss carries, as JAX takes it: arrays and numbers.

    Raises:
        ConfigError: a leaf is something else; or as ``for_jax``.

    >>> check_aux({"mode": "train"})
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: aux must hold arrays, got mode of type str
    """
    for name, leaf in named_leaves(aux):
        if not is_numeric(leaf):
            raise ConfigError(f"aux must hold arrays, got {name} of type {type(leaf).__name__}")
    _check_values("aux", aux, int | float)
    return for_jax("aux", aux)


def check_floating(what: str, tree: Any) -> None:
    """Check that all leaves of a pytree are floating arrays or numbers.

    Args:
        what: what the tree holds; the message begins with it.
        tree: any pytree.

    Raises:
        ConfigError: a leaf is not floating, or of less than 16 bits.

    >>> check_floating("weights", {"w": jnp.ones(2), "steps": jnp.array(3)})
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: weights must be floating arrays, got steps of type int32; leave it \
out
    """
    for name, leaf in named_leaves(tree):
        if is_weight(leaf) or isinstance(leaf, float):
            continue
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        is_narrow = is_array(leaf) and jnp.issubdtype(kind, jnp.floating)
        bits, advice = (" of 16 bits or more", "convert it") if is_narrow else ("", "leave it out")
        raise ConfigError(
            f"{what} must be floating arrays{bits}, got {name} of type {kind}; {advice}"
        )


def check_data(data: Any, batch_size: int) -> int:
    """Return the number of examples in the data, checked to make at least one batch.

    Raises:
        ConfigError: the arrays disagree on the number of examples, hold fewer than a batch, or do
            not hold numbers; or as ``check_types``.

    >>> check_data({"x": jnp.zeros((10, 3)), "y": jnp.zeros(10)}, batch_size=5)
    10
    """
    batch_size = check_integer("batch_size", batch_size)
    size = check_examples("data", data)
    if size < batch_size:
        raise ConfigError(
            f"data hold {size} examples, fewer than a batch of {batch_size}; set a smaller "
            "batch_size"
        )
    return size


def check_examples(what: str, tree: Any) -> int:
    """Return the number of examples along the first axis of all arrays of a tree.

    Args:
        what: what the tree holds; the message begins with it.
        tree: pytree of arrays.

    Raises:
        ConfigError: the arrays disagree on it, or do not hold numbers; or as ``check_types``.

    >>> check_examples("inputs", {"left": np.ones((5, 2)), "right": np.ones(5)})
    5
    """
    check_types(what, tree)
    axes = first_axes(tree)
    if len(axes) != 1 or () in axes.values():
        raise ConfigError(
            f"{what} must be a pytree of arrays with the same number of examples along the first "
            f"axis, got {f'first axes {axes}' if axes else 'no arrays'}"
        )
    for name, leaf in named_leaves(tree):
        if not holds_numbers(leaf):
            raise ConfigError(f"{what} must hold numbers, got {name} of type {leaf.dtype}")
    ((size,),) = axes.values()
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


def path_of(given: str | PathLike[str], advice: str) -> Path:
    """Convert to ``Path``; raise if it is not a path.

    Args:
        given: path of a file or folder.
        advice: what to do if it is not one.

    Raises:
        WrongTypeError: neither a string nor a path.

    >>> path_of({"w": 1}, "save takes the path first")
    Traceback (most recent call last):
        ...
    swsjax.errors.WrongTypeError: expected a path, got a dict; save takes the path first
    """
    if not isinstance(given, str | PathLike):
        raise WrongTypeError(f"expected a path, got a {type(given).__name__}; {advice}")
    return Path(given)


def _native(leaf: Any) -> Any:
    if isinstance(leaf, _NUMPY) and not leaf.dtype.isnative:
        return leaf.astype(leaf.dtype.newbyteorder("="))
    return leaf


def _check_values(what: str, tree: Any, kinds: type | UnionType) -> None:
    """Check that no number of these kinds is out of the range of JAX's type for it."""
    leaves = [(name, leaf) for name, leaf in named_leaves(tree) if isinstance(leaf, kinds)]
    for name, leaf in leaves:
        array = np.asarray(leaf)
        # NumPy makes objects of the integers of Python that it has no type for.
        wide: Any = np.dtype(int) if type(leaf) is int else array.dtype
        narrow = jax.dtypes.canonicalize_dtype(wide) if wide.kind in "iufc" else wide
        if narrow == array.dtype:
            continue
        if narrow.kind in "iu":
            lost = (array < np.iinfo(narrow).min) | (array > np.iinfo(narrow).max)
        else:
            with np.errstate(over="ignore"):
                lost = np.isinf(array.astype(narrow)) & np.isfinite(array)
        if np.any(lost):
            raise ConfigError(
                f"{name} in {what} holds {array[lost].flat[0]}, which does not fit JAX's {narrow}; "
                "scale it, leave it out, or set jax_enable_x64"
            )


def _place(leaf: Any) -> Any:
    """What two leaves have in common that are one array: NumPy's views have one memory."""
    if isinstance(leaf, np.ndarray):
        return leaf.__array_interface__["data"][0], leaf.nbytes
    return id(leaf)
