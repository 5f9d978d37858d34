"""Six methods that remove channels or blocks, each finished in three ways.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/channel_finishers.py resnet-8

Liu et al., *Rethinking the Value of Network Pruning* (arXiv 1810.05270). Predefined structures, by
L1 norms, ThiNet, LASSO regression and soft filter pruning (SFP), keep the same share of each layer.
Automatic ones, by network slimming and sparse structure selection (SSS), choose the layers, and
need a net with BatchNorm and residual blocks, ``resnet-8``; ``lenet-5-caffe`` has the other four.
What is left is fine-tuned, or trained from a random initialisation for as many epochs (Scratch-E)
or multiply-adds (Scratch-B) as the dense net; of the channels by L1 norms also from the initial
weights of the dense net, a winning ticket. Writes
``results/baselines/channel-finishers-NET.json``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from channel_tasks import (
    KEEP,
    TUNING_EPOCHS,
    channel_settings,
    costs,
    dense,
    groups_of,
    inputs,
    key_of,
    smaller,
    tuned,
    without_small_filters,
)
from shared import Row, add, errors, file_of, short, task_on_part

from swsjax.baselines import (
    accelerated_proximal,
    batch_norm_scales,
    channel_scores,
    l1_norms,
    lasso_regression,
    last_layers,
    masked_channels,
    narrowed,
    network_slimming,
    retrain,
    scratch,
    scratch_b_epochs,
    soft_filter_pruning,
    sparse_structure_selection,
    thinet,
    with_scales,
)
from swsjax.lab import Variables

MOST = 4
"""Scratch-B is at most as many times as long as Scratch-E, for time."""
PER_CLASS = 50
"""Images of ThiNet and regression, with ten positions in each. With 10, regression has fewer rows
than weights in a dense layer, and its net diverges in fine-tuning."""
SLIMMING = 1e-4
"""Strength of the penalty on BatchNorm scales, as in the paper."""
SELECTION = 0.05
"""Strength of the penalty on the scales of blocks; 0.01 in the paper, with many more steps. With
0.02 no block goes (seed 0)."""

TICKET = "L1, winning ticket"

Prune = Callable[[str, int], Variables]
"""From a net's name and a seed to weights of which some channels are dead."""


def main() -> None:
    net, seeds = inputs(__doc__)
    file, command = file_of("channel-finishers", net), f"baselines/channel_finishers.py {net}"
    strengths = {"slimming": SLIMMING, "selection": SELECTION} if "SSS" in METHODS[net] else {}
    settings = channel_settings(
        net, keep=KEEP[net][-1], most=MOST, per_class=PER_CLASS, **strengths
    )
    for seed in seeds:
        row = {"method": "dense", "finish": "", "seed": seed}
        add(file, command, settings, row, partial(of_dense, net, seed))
        for method in METHODS[net]:
            for finish in FINISHERS:
                row = {"method": method, "finish": finish, "seed": seed}
                add(file, command, settings, row, partial(run, net, method, finish, seed))
        row = {"method": TICKET, "finish": "Scratch-E", "seed": seed}
        add(file, command, settings, row, partial(of_ticket, net, seed))


def of_dense(net: str, seed: int) -> Row:
    task, found = task_on_part(net), dense(net, seed)
    return {"epochs": short(net).epochs} | errors(task, found) | costs(task, found)


def run(net: str, method: str, finish: str, seed: int) -> Row:
    task, start = task_on_part(net), pruned(net, method, seed)
    found, epochs = FINISHERS[finish](net, start, seed)
    return {"epochs": epochs} | errors(task, found) | costs(task, found)


def of_ticket(net: str, seed: int) -> Row:
    """The initial weights of the channels that are kept after training, trained again."""
    task, config = task_on_part(net), short(net)
    start = without_small_filters(net, task.init(seed), KEEP[net][-1], seed)
    ticket = smaller(task, start)
    found = retrain(narrowed(task, ticket), ticket, config, key=key_of(seed))
    return {"epochs": config.epochs} | errors(task, found) | costs(task, found)


@cache
def pruned(net: str, method: str, seed: int) -> Variables:
    """The net that is finished, without its dead channels."""
    return smaller(task_on_part(net), METHODS[net][method](net, seed))


def by_l1(net: str, seed: int) -> Variables:
    return without_small_filters(net, dense(net, seed), KEEP[net][-1], seed)


