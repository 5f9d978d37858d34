"""Training on data that do not fit on the device: batches from the host, one at a time."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from swsjax.checks import check_data, check_integer, for_jax
from swsjax.errors import ConfigError
from swsjax.training.sharding import shard_batch
from swsjax.trees import first_axes, is_integer

__all__ = [
    "Stream",
    "batches_of",
    "check_stream",
    "first_batch",
    "one_step",
    "stream_arrays",
    "stream_epoch",
]

StateT = TypeVar("StateT")
InfoT = TypeVar("InfoT")


_NO_BATCHES = "the stream produced no batches; batches(number) must start afresh in every pass"


class Stream(NamedTuple):
    """Training examples that are produced batch by batch."""

    size: int
    """Number N of training examples."""
    batches: Callable[[int], Iterable[Any]]
    """From the number of the pass through the data, counted from 0 over all stages, to its batches:
    pytrees of arrays, all with ``batch_size`` examples. The same number must give the same batches
    for a run to resume from its folder; the first is then read once more to recognise the run."""


def stream_arrays(data: Any, *, batch_size: int, seed: int = 0) -> Stream:
    """Draw batches in random order from arrays on the host, or on disk as ``numpy.memmap``.

    Args:
        data: pytree of arrays with the N examples along the first axis.
        batch_size: examples per batch; an incomplete last batch is left out.
        seed: of the order, which differs from epoch to epoch.

    Raises:
        ConfigError: fewer examples than a batch, or data that are not arrays of numbers.

    >>> stream = stream_arrays(np.arange(6), batch_size=2)
    >>> sorted(np.concatenate(list(stream.batches(0))).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    batch_size = check_integer("batch_size", batch_size)
    seed = check_integer("seed", seed, least=0)
    size = check_data(data, batch_size)

    def batches(number: int) -> Iterator[Any]:
        order = np.random.default_rng([seed, number]).permutation(size)
        for start in range(0, size - batch_size + 1, batch_size):
            # Sorted within the batch: faster on a disk, and the loss does not depend on it.
            chosen = np.sort(order[start : start + batch_size])
            yield jax.tree.map(lambda array, chosen=chosen: array[chosen], data)

    return Stream(size, batches)


def batches_of(stream: Stream, number: int, batch_size: int) -> Iterator[Any]:
    """Yield the batches of one pass through a stream, each checked first.

    Args:
        stream: the examples.
        number: of the pass, from 0.
        batch_size: examples that each batch must have.

    Raises:
        ConfigError: a batch has a different size, or arrays that JAX does not take; or their number
            does not fit ``stream.size``.

    >>> list(batches_of(Stream(7, lambda number: [np.arange(3), np.arange(3)]), 0, 3))
    [array([0, 1, 2]), array([0, 1, 2])]
    """
    expected, actual = int(stream.size) // batch_size, 0
    for actual, batch in enumerate(stream.batches(number), 1):
        axes = first_axes(batch)
        if set(axes.values()) != {(batch_size,)}:
            found = f"first axes {axes}" if axes else "no arrays"
            raise ConfigError(
                f"batch {actual} of the stream has {found}, expected {batch_size} examples; set "
                "batch_size, and leave out an incomplete batch"
            )
        if actual > expected:
            break
        yield for_jax("data", batch)
    if actual not in (0, expected):
        more = "more than " if actual > expected else ""
        raise ConfigError(
            f"the stream produced {more}{min(actual, expected)} batches of {batch_size}, but its "
            f"size, {stream.size}, makes {expected}; set its size to the number of examples in a "
            "pass"
        )


def check_stream(stream: Stream, batch_size: int) -> int:
    """Return the size of a stream, checked to make at least one batch.

    Raises:
        ConfigError: its fields are of other types, or its size is less than a batch.

    >>> check_stream(Stream(7, lambda number: []), 3)
    7
    """
    if not is_integer(stream.size) or not callable(stream.batches):
        raise ConfigError(
            "Stream.size must be the number of examples, and Stream.batches a function from the "
            "number of a pass to its batches; got values of type "
            f"{type(stream.size).__name__} and {type(stream.batches).__name__}"
        )
    if stream.size < batch_size:
        raise ConfigError(
            f"the stream holds {stream.size} examples, fewer than a batch of {batch_size}; set a "
            "smaller batch_size"
        )
    return int(stream.size)


def first_batch(stream: Stream, batch_size: int) -> Any:
    """Return the first batch of the first pass, checked as ``batches_of`` does.

    Raises:
        ConfigError: as ``batches_of``; or there are no batches.

    >>> first_batch(stream_arrays(np.ones(6), batch_size=2), 2)
    array([1., 1.])
    """
    for batch in batches_of(stream, 0, batch_size):
        return batch
    raise ConfigError(_NO_BATCHES)


def stream_epoch(
    step: Callable[[StateT, Any], tuple[StateT, InfoT]],
    state: StateT,
    batches: Iterable[Any],
    *,
    mesh: Mesh | None = None,
) -> tuple[StateT, InfoT]:
    """Run one pass over the batches of a stream, each step dispatched while the last one runs.

    Args:
        step: from state and batch to state and info, as for ``epoch``.
        state: of the training. Its buffers are donated: it cannot be used afterwards.
        batches: of one pass.
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
        state, info = one_step(step, state, shard_batch(batch, mesh))
        total = info if total is None else jax.tree.map(jnp.add, total, info)
        steps += 1
    if not steps:
        raise ConfigError(_NO_BATCHES)
    return state, jax.tree.map(lambda x: x / steps, total)


@partial(jax.jit, static_argnames="step", donate_argnames="state")
def one_step(
    step: Callable[[StateT, Any], tuple[StateT, InfoT]], state: StateT, batch: Any
) -> tuple[StateT, InfoT]:
    """Run one step, compiled.

    >>> print(one_step(lambda state, batch: (state + batch, batch), jnp.ones(()), jnp.ones(()))[0])
    2.0
    """
    return step(state, batch)
