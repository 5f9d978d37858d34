"""What is timed and profiled: epochs without a prior, in the soft and in the hard stage."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from common.rows import task_of
from swsjax import HyperPriors, LearningRates, PretrainConfig, compress
from swsjax.lab import pretrain_task
from swsjax.sws import LEARNED, hard, init, init_mixture, make_step, soft
from swsjax.sws.grid import node_count
from swsjax.sws.step import Forward
from swsjax.sws.table import refined
from swsjax.training import TrainState, epoch, take_apart
from swsjax.training.epochs import Step, gradient_step

__all__ = ["BATCH", "COMPONENTS", "SIGMA", "continued", "epochs_of", "medians"]

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
        step = make_step(loss, optimizer, forward=forward, tau=TAU, hyper=hyper, nodes=nodes)
        weights, carried, prior = own()
        net = parts._replace(weights=weights, carried=carried)
        return step, init(net, {"weights": prior}, optimizer, jax.random.key(0))

    data = jax.tree.map(lambda array: array[:images], every)
    one_more = partial(epoch, data=data, batch_size=BATCH)
    return [
        continued(lambda state, step=step: one_more(step, state)[0], state)
        for step, state in (plain(), under_prior(soft), under_prior(hard))
    ]
