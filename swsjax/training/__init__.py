"""A caller's net taken apart, which leaves are compressed, losses, and one way to train."""

from swsjax.training.augment import Augment, crop_and_flip
from swsjax.training.epochs import TrainState, epoch
from swsjax.training.history import Epoch
from swsjax.training.loop import Trained, train
from swsjax.training.losses import (
    cross_entropy,
    distillation,
    error_rate,
    logits_of,
    misclassified,
    output_matching,
    with_aux,
    with_teacher,
)
from swsjax.training.masks import cubic_keep, hold_zeros, keep_top
from swsjax.training.net import Net, Weights, take_apart
from swsjax.training.pretraining import PretrainConfig, SgdConfig, pretrain
from swsjax.training.selection import FROZEN, Leaf, Rules, Selection, select
from swsjax.training.stream import Stream, stream_arrays, stream_epoch

__all__ = [
    "FROZEN",
    "Augment",
    "Epoch",
    "Leaf",
    "Net",
    "PretrainConfig",
    "Rules",
    "Selection",
    "SgdConfig",
    "Stream",
    "TrainState",
    "Trained",
    "Weights",
    "crop_and_flip",
    "cross_entropy",
    "cubic_keep",
    "distillation",
    "epoch",
    "error_rate",
    "hold_zeros",
    "keep_top",
    "logits_of",
    "misclassified",
    "output_matching",
    "pretrain",
    "select",
    "stream_arrays",
    "stream_epoch",
    "take_apart",
    "train",
    "with_aux",
    "with_teacher",
]
