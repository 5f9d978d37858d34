"""A time as a number of steps on this machine."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from swsjax.errors import CheckpointError
from swsjax.file.atomic import read_bytes, write_bytes
from swsjax.sws.job import Job
from swsjax.sws.wanted import Budget
from swsjax.training.loop import Feed
from swsjax.training.losses import LossWithAux
from swsjax.training.net import Net
from swsjax.training.pace import seconds_of, step_seconds

__all__ = ["retraining_seconds", "steps_within"]

# What a step of retraining takes, in gradients of the loss: from 1.0 for convolutions to 2 for
# small dense nets.
_GRADIENTS = 1.4
_NOTE = "budget.json"
_MOST = 2**31 - 1


def retraining_seconds(
    loss_fn: LossWithAux, net: Net, feed: Feed, evaluate: Callable[[], Any] | None = None
) -> float:
    """Return about how many seconds a step of retraining takes, measured on this machine.

    Args:
        loss_fn: of weights, carried part and batch, as ``Net.loss`` makes it.
        net: in parts.
        feed: the data.
        evaluate: called once per epoch.

    >>> from swsjax.training import take_apart
    >>> from swsjax.training.loop import feed_of
    >>> net = take_apart({"w": jnp.ones((1, 3))})
    >>> loss = net.loss(lambda params, batch: jnp.mean((params["w"] - batch) ** 2))
    >>> retraining_seconds(loss, net, feed_of(jnp.ones((64, 3)), 4)) < 1
    True
    """
    seconds = _GRADIENTS * step_seconds(loss_fn, net, feed)
    return seconds if evaluate is None else seconds + seconds_of(evaluate) / feed.steps


def steps_within(budget: Budget, job: Job, folder: Path | None) -> int:
    """Return about how many steps of a run fit into a budget.

    Args:
        budget: of the run. A time is measured in steps of this machine; with several processes, of
            the first.
        job: what is run.
        folder: in which the number is kept. A run that resumes is to have the same stages, even if
            the machine has become slower.

    Raises:
        CheckpointError: the number in the folder is damaged.

    >>> steps_within(20_000, job=None, folder=None)
    20000
    """
    if not isinstance(budget, timedelta):
        return budget
    allowed = budget.total_seconds()
    steps = None if folder is None else _read(folder / _NOTE, allowed)
    if steps is None:
        net = job.net

        def evaluated() -> Any:
            return job.losses(net.weights, net.carried)

        evaluate = None if job.evaluate is None else evaluated
        steps = max(int(allowed / retraining_seconds(job.loss_fn, net, job.feed, evaluate)), 1)
    steps = int(multihost_utils.broadcast_one_to_all(np.int32(min(steps, _MOST))))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / _NOTE, json.dumps({"seconds": allowed, "steps": steps}).encode())
    return steps


def _read(note: Path, seconds: float) -> int | None:
    """The number of steps found before for the same time."""
    if not note.exists():
        return None
    try:
        found = json.loads(read_bytes(note))
        return int(found["steps"]) if found["seconds"] == seconds else None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{note} is damaged; delete it to measure again") from error
