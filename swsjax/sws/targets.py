"""Which net to make next on the way to a target: a pure function of the nets that were made so far.

A walk begins with one annealing from the pretrained net under a light prior, which keeps the net.
If it does not, gentler ones follow; a net that none of them keeps is rounded to 8 bits as it is.

Towards a largest loss it goes on in cycles: an annealing and a hard stage half as long, with tau
doubled each time, or four times as large while the end is far. Each ends at a smaller file and a
larger loss. A cycle that exceeds the largest loss is repeated from the net before with half the
step; then pruning goes on from the best net. It ends before where the examples are too few to tell
whether a net has lost more than is allowed.

Towards bytes alone it anneals again from the pretrained net, with the tau that the bytes so far
foretell: a whole annealing ends at a smaller loss than cycles do, or pruning. What is a little too
large then is pruned. Where a net fills far less than the bytes, lighter annealings follow as long
as the loss falls.

Every net that was made is a level, and the levels together are a front of loss against bytes.
"""

from collections.abc import Sequence
from math import inf, isfinite, isinf, log
from typing import NamedTuple

from swsjax.sws.config import Config
from swsjax.sws.moves import GENTLENESS, Move

__all__ = [
    "ANY_SIZE",
    "Level",
    "Targets",
    "chosen",
    "is_within",
    "next_move",
    "tells",
]

# A doubling of tau takes about a quarter of the bytes. The end is far while two of them would stay
# above the bytes that are wanted, and while little of the loss that is allowed has been lost.
_FAR_BYTES = 2.5
_FAR_LOSS = 0.25
# Bytes fall at least with this power of tau; two annealings may tell more.
_POWER = 0.45
# What an annealing aims at, of the bytes: it may miss by some percent.
_AIM = 0.95
# Smallest and largest factor of tau between annealings from the pretrained net.
_LEAST, _MOST = 1.2, 64.0
# Of the bytes that are wanted, what a net should fill.
_FILLED = 0.75
# Of the loss that is allowed, beyond it: then the next gentler annealing would be too much, too.
_MUCH = 1.0
# Of the bytes that pruning aims at.
_MARGIN = 0.98
# A file shrinks by about this share of the weights that are pruned. The first pruning saves less:
# no prior holds the weights at the commonest levels any more.
_SAVED_FIRST, _SAVED_THEN = 0.4, 0.7
# Prunings that may be too much before the walk ends.
_PRUNINGS = 2
_MOST_LEVELS = 30


ANY_SIZE = 2**62
"""As bytes that are wanted: the first net within the limit."""


class Targets(NamedTuple):
    """Where a walk ends."""

    before: float
    """Loss of the pretrained net, as the walk measures it."""
    limit: float
    """Largest loss of a net that is acceptable."""
    sizes: tuple[int, ...] = ()
    """Bytes of the files that are wanted, from large to small; none asks for the smallest file
    within the limit."""


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
    within = _within(levels, targets)
    unpruned = [n for n in within if levels[n].move.kind != "prune"]
    if not unpruned:
        return _anneal(levels, targets, tau)
    missing = [size for size in targets.sizes if not _reached(levels, targets, size)]
    if len(levels) >= _MOST_LEVELS:
        return None
    if targets.sizes and not missing:
        return _lighter(levels, targets.sizes) if isinf(targets.limit) else None
    # All of them tell, or none does.
    if not (targets.sizes or tells(levels[within[0]], targets)):
        return None
    size = max(missing, default=0)
    base = max(unpruned, key=lambda n: levels[n].move.tau)
    if levels[base].move.kind == "round":
        return None
    pruning = _pruning(levels, targets, base, size, config)
    if isinf(targets.limit):
        smaller = _jump(levels, base, size)
    else:
        smaller = _cycle(levels, targets, base, size)
    if _pruned_share(config) * levels[base].file_bytes <= size:
        return pruning or smaller
    return smaller or pruning


