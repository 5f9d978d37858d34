"""The runs that a walk towards targets is made of: what each one is, and what it takes."""

from dataclasses import replace
from typing import Literal, NamedTuple

from swsjax.sws.config import Annealing, Config

__all__ = [
    "GENTLENESS",
    "Gentleness",
    "Move",
    "epochs_of",
    "first_tau",
    "settings_of",
    "shortened",
    "usual_epochs",
    "within_budget",
]

# Nats of the mean loss that the prior may weigh at first, over all weights: a tenth of what takes
# dense nets to 2 % of their weights.
_LIGHT = 0.03
# Of the epochs of a whole annealing and hard stage, those of a cycle. It begins as wide: from a
# width of 0.3, in as many epochs, files are larger by 6 % at a larger loss.
_CYCLE = 0.5
# What a walk usually takes: one annealing, and this many cycles and prunings.
_USUAL_CYCLES, _USUAL_PRUNINGS = 3, 2
# Of a usual walk without a budget. MNIST and CIFAR-10 take two thirds of it; an annealing works in
# some thousand steps, so on more data it need not last longer because an epoch does.
_MOST_STEPS = 100_000


class Gentleness(NamedTuple):
    """How an annealing differs from the first one, which was too much for the net."""

    tau: float
    """Factor of tau."""
    width: float = 1.0
    """Factor of the width at the end: the zero component holds what is within 4.4 of it."""
    pi_zero: float = 1.0
    """Largest mixing proportion of the zero component."""
    components: int = 1
    """Factor of the number of components."""


GENTLENESS = (
    Gentleness(1.0),
    Gentleness(1 / 4),
    Gentleness(1 / 12, width=0.5, pi_zero=0.9, components=2),
    Gentleness(1 / 50, width=0.25, pi_zero=0.9, components=4),
)
"""Those that are tried, one after another; a net that is not kept by the last one is rounded.

Dense nets need the first, nets with a little less to spare a lighter prior; those with nothing to
spare need narrower and more components, too."""

# Of a net that no annealing keeps: 8 bits. Components that are as wide and as large as one another
# hold what is nearest.
_ROUNDED = 255
_WIDTH = Annealing(start=0.01, end=0.01)


class Move(NamedTuple):
    """A run of retraining that makes a net of another one."""

    kind: Literal["anneal", "cycle", "prune", "round"]
    """A whole annealing and hard stage, one half as long, a pruning stage; or no retraining: each
    weight becomes the nearest of many means."""
    start: int | None
    """The level that it goes on from; None is the pretrained net."""
    tau: float
    """Weight of the prior, see ``Config``; when pruning, that of the net it started from; when
    rounding, 0."""
    keep: float = 1.0
    """Fraction of the non-zero weights that pruning keeps."""
    gentle: int = 0
    """How many annealings were too much for the net before."""

    @property
    def name(self) -> str:
        """What is made from what, for the name of a folder."""
        start = "pretrained" if self.start is None else str(self.start)
        return f"{self.kind}-from-{start}-tau-{self.tau:.6g}-keep-{self.keep:.6g}"


def first_tau(weights: int) -> float:
    """Return the tau of the first annealing of a net.

    Args:
        weights: number of weights that are compressed.

    >>> print(f"{first_tau(266_200):.2g}")
    1.1e-07
    """
    return _LIGHT / weights


def settings_of(move: Move, config: Config) -> Config:
    """Return the settings of the run that a move is; of a rounding, those of its mixture.

    Args:
        move: what is to be run.
        config: settings of the walk.

    >>> config = settings_of(Move("prune", start=0, tau=1e-6, keep=0.5), Config())
    >>> config.soft_epochs, config.hard_epochs, config.prune_epochs, config.keep
    (0, 0, 24, 0.5)
    """
    assert config.annealing is not None
    if move.kind == "round":
        share = 1 / (1 + _ROUNDED)
        return replace(config, components=_ROUNDED, pi_zero=share, annealing=_WIDTH)
    gentle = GENTLENESS[move.gentle]
    settings = replace(
        config,
        tau=move.tau,
        pi_zero=min(config.pi_zero, gentle.pi_zero),
        components=config.components * gentle.components,
        annealing=replace(config.annealing, end=config.annealing.end * gentle.width),
    )
    if move.kind == "prune":
        return replace(settings, soft_epochs=0, hard_epochs=0, keep=move.keep)
    share = _CYCLE if move.kind == "cycle" else 1.0
    return replace(
        settings,
        soft_epochs=_share_of(config.soft_epochs, share),
        hard_epochs=_share_of(config.hard_epochs, share),
        prune_epochs=0,
    )


def epochs_of(config: Config) -> int:
    """Return the number of epochs of a run.

    Args:
        config: its settings.

    >>> epochs_of(Config())
    74
    """
    return config.soft_epochs + config.hard_epochs + config.prune_epochs


def usual_epochs(config: Config) -> int:
    """Return about how many epochs a walk takes.

    Args:
        config: settings of the walk.

    >>> usual_epochs(Config())
    173
    """
    whole = config.soft_epochs + config.hard_epochs
    half = _share_of(config.soft_epochs, _CYCLE) + _share_of(config.hard_epochs, _CYCLE)
    return whole + _USUAL_CYCLES * half + _USUAL_PRUNINGS * config.prune_epochs


def within_budget(config: Config, epochs: float) -> Config:
    """Return settings with shorter or longer stages, so that a walk takes about some epochs.

    Args:
        config: settings of the walk.
        epochs: that it may take; each stage that there is keeps one at least.

    >>> config = within_budget(Config(), 73)
    >>> config.soft_epochs, config.hard_epochs, config.prune_epochs
    (13, 8, 10)
    """
    share = epochs / usual_epochs(config)
    return replace(
        config,
        soft_epochs=_share_of(config.soft_epochs, share),
        hard_epochs=_share_of(config.hard_epochs, share),
        prune_epochs=_share_of(config.prune_epochs, share),
    )


def shortened(config: Config, epoch_steps: int) -> Config:
    """Return settings whose usual walk takes about 100,000 steps, if it would take more.

    Args:
        config: settings of the walk.
        epoch_steps: number of steps of an epoch.

    >>> shortened(Config(), 390) == Config(), shortened(Config(), 5_000).soft_epochs
    (True, 3)
    """
    epochs = _MOST_STEPS / epoch_steps
    return within_budget(config, epochs) if epochs < usual_epochs(config) else config


def _share_of(epochs: int, share: float) -> int:
    return max(round(share * epochs), min(epochs, 1))
