"""Very small neural networks by soft weight-sharing.

``compress`` retrains a pretrained net under a learnable Gaussian-mixture prior and quantises it,
``save`` and ``load`` write and read the result, ``report`` measures what was written. The pieces
are public on their own, for people with a training loop of their own.
"""

from swsjax.compress import Result, compress
from swsjax.config import TAU_PER_EXAMPLE, Config
from swsjax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    FormatError,
    RetrainingError,
    SwsjaxError,
    SwsjaxWarning,
)
from swsjax.files import (
    dumps,
    load,
    loads,
    read_metadata,
    save,
    to_sparse,
)
from swsjax.grid import Grid, Place, grid_over, node_count, places_on
from swsjax.interchange import from_safetensors, to_safetensors
from swsjax.losses import (
    cross_entropy,
    distillation,
    error_rate,
    logits_of,
    output_matching,
    with_teacher,
)
from swsjax.merge import kl_divergence, merge
from swsjax.prior import (
    Beta,
    Gamma,
    GaussianMixture,
    HyperPriors,
    assign,
    component_log_probs,
    component_means,
    hyper_log_prob,
    init_mixture,
    log_mixing,
    log_prob,
    responsibilities,
)
from swsjax.quantize import codebook, non_zeros, quantize, quantize_each
from swsjax.report import Layer, Report, report
from swsjax.retrain import Info, Rates, State, Step, hard, init, make_step, soft
from swsjax.search import Front, Point, search, space_around
from swsjax.select import FROZEN, Leaf, Rules, Selection, select
from swsjax.stages import Progress
from swsjax.stream import Stream, stream_arrays, stream_epoch
from swsjax.table import lookup_error, straight_through, sum_log_prob
from swsjax.train import PretrainConfig, PretrainProgress, TrainState, epoch, pretrain

__all__ = [
    "FROZEN",
    "TAU_PER_EXAMPLE",
    "Beta",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "FormatError",
    "Front",
    "Gamma",
    "GaussianMixture",
    "Grid",
    "HyperPriors",
    "Info",
    "Layer",
    "Leaf",
    "Place",
    "Point",
    "PretrainConfig",
    "PretrainProgress",
    "Progress",
    "Rates",
    "Report",
    "Result",
    "RetrainingError",
    "Rules",
    "Selection",
    "State",
    "Step",
    "Stream",
    "SwsjaxError",
    "SwsjaxWarning",
    "TrainState",
    "assign",
    "codebook",
    "component_log_probs",
    "component_means",
    "compress",
    "cross_entropy",
    "distillation",
    "dumps",
    "epoch",
    "error_rate",
    "from_safetensors",
    "grid_over",
    "hard",
    "hyper_log_prob",
    "init",
    "init_mixture",
    "kl_divergence",
    "load",
    "loads",
    "log_mixing",
    "log_prob",
    "logits_of",
    "lookup_error",
    "make_step",
    "merge",
    "node_count",
    "non_zeros",
    "output_matching",
    "places_on",
    "pretrain",
    "quantize",
    "quantize_each",
    "read_metadata",
    "report",
    "responsibilities",
    "save",
    "search",
    "select",
    "soft",
    "space_around",
    "straight_through",
    "stream_arrays",
    "stream_epoch",
    "sum_log_prob",
    "to_safetensors",
    "to_sparse",
    "with_teacher",
]
