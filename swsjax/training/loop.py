"""Training: epochs over data, one way for every method.

A ``Phase`` says what is done in each epoch; ``run_phase`` does it, writes the log and resumes.
``train`` is a phase of plain gradient steps, the stages of soft weight-sharing are others.
"""

from collections.abc import Callable
from contextlib import nullcontext
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from swsjax.checks import (
    check_aux,
    check_data,
    check_integer,
    check_params,
    check_scalar,
    for_jax,
)
from swsjax.errors import ConfigError, RetrainingError
from swsjax.training.augment import Augment
from swsjax.training.epochs import (
    Objective,
    Step,
    TrainState,
    caches_cleared,
    compiled_loop,
    copied,
    epoch,
    gradient_step,
    indexed_step,
    optimizer_of,
)
from swsjax.training.history import Epoch, Log, error_of
from swsjax.training.losses import Loss, LossWithAux, check_pair
from swsjax.training.progress import watched
from swsjax.training.resume import Identity, first_steps, identity_of, opened
from swsjax.training.sharding import check_mesh, gather, replicate, settle, shard_weights
from swsjax.training.stream import (
    Stream,
    batches_of,
    check_stream,
    first_batch,
    one_step,
    stream_epoch,
)
from swsjax.trees import Params

__all__ = ["Feed", "Phase", "Trained", "feed_of", "run_phase", "train"]


