"""The whole state of a run on disk after every epoch, from which an interrupted run resumes.

Orbax writes into a temporary folder and renames it, so a process killed at any moment leaves the
epoch before intact. The state determines everything that follows: a resumed run ends bit-equal to
one that was never interrupted.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from os import PathLike
from textwrap import shorten
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array

from swsjax.checks import path_of
from swsjax.errors import CheckpointError
from swsjax.training.stored import abstract_arrays, arrays_of, data_of, state_of
from swsjax.trees import is_array

__all__ = [
    "FOLDER",
    "Identity",
    "Resume",
    "first_steps",
    "identity_of",
    "opened",
    "with_settings",
]

FOLDER = "resume is the folder for the state of the run"
"""What a path that cannot be one should have been."""


StateT = TypeVar("StateT", bound=Any)

Identity = Mapping[str, str | list[float]]
"""What makes two runs the same, by name: digests, and then losses and the like, each of which
depends on all before it. See ``identity_of``."""

_SAME_LOSS = 1e-3  # relative: the same loss on another machine or of another version of JAX
_STEPS = 0, 1, 10, 100, 1000, 10_000, 100_000  # at which schedules are compared


class Resume(NamedTuple):
    """A folder in which a run writes its state; see ``opened``."""

    manager: ocp.CheckpointManager
    """Orbax's manager of that folder."""
    written: Any
    """The JSON written with the arrays of the last epoch; None if there is none."""

    def save(self, epoch: int, state: Any, written: Any) -> None:
        """Write the state after an epoch (a pytree of arrays) and its JSON."""
        arrays = ocp.args.StandardSave(arrays_of(state))
        self.manager.save(
            epoch, args=ocp.args.Composite(state=arrays, history=ocp.args.JsonSave(written))
        )
        self.manager.wait_until_finished()

    def restore(self, like: Any) -> Any:
        """Return the state of the last epoch, on the devices of ``like``."""
        abstract = ocp.args.StandardRestore(abstract_arrays(like))
        return state_of(_restored(self.manager, state=abstract), like)


@contextmanager
def opened(folder: str | PathLike[str], identity: Identity) -> Iterator[Resume]:
    """Open the folder of a run; the states of its last two epochs are kept.

    Args:
        folder: created if missing.
        identity: of the run.

    Raises:
        CheckpointError: the folder holds a different run, a damaged one, or a checkpoint that no
            training run wrote.

    >>> import tempfile
    >>> identity = identity_of(settings={"seed": 1}, weights=np.ones(2), data=np.ones(9))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with opened(folder, identity) as resume:
    ...         resume.save(1, {"w": np.ones(2)}, {"loss": 0.5})
    ...     with opened(folder, identity) as resume:
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
        metadata={"identity": dict(identity)},
    ) as manager:
        last = manager.latest_step()
        if last is None:
            yield Resume(manager, None)
            return
        with _damage_named(f"metadata in {folder}", "delete the folder to start again"):
            other = _other(manager.metadata().custom_metadata["identity"], identity)
        if other:
            raise CheckpointError(
                f"{folder} holds a run with other {' and '.join(other)}; choose a different "
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


def identity_of(
    *, settings: Any, weights: Any, data: Any, losses: Sequence[float] = ()
) -> Identity:
    """Return what identifies a run, in every process.

    Numbers are equal if their values are, whatever their types, and so are lists and tuples.
    Functions among the settings are schedules, identified by their values at a few steps. Other
    functions are not compared, but what the losses return on the first batch is.

    Args:
        settings: of the run; dataclasses, containers, numbers, text and schedules.
        weights: at its start; a pytree of arrays.
        data: arrays, or the size and the first batch of a stream.
        losses: values of the run's losses on its first batch.

    >>> one, other = (
    ...     identity_of(settings=(tau, ["*bias"]), weights=np.ones(2), data=60, losses=[loss])
    ...     for tau, loss in ((1, 0.25), (1.0, 0.5))
    ... )
    >>> [name for name in one if one[name] != other[name]]
    ['loss']
    """
    parts = {"settings": settings, "weights": weights, "data": data}
    return {name: _digest(part) for name, part in parts.items()} | {"loss": [*map(float, losses)]}


def with_settings(identity: Identity, settings: Any) -> Identity:
    """Return an identity with further settings.

    >>> identity = identity_of(settings="*bias", weights=np.ones(2), data=60)
    >>> one, same, other = (with_settings(identity, {"tau": tau}) for tau in (1, 1.0, 2))
    >>> one == same, one == other
    (True, False)
    """
    return {**identity, "settings": _digest((identity["settings"], settings))}


def first_steps(
    step: Callable[[StateT, Any], tuple[StateT, Array]], state: StateT, batch: Any, before: Any
) -> list[float]:
    """Return what identifies a step: losses and the change of two steps on one batch.

    Args:
        step: from state and batch to the state after it, which has ``params``, and the loss.
        state: of the first step.
        batch: of both.
        before: the params that the change is from, in the Euclidean norm.

    >>> from swsjax.training import TrainState
    >>> step = lambda state, batch: (state._replace(params=state.params + batch), batch.sum())
    >>> state = TrainState(jnp.zeros(4), (), 0, jax.random.key(0))
    >>> first_steps(step, state, jnp.ones(4), jnp.zeros(4))
    [4.0, 4.0, 4.0]
    """
    compiled = jax.jit(step)
    state, first = compiled(state, batch)
    state, second = compiled(state, batch)
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(before), strict=True)
    norms = [jnp.linalg.norm(jnp.ravel(after - start).astype(float)) for after, start in pairs]
    return [float(first), float(second), float(jnp.linalg.norm(jnp.stack(norms)))]


def _other(found: Identity, identity: Identity) -> list[str]:
    """The names of the digests that differ, or else of the first figures that do."""
    names = [name for name, part in identity.items() if not _same(found[name], part)]
    return [name for name in names if isinstance(identity[name], str)] or names[:1]


def _same(one: str | list[float], other: str | list[float]) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return len(one) == len(other) and np.allclose(one, other, _SAME_LOSS, 0, equal_nan=True)


def _digest(part: Any) -> str:
    found = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(part, is_leaf=lambda x: x is None):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(_content(leaf))
    return found.hexdigest()


def _content(leaf: Any) -> bytes:
    if isinstance(leaf, Real):
        number = int(leaf) if isinstance(leaf, Integral) else float(leaf)
        return repr(int(number) if number == number // 1 else number).encode()
    if is_array(leaf):
        array = np.asarray(data_of(leaf))
        return f"{array.dtype}{array.shape}".encode() + array.tobytes()
    if is_dataclass(leaf):
        values = {field.name: getattr(leaf, field.name) for field in fields(leaf)}
        return f"{type(leaf).__name__}{_digest(values)}".encode()
    if callable(leaf):
        # Rounded: another machine may compute them to another last bit.
        return " ".join(f"{float(leaf(step)):.4g}" for step in _STEPS).encode()
    return repr(leaf).encode()
