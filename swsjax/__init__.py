"""Very small neural nets by soft weight-sharing.

``compress`` retrains a pretrained net under a learnable Gaussian-mixture prior and quantises it,
``save`` and ``load`` write and read the result, ``report`` measures the file. The rooms behind them
are public, too: ``swsjax.sws`` has the prior and its step, for your own training loop.
"""

from swsjax import codec, file, lab, measure, sws, training
from swsjax.errors import SwsjaxError, SwsjaxWarning
from swsjax.file import (
    dumps,
    from_safetensors,
    load,
    loads,
    read_metadata,
    save,
    to_safetensors,
    to_sparse,
)
from swsjax.measure import Report, report
from swsjax.sws import (
    Config,
    Front,
    HyperPriors,
    LearningRates,
    Result,
    Study,
    compress,
    search,
)
from swsjax.training import (
    FROZEN,
    PretrainConfig,
    Selection,
    Stream,
    cross_entropy,
    distillation,
    error_rate,
    logits_of,
    output_matching,
    pretrain,
    select,
    stream_arrays,
    train,
    with_teacher,
)

__all__ = [
    "FROZEN",
    "Config",
    "Front",
    "HyperPriors",
    "LearningRates",
    "PretrainConfig",
    "Report",
    "Result",
    "Selection",
    "Stream",
    "Study",
    "SwsjaxError",
    "SwsjaxWarning",
    "codec",
    "compress",
    "cross_entropy",
    "distillation",
    "dumps",
    "error_rate",
    "file",
    "from_safetensors",
    "lab",
    "load",
    "loads",
    "logits_of",
    "measure",
    "output_matching",
    "pretrain",
    "read_metadata",
    "report",
    "save",
    "search",
    "select",
    "stream_arrays",
    "sws",
    "to_safetensors",
    "to_sparse",
    "train",
    "training",
    "with_teacher",
]
