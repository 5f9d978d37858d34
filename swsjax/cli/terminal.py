"""Progress of long work for the command line: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from swsjax.sws.stages import Progress as RetrainProgress
from swsjax.training.loop import PretrainProgress

__all__ = ["Reporter", "reporter"]


class Reporter:
    """Callbacks for ``pretrain`` and ``compress`` that pass on a title, the state and figures.

    Args:
        show: called with a title, the epochs done, those there will be, and the figures as text.

    >>> Reporter(print).pretraining(PretrainProgress(epoch=1, epochs=2, loss=0.5))
    pretrain 1 2 loss 0.5000
    """

    def __init__(self, show: Callable[[str, int, int, str], None]):
        self._show = show

    def pretraining(self, progress: PretrainProgress) -> None:
        """Show an epoch of pretraining."""
        self._show("pretrain", progress.epoch, progress.epochs, f"loss {progress.loss:.4f}")

    def retraining(self, progress: RetrainProgress) -> None:
        """Show an epoch of retraining; the error is that on the validation data."""
        self._retraining("retrain", progress)

    def searching(self, trial: int, progress: RetrainProgress) -> None:
        """Show an epoch of a trial of a search."""
        self._retraining(f"trial {trial}", progress)

    def _retraining(self, title: str, progress: RetrainProgress) -> None:
        figures = f"loss {progress.loss:.4f}  non-zero {progress.non_zeros:,}"
        if progress.error is not None:
            figures += f"  error {100 * progress.error:.2f} %"
        self._show(f"{title} ({progress.stage})", progress.epoch, progress.epochs, figures)


@contextlib.contextmanager
def reporter() -> Iterator[Reporter]:
    """Report on stderr: one bar a task on a terminal, a line every few seconds when piped.

    >>> with reporter() as show:
    ...     show.pretraining(PretrainProgress(epoch=1, epochs=2, loss=0.5))
    """
    if not sys.stderr.isatty():
        yield Reporter(_Lines())
        return
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=8),  # the figures matter more, in 80 columns
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
