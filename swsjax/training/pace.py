"""How long a step takes on this machine, measured before a run."""

import time
from collections.abc import Callable
from typing import Any

import jax
import optax

from swsjax.training.epochs import TrainState
from swsjax.training.loop import Feed
from swsjax.training.losses import LossWithAux
from swsjax.training.net import Net
from swsjax.training.sharding import replicate
from swsjax.training.statistics import part_of, still

__all__ = ["seconds_of", "step_seconds"]

_STEPS = 4


def step_seconds(loss_fn: LossWithAux, net: Net, feed: Feed) -> float:
    """Return the seconds that a gradient takes, in the loop that a training runs in.

    Args:
        loss_fn: of weights, carried part and batch, as ``Net.loss`` makes it.
        net: in parts.
        feed: the training data, of which a few batches are used.

    >>> from swsjax.training import take_apart
    >>> from swsjax.training.loop import feed_of
    >>> net = take_apart({"w": jnp.ones((1, 3))})
    >>> loss = net.loss(lambda params, batch: jnp.mean((params["w"] - batch) ** 2))
    >>> step_seconds(loss, net, feed_of(jnp.ones((64, 3)), 4)) < 1
    True
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (value, carried), gradients = gradient(state.params, state.aux, batch)
        # All of them are used, or they would not be computed.
        used = value + optax.tree.norm(gradients)
        return state._replace(aux=carried, step=state.step + 1), used

    few, augmented = part_of(feed, _STEPS), feed.augmented(step)

    def epoch() -> Any:
        start = replicate(still(net.weights, net.carried), feed.mesh)
        return few.epoch(augmented, start, 0)[1]

    return seconds_of(epoch) / few.steps


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes once it is compiled: the less of two.

    Args:
        call: returns a pytree of arrays, which are waited for.

    >>> seconds_of(lambda: jnp.ones(3) + 1) < 1
    True
    """
    jax.block_until_ready(call())
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
