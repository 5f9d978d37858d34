"""Pretrained parameters as Orbax checkpoints. Orbax takes a while to import, so only when used."""

import os
from os import PathLike
from pathlib import Path

from swsjax.checks import path_of
from swsjax.errors import CheckpointError
from swsjax.trees import Params, named_leaves

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
    """Write parameters as an Orbax checkpoint, atomically; an existing one is replaced.

    Through a symbolic link, the folder that it leads to is written.

    Raises:
        CheckpointError: there is something other than a checkpoint.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as temporary:
    ...     save_checkpoint(temporary + "/net", {"w": jnp.ones(2)})
    ...     load_checkpoint(temporary + "/net", {"w": jnp.zeros(2)})
    {'w': Array([1., 1.], dtype=float32)}
    """
    import orbax.checkpoint as ocp

    path = path_of(folder, "save_checkpoint takes the folder first")
    # Created here: if Orbax's threads failed to, they would print tracebacks.
    path.parent.mkdir(parents=True, exist_ok=True)
    check_replaceable(path)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(os.path.realpath(path)), params, force=True)


def load_checkpoint(folder: str | PathLike[str], like: Params) -> Params:
    """Read an Orbax checkpoint into the structure of ``like``.

    Args:
        folder: written by ``save_checkpoint`` or Orbax's ``StandardCheckpointer``.
        like: a net with the same names and shapes, in the types to return.

    Raises:
        CheckpointError: there is no checkpoint, or it is of a different net.

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
        return checkpointer.restore(path, like)


def _shapes(tree: Params) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(leaf, "shape", ())) for name, leaf in named_leaves(tree)}
