"""Stopping a run whose net no longer learns, with the cause and what to change."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from swsjax.errors import RetrainingError
from swsjax.training.history import Epoch
from swsjax.training.net import Weights
from swsjax.training.selection import Selection

__all__ = ["check_learning", "zero_kernels"]

_PATIENCE = 5  # epochs
_STILL = 0.005  # relative range of the loss; the order of the examples alone moves it by more
_FAR = 2.0  # times the loss of the given net
_FALLEN = 0.9  # of the largest loss in the stage: a net that got so far has learned, and converged


def check_learning(
    history: Sequence[Epoch], first_loss: Callable[[], float], lost: Callable[[], list[str]]
) -> None:
    """Stop a run whose loss stands still far above that of the net it began with.

    Args:
        history: all epochs so far.
        first_loss: measures the loss of the given net; called only if the loss stands still.
        lost: names of the kernels that are quantised to zero; called only for the message.

    Raises:
        RetrainingError: in five epochs of a stage the loss has not moved, and is more than twice
            that of the given net; and a kernel is zero, or the loss has not fallen in the stage.

    >>> still = [Epoch("hard", number, 40, 2.303, non_zeros=360) for number in range(1, 6)]
    >>> check_learning(still, lambda: 0.05, lambda: ["conv1/kernel"])
    Traceback (most recent call last):
        ...
    swsjax.errors.RetrainingError: the net no longer learns: its loss has been 2.3 for 5 epochs \
(hard stage, epoch 5 of 40), while that of the given net is 0.05. Every weight of conv1/kernel is \
zero, so no gradient passes; lower tau or pi_zero, or raise soft_epochs
    """
    last = history[-1]
    stage = [epoch.loss for epoch in history if epoch.stage == last.stage]
    losses = stage[-_PATIENCE:]
    if len(losses) < _PATIENCE or max(losses) - min(losses) > _STILL * abs(last.loss):
        return
    first = first_loss()
    if first <= 0 or last.loss <= _FAR * first:
        return
    names = lost()
    if not names and last.loss < _FALLEN * max(stage):
        return
    cause = f"{last.non_zeros:,} weights are left, too few to learn with"
    if names:
        cause = f"Every weight of {', '.join(names)} is zero, so no gradient passes"
    raise RetrainingError(
        f"the net no longer learns: its loss has been {last.loss:.3g} for {_PATIENCE} epochs "
        f"({last.stage} stage, epoch {last.epoch} of {last.epochs}), while that of the given net "
        f"is {first:.3g}. {cause}; lower tau or pi_zero, or raise soft_epochs"
    )


def zero_kernels(quantised: Weights, selection: Selection) -> list[str]:
    """Names of the compressed arrays with at least two axes that are all zero.

    Args:
        quantised: the weights, each at the mean of its component.
        selection: what happens to each leaf of the net.

    >>> from swsjax.training import take_apart
    >>> net = take_apart({"one": jnp.zeros((9, 4)), "two": jnp.ones((4, 2)), "b": jnp.zeros(2)})
    >>> zero_kernels(net.weights, net.selection)
    ['one']
    """
    compressed = [
        (leaf.name, array)
        for group, arrays in quantised.groups.items()
        for leaf, array in zip(
            (leaf for leaf in selection.leaves if leaf.group == group), arrays, strict=True
        )
    ]
    return [name for name, array in compressed if array.ndim > 1 and not jnp.any(array)]