class Feed(NamedTuple):
    """Training data, and how an epoch goes through them."""

    data: Any
    """Arrays on the devices, or a ``Stream``."""
    size: int
    """Number N of training examples."""
    batch_size: int
    """Examples per step."""
    passes: int
    """Passes through the data per epoch."""
    mesh: Mesh | None
    """Devices to divide each batch over."""
    augment: Augment | None = None
    """Changes each batch."""

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.passes * (self.size // self.batch_size)

    def augmented(self, step: Step) -> Step:
        """A step that augments its batch first, by a key of its state's key and step number."""
        augment = self.augment
        if augment is None:
            return step

        def on_augmented(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
            return step(state, augment(_augment_key(state), batch))

        return on_augmented

    @property
    def content(self) -> Any:
        """What identifies the data: the arrays, or the size and the first batch of a stream."""
        return (self.size, self.first_batch()) if isinstance(self.data, Stream) else self.data

    def first_batch(self) -> Any:
        """The first batch in the order of the arrays, or of the first pass of a stream."""
        if isinstance(self.data, Stream):
            return first_batch(self.data, self.batch_size)
        return jax.tree.map(lambda array: array[: self.batch_size], self.data)

    def on_first_batch(self, loss: Callable[[Any], Array]) -> list[float]:
        """The loss of the first batch."""
        batch = self.first_batch()
        if self.augment is not None:
            batch = self.augment(jax.random.key(0), batch)
        return [float(jax.jit(loss)(batch))]

    def batch_shapes(self) -> Any:
        """Shapes and types of a batch of arrays, after ``augment``."""
        batch = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct((self.batch_size, *array.shape[1:]), array.dtype),
            self.data,
        )
        if self.augment is None:
            return batch
        return jax.eval_shape(self.augment, jax.random.key(0), batch)

    def epoch(self, step: Step, state: TrainState, number: int) -> tuple[TrainState, Any]:
        """Run one epoch, the one with this number from 0; the mean info over its steps."""
        if not isinstance(self.data, Stream):
            return epoch(
                step,
                state,
                self.data,
                batch_size=self.batch_size,
                passes=self.passes,
                mesh=self.mesh,
            )
        infos = []
        for turn in range(self.passes):
            batches = batches_of(self.data, number * self.passes + turn, self.batch_size)
            state, info = stream_epoch(step, state, batches, mesh=self.mesh)
            infos.append(info)
        return state, jax.tree.map(lambda *figures: sum(figures) / len(figures), *infos)


def feed_of(
    data: Any,
    batch_size: int,
    *,
    least_steps: int = 1,
    mesh: Mesh | None = None,
    augment: Augment | None = None,
) -> Feed:
    """Check training data and put them on the devices.

    Args:
        data: pytree of arrays with the N examples along the first axis, or a ``Stream``.
        batch_size: examples per step.
        least_steps: fewest steps per epoch; small data are passed through several times.
        mesh: devices to train on.
        augment: as for ``train``.

    Raises:
        ConfigError: the data do not make up a batch, are not arrays of numbers, or do not fit the
            mesh; augment is no function.

    >>> feed = feed_of(jnp.zeros((10, 3)), 5, least_steps=7)
    >>> feed.passes, feed.steps
    (4, 8)
    """
    if augment is not None and not callable(augment):
        raise ConfigError(
            "augment must be a function of a key and a batch, got a "
            f"{type(augment).__name__}; crop_and_flip is one"
        )
    batch_size = check_integer("batch_size", batch_size)
    if mesh is not None:
        mesh = check_mesh(mesh, batch_size)
    if isinstance(data, Stream):
        size = check_stream(data, batch_size)
    else:
        size = check_data(data, batch_size)
        data = replicate(jax.tree.map(jnp.asarray, for_jax("data", data)), mesh)
    passes = -(-least_steps // (size // batch_size))
    return Feed(data, size, batch_size, passes, mesh, augment)


class Phase(NamedTuple):
    """What each epoch of a training does."""

    epochs: int
    """Number of epochs."""
    step: Callable[[int], Step]
    """From the number of the epoch in the phase to its step. A new function object compiles."""
    before_epoch: Callable[[TrainState, int], TrainState]
    """From the state and the number of the epoch in the phase to the state it starts from."""
    after_epoch: Callable[[TrainState, Any, int], Epoch]
    """From the state, the mean info and the number of the epoch to its record; may raise."""


def run_phase(phase: Phase, state: TrainState, feed: Feed, log: Log, done: int = 0) -> TrainState:
    """Run the remaining epochs of a phase, each with an entry in the log.

    Args:
        phase: what each epoch does.
        state: after ``done`` epochs of the phase. Its buffers are donated.
        feed: the data.
        log: of all phases.
        done: epochs of this phase that are done.

    Returns:
        The state after the last epoch.

    >>> step = lambda state, batch: (state._replace(params=state.params + batch.sum()), batch[0])
    >>> phase = Phase(2, lambda number: step, lambda state, number: state,
    ...               lambda state, info, number: Epoch("train", number + 1, 2, info.item()))
    >>> state = TrainState(jnp.zeros(()), (), 0, jax.random.key(0))
    >>> state = run_phase(phase, state, feed_of(jnp.ones(6), 2), log := Log([]))
    >>> print(state.params, len(log.history))
    12.0 2
    """
    for number in range(done, phase.epochs):
        state = phase.before_epoch(state, number)
        state, info = feed.epoch(phase.step(number), state, len(log.history))
        log.add(phase.after_epoch(state, info, number), state)
    return state


class Trained(NamedTuple):
    """What ``train`` returns."""

    params: Params
    """The parameters after the last epoch."""
    aux: Any
    """What the loss carried from step to step, at the end; None without aux."""
    history: list[Epoch]
    """One entry per epoch."""


def train(
    params: Params,
    loss_fn: Loss | LossWithAux,
    data: Any,
    optimizer: optax.GradientTransformation,
    *,
    epochs: int,
    batch_size: int = 128,
    seed: int = 0,
    aux: Any = None,
    augment: Augment | None = None,
    project: Callable[[Params], Params] | None = None,
    before_epoch: Callable[[Params, int], Params] | None = None,
    evaluate: Callable[..., Any] | None = None,
    callback: Callable[[Epoch], None] | None = None,
    progress: bool = True,
    resume: str | PathLike[str] | None = None,
    mesh: Mesh | None = None,
) -> Trained:
    """Train a net with any optax optimiser.

    Args:
        params: pytree of floating arrays to start from. An array under several names is an error,
            unless its entries are all equal: see ``checks.check_untied``.
        loss_fn: mean loss of a batch, ``loss_fn(params, batch) -> scalar``; with ``aux``,
            ``loss_fn(params, aux, batch) -> (scalar, aux)``.
        data: pytree of arrays with the training examples along the first axis, or a ``Stream``.
        optimizer: over params, with a schedule of its own. To keep zeros at zero, chain
            ``hold_zeros`` behind it.
        epochs: passes through the data.
        batch_size: examples per step.
        seed: of the order of the examples.
        aux: what the loss carries from step to step and is not trained: batch statistics, random
            keys; a pytree of arrays.
        augment: ``augment(key, batch) -> batch``, applied to every batch inside the compiled step,
            such as ``crop_and_flip``. The key is derived from the seed and the number of the step.
        project: applied to params after every step, inside the compiled step.
        before_epoch: ``before_epoch(params, number)``, applied before every epoch, from 0.
        evaluate: error of the net on validation data, ``evaluate(params)``, or with aux
            ``evaluate(params, aux)``; called after every epoch, for the history only.
        callback: called with each epoch's record.
        progress: whether to show it on a terminal or in a notebook, if there is no callback.
        resume: folder in which the state is written after every epoch. A run that finds its own
            state there resumes from it, and ends as if it had never stopped. It is the same run if
            epochs, batch_size, seed, params, aux and data are the same, and the losses and changes
            of the first two steps on the first batch, to a thousandth: these tell another loss_fn,
            optimizer, augment, project or before_epoch, unless it differs in later steps only. Of a
            stream, size and first batch are compared. ``evaluate`` may change.
        mesh: devices to train on, see ``swsjax.training.sharding``.

    Raises:
        ConfigError: params that cannot be trained, data that do not make up a batch, a loss that
            is not a scalar, or an optimizer that cannot make a step.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2)
    >>> trained = train(jnp.zeros(()), loss, jnp.ones(64), optax.sgd(0.1), epochs=20, batch_size=8)
    >>> print(np.asarray(trained.params).round(1))
    1.0
    """
    params, aux = copied((check_params(params), check_aux(aux)))
    _check_loss(loss_fn)
    optimizer = optimizer_of(optimizer, "optax.adam(learning_rate) is one")
    epochs, seed = check_integer("epochs", epochs), check_integer("seed", seed, least=None)
    feed = feed_of(data, batch_size, mesh=mesh, augment=augment)
    step = feed.augmented(_step(loss_fn, optimizer, project))
    # Before the arrays are divided: afterwards a process may not have all of them.
    identity = {} if resume is None else _identity(params, aux, loss_fn, feed, epochs, seed)
    params, aux = shard_weights(params, feed.mesh), replicate(aux, feed.mesh)
    opt_state = copied(optimizer.init(params))
    key = jax.random.key(seed)
    start = settle(TrainState(params, opt_state, jnp.zeros((), jnp.int32), key, aux), feed.mesh)

    def edited(state: TrainState, number: int) -> TrainState:
        if before_epoch is None:
            return state
        return state._replace(params=copied(before_epoch(state.params, number)))

    if resume is not None:
        found = first_steps(step, edited(start, 0), feed.first_batch(), start.params)
        identity = {**identity, "optimizer, project or before_epoch": found}

    with (
        watched(callback, progress=progress) as callback,
        nullcontext() if resume is None else opened(resume, identity) as folder,
        caches_cleared(compiled_loop, indexed_step, one_step),
    ):
        log = Log.opened(folder, callback)
        done = len(log.history)
        state = folder.restore(start) if folder is not None and done else start
        phase = Phase(epochs, lambda number: step, edited, _recorder(evaluate, epochs, feed.mesh))
        state = run_phase(phase, state, feed, log, done)
    params, aux = gather((state.params, state.aux), feed.mesh)
    return Trained(params, aux, log.history)


def _check_loss(loss_fn: Any) -> None:
    """Find arguments in the wrong order before they fail elsewhere."""
    if not callable(loss_fn):
        raise ConfigError(
            f"loss_fn must be a function, got a {type(loss_fn).__name__}; train takes params, "
            "loss_fn and data in this order"
        )


def _recorder(
    evaluate: Callable[..., Any] | None, epochs: int, mesh: Mesh | None
) -> Callable[[TrainState, Any, int], Epoch]:
    def record(state: TrainState, loss: Array, number: int) -> Epoch:
        if not jnp.isfinite(loss):
            raise RetrainingError(
                f"the loss is {loss.item()} after epoch {number + 1} of {epochs}; lower the "
                "learning rate, or check that all data are finite and all labels in range"
            )
        error = None
        if evaluate is not None:
            net = (state.params,) if state.aux is None else (state.params, state.aux)
            error = error_of(evaluate, *gather(net, mesh))
        return Epoch("train", number + 1, epochs, loss.item(), error)

    return record


def _identity(
    params: Params,
    aux: Any,
    loss_fn: Callable[..., Any],
    feed: Feed,
    epochs: int,
    seed: int,
) -> Identity:
    def loss(batch: Any) -> Any:
        return loss_fn(params, batch) if aux is None else loss_fn(params, aux, batch)[0]

    return identity_of(
        settings=(epochs, feed.batch_size, seed),
        weights=(params, aux),
        data=feed.content,
        losses=feed.on_first_batch(loss),
    )


def _step(
    loss_fn: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    project: Callable[[Params], Params] | None,
) -> Step:
    def without_aux(params: Params, state: TrainState, batch: Any) -> tuple[Array, Any]:
        loss = check_scalar(loss_fn(params, batch))
        return loss, (loss, None)

    def with_aux(params: Params, state: TrainState, batch: Any) -> tuple[Array, Any]:
        loss, aux = check_pair(loss_fn(params, state.aux, batch))
        return check_scalar(loss), (loss, aux)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Array]:
        objective: Objective = without_aux if state.aux is None else with_aux
        state, loss = gradient_step(objective, optimizer)(state, batch)
        return (state if project is None else state._replace(params=project(state.params))), loss

    return step


def _augment_key(state: TrainState) -> Array:
    """A key of this step, different from those that the order of the examples is drawn from.

    Those are split from the state's key, which may be the same as folding in 0 and 1.
    """
    return jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step)
