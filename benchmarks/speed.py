"""What the prior costs: ratios of medians, each pair measured in turn in one run.

    pip install torch==2.13.0    # compared with in three rows, which are left out without it
    SWSJAX_DATA=... python benchmarks/speed.py

Writes ``results/speed-BACKEND.json``. Absolute times drift on shared machines; the ratios are what
is reported.
"""

import gc
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp
import optax
from common.results import RESULTS, made_by, write
from common.timing import (
    BATCH,
    COMPONENTS,
    SIGMA,
    around_steps,
    continued,
    epochs_of,
    medians,
)
from jax import Array

from swsjax.sws import GaussianMixture, component_log_probs, exact, init_mixture
from swsjax.sws.exact import has_kernel
from swsjax.sws.grid import grid_over, node_count
from swsjax.sws.table import sum_log_prob

REPEATS = 15
WEIGHTS = 2_700_000  # a WRN-16-4
MANY_COMPONENTS = 257
LARGEST_ARRAY = 2 * 10**9  # entries of logsumexp's array of weights by components
SIZES = (10**5, 10**6, 10**7, 10**8, 10**9)  # the largest takes 16 GB
STEPS = (  # title, net, steps per epoch, epochs of a soft stage before, repeats
    ("lenet-300-100", "lenet-300-100", 100, 0, 60),  # short steps scatter more
    ("lenet-300-100 after 30 epochs", "lenet-300-100", 100, 30, 60),
    ("lenet-5-caffe", "lenet-5-caffe", 20, 0, REPEATS),
)
STEPS_OF_GPU = (("wrn-16-4", "wrn-16-4", 20, 0, REPEATS),)  # minutes on a processor
EPOCHS = 5
"""Of each stage, to see what they cost outside their steps."""


def main() -> None:
    # Each in a process of its own: gigabytes that one leaves behind slow down the next.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:

        def apart(rows: Callable[..., Any], *arguments: Any) -> Any:
            return processes.submit(rows, *arguments).result()

        content = {
            **apart(made_by, "speed.py"),
            "steps": apart(step_rows),
            "against_torch": apart(torch_rows),
            "epochs": apart(epoch_rows),
            "prior": apart(prior_rows),
            "components": apart(component_rows),
            "scaling": apart(scaling_rows),
        }
    write(RESULTS / f"speed-{content['machine']['backend']}.json", content)
    print(json.dumps(content, indent=1))


def step_rows() -> dict[str, Any]:
    """Steps in the soft and the hard stage against steps without a prior."""
    rows = {}
    for title, net, steps, soft_epochs, repeats in (*STEPS, *(STEPS_OF_GPU if on_gpu() else ())):
        runs = epochs_of(net, steps * BATCH, soft_epochs=soft_epochs)
        plain, soft, hard = medians(*runs, repeats=repeats)
        rows[title] = {
            "plain_step_milliseconds": 1e3 * plain / steps,
            "soft_over_plain": soft / plain,
            "hard_over_plain": hard / plain,
        }
    return rows


def epoch_rows() -> dict[str, Any]:
    """What an epoch costs outside its steps: quantising, bound, error, state, compiling."""
    nets = ("lenet-300-100", *(net for _, net, *_ in STEPS_OF_GPU if on_gpu()))
    return {net: around_steps(net, EPOCHS) for net in nets}


def torch_rows() -> dict[str, Any] | None:
    """Epochs against those of PyTorch, with the prior and without."""
    try:
        import speed_torch
    except ModuleNotFoundError:
        return None
    images = 100 * BATCH
    plain, soft, _ = epochs_of("lenet-300-100", images)
    theirs, theirs_plain = (
        speed_torch.lenet_300_100_epoch(images, BATCH, components=components)
        for components in (COMPONENTS - 1, None)
    )
    ours_soft, torch_soft, ours_plain, torch_plain = medians(
        soft, theirs, plain, theirs_plain, repeats=5
    )
    conv_images = 20 * BATCH
    conv, *_ = epochs_of("lenet-5-caffe", conv_images)
    theirs_conv = speed_torch.lenet_5_caffe_epoch(conv_images, BATCH)
    ours_conv, torch_conv = medians(conv, theirs_conv, repeats=5)
    return {
        "torch": speed_torch.VERSION,
        "threads": speed_torch.THREADS,
        "lenet_300_100_retraining_speedup": torch_soft / ours_soft,
        "lenet_300_100_plain_speedup": torch_plain / ours_plain,
        "lenet_5_caffe_plain_speedup": torch_conv / ours_conv,
    }


