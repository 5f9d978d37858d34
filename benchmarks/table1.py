"""The LeNets on MNIST, every row of the results table: from untrained to decoded file.

    SWSJAX_DATA=... python benchmarks/table1.py                          # all rows
    SWSJAX_DATA=... python benchmarks/table1.py lenet-300-100 balanced   # one of them

Settings were compared on the validation images; test errors of trial runs were seen beside them
while the pruning stage was tuned, and that of seed 0 before the small loss of LeNet-5 was settled.
No augmentation and no other data. Seeds that are done are not run again, unless the settings
changed. On two cores a seed of LeNet-300-100 takes about three minutes, one of LeNet-5-Caffe about
23; with small loss, which pretrains four other nets to teach, an hour.
"""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flax import nnx
from row import run_row

from swsjax.lab.nets import LeNet5Caffe, LeNet300100
from swsjax.sws.recipes import (
    LENET_5_CAFFE,
    LENET_5_CAFFE_PRETRAINING,
    LENET_300_100,
    LENET_300_100_PRETRAINING,
    Settings,
)
from swsjax.training.loop import PretrainConfig

SEEDS = (0, 1, 2)


class Net(NamedTuple):
    """What the rows of a network have in common, and the settings in which they differ."""

    model: Callable[..., nnx.Module]
    pretraining: PretrainConfig
    settings: Settings


NETS = {
    "lenet-300-100": Net(LeNet300100, LENET_300_100_PRETRAINING, LENET_300_100),
    "lenet-5-caffe": Net(LeNet5Caffe, LENET_5_CAFFE_PRETRAINING, LENET_5_CAFFE),
}


def run(name: str, setting: str, seeds: Sequence[int]) -> None:
    net = NETS[name]
    run_row(
        command=f"python benchmarks/table1.py {name} {setting}",
        net=name,
        model=net.model,
        pretraining=net.pretraining,
        setting=setting,
        recipe=net.settings.by_name()[setting],
        seeds=seeds,
    )


def main(arguments: list[str]) -> None:
    nets = arguments[:1] or list(NETS)
    for name in nets:
        # Seed by seed: an interrupted run has then done all settings for as many seeds as it could.
        for number in range(1, len(SEEDS) + 1):
            for setting in arguments[1:2] or NETS[name].settings.by_name():
                run(name, setting, SEEDS[:number])


if __name__ == "__main__":
    main(sys.argv[1:])
