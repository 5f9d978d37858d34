"""The whole state of a retraining on disk after every epoch, to go on from if it is interrupted.

Orbax writes into a temporary folder and renames it, so a process killed at any moment leaves the
epoch before whole. What is kept decides everything that follows: a run that goes on ends bit-equal
to one that was never interrupted.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from textwrap import shorten
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from swsjax.checks import path_of
from swsjax.errors import CheckpointError

__all__ = ["Keeper", "digest", "keeper"]


class Keeper(NamedTuple):
    """A folder in which a run keeps its state; see ``keeper``."""

    manager: ocp.CheckpointManager
    """Orbax's own, on that folder."""
    progress: Any
    """What the run had written beside the arrays of its last epoch; None if there is none."""

    def save(self, epoch: int, state: Any, progress: Any) -> None:
        """Write the state after an epoch (a pytree of arrays) and what goes with it (JSON)."""
        arrays = ocp.args.StandardSave(_arrays(state))
        self.manager.save(
            epoch, args=ocp.args.Composite(state=arrays, progress=ocp.args.JsonSave(progress))
        )
        self.manager.wait_until_finished()

    def restore(self, like: Any) -> Any:
        """Return the state of the last epoch, on the devices on which ``like`` lies."""
        abstract = ocp.args.StandardRestore(jax.tree.map(_abstract, _arrays(like)))
        found = _restored(self.manager, state=abstract)
        leaves, structure = jax.tree.flatten(like)
        restored = [
            _as(found[_name(number)], leaf) if leaf.size else leaf
            for number, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, restored)


@contextmanager
def keeper(folder: str | PathLike[str], settings: str) -> Iterator[Keeper]:
    """Open a folder to keep the state of a run in; the last two epochs stay.

    Args:
        folder: made if it is not there.
        settings: text that is the same for the same run only, as ``digest`` makes.

    Raises:
        CheckpointError: the folder holds a run with other settings, a damaged one, or a checkpoint
            that is none of a retraining.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with keeper(folder, "run 1") as kept:
    ...         kept.save(1, {"w": np.ones(2)}, {"loss": 0.5})
    ...     with keeper(folder, "run 1") as kept:
    ...         print(kept.progress["loss"], kept.restore({"w": np.zeros(2)}))
    0.5 {'w': array([1., 1.])}
    """
    given = path_of(folder, "checkpoint is the folder to keep the state in")
    given.mkdir(parents=True, exist_ok=True)  # an error names it, not what Orbax puts there
    path = given.absolute()
    others = [path / "_CHECKPOINT_METADATA"]
    if not any((path / "metadata").glob("*")):  # else Orbax would write that of this run
        others += [child for child in path.glob("*") if child.is_dir() and child.name.isdigit()]
    if any(other.exists() for other in others):
        raise CheckpointError(
            f"{folder} holds a checkpoint that is none of a retraining; give another folder"
        )
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(
        path,
        options=options,
        item_names=("state", "progress"),
        metadata={"settings": settings},
    ) as manager:
        last = manager.latest_step()
        if last is None:
            yield Keeper(manager, None)
            return
        with _damage_named(f"metadata in {folder}", "delete the folder to start anew"):
            came = manager.metadata().custom_metadata["settings"]
        if came != settings:
            raise CheckpointError(
                f"{folder} holds a run with other settings, data or weights; give another folder, "
                "or delete this one to start anew"
            )
        progress = _restored(manager, progress=ocp.args.JsonRestore())
        yield Keeper(manager, progress)


def _restored(manager: ocp.CheckpointManager, **item: Any) -> Any:
    """One item of the last epoch."""
    last = manager.latest_step()
    folder = manager.directory / str(last)
    advice = f"delete {folder} to go on from the epoch before, or the folder above to start anew"
    with _damage_named(f"state of epoch {last} in {folder}", advice):
        (found,) = manager.restore(last, args=ocp.args.Composite(**item)).values()
    return found


@contextmanager
def _damage_named(what: str, advice: str) -> Iterator[None]:
    """Let what Orbax, TensorStore and JSON raise of damaged files be said in one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = shorten(str(error), 100)
        raise CheckpointError(f"the {what} is damaged; {advice} ({reason})") from error


def digest(*parts: Any) -> str:
    """A text that is the same for the same settings and arrays, in every process.

    Functions count by their names only.

    >>> digest("tau", {"w": np.ones(2)}) == digest("tau", {"w": np.ones(2)})
    True
    >>> digest("tau", {"w": np.ones(2)}) == digest("tau", {"w": np.zeros(2)})
    False
    """
    found = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(parts):
        found.update(jax.tree_util.keystr(path).encode())
        if hasattr(leaf, "dtype"):
            leaf = np.asarray(_data(leaf))
            found.update(f"{leaf.dtype}{leaf.shape}".encode())
            found.update(leaf.tobytes())
        else:
            found.update(re.sub(r" at 0x[0-9a-f]+", "", repr(leaf)).encode())
    return found.hexdigest()


def _arrays(state: Any) -> dict[str, Any]:
    """Leaves by number, random keys as their data; Orbax keeps no empty arrays."""
    return {
        _name(number): _data(leaf)
        for number, leaf in enumerate(jax.tree.leaves(state))
        if leaf.size
    }


def _name(number: int) -> str:
    return f"{number:05d}"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def _as(found: Any, like: Any) -> Any:
    return (
        jax.random.wrap_key_data(found, impl=jax.random.key_impl(like)) if _is_key(like) else found
    )
