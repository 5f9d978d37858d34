"""The whole state of a run on disk after every epoch, from which an interrupted run resumes.

Orbax writes into a temporary folder and renames it, so a process killed at any moment leaves the
epoch before intact. The state determines everything that follows: a resumed run ends bit-equal to
one that was never interrupted.
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

__all__ = ["FOLDER", "Resume", "digest", "opened"]

FOLDER = "resume is the folder for the state of the run"
"""What a path that cannot be one should have been."""


class Resume(NamedTuple):
    """A folder in which a run writes its state; see ``opened``."""

    manager: ocp.CheckpointManager
    """Orbax's manager of that folder."""
    written: Any
    """The JSON written with the arrays of the last epoch; None if there is none."""

    def save(self, epoch: int, state: Any, written: Any) -> None:
        """Write the state after an epoch (a pytree of arrays) and its JSON."""
        arrays = ocp.args.StandardSave(_arrays(state))
        self.manager.save(
            epoch, args=ocp.args.Composite(state=arrays, history=ocp.args.JsonSave(written))
        )
        self.manager.wait_until_finished()

    def restore(self, like: Any) -> Any:
        """Return the state of the last epoch, on the devices of ``like``."""
        abstract = ocp.args.StandardRestore(jax.tree.map(_abstract, _arrays(like)))
        found = _restored(self.manager, state=abstract)
        leaves, structure = jax.tree.flatten(like)
        restored = [
            _as(found[_name(number)], leaf) if leaf.size else leaf
            for number, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, restored)


@contextmanager
def opened(folder: str | PathLike[str], settings: str) -> Iterator[Resume]:
    """Open the folder of a run; the states of its last two epochs are kept.

    Args:
        folder: created if missing.
        settings: text that identifies the run, as ``digest`` makes it.

    Raises:
        CheckpointError: the folder holds a run with other settings, a damaged one, or a checkpoint
            that no training run wrote.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with opened(folder, "run 1") as resume:
    ...         resume.save(1, {"w": np.ones(2)}, {"loss": 0.5})
    ...     with opened(folder, "run 1") as resume:
    ...         print(resume.written["loss"], resume.restore({"w": np.zeros(2)}))
    0.5 {'w': array([1., 1.])}
    """
    given = path_of(folder, FOLDER)
    given.mkdir(parents=True, exist_ok=True)  # an error then names the folder, not Orbax's files
    path = given.absolute()
    others = [path / "_CHECKPOINT_METADATA"]
    if not any((path / "metadata").glob("*")):  # Orbax would otherwise add this run's metadata
        others += [child for child in path.glob("*") if child.is_dir() and child.name.isdigit()]
    if any(other.exists() for other in others):
        raise CheckpointError(
            f"{folder} holds a checkpoint that no training run wrote; choose a different folder"
        )
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(
        path,
        options=options,
        item_names=("state", "history"),
        metadata={"settings": settings},
    ) as manager:
        last = manager.latest_step()
        if last is None:
            yield Resume(manager, None)
            return
        with _damage_named(f"metadata in {folder}", "delete the folder to start again"):
            found = manager.metadata().custom_metadata["settings"]
        if found != settings:
            raise CheckpointError(
                f"{folder} holds a run with other settings, data or weights; choose a different "
                "folder, or delete this one to start again"
            )
        yield Resume(manager, _restored(manager, history=ocp.args.JsonRestore()))


def _restored(manager: ocp.CheckpointManager, **item: Any) -> Any:
    """One item of the last epoch."""
    last = manager.latest_step()
    folder = manager.directory / str(last)
    advice = f"delete {folder} to resume from the epoch before, or its parent to start again"
    with _damage_named(f"state of epoch {last} in {folder}", advice):
        (found,) = manager.restore(last, args=ocp.args.Composite(**item)).values()
    return found


@contextmanager
def _damage_named(what: str, advice: str) -> Iterator[None]:
    """Turn what Orbax, TensorStore and JSON raise for damaged files into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = shorten(str(error), 100)
        raise CheckpointError(f"the {what} is damaged; {advice} ({reason})") from error


def digest(*parts: Any) -> str:
    """Return a text that is equal for equal settings and arrays, in every process.

    Functions are identified by their names only.

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
    """Leaves by number, random keys as their data; Orbax stores no empty arrays."""
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
