"""Training on data that do not fit on the device: batches from the host, as they are needed."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from swsjax.checks import first_axes
from swsjax.errors import ConfigError
from swsjax.sharding import place_batch
from swsjax.train import check_data

__all__ = ["Stream", "batches_of", "one_step", "stream_arrays", "stream_epoch"]

StateT = TypeVar("StateT")
InfoT = TypeVar("InfoT")


class Stream(NamedTuple):
    """Training examples that come batch by batch."""

    size: int
    """Number N of training examples."""
    batches: Callable[[int], Iterable[Any]]
    """From the number of the epoch, counted from 0 over both stages, to its batches: pytrees of
    arrays, all of ``Config.batch_size`` examples."""


def stream_arrays(data: Any, *, batch_size: int, seed: int = 0) -> Stream:
    """Draw batches in random order from arrays on the host, or on disk as ``numpy.memmap``.

    Args:
        data: pytree of arrays with the N examples along the first axis.
        batch_size: examples a batch; an incomplete last one is left out.
        seed: of the order, another one in every epoch.

    Raises:
        ConfigError: the data do not make up a batch.

    >>> stream = stream_arrays(np.arange(6), batch_size=2)
    >>> sorted(np.concatenate(list(stream.batches(0))).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    size = check_data(data, batch_size)

    def batches(number: int) -> Iterator[Any]:
        order = np.random.default_rng([seed, number]).permutation(size)
        for start in range(0, size - batch_size + 1, batch_size):
            # In order of place within the batch: kinder to a disk, and no matter to the loss.
            chosen = np.sort(order[start : start + batch_size])
            yield jax.tree.map(lambda array, chosen=chosen: array[chosen], data)

    return Stream(size, batches)


def batches_of(stream: Stream, number: int, batch_size: int) -> Iterator[Any]:
    """Give the batches of one epoch of a stream, each checked as it comes.

    Args:
        stream: gives batches.
        number: of the epoch.
        batch_size: examples that each batch is to have.

    Raises:
        ConfigError: a batch has another size, or there are more or fewer than ``stream.size`` says.

    >>> list(batches_of(Stream(7, lambda number: [np.arange(3), np.arange(3)]), 0, 3))
    [array([0, 1, 2]), array([0, 1, 2])]
    """
    expected, came = stream.size // batch_size, 0
    for came, batch in enumerate(stream.batches(number), 1):
        axes = first_axes(batch)
        if set(axes.values()) != {(batch_size,)}:
            raise ConfigError(
                f"batch {came} of the stream has first axes {axes or 'of no arrays'}, expected "
                f"{batch_size} examples; set batch_size in the config, and leave out a batch that "
                "is incomplete"
            )
        if came > expected:
            break
        yield batch
    if came not in (0, expected):
        raise ConfigError(
            f"the stream gave {'more than ' if came > expected else ''}{min(came, expected)} "
            f"batches of {batch_size}, but its size, {stream.size}, makes {expected}; set its size "
            "to the number of examples that it gives in an epoch"
        )


def stream_epoch(
    step: Callable[[StateT, Any], tuple[StateT, InfoT]],
    state: StateT,
    batches: Iterable[Any],
    *,
    mesh: Mesh | None = None,
) -> tuple[StateT, InfoT]:
    """One pass over the batches of a stream, each step dispatched while the last one runs.

    Args:
        step: from state and batch to state and info, as for ``train.epoch``.
        state: of the training. Its buffers are donated: it cannot be used afterwards.
        batches: of one epoch.
        mesh: devices to divide each batch over.

    Returns:
        The state after the last batch, and the mean info.

    Raises:
        ConfigError: there are no batches.

    >>> step = lambda state, batch: (state + batch.sum(), batch[0])
    >>> state, info = stream_epoch(step, jnp.zeros(()), [np.ones(3), np.array([3.0, 0.0, 0.0])])
    >>> print(state, info)
    6.0 2.0
    """
    total, steps = None, 0
    for batch in batches:
        state, info = one_step(step, state, place_batch(batch, mesh))
        total = info if total is None else jax.tree.map(jnp.add, total, info)
        steps += 1
    if not steps:
        raise ConfigError(
            "the stream gave no batches; batches(number) must start anew in every epoch"
        )
    return state, jax.tree.map(lambda x: x / steps, total)


@partial(jax.jit, static_argnames="step", donate_argnames="state")
def one_step(
    step: Callable[[StateT, Any], tuple[StateT, InfoT]], state: StateT, batch: Any
) -> tuple[StateT, InfoT]:
    """What a step does, compiled.

    >>> print(one_step(lambda state, batch: (state + batch, batch), jnp.ones(()), jnp.ones(()))[0])
    2.0
    """
    return step(state, batch)
