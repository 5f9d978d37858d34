"""Pretrained parameters as Orbax checkpoints."""

from os import PathLike

import orbax.checkpoint as ocp

from swsjax.checks import path_of
from swsjax.errors import CheckpointError
from swsjax.trees import Params, named_leaves

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(folder: str | PathLike[str], params: Params) -> None:
    """Write parameters as an Orbax checkpoint, atomically; an existing one is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as temporary:
    ...     save_checkpoint(temporary + "/net", {"w": jnp.ones(2)})
    ...     load_checkpoint(temporary + "/net", {"w": jnp.zeros(2)})
    {'w': Array([1., 1.], dtype=float32)}
    """
    path = path_of(folder, "save_checkpoint takes the folder first")
    # Created here: if Orbax's threads failed to, they would print tracebacks.
    path.parent.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), params, force=True)


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
    path = path_of(folder, "load_checkpoint takes the folder first").absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        there = (path / "_CHECKPOINT_METADATA").is_file()
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
