"""Pretrained parameters as Orbax checkpoints. Orbax takes a while to import, so only when used."""

import os
import shutil
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices

from swsjax.checks import check_types, path_of
from swsjax.errors import CheckpointError, ConfigError, WrongTypeError
from swsjax.file.leaves import (
    cast,
    check_array,
    form_of_leaf,
    like_leaf,
    may_become,
    on_devices,
    text_of,
)
from swsjax.trees import Params, holds_numbers, is_array, is_number, named_leaves

__all__ = ["check_replaceable", "load_checkpoint", "save_checkpoint"]

_MARK = "_CHECKPOINT_METADATA"


def check_replaceable(folder: str | PathLike[str]) -> None:
    """Check that a checkpoint may be written to a folder: Orbax deletes what is there.

    Raises:
        CheckpointError: there is something other than a checkpoint.

    >>> Path("net").touch()
    >>> check_replaceable("net")
    Traceback (most recent call last):
        ...
    swsjax.errors.CheckpointError: net is not an Orbax checkpoint and would be deleted; choose a \
new folder
    """
    path = path_of(folder, "the folder comes first")
    is_empty = path.is_dir() and not any(path.iterdir())
    if path.exists() and not is_empty and not (path / _MARK).is_file():
        raise CheckpointError(
            f"{folder} is not an Orbax checkpoint and would be deleted; choose a new folder"
        )


def save_checkpoint(folder: str | PathLike[str], params: Params) -> None:
    """Write parameters as an Orbax checkpoint; an existing one stays until the new one is whole.

    Through a symbolic link, the folder that it leads to is written.

    Raises:
        CheckpointError: there is something other than a checkpoint, or nothing to write.
        ConfigError: an array has a mask, or a type that JAX does not have.
        WrongTypeError: a leaf is neither an array nor a number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as temporary:
    ...     save_checkpoint(temporary + "/net", {"w": jnp.ones(2)})
    ...     load_checkpoint(temporary + "/net", {"w": jnp.zeros(2)})
    {'w': Array([1., 1.], dtype=float32)}
    """
    import orbax.checkpoint as ocp

    path = path_of(folder, "save_checkpoint takes the folder first")
    _check_storable(params)
    # Created here: if Orbax's threads failed to, they would print tracebacks.
    path.parent.mkdir(parents=True, exist_ok=True)
    check_replaceable(path)
    target = Path(os.path.realpath(path))
    # Short, whatever the name of the folder: a file system limits the length of names, and Orbax
    # makes a longer one. The same in every process, as all write one checkpoint.
    name = f".{zlib.crc32(os.fsencode(target.name)):08x}"
    new, old = target.with_name(f"{name}.new"), target.with_name(f"{name}.old")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(new, params, force=True)
    if jax.process_index() == 0:
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed between the next two
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    sync_global_devices("swsjax_checkpoint_replaced")


def load_checkpoint(folder: str | PathLike[str], like: Params) -> Params:
    """Read an Orbax checkpoint into the structure of ``like``.

    Args:
        folder: written by ``save_checkpoint`` or Orbax's ``StandardCheckpointer``.
        like: a net with the same names and shapes, in the types to return and, if its arrays are
            JAX's, on the devices to return them on; they may be traced, or only described by
            ``jax.eval_shape``. Floating arrays are cast to its floating types, if these can hold
            their values; other types must be the same.

    Raises:
        CheckpointError: there is no checkpoint, or it does not fit ``like``.

    >>> save_checkpoint("net", {"w": jnp.ones(2)})
    >>> load_checkpoint("net", {"w": jnp.zeros(3)})
    Traceback (most recent call last):
        ...
    swsjax.errors.CheckpointError: the checkpoint net is of a different net: w has shape (2,), \
expected (3,)
    """
    import orbax.checkpoint as ocp

    path = path_of(folder, "load_checkpoint takes the folder first").absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        there = (path / _MARK).is_file()
        found = checkpointer.metadata(path).item_metadata if there else None
        if found is None:
            raise CheckpointError(
                f"{folder} is not an Orbax checkpoint; give the folder that `swsjax pretrain` or "
                "Orbax's StandardCheckpointer wrote"
            )
        expected, actual = _shapes(like), _shapes(found)
        if expected != actual:
            name, _ = min(expected.items() ^ actual.items())
            raise CheckpointError(
                f"the checkpoint {folder} is of a different net: {name} has shape "
                f"{actual.get(name, 'none (missing)')}, expected {expected.get(name, 'none')}"
            )
        stored = dict(named_leaves(found))
        names = [name for name, _ in named_leaves(like)]
        leaves, structure = jax.tree.flatten(like)
        try:
            targets = [
                _target(name, stored[name], leaf) for name, leaf in zip(names, leaves, strict=True)
            ]
            restored = jax.tree.leaves(
                checkpointer.restore(path, jax.tree.unflatten(structure, targets))
            )
            converted = map(_converted, names, restored, targets, leaves)
            return jax.tree.unflatten(structure, converted)
        except ConfigError as error:
            raise CheckpointError(f"the checkpoint {folder} does not fit: {error}") from error


def _shapes(tree: Params) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(leaf, "shape", ())) for name, leaf in named_leaves(tree)}


def _check_storable(params: Params) -> None:
    leaves = named_leaves(params)
    if not leaves:
        raise CheckpointError("params hold no arrays; a checkpoint needs at least one")
    check_types("params", params)
    for name, leaf in leaves:
        if is_number(leaf) and not is_array(leaf):
            continue
        check_array(f"leaf {name}", leaf)
        if not holds_numbers(leaf):
            raise WrongTypeError(f"leaf {name} has element type {leaf.dtype}; leave it out")
        if not leaf.size:
            raise CheckpointError(
                f"leaf {name} is empty, which a checkpoint cannot hold; leave it out"
            )


def _target(name: str, stored: Any, leaf: Any) -> Any:
    """What Orbax is to restore a leaf like: itself, or as it is stored if it must be converted."""
    if not hasattr(leaf, "dtype"):  # a number of Python
        return leaf
    shape, dtype = form_of_leaf(leaf)
    if not may_become(stored.dtype, dtype):
        raise ConfigError(f"{name} is of type {stored.dtype}, expected {dtype}")
    # Of a shape alone, Orbax warns that it has to guess where the array is to be.
    placed = isinstance(leaf, np.ndarray) or getattr(leaf, "sharding", None) is not None
    if placed and leaf.dtype == stored.dtype and not isinstance(leaf, jax.core.Tracer):
        return leaf
    return np.zeros(shape, stored.dtype)


def _converted(name: str, restored: Any, target: Any, leaf: Any) -> Any:
    if target is leaf:
        return restored
    made = cast(f"{name} is {text_of(restored)}", restored, form_of_leaf(leaf)[1])
    if isinstance(leaf, jax.ShapeDtypeStruct):  # of an array of JAX, as Orbax takes it
        return on_devices(name, made, leaf.sharding)
    return like_leaf(name, made, leaf)
