"""Channels first, then soft weight-sharing, against soft weight-sharing alone, for the same loss.

    PYTHONPATH=benchmarks SWSJAX_DATA=... \
        python benchmarks/baselines/channels_sharing.py lenet-5-caffe

From the dense nets of ``channels.py``, on its part of the images. The larger share of the channels
of each layer that it keeps, by L1 norms, is fine-tuned; what that costs in validation error is
taken off what soft weight-sharing may lose, so both rows may lose the same in all. States are under
``runs/``, and an interrupted run resumes. Also for ``resnet-8``. Writes
``results/baselines/channels-sharing-NET.json``.
"""

from functools import cache, partial

from channel_tasks import (
    KEEP,
    channel_settings,
    channels,
    dense,
    image_of,
    inputs,
    smaller,
    tuned,
    without_small_filters,
)
from common.results import RUNS
from shared import Row, add, errors, file_of, short, task_on_part

import swsjax
from swsjax.lab import Task, Variables
from swsjax.measure import multiply_adds
from swsjax.sws.recipes import Recipe, compress_task

MAX_LOSS = {"lenet-5-caffe": 0.005, "resnet-8": 0.02}
"""Of the validation error, against the dense net."""
BUDGET = {"lenet-5-caffe": 5_000, "resnet-8": 2_000}
"""Steps of retraining, for each row."""
ALONE = "soft weight-sharing"
AFTER = "channels, then soft weight-sharing"


def main() -> None:
    net, seeds = inputs(__doc__)
    settings = channel_settings(
        net,
        config=swsjax.Config().to_dict(),
        keep=KEEP[net][0],
        max_loss=MAX_LOSS[net],
        budget=BUDGET[net],
    )
    for seed in seeds:
        for method in (ALONE, AFTER):
            row = {"method": method, "seed": seed}
            command = f"baselines/channels_sharing.py {net}"
            measure = partial(run, net, method, seed)
            add(file_of("channels-sharing", net), command, settings, row, measure)


def run(net: str, method: str, seed: int) -> Row:
    """Compress; if channels alone cost more than may be lost, the row says so."""
    task, whole = task_on_part(net), dense(net, seed)
    start = whole if method == ALONE else narrow(net, seed)
    before, now = (task.error(one, task.dataset.validation) for one in (whole, start))
    allowed = MAX_LOSS[net] + before - now
    found = {"start_validation_error": now, "may_be_lost": allowed}
    if allowed < 0:
        return found | measures(task, start) | {"reached": False}
    outcome = compress_task(
        task,
        start,
        Recipe(swsjax.Config(seed=seed)),
        augment=short(net).augment(),
        max_loss=allowed,
        budget=BUDGET[net],
        resume=RUNS / f"{net}-sharing-{'alone' if method == ALONE else 'narrow'}-seed{seed}",
    ).outcomes[-1]
    small = Variables(outcome.params, outcome.aux)
    return found | measures(task, small) | {"reached": outcome.reached, "text": outcome.text}


@cache
def narrow(net: str, seed: int) -> Variables:
    """The dense net with a share of its channels, fine-tuned."""
    task = task_on_part(net)
    pruned = without_small_filters(net, dense(net, seed), KEEP[net][0], seed)
    return tuned(task, smaller(task, pruned), net, seed)


def measures(task: Task, net: Variables) -> Row:
    """Of the decoded file: errors, bytes, and multiply-adds of its arrays and without zeros."""
    whole = task.whole(net)
    data = swsjax.dumps(whole)
    decoded = task.parts(swsjax.loads(data, like=whole))
    without_dead = smaller(task, decoded)
    operations, left = (
        multiply_adds(task.predict, one, image_of(task)) for one in (decoded, without_dead)
    )
    return errors(task, decoded) | {
        "file_bytes": len(data),
        "multiply_adds": operations.total,
        "multiply_adds_of_live_channels": left.total,
        "multiply_adds_of_non_zeros": left.masked(without_dead),
        "channels": channels(task, without_dead),
    }


if __name__ == "__main__":
    main()
