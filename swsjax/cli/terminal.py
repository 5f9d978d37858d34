"""Progress of long work on the command line: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from swsjax.training.history import Epoch

__all__ = ["Reporter", "reporter"]


class Reporter:
    """Callbacks for ``pretrain``, ``compress`` and ``search``.

    Args:
        show: called with a title, the epochs done, the number of epochs, and the figures as text.

    >>> Reporter(print).epoch(Epoch("train", epoch=1, epochs=2, loss=0.5))
    train 1 2 loss 0.5000
    """

    def __init__(self, show: Callable[[str, int, int, str], None]):
        self._show = show

    def epoch(self, epoch: Epoch) -> None:
        """Show an epoch of a run."""
        self._show(epoch.stage, epoch.epoch, epoch.epochs, _figures(epoch))

    def trial(self, number: int, epoch: Epoch) -> None:
        """Show an epoch of a trial of a search."""
        self._show(f"trial {number} ({epoch.stage})", epoch.epoch, epoch.epochs, _figures(epoch))


def _figures(epoch: Epoch) -> str:
    figures = f"loss {epoch.loss:.4f}"
    if epoch.non_zeros is not None:
        figures += f"  non-zero {epoch.non_zeros:,}"
    if epoch.error is not None:
        figures += f"  error {100 * epoch.error:.2f} %"
    return figures


@contextlib.contextmanager
def reporter() -> Iterator[Reporter]:
    """Report on stderr: one bar on a terminal, a line every few seconds when piped.

    >>> with reporter() as show:
    ...     show.epoch(Epoch("train", epoch=1, epochs=2, loss=0.5))
    """
    if not sys.stderr.isatty():
        yield Reporter(_Lines())
        return
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=8),  # leaves room for the figures in 80 columns
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("compiling", total=None, figures="")

        def show(title: str, done: int, total: int, figures: str) -> None:
            bar.update(task, description=title, completed=done, total=total, figures=figures)

        yield Reporter(show)


class _Lines:
    """Prints a line at most every ``interval`` seconds, and always the last one of a task."""

    interval = 5.0

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, title: str, done: int, total: int, figures: str) -> None:
        now = time.monotonic()
        if now >= self._next or done == total:
            self._next = now + self.interval
            print(f"{title} {done}/{total}  {figures}", file=sys.stderr, flush=True)
