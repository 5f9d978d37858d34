"""Which net to make next on the way to a target: a pure function of the nets that were made so far.

A walk begins with one annealing from the pretrained net under a light prior, which keeps the net,
and goes on in cycles: a short annealing and a short hard stage, with tau doubled each time, or four
times as large while the end is far. Each ends at a smaller file and a larger loss. A cycle that
exceeds the largest loss is repeated from the net before with half the step; then pruning goes on
from the best net. Every net that was made is a level, and the levels together are a front of loss
against bytes.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import Literal, NamedTuple

from swsjax.sws.config import Annealing, Config

__all__ = [
    "ANY_SIZE",
    "Level",
    "Move",
    "Targets",
    "chosen",
    "first_tau",
    "is_within",
    "next_move",
    "settings_of",
]

# Nats of the mean loss that the prior may weigh at first, over all weights: a tenth of what takes
# dense nets to 2 % of their weights.
_LIGHT = 0.03
_CYCLE_EPOCHS = 8
_CYCLE_WIDTH = 0.3
# A doubling of tau takes about a quarter of the bytes. The end is far while two of them would stay
# above the bytes that are wanted, and while little of the loss that is allowed has been lost.
_FAR_BYTES = 2.5
_FAR_LOSS = 0.25
# Of the loss that is allowed, beyond it: then the next gentler annealing would be too much, too.
_MUCH = 1.0
# Of the bytes that pruning aims at.
_MARGIN = 0.98
# A file shrinks by about this share of the weights that are pruned: the fewer there are, the more
# bits the position of each takes.
_SAVED = 0.6
# Prunings that may be too much before the walk ends.
_PRUNINGS = 3
_MOST_LEVELS = 30


ANY_SIZE = 2**62
"""As bytes that are wanted: the first net within the limit."""


class _Gentleness(NamedTuple):
    """How an annealing differs from the first one, which was too much for the net."""

    tau: float
    """Factor of tau."""
    width: float = 1.0
    """Factor of the width at the end: the zero component holds what is within 4.4 of it."""
    pi_zero: float = 1.0
    """Largest mixing proportion of the zero component."""
    components: int = 1
    """Factor of the number of components."""


# A net that is not kept by the last one is given up. Dense nets need the first, nets with a little
# less to spare a lighter prior; those with nothing to spare need narrower and more components, too.
_LADDER = (
    _Gentleness(1.0),
    _Gentleness(1 / 4),
    _Gentleness(1 / 12, width=0.5, pi_zero=0.9, components=2),
    _Gentleness(1 / 50, width=0.25, pi_zero=0.9, components=4),
)


class Targets(NamedTuple):
    """Where a walk ends."""

    before: float
    """Loss of the pretrained net, as the walk measures it."""
    limit: float
    """Largest loss of a net that is acceptable."""
    sizes: tuple[int, ...] = ()
    """Bytes of the files that are wanted, from large to small; none asks for the smallest file
    within the limit."""


class Move(NamedTuple):
    """A run of retraining that makes a net of another one."""

    kind: Literal["anneal", "cycle", "prune"]
    """A whole annealing and hard stage, short ones, or a pruning stage."""
    start: int | None
    """The level that it goes on from; None is the pretrained net."""
    tau: float
    """Weight of the prior, see ``Config``; when pruning, that of the net it started from."""
    keep: float = 1.0
    """Fraction of the non-zero weights that pruning keeps."""
    gentle: int = 0
    """How many annealings were too much for the net before."""

    @property
    def name(self) -> str:
        """What is made from what, for the name of a folder."""
        start = "pretrained" if self.start is None else str(self.start)
        return f"{self.kind}-from-{start}-tau-{self.tau:.6g}-keep-{self.keep:.6g}"


class Level(NamedTuple):
    """A net on the way, as it was measured."""

    move: Move
    """How it was made."""
    loss: float
    """Its loss, in the units of ``evaluate``."""
    file_bytes: int
    """Bytes of its file."""
    noise: float = 0.0
    """Standard error of the difference between its loss and that of the pretrained net, if
    ``evaluate`` tells the examples apart."""


def first_tau(weights: int) -> float:
    """Return the tau of the first annealing of a net.

    Args:
        weights: number of weights that are compressed.

    >>> print(f"{first_tau(266_200):.2g}")
    1.1e-07
    """
    return _LIGHT / weights


def settings_of(move: Move, config: Config) -> Config:
    """Return the settings of the run that a move is.

    Args:
        move: what is to be run.
        config: settings of the walk.

    >>> config = settings_of(Move("prune", start=0, tau=1e-6, keep=0.5), Config())
    >>> config.soft_epochs, config.hard_epochs, config.prune_epochs, config.keep
    (0, 0, 24, 0.5)
    """
    assert config.annealing is not None
    gentle = _LADDER[move.gentle]
    end = config.annealing.end * gentle.width
    settings = replace(
        config,
        tau=move.tau,
        pi_zero=min(config.pi_zero, gentle.pi_zero),
        components=config.components * gentle.components,
    )
    if move.kind == "anneal":
        return replace(settings, annealing=replace(config.annealing, end=end), prune_epochs=0)
    start = max(_CYCLE_WIDTH, end)
    settings = replace(settings, annealing=Annealing(start, end))
    if move.kind == "cycle":
        soft, hard = (min(n, _CYCLE_EPOCHS) for n in (config.soft_epochs, config.hard_epochs))
        return replace(settings, soft_epochs=soft, hard_epochs=hard, prune_epochs=0)
    return replace(settings, soft_epochs=0, hard_epochs=0, keep=move.keep)


def next_move(
    levels: Sequence[Level], targets: Targets, *, tau: float, config: Config
) -> Move | None:
    """Return what to run next, or None where the walk ends.

    Args:
        levels: the nets made so far.
        targets: where the walk ends.
        tau: of the first annealing.
        config: settings of the walk.

    >>> targets = Targets(before=0.014, limit=0.016)
    >>> next_move([], targets, tau=1e-7, config=Config())
    Move(kind='anneal', start=None, tau=1e-07, keep=1.0, gentle=0)
    >>> level = Level(Move("anneal", None, 1e-7), loss=0.015, file_bytes=20_000)
    >>> next_move([level], targets, tau=1e-7, config=Config())
    Move(kind='cycle', start=0, tau=2e-07, keep=1.0, gentle=0)
    """
    unpruned = [n for n in _within(levels, targets) if levels[n].move.kind != "prune"]
    if not unpruned:
        return _anneal(levels, targets, tau)
    missing = [size for size in targets.sizes if not _reached(levels, targets, size)]
    if len(levels) >= _MOST_LEVELS or (targets.sizes and not missing):
        return None
    size = max(missing, default=0)
    base = max(unpruned, key=lambda n: levels[n].move.tau)
    pruning = _pruning(levels, targets, base, size, config)
    if (1 - _SAVED * (1 - config.keep)) * levels[base].file_bytes <= size:
        return pruning or _cycle(levels, targets, base, size)
    return _cycle(levels, targets, base, size) or pruning


def chosen(levels: Sequence[Level], targets: Targets) -> list[int]:
    """Return the level that each target ends at.

    That is the one with the smallest loss within the bytes, or the smallest file within the limit;
    where there is none, the level with the smallest loss.

    Args:
        levels: of a walk that has ended.
        targets: where the walk ends.

    >>> moves = [Move("anneal", None, 1e-7), Move("cycle", 0, 2e-7)]
    >>> levels = [Level(moves[0], 0.015, 20_000), Level(moves[1], 0.018, 15_000)]
    >>> chosen(levels, Targets(0.01, 0.02)), chosen(levels, Targets(0.01, 0.02, (21_000, 9_000)))
    ([1], [0, 1])
    """
    within = _within(levels, targets)
    smallest = min(
        within or range(len(levels)),
        key=lambda n: levels[n].file_bytes if within else levels[n].loss,
    )
    return [
        min(
            (n for n in within if levels[n].file_bytes <= size),
            key=lambda n: (levels[n].loss, levels[n].file_bytes),
            default=smallest,
        )
        for size in targets.sizes or (0,)
    ]


def is_within(level: Level, targets: Targets) -> bool:
    """Return whether a level is within the limit by more than its standard error.

    Without that, a walk would end where the loss is too large, but seems not to be by chance: it
    has many levels to choose from. Where the examples are too few to tell, half of what is allowed
    may be used.

    Args:
        level: as it was measured.
        targets: of the walk.

    >>> move = Move("anneal", None, 1e-7)
    >>> [is_within(Level(move, 0.018, 900, noise), Targets(0.01, 0.02)) for noise in (0.0, 0.003)]
    [True, False]
    """
    margin = min(level.noise, (targets.limit - targets.before) / 2)
    return isfinite(level.loss) and level.loss + margin <= targets.limit


def _within(levels: Sequence[Level], targets: Targets) -> list[int]:
    return [n for n, level in enumerate(levels) if is_within(level, targets)]


def _reached(levels: Sequence[Level], targets: Targets, size: int) -> bool:
    return any(levels[n].file_bytes <= size for n in _within(levels, targets))


def _anneal(levels: Sequence[Level], targets: Targets, tau: float) -> Move | None:
    """The first annealing, or a gentler one than the last; much gentler if that lost much."""
    gentle, last = 0, len(_LADDER) - 1
    if levels:
        loss, tried = levels[-1].loss, levels[-1].move.gentle
        if tried == last:
            return None
        much = targets.limit + _MUCH * (targets.limit - targets.before)
        gentle = min(tried + (1 if loss <= much else 2), last)
    return Move("anneal", None, tau * _LADDER[gentle].tau, gentle=gentle)


def _cycle(levels: Sequence[Level], targets: Targets, base: int, size: int) -> Move | None:
    """The next cycle from a level: with two or four times its tau, or less if that was too much."""
    move, loss, file_bytes, _ = levels[base]
    little = targets.before + _FAR_LOSS * (targets.limit - targets.before)
    is_far = file_bytes > _FAR_BYTES * size and loss <= little
    failed = (level for level in levels if not is_within(level, targets))
    too_much = min((level.move.tau for level in failed if level.move.kind == "cycle"), default=inf)
    for factor in (4.0, 2.0, 2**0.5) if is_far else (2.0, 2**0.5):
        if factor * move.tau < 0.99 * too_much:
            return Move("cycle", base, factor * move.tau, gentle=move.gentle)
    return None


def _pruning(
    levels: Sequence[Level], targets: Targets, base: int, size: int, config: Config
) -> Move | None:
    """The next pruning of a level, or of what was pruned from it; half as much after each failure.

    Failures are counted along the whole chain: with more attempts, one would seem to succeed by
    chance, as the loss is measured on a finite set.
    """
    tip, failed = base, 0
    while pruned := [n for n, level in enumerate(levels) if level.move[:2] == ("prune", tip)]:
        kept = [n for n in pruned if is_within(levels[n], targets)]
        failed += len(pruned) - len(kept)
        if not kept:
            break
        tip = min(kept, key=lambda n: levels[n].file_bytes)
    if not config.prune_epochs or failed == _PRUNINGS:
        return None
    least, aimed = config.keep ** (0.5**failed), _keep_for(size, levels, tip)
    return Move("prune", tip, levels[tip].move.tau, max(least, aimed), levels[tip].move.gentle)


def _keep_for(size: int, levels: Sequence[Level], tip: int) -> float:
    """The fraction of the weights of a level that fit into a size, judged by the last pruning."""
    move, file_bytes = levels[tip].move, levels[tip].file_bytes
    saved = _SAVED
    if move.kind == "prune" and move.start is not None and move.keep < 1:
        saved = (1 - file_bytes / levels[move.start].file_bytes) / (1 - move.keep)
    return min(1 - (1 - _MARGIN * size / file_bytes) / min(max(saved, 0.3), 1.0), 1.0)