def chosen(levels: Sequence[Level], targets: Targets) -> list[int]:
    """Return the level that each target ends at.

    That is the one with the smallest loss within the bytes, or the smallest file within the limit;
    where there is none, the level with the smallest loss. Of levels within the bytes whose losses
    are less than a standard error apart, it is the largest: its prior was the lightest.

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
    ends = []
    for size in targets.sizes or (0,):
        fitting = [n for n in within if levels[n].file_bytes <= size] or [smallest]
        best = levels[min(fitting, key=lambda n: levels[n].loss)]
        equal = [n for n in fitting if levels[n].loss <= best.loss + best.noise]
        ends.append(max(equal, key=lambda n: (levels[n].file_bytes, -levels[n].loss)))
    return ends


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


def tells(level: Level, targets: Targets) -> bool:
    """Return whether what is allowed is more than the standard error of the loss of a level.

    A walk goes on from such levels only, and the others count only if there is none: they may have
    lost several times what is allowed, and of many, one would seem to have lost nothing.

    Args:
        level: as it was measured.
        targets: of the walk.

    >>> level = Level(Move("anneal", None, 1e-7), 0.01, 900, noise=0.003)
    >>> tells(level, Targets(0.01, 0.02)), tells(level, Targets(0.01, 0.012))
    (True, False)
    """
    return level.noise <= targets.limit - targets.before


def _within(levels: Sequence[Level], targets: Targets) -> list[int]:
    """Levels within the limit, whose losses tell if there are such."""
    found = [n for n, level in enumerate(levels) if is_within(level, targets)]
    return [n for n in found if tells(levels[n], targets)] or found


def _reached(levels: Sequence[Level], targets: Targets, size: int) -> bool:
    return any(levels[n].file_bytes <= size for n in _within(levels, targets))


def _anneal(levels: Sequence[Level], targets: Targets, tau: float) -> Move | None:
    """The first annealing, or a gentler one than the last, much gentler if that lost much; then
    none at all."""
    gentle, last = 0, len(GENTLENESS) - 1
    if levels:
        loss, tried = levels[-1].loss, levels[-1].move.gentle
        if levels[-1].move.kind == "round":
            return None
        if tried == last:
            return Move("round", None, 0.0, gentle=last)
        much = targets.limit + _MUCH * (targets.limit - targets.before)
        gentle = min(tried + (1 if loss <= much else 2), last)
    return Move("anneal", None, tau * GENTLENESS[gentle].tau, gentle=gentle)


def _jump(levels: Sequence[Level], base: int, size: int) -> Move | None:
    """A whole annealing with the tau that a size takes; None if a larger did not make less."""
    whole = [level for level in levels if level.move.kind == "anneal"]
    known = sorted((one.move.tau, one.file_bytes) for one in whole if isfinite(one.loss))
    (tau, file_bytes), power = known[-1], _POWER
    if len(known) > 1:
        before, larger = known[-2]
        if file_bytes >= larger:
            return None
        power = max(_power(before, larger, tau, file_bytes), _POWER)
    factor = _factor(file_bytes, size, power)
    lost = min((one.move.tau for one in whole if not isfinite(one.loss)), default=inf)
    most = min(_MOST, (lost / tau) ** 0.5)
    if most < _LEAST:
        return None
    return Move(
        "anneal", None, min(max(factor, _LEAST), most) * tau, gentle=levels[base].move.gentle
    )


def _lighter(levels: Sequence[Level], sizes: Sequence[int]) -> Move | None:
    """A whole annealing that fills more of a size; None if all are filled, or the last of these had
    no smaller loss, or no larger file."""
    whole = [one for one in levels if one.move.kind == "anneal" and isfinite(one.loss)]
    for size in sizes:
        within = [one for one in whole if one.file_bytes <= size]
        if not within or any(_FILLED * size <= one.file_bytes <= size for one in levels):
            continue
        lightest, *heavier = sorted(within, key=lambda one: one.move.tau)
        least = lightest.loss + lightest.noise
        if any(one.loss <= least or one.file_bytes >= lightest.file_bytes for one in heavier):
            continue
        move, _, file_bytes, _ = lightest
        power = _POWER
        larger = [one for one in whole if one.file_bytes > size and one.move.tau < move.tau]
        if larger:
            near = max(larger, key=lambda one: one.move.tau)
            power = _power(near.move.tau, near.file_bytes, move.tau, file_bytes)
        factor = max(_factor(file_bytes, size, power), 1 / _MOST)
        if factor <= 1 / _LEAST:
            return move._replace(tau=factor * move.tau)
    return None


def _power(lighter: float, larger: int, heavier: float, smaller: int) -> float:
    """The power of tau with which bytes fall from one annealing to a heavier one."""
    return log(larger / smaller) / log(heavier / lighter)


def _factor(file_bytes: int, size: int, power: float) -> float:
    """Of tau, from an annealing to one that aims at a size."""
    return (file_bytes / (_AIM * size)) ** (1 / power)


def _pruned_share(config: Config) -> float:
    """The share of the bytes that one pruning leaves."""
    return 1 - _SAVED_FIRST * (1 - config.keep) if config.prune_epochs else 1.0


def _cycle(levels: Sequence[Level], targets: Targets, base: int, size: int) -> Move | None:
    """The next cycle from a level: with two or four times its tau, or less if that was too much."""
    move, loss, file_bytes, _ = levels[base]
    little = targets.before + _FAR_LOSS * (targets.limit - targets.before)
    is_far = file_bytes > _FAR_BYTES * size and loss <= little
    within = _within(levels, targets)
    failed = (level.move for n, level in enumerate(levels) if n not in within)
    too_much = min((made.tau for made in failed if made.kind == "cycle"), default=inf)
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
    tip, failed, within = base, 0, _within(levels, targets)
    while pruned := [n for n, level in enumerate(levels) if level.move[:2] == ("prune", tip)]:
        kept = [n for n in pruned if n in within]
        failed += len(pruned) - len(kept)
        if not kept:
            break
        tip = min(kept, key=lambda n: levels[n].file_bytes)
    if not config.prune_epochs or failed == _PRUNINGS:
        return None
    least, aimed = config.keep ** (0.5**failed), _keep_for(size, levels, tip)
    return Move("prune", tip, levels[tip].move.tau, max(least, aimed), levels[tip].move.gentle)


def _keep_for(size: int, levels: Sequence[Level], tip: int) -> float:
    """The fraction of the weights of a level that fit into a size."""
    move, file_bytes = levels[tip].move, levels[tip].file_bytes
    saved = _SAVED_THEN if move.kind == "prune" else _SAVED_FIRST
    return min(1 - (1 - _MARGIN * size / file_bytes) / saved, 1.0)
