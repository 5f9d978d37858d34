"""What the scripts on channels share: nets that are pretrained, pruned and shrunk.

Pruned nets have smaller arrays, and all figures are those of the arrays that are left. Pretrained
nets are kept under ``runs/``.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import optax
from common.results import RUNS
from shared import IMAGES, Row, arguments, errors, pretrained, settings_of, short, task_on_part

import swsjax
from swsjax.baselines import (
    Group,
    channel_groups,
    channel_scores,
    fine_tune,
    k_means,
    l1_norms,
    prune_channels,
    shrink,
)
from swsjax.file import load_checkpoint, save_checkpoint
from swsjax.lab import Task, Variables
from swsjax.measure import multiply_adds

__all__ = [
    "KEEP",
    "LEVELS",
    "TUNING_EPOCHS",
    "channel_settings",
    "channels",
    "costs",
    "dense",
    "groups_of",
    "image_of",
    "inputs",
    "kept",
    "key_of",
    "smaller",
    "tuned",
    "with_codebooks",
    "without_small_filters",
]


KEEP = {"lenet-5-caffe": (0.5, 0.2), "resnet-8": (0.75, 0.5)}
"""Shares of the channels of each layer: two ratios, the second of which is for the finishers."""
LEVELS = 32
"""Of k-means, in each array."""
TUNING_EPOCHS = {"lenet-5-caffe": 2, "resnet-8": 4}
RATE = 1e-2
"""Of fine-tuning, constant: of 1e-2 and the 1e-3 of Liu et al., the better on validation images for
L1 norms and seed 0 of LeNet-5-Caffe, at both ratios. Their 40 epochs are 2 here, or 4."""
DECAY, MOMENTUM = 1e-4, 0.9


def inputs(description: str | None) -> tuple[str, Sequence[int]]:
    """The net and the seeds of the command line."""
    return arguments(description, IMAGES)


def channel_settings(net: str, **others: Any) -> Row:
    """Settings of a results file as plain values."""
    tuning = {"epochs": TUNING_EPOCHS[net], "rate": RATE, "decay": DECAY, "momentum": MOMENTUM}
    return settings_of(net, training=short(net), fine_tuning=tuning, **others)


@cache
def dense(net: str, seed: int) -> Variables:
    """The pretrained net of a seed."""
    task, config = task_on_part(net), short(net)
    train = partial(pretrained, net, seed, config)
    return kept(f"{net}-on-part-seed{seed}", (IMAGES[net], config), task, task.init(seed), train)


def kept(
    name: str, settings: Any, task: Task, like: Variables, make: Callable[[], Variables]
) -> Variables:
    """A net that is made once: kept under ``runs/`` for these settings alone."""
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    folder = RUNS / f"{name}-{digest}"
    if not folder.exists():
        RUNS.mkdir(exist_ok=True)
        save_checkpoint(folder, task.whole(make()))
    return task.parts(load_checkpoint(folder, task.whole(like)))


def image_of(task: Task) -> jax.ShapeDtypeStruct:
    """A batch of one image, to trace a net with."""
    images = task.dataset.train.images
    return jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)


def groups_of(task: Task, net: Variables) -> list[Group]:
    """The channels of each hidden layer that one kernel makes: not those of a residual sum."""
    found = channel_groups(task.predict, net, image_of(task))
    return [group for group in found if len(group.kernels) == 1]


def channels(task: Task, net: Variables) -> dict[str, int]:
    """The number of channels of each hidden layer, by the layer that makes them."""
    return {group.kernels[0][0].split("/")[-2]: group.size for group in groups_of(task, net)}


def without_small_filters(net: str, weights: Variables, share: float, seed: int) -> Variables:
    """Weights of a net with a share of the channels of each layer, by L1 norms of the dense net."""
    task, trained = task_on_part(net), dense(net, seed)
    groups = groups_of(task, trained)
    scores = channel_scores(trained, groups, lambda name, kernel: l1_norms(kernel))
    return prune_channels(weights, groups, scores, [share] * len(groups))


def smaller(task: Task, net: Variables) -> Variables:
    """A net without its dead channels."""
    found: Variables = shrink(task.predict, net, image_of(task))
    return found


def tuned(task: Task, net: Variables, name: str, seed: int) -> Variables:
    """A pruned net fine-tuned, as all of the rows are."""
    optimizer = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=MOMENTUM))
    return fine_tune(
        task,
        net,
        epochs=TUNING_EPOCHS[name],
        key=key_of(seed),
        optimizer=optimizer,
        augment=short(name).augment(),
    )


def key_of(seed: int) -> jax.Array:
    """Of the order of the images after pruning: not that of the dense net."""
    return jax.random.fold_in(jax.random.key(seed), 1)


def costs(task: Task, net: Variables) -> Row:
    """Parameters, multiply-adds of an image, and channels."""
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(net.params)),
        "multiply_adds": multiply_adds(task.predict, net, image_of(task)).total,
        "channels": channels(task, net),
    }


def with_codebooks(task: Task, net: Variables) -> Row:
    """Bytes and errors of a file with ``LEVELS`` in each array; statistics stay as they are."""
    shared = k_means(net, LEVELS)
    found = {f"k_means_{name}": value for name, value in errors(task, shared).items()}
    return found | {"file_bytes": len(swsjax.dumps(task.whole(shared)))}
