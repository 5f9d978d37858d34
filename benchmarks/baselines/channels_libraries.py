"""L1 norms here and in Torch-Pruning: the same net and ratio, what is left, and the time to prune.

    pip install torch==2.13.0 torch-pruning==1.6.1    # left out without them
    PYTHONPATH=benchmarks SWSJAX_DATA=... \
        python benchmarks/baselines/channels_libraries.py lenet-5-caffe

From the same trained weights, at the second ratio of ``channels.py``, and fine-tuned alike, here.
Time is from the net to the smaller arrays, the search for the channels included: the median of
seven runs in turn, after one of each, in seconds of the processor. Also for ``resnet-8``. Writes
``results/baselines/channels-libraries-NET.json``.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import numpy as np
from channel_tasks import KEEP, channel_settings, costs, dense, groups_of, inputs, tuned
from shared import Row, add, errors, file_of, task_on_part

from swsjax.baselines import channel_scores, channels_kept, l1_norms, remove_channels
from swsjax.lab import Task, Variables

try:
    import channels_torch
except ModuleNotFoundError:
    peer: ModuleType | None = None
else:
    peer = channels_torch

REPEATS = 7
OURS = "swsjax"
REDUCTIONS = {
    "Torch-Pruning, filters": "first",
    "Torch-Pruning, all layers of a group": "mean",
}


def main() -> None:
    net, seeds = inputs(__doc__)
    settings = channel_settings(net, keep=KEEP[net][-1], repeats=REPEATS)
    for seed in seeds:
        for library in (OURS, *REDUCTIONS) if peer else (OURS,):
            row = {"library": library, "seed": seed}
            command = f"baselines/channels_libraries.py {net}"
            measure = partial(run, net, library, seed)
            add(file_of("channels-libraries", net), command, settings, row, measure)


def run(net: str, library: str, seed: int) -> Row:
    task, start, keep = task_on_part(net), dense(net, seed), KEEP[net][-1]
    ours = partial(pruned, task, start, keep)
    if library == OURS or peer is None:
        small, found = ours(), {"processor_seconds": seconds(ours)[0]}
    else:
        module = peer.in_torch(net, start)
        check(task, start, peer.logits, module)
        theirs = partial(peer.pruned, module, keep, REDUCTIONS[library])
        cut = theirs()
        small = peer.in_jax(cut, start)
        check(task, small, peer.logits, cut)
        there, here = seconds(theirs, ours)
        operations, parameters = peer.counted(cut)
        found = {
            "processor_seconds": there,
            "times_ours": there / here,
            "own_multiply_adds": operations,
            "own_parameters": parameters,
            "channels_shared_with_ours": overlap(small, ours(), start),
        }
    found["pruned_validation_error"] = task.error(small, task.dataset.validation)
    finished = tuned(task, small, net, seed)
    return found | errors(task, finished) | costs(task, finished)


def pruned(task: Task, net: Variables, keep: float) -> Variables:
    """Find the channels, score them and cut the others."""
    groups = groups_of(task, net)
    scores = channel_scores(net, groups, lambda name, kernel: l1_norms(kernel))
    removed = [
        (group, np.argsort(-score, kind="stable")[channels_kept(group.size, keep) :])
        for group, score in zip(groups, scores, strict=True)
    ]
    return jax.block_until_ready(remove_channels(net, removed))


def seconds(*runs: Callable[[], Any]) -> list[float]:
    """Median processor seconds of each, called in turn, after one call of each."""
    for run in runs:
        run()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for run, measured in zip(runs, times, strict=True):
            started = time.process_time()
            run()
            measured.append(time.process_time() - started)
    return [statistics.median(measured) for measured in times]


def overlap(theirs: Variables, ours: Variables, whole: Variables) -> float:
    """The share of the channels kept here that the other net keeps, too, over all pruned layers.

    A channel is told by its bias, that of the layer or of the norm behind it.
    """
    mine, other, all_of_them = (
        {name: np.asarray(layer.get("bias", ())) for name, layer in net.params.items()}
        for net in (ours, theirs, whole)
    )
    smaller = [name for name, biases in all_of_them.items() if len(mine[name]) < len(biases)]
    shared = sum(int(np.isin(mine[name], other[name]).sum()) for name in smaller)
    return shared / sum(len(mine[name]) for name in smaller)


def check(task: Task, net: Variables, logits: Callable[..., np.ndarray], module: Any) -> None:
    """Check that a net computes the same in PyTorch."""
    images = task.dataset.validation.images[:64]
    difference = np.abs(np.asarray(task.logits(net, images)) - logits(module, images)).max()
    if difference > 1e-3:
        raise ValueError(f"expected the same logits in PyTorch, got a difference of {difference}")


if __name__ == "__main__":
    main()
