"""What is timed and profiled: epochs without a prior, in the soft and in the hard stage."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from common.rows import task_of
from swsjax import Config, HyperPriors, LearningRates, PretrainConfig, compress
from swsjax.lab import pretrain_task
from swsjax.sws import LEARNED, hard, init, init_mixture, make_step, soft
from swsjax.sws.exact import has_kernel
from swsjax.sws.grid import node_count
from swsjax.sws.recipes import Recipe, compress_task
from swsjax.sws.step import Forward
from swsjax.sws.table import refined
from swsjax.training import Epoch, TrainState, epoch, take_apart
from swsjax.training.epochs import Step, gradient_step
from swsjax.training.loop import Feed

__all__ = ["BATCH", "COMPONENTS", "SIGMA", "around_steps", "continued", "epochs_of", "medians"]

BATCH = 128
COMPONENTS = 17
"""Components of a mixture, the zero component included."""
SIGMA = 0.02
"""Their standard deviation: the mode of the hyper-prior on the precisions."""
TAU = 0.06 / 55_000

Run = Callable[[], Any]


def medians(*runs: Run, repeats: int) -> list[float]:
    """Median seconds of each, called in turn, after one call of each to compile."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        jax.block_until_ready(run())
    for _ in range(repeats):
        for run, measured in zip(runs, times, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(run())
            measured.append(time.perf_counter() - started)
    return [statistics.median(measured) for measured in times]


def continued(function: Callable[[Any], Any], state: Any) -> Run:
    """Apply the function to a state, then to what it returned: a donated state is used up."""
    held = [state]

    def run() -> Any:
        held.append(function(held.pop()))
        return held[0]

    return run


def epochs_of(net: str, images: int, *, soft_epochs: int = 0) -> list[Run]:
    """Epochs over some images of MNIST: without a prior, in the soft and in the hard stage.

    The mixture is as it is after annealing. After a soft stage of its own, if there is one, most
    weights are close together in few cells, and the grid is as fine as the tolerance requires.

    Args:
        net: name in ``lab.NETS``.
        images: number of images, in batches of ``BATCH``.
        soft_epochs: epochs of a soft stage before.
    """
    task = task_of(net)
    params, aux = pretrain_task(task, PretrainConfig(epochs=1))
    every = task.data()
    mixture = init_mixture(-0.5, 0.5, components=COMPONENTS - 1, std=SIGMA)
    nodes = node_count(-0.6, 0.6, SIGMA)
    if soft_epochs:
        config = replace(LEARNED, tau=TAU, soft_epochs=soft_epochs, hard_epochs=0)
        result = compress(params, task.loss(), every, config, aux=aux)
        params, mixture, aux = result.retrained, result.mixtures["weights"], result.aux
        nodes = refined(mixture, jax.tree.leaves(params), nodes, config.tolerance / 20)

    parts = take_apart(params, aux)
    loss = parts.loss(task.loss())

    def own() -> Any:  # an epoch donates its state
        return jax.tree.map(jnp.copy, (parts.weights, parts.carried, mixture))

    def plain() -> tuple[Step, TrainState]:
        def objective(weights: Any, state: TrainState, batch: Any) -> Any:
            value, aux = loss(weights, state.aux, batch)
            return value, (value, aux)

        adam, (weights, carried, _) = optax.adam(1e-3), own()
        start = jnp.zeros((), jnp.int32), jax.random.key(0), carried
        return gradient_step(objective, adam), TrainState(weights, adam.init(weights), *start)

    def under_prior(forward: Forward) -> tuple[Step, TrainState]:
        optimizer = LearningRates().optimizer(100, images // BATCH)
        hyper = HyperPriors()
        step = make_step(
            loss,
            optimizer,
            forward=forward,
            tau=TAU,
            hyper=hyper,
            nodes=None if has_kernel(COMPONENTS) else nodes,
            sample=Config().sample,
        )
        weights, carried, prior = own()
        net = parts._replace(weights=weights, carried=carried)
        return step, init(net, {"weights": prior}, optimizer, jax.random.key(0))

    data = jax.tree.map(lambda array: array[:images], every)
    one_more = partial(epoch, data=data, batch_size=BATCH)
    return [
        continued(lambda state, step=step: one_more(step, state)[0], state)
        for step, state in (plain(), under_prior(soft), under_prior(hard))
    ]


def around_steps(net: str, epochs: int) -> dict[str, float]:
    """What a stage's epochs cost outside their steps, as shares: the median, and the first epoch's.

    Quantising, the entropy bound, the error, the state on disk; in the first, compiling, too.

    Args:
        net: name in ``lab.NETS``.
        epochs: of the soft and of the hard stage, at least 3.
    """
    task = task_of(net)
    pretrained = pretrain_task(task, PretrainConfig(epochs=1))
    steps: list[float] = []
    ends = [time.perf_counter()]
    stages: list[str] = []

    def timed(feed: Feed, step: Step, state: TrainState, number: int) -> Any:
        started = time.perf_counter()
        found = jax.block_until_ready(untimed(feed, step, state, number))
        steps.append(time.perf_counter() - started)
        return found

    def ended(done: Epoch) -> None:
        ends.append(time.perf_counter())
        stages.append(done.stage)

    config = Config(tau=1e-6, soft_epochs=epochs, hard_epochs=epochs, prune_epochs=0)
    untimed, Feed.epoch = Feed.epoch, timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            compress_task(task, pretrained, Recipe(config), callback=ended, resume=folder)
    finally:
        Feed.epoch = untimed
    found = {}
    for stage in ("soft", "hard"):
        of_stage = [number for number, name in enumerate(stages) if name == stage]
        whole = [ends[number + 1] - ends[number] for number in of_stage]
        shares = [1 - steps[n] / time_of for n, time_of in zip(of_stage, whole, strict=True)]
        typical = statistics.median(whole[2:])
        found[stage] = {
            "share_outside_steps": statistics.median(shares[2:]),
            "epoch_seconds": typical,
            "first_epoch_over_later_ones": whole[0] / typical,
        }
    return found
