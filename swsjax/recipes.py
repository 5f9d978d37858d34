"""Settings for the networks of the paper's table on MNIST, for the command line and the tables.

``kept`` is the dial: ``dataclasses.replace(LENET_300_100, kept=0.4)`` makes a smaller file at a
larger error, and 1 prunes nothing. Settings were compared on validation images. ``tau`` is a dial
only from where the prior holds the weights at its means: far below, at 0.015 on LeNet-300-100, the
hard stage starts from a net that quantising breaks, and ends both sparser and worse.
"""

from swsjax.compress import Config
from swsjax.train import PretrainConfig

__all__ = [
    "LENET_5_CAFFE",
    "LENET_5_CAFFE_PRETRAINING",
    "LENET_300_100",
    "LENET_300_100_PRETRAINING",
]

LENET_300_100_PRETRAINING = PretrainConfig(epochs=40)
LENET_5_CAFFE_PRETRAINING = PretrainConfig(epochs=20)

LENET_300_100 = Config(tau=0.05, prune_epochs=60, kept=0.5)
LENET_5_CAFFE = Config(tau=0.1, prune_epochs=40, kept=0.7)
