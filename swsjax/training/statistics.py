"""Running statistics, such as those of BatchNorm, re-estimated for weights that have changed.

The statistics of a net belong to its weights. A net that was quantised has others than the net that
was trained, and its error can rise by tens of points if it is evaluated with the wrong ones.
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.training.epochs import TrainState, copied
from swsjax.training.loop import Feed
from swsjax.training.losses import LossWithAux
from swsjax.training.net import Weights
from swsjax.training.sharding import gather, replicate
from swsjax.training.stream import Stream
from swsjax.trees import is_weight

__all__ = ["Estimate", "LossMeter", "estimator", "loss_meter", "part_of", "still"]

_STATISTIC_BITS = 8

Estimate = Callable[[Weights, Any], Any]
"""From the weights and the carried part of a net to that part with statistics of these weights."""
LossMeter = Callable[[Weights, Any], float]
"""From the weights and the carried part of a net to its mean loss."""


def estimator(loss_fn: LossWithAux, feed: Feed, *, steps: int = 200) -> Estimate:
    """Make the function that re-estimates statistics: the loss in training, without gradients.

    Only floating arrays of the auxiliary state are re-estimated; counters and random keys stay as
    they are. If it has no floating arrays, nothing is done. Statistics of several channels are
    rounded to 8 significant bits, as the levels of the weights are: in a file they then take about
    half as much, and on CIFAR-10 fewer than that change no error.

    Args:
        loss_fn: of weights, carried part and batch, as ``Net.loss`` makes it.
        feed: the training data.
        steps: number of batches, drawn at random but the same each time. Running statistics forget
            the old weights in about 50 batches at a momentum of 0.9, in 500 at 0.99.

    >>> from swsjax.training.loop import feed_of
    >>> def loss(weights, carried, batch):
    ...     (mean,), frozen = carried
    ...     return jnp.zeros(()), ((0.5 * mean + 0.5 * batch.mean(),), frozen)
    >>> estimate = estimator(loss, feed_of(jnp.full(64, 3.0), 4))
    >>> (mean,), _ = estimate(Weights({}, []), ((jnp.zeros(()),), ()))
    >>> print(np.asarray(mean).round(3))
    3.0
    """
    part = cache(partial(part_of, feed, steps))  # copies data, and may not be needed

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        _, carried = loss_fn(state.params, state.aux, batch)
        return state._replace(aux=carried, step=state.step + 1), jnp.zeros(())

    step_of_data = feed.augmented(step)

    def estimate(weights: Weights, carried: Any) -> Any:
        if not any(map(is_weight, jax.tree.leaves(carried[0]))):
            return carried
        start = still(weights, carried)
        state, _ = part().epoch(step_of_data, replicate(start, feed.mesh), 0)
        found = gather(state.aux, feed.mesh)
        return jax.tree.map(lambda new, old: _short(new) if is_weight(new) else old, found, carried)

    return estimate


def loss_meter(loss_fn: LossWithAux, feed: Feed, *, steps: int = 100) -> LossMeter:
    """Make the function that measures the mean loss of a net on a part of the training data (nats).

    It is compiled once for all nets that it measures.

    Args:
        loss_fn: of weights, carried part and batch, as ``Net.loss`` makes it.
        feed: the training data.
        steps: number of batches, drawn at random but the same each time.

    >>> from swsjax.training.loop import feed_of
    >>> loss = lambda weights, carried, batch: (batch.mean(), carried)
    >>> loss_meter(loss, feed_of(jnp.full(64, 3.0), 4), steps=16)(Weights({}, []), (None, ()))
    3.0
    """
    part = cache(partial(part_of, feed, steps))

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        loss, carried = loss_fn(state.params, state.aux, batch)
        return state._replace(aux=carried, step=state.step + 1), loss

    step_of_data = feed.augmented(step)

    def measure(weights: Weights, carried: Any) -> float:
        start = still(weights, carried)
        _, loss = part().epoch(step_of_data, replicate(start, feed.mesh), 0)
        return loss.item()

    return measure


def still(weights: Weights, carried: Any) -> TrainState:
    """Return the state of a pass that trains nothing.

    Args:
        weights: of the net.
        carried: its carried part.

    >>> int(still(Weights({}, []), ()).step)
    0
    """
    number, key = jnp.zeros((), jnp.int32), jax.random.key(0)
    return TrainState(copied(weights), (), number, key, copied(carried))


def _short(statistics: Array) -> Array:
    if not statistics.ndim:  # a count, or a moving average of one number, costs nothing
        return statistics
    exponent = jnp.finfo(statistics.dtype).nexp
    return jax.lax.reduce_precision(statistics, exponent, _STATISTIC_BITS - 1)


def part_of(feed: Feed, steps: int) -> Feed:
    """Return a feed of so many batches of the data, in several passes if they are few.

    Args:
        feed: the data.
        steps: number of batches.

    >>> from swsjax.training.loop import feed_of
    >>> part = part_of(feed_of(jnp.arange(100), 10), 3)
    >>> part.size, part.steps
    (30, 3)
    """
    one_pass = min(steps, feed.size // feed.batch_size)
    size = one_pass * feed.batch_size
    if isinstance(feed.data, Stream):
        whole = feed.data
        data: Any = Stream(size, lambda number: islice(whole.batches(number), one_pass))
    else:  # at random: examples may be sorted
        chosen = np.random.default_rng(0).permutation(feed.size)[:size]
        data = jax.tree.map(lambda array: array[chosen], feed.data)
    return feed._replace(data=data, size=size, passes=-(-steps // one_pass))