def by_reconstruction(method: Callable[..., Variables], net: str, seed: int) -> Variables:
    """ThiNet or regression, without fine-tuning between the layers."""
    task, start = task_on_part(net), dense(net, seed)
    layers = [(group, KEEP[net][-1]) for group in groups_of(task, start)]
    return method(task, start, layers, key=key_of(seed), per_class=PER_CLASS)


def by_soft_filters(net: str, seed: int) -> Variables:
    """SFP from the initialisation, for as many epochs as the dense net.

    A filter of zeros emits a constant. If that cannot be added to what follows exactly, it is cut,
    as the authors do.
    """
    task, key = task_on_part(net), jax.random.key(seed)
    names = [
        group.kernels[0][0].removeprefix("params/") for group in groups_of(task, task.init(seed))
    ]
    start, keep = task.init(seed), KEEP[net][-1]
    small = smaller(task, soft_filter_pruning(task, start, keep, short(net), key=key, names=names))
    groups = groups_of(task, small)
    norms = channel_scores(small, groups, lambda name, kernel: l1_norms(kernel))
    dead = [(group, np.flatnonzero(norm == 0)) for group, norm in zip(groups, norms, strict=True)]
    return masked_channels(small, dead)


def by_slimming(net: str, seed: int) -> Variables:
    """By the norms between the two convolutions of each block: what they drop is in no sum."""
    task = task_on_part(net)
    start = task.init(seed)
    scales = [name for name in batch_norm_scales(start) if name.endswith("bn2/scale")]
    return network_slimming(
        task,
        with_scales(start, scales),
        KEEP[net][-1],
        short(net),
        key=jax.random.key(seed),
        scales=scales,
        strength=SLIMMING,
    )


def by_structures(net: str, seed: int) -> Variables:
    """The scales of blocks have the learning rate of the weights."""
    task, config = task_on_part(net), short(net)
    start = task.init(seed)
    rate = config.schedule(config.steps(task.data()))
    return sparse_structure_selection(
        task,
        start,
        last_layers(start, "*conv2"),
        config,
        proximal=accelerated_proximal(rate, SELECTION),
        key=jax.random.key(seed),
    )


def not_finished(net: str, start: Variables, seed: int) -> tuple[Variables, int]:
    return start, 0


def fine_tuned(net: str, start: Variables, seed: int) -> tuple[Variables, int]:
    return tuned(task_on_part(net), start, net, seed), TUNING_EPOCHS[net]


def scratch_e(net: str, start: Variables, seed: int) -> tuple[Variables, int]:
    epochs = short(net).epochs
    return from_scratch(net, structure(start), epochs, seed), epochs


def scratch_b(net: str, start: Variables, seed: int) -> tuple[Variables, int]:
    task, epochs = task_on_part(net), short(net).epochs
    large, small = (costs(task, one)["multiply_adds"] for one in (dense(net, seed), start))
    epochs = min(scratch_b_epochs(epochs, large, small), MOST * epochs)
    return from_scratch(net, structure(start), epochs, seed), epochs


Structure = tuple[tuple[tuple[int, ...], bool], ...]
"""For each array its shape, and whether it has any weights: those of removed blocks have none."""


def structure(net: Variables) -> Structure:
    return tuple((leaf.shape, bool((leaf != 0).any())) for leaf in jax.tree.leaves(net))


@cache
def from_scratch(net: str, kept: Structure, epochs: int, seed: int) -> Variables:
    """A random initialisation, trained by the schedule of the dense net.

    It is the same run for all methods that leave the same structure.
    """
    task, config = task_on_part(net), replace(short(net), epochs=epochs)
    leaves = [jnp.full(shape, float(has_weights)) for shape, has_weights in kept]
    start = jax.tree.unflatten(jax.tree.structure(task.init(seed)), leaves)
    return scratch(narrowed(task, start), start, config, key=key_of(seed))


PREDEFINED: dict[str, Prune] = {
    "L1": by_l1,
    "ThiNet": partial(by_reconstruction, thinet),
    "regression": partial(by_reconstruction, lasso_regression),
    "SFP": by_soft_filters,
}
AUTOMATIC: dict[str, Prune] = {"slimming": by_slimming, "SSS": by_structures}
METHODS = {"lenet-5-caffe": PREDEFINED, "resnet-8": PREDEFINED | AUTOMATIC}
FINISHERS = {
    "pruned only": not_finished,
    "fine-tune": fine_tuned,
    "Scratch-E": scratch_e,
    "Scratch-B": scratch_b,
}

if __name__ == "__main__":
    main()
