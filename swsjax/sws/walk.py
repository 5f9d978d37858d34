"""Retraining towards targets: level after level, each a run of its own.

The measure is the loss that ``evaluate`` returns for the quantised net, or, without it, the mean
loss on the training data; and the bytes of the file of that net.
"""

from collections.abc import Callable
from math import inf, isfinite
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from swsjax.codec.header import DTYPES
from swsjax.errors import ConfigError, RetrainingError
from swsjax.file.files import dumps
from swsjax.sws.config import Config
from swsjax.sws.moves import Move, epochs_of, settings_of
from swsjax.sws.reference import zeroed
from swsjax.sws.targets import Level, Targets, is_within, next_move, tells
from swsjax.training.epochs import TrainState
from swsjax.training.history import Epoch
from swsjax.training.net import Net
from swsjax.trees import is_array, is_weight, named_leaves

__all__ = [
    "SHARE",
    "TRAINING_SHARE",
    "Measure",
    "Outcome",
    "Walk",
    "allowed",
    "compared",
    "outcome_text",
    "stored_bytes",
    "walk",
]

SHARE = 0.005
"""Of what training gained, may be lost on validation data."""
TRAINING_SHARE = 0.01
"""Of what training gained, may be lost on the training data, where there is no ``evaluate``."""

Measure = Callable[[Any, Any], np.ndarray]
"""From the weights and the carried part of a net to its loss, or its losses on several examples."""


class Outcome(NamedTuple):
    """Where a run ended for one target."""

    params: Any
    """The quantised net."""
    aux: Any
    """What its loss carries from step to step; its statistics."""
    loss: float
    """What ``evaluate`` returned for it; without ``evaluate``, its loss on training data."""
    file_bytes: int
    """Bytes of its file, with the statistics."""
    reached: bool
    """Whether this is what was asked for."""
    text: str
    """What was reached and by how much, or what stood in the way."""

    def __str__(self) -> str:
        """Return the text."""
        return self.text


class Walk(NamedTuple):
    """A walk that has ended."""

    levels: list[Level]
    """The nets that were made, in order."""
    states: list[TrainState | None]
    """Their states; None for one that was lost."""
    history: list[Epoch]
    """One entry per epoch of all levels."""
    cut: bool
    """Whether the budget ended it."""


Runner = Callable[[int, Move, TrainState | None, int], tuple[TrainState, list[Epoch]]]
"""Runs a move: from the number of the level, the move, the state it goes on from, and the epochs
done before, to the state after it and its history. Raises ``RetrainingError`` if it loses the
net."""


def walk(
    run: Runner,
    measure: Callable[[TrainState], tuple[float, int, float]],
    targets: Targets,
    config: Config,
    *,
    tau: float,
    most_epochs: float = inf,
) -> Walk:
    """Make level after level until the targets are reached, out of reach, or the budget is spent.

    Args:
        run: makes a level.
        measure: loss of a level, bytes of its file, and standard error of the loss.
        targets: where to end.
        config: settings of the walk.
        tau: of the first annealing.
        most_epochs: after the first level, none begins that would end later.

    Raises:
        RetrainingError: every level was lost.

    >>> made = lambda number, move, start, before: (move.tau, [])
    >>> figures = lambda tau: (1e4 * tau, int(1e-3 / tau), 0.0)  # heavier priors, larger losses
    >>> found = walk(made, figures, Targets(0.0, 0.01), Config(prune_epochs=0), tau=1e-7)
    >>> [f"{level.loss:.3f} {level.file_bytes:,}" for level in found.levels]
    ['0.001 10,000', '0.004 2,500', '0.008 1,250', '0.016 625', '0.011 883']
    """
    levels: list[Level] = []
    states: list[TrainState | None] = []
    history: list[Epoch] = []
    lost: RetrainingError | None = None
    spent, cut = 0, False
    while move := next_move(levels, targets, tau=tau, config=config):
        takes = 0 if move.kind == "round" else epochs_of(settings_of(move, config))
        epochs_done = spent + takes
        if levels and (cut := epochs_done > most_epochs):
            break
        spent = epochs_done
        start = None if move.start is None else states[move.start]
        try:
            state, epochs = run(len(levels), move, start, len(history))
            figures = measure(state)
        except RetrainingError as error:  # one that goes too far ends only its own level
            lost, state, epochs, figures = error, None, [], (float("inf"), 0, 0.0)
        levels.append(Level(move, *figures))
        states.append(state)
        history += epochs
    if lost is not None and not any(isfinite(level.loss) for level in levels):
        raise lost
    return Walk(levels, states, history, cut)


