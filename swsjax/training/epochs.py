"""One pass over data on the device, and the state it carries from step to step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import Parameter, signature
from textwrap import shorten
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import Mesh

from swsjax.errors import ConfigError
from swsjax.training.sharding import shard_batch
from swsjax.trees import Params

__all__ = [
    "Objective",
    "Step",
    "TrainState",
    "caches_cleared",
    "compiled_loop",
    "copied",
    "epoch",
    "functions_of",
    "gradient_step",
    "indexed_step",
    "optimizer_of",
    "shuffled",
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
    given: Any = ()
    """Numbers that the step reads and does not change; in place of constants they need no new
    compilation."""


Step = Callable[[TrainState, Any], tuple[TrainState, Any]]
"""From state and batch to the state after a step and what the step reports."""
Objective = Callable[[Params, TrainState, Any], tuple[Array, tuple[Any, Any]]]
"""From params, the state before the step and a batch to the value that is minimised, what the step
reports, and the auxiliary state after it."""


def gradient_step(objective: Objective, optimizer: optax.GradientTransformation) -> Step:
    """Make the function of one gradient step.

    Args:
        objective: what is minimised.
        optimizer: over the params. Its ``update`` gets what it takes of the value, the gradient
            and functions of both, as line searches, ``optax.contrib.sam`` and ``sophia`` need.

    Raises:
        ConfigError: not an optax optimiser, or, in the first step, one that fails.

    >>> def objective(params, state, batch):
    ...     loss = jnp.sum((params - batch) ** 2)
    ...     return loss, (loss, state.aux)
    >>> step = gradient_step(objective, optax.sgd(0.5))
    >>> state = TrainState(jnp.zeros(()), optax.sgd(0.5).init(0.0), 0, jax.random.key(0))
    >>> state, loss = step(state, jnp.ones(()))
    >>> print(state.params, loss)
    1.0 1.0
    """

    optimizer = optimizer_of(optimizer, "optax.adam(learning_rate) is one")
    taken = _taken(optimizer)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        gradient = jax.value_and_grad(objective, has_aux=True)
        (value, (info, aux)), gradients = gradient(state.params, state, batch)

        arguments = {"value": value, "grad": gradients} | functions_of(
            lambda params: objective(params, state, batch)[0]
        )
        extra = {name: arguments[name] for name in arguments if taken(name)}
        try:
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, **extra)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"the optimizer cannot make a step: {shorten(str(error), 200)}; optax.chain passes "
                "all arguments to each of its parts, so one that does not take them must be "
                "passed alone"
            ) from error
        params = optax.apply_updates(state.params, updates)
        return state._replace(
            params=params, opt_state=opt_state, step=state.step + 1, aux=aux
        ), info

    return step


def functions_of(value: Callable[[Params], Array]) -> dict[str, Callable[..., Any]]:
    """Return the functions that optimisers of optax evaluate, by the names of their arguments.

    Args:
        value: from params to what is minimised.

    >>> given = functions_of(lambda params: params**2)
    >>> print(given["value_fn"](3.0), given["grad_fn"](3.0, 0))
    9.0 6.0
    """

    # A line search hands on what it does not know, and fails if this function does not either.
    def value_fn(params: Params, obj_fn: Any = None, grad_fn: Any = None) -> Array:
        del obj_fn, grad_fn
        return value(params)

    return {
        "value_fn": value_fn,
        "obj_fn": value_fn,
        "grad_fn": lambda params, _: jax.grad(value_fn)(params),
    }


def optimizer_of(given: Any, example: str) -> optax.GradientTransformation:
    """Return an optimiser, checked to be one of optax; of ``optax.MultiSteps``, its transformation.

    Args:
        given: what was passed.
        example: what could be passed instead; the message ends with it.

    Raises:
        ConfigError: something else.

    >>> type(optimizer_of(optax.MultiSteps(optax.sgd(0.1), 2), "")).__name__
    'GradientTransformation'
    """
    if isinstance(given, optax.MultiSteps):
        return given.gradient_transformation()
    if not isinstance(given, optax.GradientTransformation):
        raise ConfigError(
            f"optimizer must be an optax optimiser, got a {type(given).__name__}; {example}"
        )
    return given


def _taken(optimizer: optax.GradientTransformation) -> Callable[[str], bool]:
    """Whether its ``update`` takes an argument of a name."""
    parameters = signature(optimizer.update).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    return lambda name: takes_any or name in parameters


def copied(tree: Any) -> Any:
    """Copy all arrays of a tree, so that their buffers may be donated.

    A donated state must hold no buffer twice, as some optimisers' states hold the weights, and none
    of the caller's arrays.

    >>> x = jnp.ones(2)
    >>> copied({"x": x})["x"] is x
    False
    """
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


def epoch(
    step: Step,
    state: TrainState,
    data: Any,
    *,
    batch_size: int,
    passes: int = 1,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Any]:
    """Run one pass over the data, or several, each in a random order of its own.

    All steps are one compiled loop; but on a processor, a step with a convolution is compiled alone
    and called from a loop on the host: XLA's CPU backend runs convolutions inside a compiled loop
    about ten times more slowly.

    Args:
        step: from state and batch to state and info. Pass the same function object in every epoch;
            a different one compiles again.
        state: of the training; its key decides the order. Its buffers are donated: it cannot be
            used afterwards.
        data: pytree of arrays with the N examples along the first axis. The incomplete last batch
            is left out; as the order is random, it differs from pass to pass.
        batch_size: examples per step, at most N.
        passes: over the data.
        mesh: devices to divide each batch over, see ``swsjax.training.sharding``.

    Returns:
        The state after N // batch_size steps in each pass, and the mean info over all of them.

    >>> step = lambda state, batch: (state._replace(params=state.params + batch.sum()), batch[0])
    >>> state = TrainState(jnp.zeros(()), (), 0, jax.random.key(0))
    >>> state, _ = epoch(step, state, jnp.arange(6.0), batch_size=2)
    >>> state.params
    Array(15., dtype=float32)
    """
    # A program of its own, which all runs over as many examples share.
    size = len(jax.tree.leaves(data)[0])
    key, order = shuffled(state.key, size, batch_size, passes)
    state = state._replace(key=key)
    if _on_processors(state) and _has_convolution(step, state, data, order, mesh):
        return _host_loop(step, state, data, order, mesh)
    return compiled_loop(step, state, data, order, mesh=mesh)


@partial(jax.jit, static_argnames=("size", "batch_size", "passes"))
def shuffled(key: Array, size: int, batch_size: int, passes: int = 1) -> tuple[Array, Array]:
    """Return the next key, and the indices of the examples of each batch, (steps, batch_size).

    Args:
        key: that decides the order.
        size: number of examples.
        batch_size: examples per step; those that fill no batch are left out of a pass.
        passes: over the examples, each in an order of its own.

    >>> shuffled(jax.random.key(0), 7, 2)[1].shape
    (3, 2)
    """
    steps = size // batch_size

    def one_pass(key: Array, _: None) -> tuple[Array, Array]:
        key, shuffle = jax.random.split(key)
        return key, jax.random.permutation(shuffle, size)[: steps * batch_size]

    # A loop of one takes longer to compile.
    key, order = jax.lax.scan(one_pass, key, length=passes, unroll=passes == 1)
    return key, order.reshape(passes * steps, batch_size)


@partial(jax.jit, static_argnames=("step", "mesh"), donate_argnames="state")
def compiled_loop(
    step: Step,
    state: TrainState,
    data: Any,
    order: Array,
    *,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Any]:
    """Run steps on the batches of these indices, (steps, batch_size), as one compiled loop.

    >>> step = lambda state, batch: (state._replace(params=state.params + batch.sum()), batch[0])
    >>> state = TrainState(jnp.zeros(()), (), 0, jax.random.key(0))
    >>> print(compiled_loop(step, state, jnp.arange(6.0), jnp.array([[4, 2], [1, 0]]))[0].params)
    7.0
    """

    def body(state: TrainState, indices: Array) -> tuple[TrainState, Any]:
        indices = shard_batch(indices, mesh)
        return step(state, jax.tree.map(lambda array: array[indices], data))

    state, infos = jax.lax.scan(body, state, order)
    return state, jax.tree.map(partial(jnp.mean, axis=0), infos)


def _host_loop(
    step: Step, state: TrainState, data: Any, order: Array, mesh: Mesh | None
) -> tuple[TrainState, Any]:
    """The same as a loop on the host over one compiled step."""
    infos = []
    for indices in order:
        state, info = indexed_step(step, state, data, indices, mesh=mesh)
        infos.append(info)
    return state, jax.tree.map(lambda *xs: jnp.mean(jnp.stack(xs), axis=0), *infos)


@partial(jax.jit, static_argnames=("step", "mesh"), donate_argnames="state")
def indexed_step(
    step: Step,
    state: TrainState,
    data: Any,
    indices: Array,
    *,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Any]:
    """Run one step, on the examples with these indices.

    >>> step = lambda state, batch: (state._replace(params=state.params + batch.sum()), batch[0])
    >>> state = TrainState(jnp.zeros(()), (), 0, jax.random.key(0))
    >>> state, info = indexed_step(step, state, jnp.arange(6.0), jnp.array([4, 2]))
    >>> print(state.params, info)
    6.0 4.0
    """
    indices = shard_batch(indices, mesh)
    return step(state, jax.tree.map(lambda array: array[indices], data))


_CONVOLUTIONS: WeakKeyDictionary[Step, bool] = WeakKeyDictionary()
"""Whether a step has a convolution, for steps that were traced."""


def _has_convolution(
    step: Step, state: TrainState, data: Any, order: Array, mesh: Mesh | None
) -> bool:
    if step not in _CONVOLUTIONS:
        traced = compiled_loop.trace(step, state, data, order, mesh=mesh)  # a call then uses it
        _CONVOLUTIONS[step] = _convolves(traced.jaxpr.jaxpr)
    return _CONVOLUTIONS[step]


def _convolves(trace: Jaxpr) -> bool:
    return any(
        equation.primitive.name == "conv_general_dilated"
        or any(map(_convolves, _traces_in(equation.params)))
        for equation in trace.eqns
    )


def _traces_in(params: Any) -> Iterator[Jaxpr]:
    """The traces of the functions that an equation calls."""
    traces = ClosedJaxpr, Jaxpr
    for value in jax.tree.leaves(list(params.values()), is_leaf=lambda x: isinstance(x, traces)):
        if isinstance(value, traces):
            yield value.jaxpr if isinstance(value, ClosedJaxpr) else value


def _on_processors(state: Any) -> bool:
    return all(
        device.platform == "cpu"
        for leaf in jax.tree.leaves(state)
        if isinstance(leaf, jax.Array)
        for device in leaf.devices()
    )


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
