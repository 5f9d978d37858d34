"""One pass over data on the device as one compiled loop, and the state it carries."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from swsjax.training.sharding import shard_batch
from swsjax.trees import Params

__all__ = [
    "Objective",
    "Step",
    "TrainState",
    "caches_cleared",
    "copied",
    "epoch",
    "gradient_step",
]


class TrainState(NamedTuple):
    """Everything that training carries from step to step."""

    params: Params
    """What is trained: a pytree of floating arrays."""
    opt_state: optax.OptState
    """State of the optimiser over ``params``."""
    step: Array
    """() int32 number of steps taken."""
    key: Array
    """Random key of the order in which examples are drawn."""
    aux: Any = None
    """What the loss carries from step to step and is not trained: statistics, keys; or None."""


Step = Callable[[TrainState, Any], tuple[TrainState, Any]]
"""From state and batch to the state after a step and what the step reports."""
Objective = Callable[[Params, TrainState, Any], tuple[Array, tuple[Any, Any]]]
"""From params, the state before the step and a batch to the value that is minimised, what the step
reports, and the auxiliary state after it."""


class _Keyed(Protocol):
    """A NamedTuple with a random key."""

    @property
    def key(self) -> Array: ...

    def _replace(self, **changes: Any) -> Self: ...


StateT = TypeVar("StateT", bound=_Keyed)
InfoT = TypeVar("InfoT")


def gradient_step(objective: Objective, optimizer: optax.GradientTransformation) -> Step:
    """Make the function of one gradient step.

    Args:
        objective: what is minimised.
        optimizer: over the params.

    >>> def objective(params, state, batch):
    ...     loss = jnp.sum((params - batch) ** 2)
    ...     return loss, (loss, state.aux)
    >>> step = gradient_step(objective, optax.sgd(0.5))
    >>> state = TrainState(jnp.zeros(()), optax.sgd(0.5).init(0.0), 0, jax.random.key(0))
    >>> state, loss = step(state, jnp.ones(()))
    >>> print(state.params, loss)
    1.0 1.0
    """

    # Line searches and the like take the value and the function, too.
    with_extra = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        gradient = jax.value_and_grad(objective, has_aux=True)
        (value, (info, aux)), gradients = gradient(state.params, state, batch)
        updates, opt_state = with_extra.update(
            gradients,
            state.opt_state,
            state.params,
            value=value,
            grad=gradients,
            value_fn=lambda params: objective(params, state, batch)[0],
        )
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1, state.key, aux), info

    return step


def copied(tree: Any) -> Any:
    """Copy all arrays of a tree, so that their buffers may be donated.

    A donated state must hold no buffer twice, as some optimisers' states hold the weights, and none
    of the caller's arrays.

    >>> x = jnp.ones(2)
    >>> copied({"x": x})["x"] is x
    False
    """
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


@partial(jax.jit, static_argnames=("step", "batch_size", "mesh"), donate_argnames="state")
def epoch(
    step: Callable[[StateT, Any], tuple[StateT, InfoT]],
    state: StateT,
    data: Any,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
) -> tuple[StateT, InfoT]:
    """Run one pass over the data in random order, as one compiled loop.

    Args:
        step: from state and batch to state and info. Pass the same function object in every epoch;
            a different one compiles again.
        state: a NamedTuple with the random key of the order under ``key``. Its buffers are
            donated: it cannot be used afterwards.
        data: pytree of arrays with the N examples along the first axis. The incomplete last batch
            is left out; as the order is random, it differs from epoch to epoch.
        batch_size: examples per step, at most N.
        mesh: devices to divide each batch over, see ``swsjax.training.sharding``.

    Returns:
        The state after N // batch_size steps, and the mean info over them.

    >>> step = lambda state, batch: (state._replace(params=state.params + batch.sum()), batch[0])
    >>> state = TrainState(jnp.zeros(()), (), 0, jax.random.key(0))
    >>> state, _ = epoch(step, state, jnp.arange(6.0), batch_size=2)
    >>> state.params
    Array(15., dtype=float32)
    """
    size = len(jax.tree.leaves(data)[0])
    steps = size // batch_size
    key, shuffle = jax.random.split(state.key)
    order = jax.random.permutation(shuffle, size)[: steps * batch_size].reshape(steps, batch_size)

    def body(state: StateT, indices: Array) -> tuple[StateT, InfoT]:
        indices = shard_batch(indices, mesh)
        return step(state, jax.tree.map(lambda array: array[indices], data))

    state, infos = jax.lax.scan(body, state._replace(key=key), order)
    return state, jax.tree.map(partial(jnp.mean, axis=0), infos)


@contextmanager
def caches_cleared(*compiled: Any) -> Iterator[None]:
    """Clear the compiled programs of these functions on exit.

    The steps of a run are not used again, but JAX would keep the programs that contain them, and
    with them the loss and everything it refers to. On a processor each program takes a thousand
    memory maps or more, of which Linux grants a process 65,530: a search would end after a few
    trials.

    >>> double = jax.jit(lambda x: 2 * x)
    >>> with caches_cleared(double):
    ...     print(double(2))
    4
    """
    try:
        yield
    finally:
        for function in compiled:
            function.clear_cache()
