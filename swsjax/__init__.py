"""Very small neural nets by soft weight-sharing.

``compress`` retrains a pretrained net under a learnable Gaussian-mixture prior and quantises it,
``save`` and ``load`` write and read the result, ``report`` measures the file. The rooms behind them
are public, too: ``swsjax.sws`` has the prior and its step, for your own training loop. They are
imported when a name of theirs is first used, so that the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swsjax import baselines, codec, file, lab, measure, sws, training
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
    "baselines",
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

__version__ = "0.1.0"
_ROOMS = ("baselines", "codec", "file", "lab", "measure", "sws", "training")


def __getattr__(name: str) -> Any:
    """A room, or what the first of the modules that are imported above has under this name."""
    if name in _ROOMS:
        return import_module(f"swsjax.{name}")
    if name in __all__:
        for module in ("errors", "file", "measure", "training", "sws"):
            found = getattr(import_module(f"swsjax.{module}"), name, None)
            if found is not None:
                globals()[name] = found  # so that the next use does not come here
                return found
    raise AttributeError(f"module 'swsjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
