"""What each epoch of a training reports, and the log of all of them: in memory and on disk."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from swsjax.errors import ConfigError
from swsjax.training.resume import Resume
from swsjax.trees import is_array

__all__ = ["Epoch", "Log", "error_of", "losses_of"]


class Epoch(NamedTuple):
    """What an epoch reports; a history is a list of these."""

    stage: str
    """``"train"``, or a stage of ``compress``: ``"soft"``, ``"hard"``, ``"prune"``."""
    epoch: int
    """Epochs done in all stages, from 1."""
    epochs: int
    """Number of epochs of all stages."""
    loss: float
    """Mean loss over the epoch (nats), without a prior."""
    error: float | None = None
    """What ``evaluate`` returned for the net; None without it."""
    non_zeros: int | None = None
    """Compressed weights that are not zero, if the net were quantised now; None if none are
    compressed."""
    bound_bytes: float | None = None
    """Entropy bound of the net if quantised now, free and frozen leaves included; None if no
    weights are compressed. The file is about a quarter smaller."""
    details: Any = None
    """What the method adds: a NamedTuple of numbers and arrays, or None."""


class Log(NamedTuple):
    """The history of a run, on disk as well if it can be resumed."""

    history: list[Epoch]
    """One entry per epoch."""
    resume: Resume | None = None
    """Where the state and the history are written after each epoch."""
    callback: Callable[[Epoch], None] | None = None
    """Called with each epoch once it is written."""

    def add(self, epoch: Epoch, state: Any) -> None:
        """Append an epoch; write it with the state after it."""
        self.history.append(epoch)
        if self.resume is not None:
            self.resume.save(len(self.history), state, _plain(self.history))
        if self.callback is not None:
            self.callback(epoch)

    @classmethod
    def opened(
        cls,
        resume: Resume | None,
        callback: Callable[[Epoch], None] | None,
        read_details: Callable[[Mapping[str, Any]], Any] = lambda details: details,
    ) -> "Log":
        """Start a log, with the history of the interrupted run if there is one.

        Args:
            resume: folder of the run.
            callback: called with each epoch.
            read_details: from the details of an epoch as JSON to those of the method.

        >>> Log.opened(None, None).history
        []
        """
        entries = [] if resume is None or resume.written is None else resume.written
        history = [
            Epoch(**entry | {"details": entry["details"] and read_details(entry["details"])})
            for entry in entries
        ]
        return cls(history, resume, callback)


def losses_of(evaluate: Callable[..., Any], *net: Any) -> np.ndarray:
    """Return what ``evaluate`` says of a net: a number, or one for each example.

    Raises:
        ConfigError: it returns neither.

    >>> losses_of(lambda params: jnp.array([True, False]), {})
    array([1., 0.])
    """
    found = evaluate(*net)
    try:
        losses = np.asarray(found, np.float64)
    except (TypeError, ValueError):
        losses = np.empty(0)
    if found is None or losses.ndim > 1 or not losses.size:
        shown = f"an array of shape {found.shape}" if is_array(found) else repr(found)
        raise ConfigError(f"evaluate must return a number, or one for each example, got {shown}")
    return losses


def error_of(evaluate: Callable[..., Any], *net: Any) -> float:
    """Return what ``evaluate`` says of a net as one number, the mean over the examples.

    >>> error_of(lambda params: np.float32(0.5), {}), error_of(lambda params: jnp.arange(4), {})
    (0.5, 1.5)
    """
    return losses_of(evaluate, *net).mean().item()


def _plain(value: Any) -> Any:
    """Values of JSON: named tuples as dictionaries, arrays as lists."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray) else value
