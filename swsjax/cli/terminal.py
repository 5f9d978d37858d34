"""Progress of the commands: always shown, on a terminal as a bar."""

from collections.abc import Iterator
from contextlib import contextmanager

from swsjax.training.history import Epoch
from swsjax.training.progress import Show, figures_of, shown

__all__ = ["Reporter", "reporter"]


class Reporter:
    """Callbacks for ``pretrain``, ``compress``, ``search`` and the trainings of ``prune``.

    Args:
        show: called with a title, the epochs done, the number of epochs, and the figures as text.

    >>> Reporter(print).epoch(Epoch("train", epoch=1, epochs=2, loss=0.5))
    train 1 2 loss 0.5
    """

    def __init__(self, show: Show):
        self._show = show

    def epoch(self, epoch: Epoch) -> None:
        """Show an epoch of a run."""
        self._show(epoch.stage, epoch.epoch, epoch.epochs, figures_of(epoch))

    def trial(self, number: int, epoch: Epoch) -> None:
        """Show an epoch of a trial of a search."""
        title = f"trial {number} ({epoch.stage})"
        self._show(title, epoch.epoch, epoch.epochs, figures_of(epoch))


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Report on stderr: a bar on a terminal, lines when piped.

    >>> with reporter() as show:
    ...     show.epoch(Epoch("train", epoch=1, epochs=2, loss=0.5))
    """
    with shown() as show:
        yield Reporter(show)
