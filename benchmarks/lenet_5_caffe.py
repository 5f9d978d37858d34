"""LeNet-5-Caffe on MNIST with the default settings.

    SWSJAX_DATA=... python benchmarks/lenet_5_caffe.py

Settings were chosen on the validation images; the test images are reported once, at the end. No
augmentation and no other data. About 12 minutes a seed on two cores.
"""

from row import run_row

import swsjax
from swsjax.models import LeNet5Caffe
from swsjax.train import PretrainConfig

SEEDS = (0, 1, 2)


def pretrain_config(seed: int) -> PretrainConfig:
    return PretrainConfig(epochs=20, seed=seed)


def config(seed: int) -> swsjax.Config:
    return swsjax.Config(seed=seed)


if __name__ == "__main__":
    run_row(
        command="python benchmarks/lenet_5_caffe.py",
        net="lenet-5-caffe",
        model=LeNet5Caffe,
        pretrain_config=pretrain_config,
        setting="balanced",
        config=config,
        seeds=SEEDS,
    )
