"""LeNet-300-100 on MNIST with the default settings: the paper's row, regenerated.

    SWSJAX_DATA=... python benchmarks/lenet_300_100.py

Settings were chosen on the validation images; the test images are reported once, at the end. No
augmentation and no other data. About 80 seconds a seed on two cores.
"""

from row import run_row

import swsjax
from swsjax.models import LeNet300100
from swsjax.train import PretrainConfig

SEEDS = (0, 1, 2)


def pretrain_config(seed: int) -> PretrainConfig:
    return PretrainConfig(epochs=40, seed=seed)


def config(seed: int) -> swsjax.Config:
    return swsjax.Config(seed=seed)


if __name__ == "__main__":
    run_row(
        command="python benchmarks/lenet_300_100.py",
        net="lenet-300-100",
        model=LeNet300100,
        pretrain_config=pretrain_config,
        setting="balanced",
        config=config,
        seeds=SEEDS,
    )