def allowed(
    measure: Measure, net: Net, max_loss: float | None, share: float = SHARE
) -> tuple[np.ndarray, float]:
    """Return the losses of the pretrained net and how much may be added to their mean.

    By default that is a share of what training gained: of the difference between the loss of the
    net and that of the same net with zeros for the weights that are compressed. Half a percent of
    it, for ten balanced classes, is half a point of error.

    Args:
        measure: loss of a net.
        net: the pretrained net in parts.
        max_loss: how much may be added; None for the default.
        share: of what training gained.

    Raises:
        ConfigError: the measure does not tell the net from one of zeros.

    >>> from swsjax.training import take_apart
    >>> def error(weights, carried):
    ...     return np.abs(np.asarray(weights.groups["weights"][0]) - 1)
    >>> allowed(error, take_apart({"w": np.float32([1.0, 0.75])}), None)
    (array([0.  , 0.25], dtype=float32), 0.004375)
    """
    before = measure(net.weights, net.carried)
    if max_loss is not None:
        return before, max_loss
    loss = before.mean().item()
    worst = measure(zeroed(net.weights), net.carried).mean().item()
    if not (isfinite(loss) and isfinite(worst) and worst > loss):
        raise ConfigError(
            f"evaluate returns {loss:g} for the pretrained net and {worst:g} for one of zeros, "
            "which should be larger: return an error, not an accuracy, or pass max_loss"
        )
    return before, share * (worst - loss)


def compared(losses: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Return the mean of the losses, and the standard error of its difference to those before.

    The examples are the same, so most of the noise of both means is common to them. Of one number
    for all examples the noise is not known, and 0.

    Args:
        losses: of a net, shape () or (N,).
        before: of the pretrained net, of the same shape.

    Raises:
        ConfigError: the shapes differ.

    >>> compared(np.array([0.0, 1, 1, 1]), np.array([0.0, 0, 1, 1]))
    (0.75, 0.25)
    """
    if losses.shape != before.shape:
        raise ConfigError(
            f"evaluate returned losses of shape {before.shape} for the pretrained net, and of "
            f"shape {losses.shape} for a smaller one: use the same examples each time"
        )
    noise = np.std(losses - before, ddof=1) / losses.size**0.5 if losses.size > 1 else 0.0
    return losses.mean().item(), float(noise)


def stored_bytes(params: Any, aux: Any) -> int:
    """Return the bytes of the file of a net and its statistics.

    Args:
        params: a pytree or an NNX module; leaves that a file cannot hold are not counted.
        aux: what its loss carries; floating arrays are its statistics.

    >>> stored_bytes({"w": np.zeros(1000, np.float32)}, None) < 60
    True
    """
    if isinstance(params, nnx.Module):
        params = nnx.to_pure_dict(nnx.state(params))
    if not all(_storable(leaf) for leaf in jax.tree.leaves(params)):
        params = {name: leaf for name, leaf in named_leaves(params) if _storable(leaf)}
    statistics = {name: leaf for name, leaf in named_leaves(aux) if is_weight(leaf)}
    return len(dumps({"params": params, "statistics": statistics} if statistics else params))


def _storable(leaf: Any) -> bool:
    return is_array(leaf) and leaf.dtype.name in DTYPES


def outcome_text(
    levels: list[Level], number: int, targets: Targets, size: int | None
) -> tuple[bool, str]:
    """Return whether a target was reached, and a sentence about it.

    Args:
        levels: of the walk.
        number: the level that was chosen.
        targets: of the walk.
        size: bytes that were asked for; None for the smallest file within the limit.

    >>> levels = [Level(Move("anneal", None, 1e-7), 0.015, 20_000)]
    >>> outcome_text(levels, 0, Targets(0.0125, 0.02), None)
    (True, '20,000 bytes at a loss of 0.015, 0.0025 above the pretrained net (0.0075 allowed)')
    >>> outcome_text(levels, 0, Targets(0.0125, 0.02, (9_000,)), 9_000)[0]
    False
    """
    level = levels[number]
    here = (
        f"{level.file_bytes:,} bytes at a loss of {level.loss:.4g}, "
        f"{level.loss - targets.before:.2g} above the pretrained net"
    )
    if level.noise:
        here += f", with a standard error of {level.noise:.1g}"
    if isfinite(targets.limit):
        here += f" ({targets.limit - targets.before:.2g} allowed)"
    if not is_within(level, targets):
        return False, f"not reached: the net that keeps most has {here}"
    if size is None:
        if not tells(level, targets):
            here += "; to go on, evaluate more examples, or allow more"
        return True, here
    if level.file_bytes <= size:
        return True, f"{size:,} bytes asked for, {here}"
    below = [other for other in levels if other.file_bytes <= size and isfinite(other.loss)]
    if not below:
        return False, f"{size:,} bytes not reached: no smaller file was found than {here}"
    near = min(below, key=lambda other: other.loss)
    return False, (
        f"{size:,} bytes not reached: {here}; {near.file_bytes:,} bytes would take a loss of "
        f"{near.loss:.4g}"
    )
