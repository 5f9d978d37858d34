"""What a run is asked for: its targets and its budget, as they are given."""

from collections.abc import Sequence
from datetime import timedelta
from math import inf
from numbers import Integral
from typing import Any, NamedTuple

from swsjax.errors import ConfigError
from swsjax.sws.config import Config
from swsjax.trees import is_integer, is_number

__all__ = ["Budget", "Wanted", "budget_text", "wanted_of"]

Budget = int | timedelta
"""A number of steps, or a time."""


class Wanted(NamedTuple):
    """Targets and budget of a run."""

    max_loss: float | None
    """How much may be added to the loss of the pretrained net; None for the default."""
    sizes: tuple[int, ...]
    """Bytes of the files, from large to small."""
    budget: Budget | None
    """What may be taken; None for the steps of the settings."""


def wanted_of(max_loss: Any, target_bytes: Any, budget: Any, config: Config) -> Wanted:
    """Check the targets and the budget of a run.

    Args:
        max_loss: as given to ``compress``.
        target_bytes: a number of bytes, or several.
        budget: a number of steps, or a ``timedelta``.
        config: settings of the run.

    Raises:
        ConfigError: one is out of its range, or contradicts the settings.

    >>> wanted_of(None, [4_000, 8_000], None, Config()).sizes
    (8000, 4000)
    """
    wanted = Wanted(max_loss, _sizes(target_bytes), budget)
    if not (max_loss is None or (is_number(max_loss) and 0 <= max_loss < inf)):
        raise ConfigError(f"max_loss must be a number that is not negative, got {max_loss!r}")
    if not (budget is None or _is_budget(budget)):
        raise ConfigError(
            f"budget must be a positive number of steps, or a positive timedelta, got {budget!r}"
        )
    if config.tau is not None and wanted != Wanted(None, (), None):
        raise ConfigError(
            f"tau={config.tau!r} decides where a run ends, and so do max_loss, target_bytes and "
            "budget: pass one of them; with tau=None, a run towards a target finds it"
        )
    if config.tau is None and config.annealing is None:
        raise ConfigError("with learned precisions, annealing=None, set tau; sws.LEARNED does")
    return wanted


def budget_text(budget: Budget) -> str:
    """Return a budget in words.

    Args:
        budget: a number of steps, or a time.

    >>> budget_text(20_000), budget_text(timedelta(minutes=10)), budget_text(timedelta(hours=1.5))
    ('20,000 steps', '10 minutes', '90 minutes')
    """
    if isinstance(budget, timedelta):
        return f"{budget / timedelta(minutes=1):g} minutes"
    return f"{budget:,} steps"


def _is_budget(budget: Any) -> bool:
    if isinstance(budget, timedelta):
        return budget > timedelta(0)
    return is_integer(budget) and budget >= 1


def _sizes(target_bytes: Any) -> tuple[int, ...]:
    """Bytes that are asked for, from large to small."""
    if target_bytes is None:
        return ()
    sizes = [target_bytes] if isinstance(target_bytes, Integral) else target_bytes
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or not sizes:
        raise ConfigError(f"target_bytes must be a number of bytes or several, got {sizes!r}")
    for size in sizes:
        if not is_integer(size) or size < 1:
            raise ConfigError(f"target_bytes must be positive integers, got {size!r}")
    return tuple(sorted(map(int, sizes), reverse=True))
