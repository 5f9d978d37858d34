"""What the prior costs: ratios of medians, each pair measured in turn in one run.

    pip install torch==2.13.0    # the peer of two rows; they are left out without it
    SWSJAX_DATA=... python benchmarks/speed.py

Writes ``benchmarks/results/speed-BACKEND.json``. Absolute times drift on shared machines; the
ratios are what is reported.
"""

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import swsjax
from swsjax.file.atomic import write_bytes
from swsjax.lab.task import build, pretrain_classifier
from swsjax.lab.data import load_mnist
from swsjax.sws.grid import grid_over, node_count
from swsjax.training.losses import cross_entropy
from swsjax.lab.nets import LeNet5Caffe, LeNet300100
from swsjax.sws.step import Rates
from swsjax.sws.table import refined, sum_log_prob
from swsjax.training.loop import PretrainConfig, TrainState, epoch

REPEATS = 15
WEIGHTS = 2_700_000  # a WRN-16-4
COMPONENTS, MANY_COMPONENTS = 17, 257
SIZES = (10**5, 10**6, 10**7, 10**8, 10**9)  # the largest takes 16 GB
SIGMA = 0.02  # the mode of the hyper-prior on the precisions
BATCH = 128
OUT = Path(__file__).parent / "results"


def medians(*functions: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    """Median seconds of each function, called in turn, after one call of each to compile."""
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        jax.block_until_ready(function())
    for _ in range(repeats):
        for function, measured in zip(functions, times, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(function())
            measured.append(time.perf_counter() - started)
    return [statistics.median(measured) for measured in times]


def continued(function: Callable[[Any], Any], state: Any) -> Callable[[], Any]:
    """A function that goes on from where it was at each call, as the state is donated."""
    held = [state]

    def run() -> Any:
        held.append(function(held.pop()))
        return held[0]

    return run


def case(size: int, components: int) -> tuple[swsjax.GaussianMixture, Array]:
    """Weights as in the middle of a retraining: most near zero, some about the components."""
    keys = jax.random.split(jax.random.key(0), 3)
    mixture = swsjax.init_mixture(-1.0, 1.0, components=components - 1, pi_zero=0.95, std=SIGMA)
    spread = SIGMA * jax.random.normal(keys[0], (size,))
    centres = jnp.where(
        jax.random.uniform(keys[1], (size,)) < 0.9,
        0.0,
        jax.random.choice(keys[2], mixture.means, (size,)),
    )
    return mixture, centres + spread


def naive(mixture: swsjax.GaussianMixture, weights: Array) -> Array:
    """The obvious implementation: logsumexp over an array of weights by components."""
    return jnp.sum(
        jax.scipy.special.logsumexp(swsjax.component_log_probs(mixture, weights), axis=-1)
    )


def tabulated(mixture: swsjax.GaussianMixture, weights: Array) -> Array:
    nodes = node_count(-1.1, 1.1, SIGMA)
    return sum_log_prob(mixture, [weights], grid_over([weights], nodes))


def with_gradients(function: Callable) -> Callable:
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1)))


def temporaries(function: Callable, *arguments: Any) -> int:
    """Bytes that the compiled function needs beside its arguments and results."""
    return function.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def prior_rows() -> dict[str, Any]:
    mixture, weights = case(WEIGHTS, COMPONENTS)
    many, _ = case(10, MANY_COMPONENTS)
    ours, theirs = with_gradients(tabulated), with_gradients(naive)
    adam = optax.adam(1e-3)

    @jax.jit
    def update(weights: Array, gradient: Array, state: optax.OptState):
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    adam_state = adam.init(weights)
    table, wide, update_time = medians(
        lambda: ours(mixture, weights),
        lambda: ours(many, weights),
        lambda: update(weights, weights, adam_state),
    )
    # Apart from the others: giving its gigabyte back to the system slows down what follows it.
    (exact,) = medians(lambda: theirs(mixture, weights), repeats=5)
    return {
        "weights": WEIGHTS,
        "tabulated_seconds": table,
        "logsumexp_seconds": exact,
        "speedup": exact / table,
        "temporary_bytes_per_weight": temporaries(ours, mixture, weights) / WEIGHTS,
        "logsumexp_temporary_bytes_per_weight": temporaries(theirs, mixture, weights) / WEIGHTS,
        "many_components_over_few": wide / table,
        "adam_update_seconds": update_time,
        "prior_over_adam_update": table / update_time,
    }