def prior_rows() -> dict[str, Any]:
    """The prior and its gradients by themselves, and what else a step does with all weights."""
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
        repeats=REPEATS,
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


def component_rows() -> list[dict[str, float]]:
    """The prior as a step takes it, over weights and components, against a copy and logsumexp."""
    rows = []
    for size in (10**5, WEIGHTS, *((10**8,) if on_gpu() else ())):
        for components in (COMPONENTS, 65, MANY_COMPONENTS):
            mixture, weights = case(size, components)
            ours = with_gradients(exactly if has_kernel(components) else tabulated)
            copied, seconds = medians(
                lambda x=weights: copy(x), partial(ours, mixture, weights), repeats=7
            )
            naively = []  # apart, as in prior_rows
            if size * components <= LARGEST_ARRAY:
                naively = medians(partial(with_gradients(naive), mixture, weights), repeats=3)
            row = {"weights": size, "components": components, "kernel": has_kernel(components)}
            row |= {"seconds": seconds, "share_of_copy": copied / seconds}
            if naively:
                row["speedup_over_logsumexp"] = naively[0] / seconds
            rows.append(row)
    return rows


def exactly(mixture: GaussianMixture, weights: Array) -> Array:
    return exact.sum_log_prob(mixture, [weights])


@jax.jit
def copy(weights: Array) -> Array:
    return weights + 1


def on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def scaling_rows() -> list[dict[str, float]]:
    """Time and memory per weight over the number of weights."""
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


def ascend(steps: int, mixture: GaussianMixture, weights: Array) -> Any:
    """Steps of gradient ascent on the prior alone, too small to matter, in one compiled loop.

    As in a retraining: buffers are used again from step to step. A single call would first wait
    for the system to hand out its pages, which takes as long as the prior.
    """

    def step(_: int, trained: Any) -> Any:
        gradients = jax.grad(tabulated, argnums=(0, 1))(*trained)
        return jax.tree.map(lambda x, gradient: x + 1e-12 * gradient, trained, gradients)

    return jax.lax.fori_loop(0, steps, step, (mixture, weights))


def case(size: int, components: int) -> tuple[GaussianMixture, Array]:
    """Weights as in the middle of a retraining: most near zero, some around the components."""
    keys = jax.random.split(jax.random.key(0), 3)
    mixture = init_mixture(-1.0, 1.0, components=components - 1, pi_zero=0.95, std=SIGMA)
    spread = SIGMA * jax.random.normal(keys[0], (size,))
    centres = jnp.where(
        jax.random.uniform(keys[1], (size,)) < 0.9,
        0.0,
        jax.random.choice(keys[2], mixture.means, (size,)),
    )
    return mixture, centres + spread


def tabulated(mixture: GaussianMixture, weights: Array) -> Array:
    nodes = node_count(-1.1, 1.1, SIGMA)
    return sum_log_prob(mixture, [weights], grid_over([weights], nodes))


def naive(mixture: GaussianMixture, weights: Array) -> Array:
    """The obvious implementation: logsumexp over an array of weights by components."""
    return jnp.sum(jax.scipy.special.logsumexp(component_log_probs(mixture, weights), axis=-1))


def with_gradients(function: Callable) -> Callable:
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1)))


def temporaries(function: Callable, *arguments: Any) -> int:
    """Bytes that the compiled function needs in addition to its arguments and results."""
    return function.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    main()
