"""Lottery tickets: the initial weights of those that are large after training.

Frankle and Carbin, *The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks* (ICLR
2019, arXiv 1803.03635).
"""

from collections.abc import Callable
from os import PathLike

import jax
from jax import Array

from swsjax.baselines.finish import retrain, rewind
from swsjax.baselines.magnitudes import magnitude
from swsjax.baselines.weights import density
from swsjax.checks import check_integer, path_of
from swsjax.lab.task import Task, Variables
from swsjax.training.history import Epoch
from swsjax.training.pretraining import PretrainConfig
from swsjax.training.resume import FOLDER

__all__ = ["lottery_ticket"]


def lottery_ticket(
    task: Task,
    net: Variables,
    keep: float,
    config: PretrainConfig = PretrainConfig(),
    *,
    rounds: int = 1,
    key: Array,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    r"""Find the winning ticket of an initialisation: train, prune by magnitude, rewind, repeat.

    Of the n weights of all kernels, round :math:`t = 1, \dots, T` leaves :math:`n k^{t/T}`, the
    largest over the whole net: the same share of the survivors is pruned in each round, as in the
    paper, whose LeNets have a threshold for each layer. With one round it is their one-shot
    pruning, which Liu et al. (arXiv 1810.05270) repeat. From a dense net that is trained already,
    that is ``rewind(magnitude(trained, keep), net)``.

    The ticket is not trained: ``retrain`` does it; ``reinitialised`` gives it random weights.

    Args:
        task: its images.
        net: not trained: the initialisation. Its zeros stay, so a ticket may be pruned further.
        keep: share of all weights to keep, in (0, 1].
        config: of the training in each round. Its seed is not used.
        rounds: number T of trainings.
        key: random key of the order of the examples and of the augmentation.
        callback: called with the record of each epoch of each round, as for ``train``.
        resume: folder for the state of the run, with one for each round in it.

    Returns:
        The initial weights that are kept; all others are zero.

    Raises:
        ConfigError: keep or rounds is out of its range, or as ``retrain``.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task, key = classification(LeNet300100, load_digits()), jax.random.key(0)
    >>> density(lottery_ticket(task, task.init(0), 0.04, PretrainConfig(epochs=1), key=key))
    0.04
    """
    magnitude(net, keep)  # checks both before any time is spent
    rounds, ticket, start = check_integer("rounds", rounds), net, density(net) or 1.0
    for number in range(1, rounds + 1):
        folder = None if resume is None else path_of(resume, FOLDER) / f"round-{number}"
        of_round = jax.random.fold_in(key, number)
        trained = retrain(task, ticket, config, key=of_round, callback=callback, resume=folder)
        ticket = rewind(magnitude(trained, start * (keep / start) ** (number / rounds)), net)
    return ticket