def ascend(steps: int, mixture: swsjax.GaussianMixture, weights: Array) -> Any:
    """Steps of gradient ascent on the prior alone, too small to matter, in one compiled loop.

    As in a retraining: buffers are used again from step to step. A call by itself would first
    wait for the system to hand out its pages, which takes as long as the prior.
    """

    def step(_: int, trained: Any) -> Any:
        gradients = jax.grad(tabulated, argnums=(0, 1))(*trained)
        return jax.tree.map(lambda x, gradient: x + 1e-12 * gradient, trained, gradients)

    return jax.lax.fori_loop(0, steps, step, (mixture, weights))


def scaling_rows() -> list[dict[str, float]]:
    rows = []
    once = with_gradients(tabulated)
    for size in SIZES:
        mixture, block = case(min(size, 10**7), COMPONENTS)
        weights = jnp.tile(block, size // block.size)
        steps, repeats = (20, REPEATS) if size < 10**8 else (10, 3)
        (call,) = medians(partial(once, mixture, weights), repeats=repeats)
        loop = jax.jit(partial(ascend, steps), donate_argnums=(0, 1))
        loop = loop.lower(mixture, weights).compile()
        run = continued(lambda state, loop=loop: loop(*state), (mixture, weights))
        del block, weights
        (seconds,) = medians(run, repeats=repeats)
        rows.append(
            {
                "weights": size,
                "nanoseconds_per_weight": 1e9 * seconds / (steps * size),
                "nanoseconds_per_weight_of_a_single_call": 1e9 * call / size,
                "temporary_bytes_per_weight": loop.memory_analysis().temp_size_in_bytes / size,
            }
        )
        del run
        gc.collect()
    return rows


def training(
    model: Callable, images: int, *, soft_epochs: int = 0
) -> tuple[Callable, Callable, Callable]:
    """An epoch over some images: without a prior, in the soft and in the hard stage.

    The net is one that works under a mixture past its annealing; after a soft stage of its own,
    most weights lie close together in few cells, and the grid is as fine as the tolerance asks.
    """
    dataset = load_mnist()
    classifier = pretrain_classifier(build(model, dataset), dataset, PretrainConfig(epochs=1))
    every = {
        "inputs": jnp.asarray(dataset.train.images),
        "labels": jnp.asarray(dataset.train.labels, jnp.int32),
    }
    data = jax.tree.map(lambda x: x[:images], every)
    loss = cross_entropy(classifier.apply)
    weights = classifier.params
    mixture = swsjax.init_mixture(-0.5, 0.5, components=COMPONENTS - 1, std=SIGMA)
    nodes = node_count(-0.6, 0.6, SIGMA)
    if soft_epochs:
        config = swsjax.Config(tau=0.06, soft_epochs=soft_epochs, hard_epochs=0)
        result = swsjax.compress(weights, loss, every, config)
        weights, mixture = result.retrained, result.mixtures["weights"]
        nodes = refined(mixture, jax.tree.leaves(weights), nodes, config.tolerance / 20)
    plain = optax.adam(1e-3)

    def plain_step(state: TrainState, batch: Any):
        value, gradient = jax.value_and_grad(loss)(state.params, batch)
        updates, opt_state = plain.update(gradient, state.opt_state)
        return state._replace(
            params=optax.apply_updates(state.params, updates), opt_state=opt_state
        ), value

    optimizer = Rates().optimizer(100, images // BATCH)
    runs = []
    for forward in (None, swsjax.soft, swsjax.hard):
        params = jax.tree.map(jnp.copy, weights)
        if forward is None:
            step = plain_step
            state = TrainState(params, plain.init(params), jax.random.key(0))
        else:
            step = swsjax.make_step(
                loss,
                optimizer,
                forward=forward,
                tau=0.06,
                train_size=len(dataset.train.labels),
                hyper=swsjax.HyperPriors(),
                nodes=nodes,
            )
            own = jax.tree.map(jnp.copy, mixture)  # an epoch donates its state
            state = swsjax.init(params, {"weights": own}, optimizer, jax.random.key(0))
        one_more = partial(epoch, step, data=data, batch_size=BATCH)
        runs.append(continued(lambda state, one_more=one_more: one_more(state)[0], state))
    return tuple(runs)


def step_rows() -> dict[str, Any]:
    rows = {}
    for name, model, images, repeats, soft_epochs in (
        ("lenet-300-100", LeNet300100, 100 * BATCH, 60, 0),  # short steps scatter more
        ("lenet-300-100 after 30 epochs", LeNet300100, 100 * BATCH, 60, 30),
        ("lenet-5-caffe", LeNet5Caffe, 20 * BATCH, REPEATS, 0),
    ):
        runs = training(model, images, soft_epochs=soft_epochs)
        plain, soft, hard = medians(*runs, repeats=repeats)
        steps = images // BATCH
        rows[name] = {
            "plain_step_milliseconds": 1e3 * plain / steps,
            "soft_over_plain": soft / plain,
            "hard_over_plain": hard / plain,
        }
    return rows


def torch_rows() -> dict[str, Any] | None:
    try:
        import speed_torch
    except ModuleNotFoundError:
        return None
    images = 100 * BATCH
    plain, soft, _ = training(LeNet300100, images)
    theirs, theirs_plain = (
        speed_torch.lenet_300_100_epoch(images, BATCH, components=components)
        for components in (COMPONENTS - 1, None)
    )
    ours_soft, torch_soft, ours_plain, torch_plain = medians(
        soft, theirs, plain, theirs_plain, repeats=5
    )
    conv_images = 20 * BATCH
    conv, *_ = training(LeNet5Caffe, conv_images)
    ours_conv, torch_conv = medians(
        conv, speed_torch.lenet_5_caffe_epoch(conv_images, BATCH), repeats=5
    )
    return {
        "torch": speed_torch.VERSION,
        "threads": speed_torch.THREADS,
        "lenet_300_100_retraining_speedup": torch_soft / ours_soft,
        "lenet_300_100_plain_speedup": torch_plain / ours_plain,
        "lenet_5_caffe_plain_speedup": torch_conv / ours_conv,
    }


def bandwidth_row() -> dict[str, float]:
    """Bytes a second of the prior (weights read, gradients written) against a device copy."""
    size = 10**8 if jax.default_backend() == "gpu" else 10**7
    mixture, weights = case(size, COMPONENTS)
    ours, copy = with_gradients(tabulated), jax.jit(lambda x: x + 1)
    prior, copied = medians(lambda: ours(mixture, weights), lambda: copy(weights), repeats=7)
    return {
        "weights": size,
        "prior_bytes_per_second": 8 * size / prior,
        "copy_bytes_per_second": 8 * size / copied,
        "share_of_copy": copied / prior,
    }


def machine() -> dict[str, Any]:
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
    }


def main() -> None:
    # Each in a process of its own: gigabytes that one leaves behind slow down the next.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:

        def apart(rows: Callable[[], Any]) -> Any:
            return processes.submit(rows).result()

        content = {
            "command": "python benchmarks/speed.py",
            "machine": apart(machine),
            "versions": {"jax": jax.__version__, "numpy": np.__version__},
            "steps": apart(step_rows),
            "against_torch": apart(torch_rows),
            "prior": apart(prior_rows),
            "bandwidth": apart(bandwidth_row),
            "scaling": apart(scaling_rows),
        }
    OUT.mkdir(exist_ok=True)
    path = OUT / f"speed-{content['machine']['backend']}.json"
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
