"""Which channels to keep: six scores at two ratios, each really removed and fine-tuned alike.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/channels.py lenet-5-caffe

L1 norms of filters, the same with the largest removed first, random numbers (Li et al., arXiv
1608.08710), and the spectral, nuclear and Frobenius norms of what a filter computes (SPSRC). The
same share of the channels of each hidden layer is kept; in ``resnet-8``, for which CIFAR-10 is
needed, of those between the two convolutions of each block. Writes
``results/baselines/channels-NET.json``.
"""

import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from channel_tasks import (
    KEEP,
    LEVELS,
    channel_settings,
    costs,
    dense,
    groups_of,
    image_of,
    inputs,
    smaller,
    tuned,
    with_codebooks,
)
from jax import Array
from shared import Row, add, errors, file_of, task_on_part

from swsjax.baselines import (
    Convolution,
    channel_scores,
    convolutions,
    frobenius_norms,
    l1_norms,
    nuclear_norms,
    prune_channels,
    random_scores,
    skewness,
    spectral_norms,
)
from swsjax.lab import Task, Variables

DENSE = "dense"
Score = Callable[[Array, Convolution, Array], Array]
"""From a kernel, what the convolution does beside it, and a random key."""
SCORES: dict[str, Score] = {
    "L1": lambda kernel, convolution, key: l1_norms(kernel),
    "spectral": lambda kernel, convolution, key: spectral_norms(kernel, convolution),
    "nuclear": lambda kernel, convolution, key: nuclear_norms(kernel, convolution),
    "Frobenius": lambda kernel, convolution, key: frobenius_norms(kernel, convolution),
    "random": lambda kernel, convolution, key: random_scores(kernel, key),
    "largest first": lambda kernel, convolution, key: -l1_norms(kernel),
}
CONVOLUTIONS = {
    "params/conv1/kernel": Convolution((28, 28), padding="VALID"),
    "params/conv2/kernel": Convolution((12, 12), padding="VALID"),
}
"""Of LeNet-5-Caffe, which computes them as matrix products."""
NOT_USED = Convolution((1, 1))
"""Of a dense layer."""


def main() -> None:
    net, seeds = inputs(__doc__)
    settings = channel_settings(net, levels=LEVELS)
    for seed in seeds:
        for keep, method in [
            (1.0, DENSE),
            *((keep, name) for keep in KEEP[net] for name in SCORES),
        ]:
            row = {"method": method, "keep": keep, "seed": seed}
            measure = partial(run, net, method, keep, seed)
            command = f"baselines/channels.py {net}"
            add(file_of("channels", net), command, settings, row, measure)


def run(net: str, method: str, keep: float, seed: int) -> Row:
    task, start = task_on_part(net), dense(net, seed)
    if method == DENSE:
        return errors(task, start) | costs(task, start) | with_codebooks(task, start)
    groups = groups_of(task, start)
    started = time.process_time()
    scores = scored(task, start, method, jax.random.key(seed))
    seconds = time.process_time() - started
    small = smaller(task, prune_channels(start, groups, scores, [keep] * len(groups)))
    found = {
        "score_processor_seconds": seconds,
        "skewness": skewness(scores),
        "pruned_validation_error": task.error(small, task.dataset.validation),
    }
    finished = tuned(task, small, net, seed)
    return found | errors(task, finished) | costs(task, finished) | with_codebooks(task, finished)


def scored(task: Task, net: Variables, method: str, key: Array) -> list[np.ndarray]:
    """The scores of all channels of the groups that are pruned."""
    known = CONVOLUTIONS | convolutions(task.predict, net, image_of(task))

    def criterion(name: str, kernel: Array) -> Array:
        of_kernel = jax.random.fold_in(key, kernel.size)
        return SCORES[method](kernel, known.get(name, NOT_USED), of_kernel)

    return channel_scores(net, groups_of(task, net), criterion)


if __name__ == "__main__":
    main()
