"""Settings for the networks of the paper's table on MNIST, for the command line and the tables.

``kept`` is the dial between error and size: ``balanced.config`` with ``kept=0.4`` makes a smaller
file at a larger error. ``smallest`` of LeNet-5-Caffe also takes a faster rate of the weights while
it prunes, which ended with smaller validation errors there. ``small_loss`` prunes nothing, leaves
more weights to begin with and listens to the pretrained net, and to others pretrained beside it, in
place of the labels. Settings were compared on validation images. ``tau`` is a dial only from where
the prior holds the weights at its means: far below, at 0.015 on LeNet-300-100 with the balanced
``pi_zero``, the hard stage starts from a net that quantising breaks, and ends both sparser and
worse.
"""

from dataclasses import replace
from typing import NamedTuple

from swsjax.classifier import TEMPERATURE
from swsjax.config import Config
from swsjax.retrain import Rates
from swsjax.train import PretrainConfig

__all__ = [
    "LENET_5_CAFFE",
    "LENET_5_CAFFE_PRETRAINING",
    "LENET_300_100",
    "LENET_300_100_PRETRAINING",
    "Recipe",
    "Settings",
]


class Recipe(NamedTuple):
    """What ``compress_classifier`` takes."""

    config: Config
    """Settings of ``compress``."""
    share: float = 0.5
    """Of distillation in the loss; the rest is cross-entropy."""
    temperature: float = TEMPERATURE
    """Of distillation before the pruning stage."""
    teachers: int = 0
    """Other nets, pretrained from other seeds, that teach beside the one to be compressed."""


class Settings(NamedTuple):
    """Three settings for a net, from a small error to a small file."""

    small_loss: Recipe
    """Prunes nothing: an error near that of the pretrained net."""
    balanced: Recipe
    """The default of the command line."""
    smallest: Recipe
    """Prunes most."""

    def by_name(self) -> dict[str, Recipe]:
        """From the name of a setting, as the command line and the results spell it."""
        return {name.replace("_", "-"): recipe for name, recipe in self._asdict().items()}


LENET_300_100_PRETRAINING = PretrainConfig(epochs=40)
"""Of ``models.LeNet300100``."""
LENET_5_CAFFE_PRETRAINING = PretrainConfig(epochs=20)
"""Of ``models.LeNet5Caffe``."""

_LENET_300_100 = Config(tau=0.05, prune_epochs=60, kept=0.5)
_LENET_5_CAFFE = Config(tau=0.1, prune_epochs=40, kept=0.7)
_FAST = replace(_LENET_5_CAFFE.prune_rates, weights=4e-3, means=3e-5)
_CALM = Rates(weights=5e-4, precisions=5e-4, warmup_epochs=1.0, final=0.0, epsilon=1e-5)
# Over 390 steps: twice through MNIST in each epoch.
_SMALL_LOSS = Config(tau=0.02, pi_zero=0.9, hard_epochs=40, hard_rates=_CALM, least_steps=400)

LENET_300_100 = Settings(
    small_loss=Recipe(_SMALL_LOSS, share=1.0, teachers=4),
    balanced=Recipe(_LENET_300_100),
    smallest=Recipe(replace(_LENET_300_100, kept=0.3)),
)
"""Of ``models.LeNet300100``."""
LENET_5_CAFFE = Settings(
    small_loss=Recipe(_SMALL_LOSS, share=1.0, temperature=6.0, teachers=4),
    balanced=Recipe(_LENET_5_CAFFE),
    smallest=Recipe(replace(_LENET_5_CAFFE, prune_rates=_FAST, kept=0.4)),
)
"""Of ``models.LeNet5Caffe``."""
