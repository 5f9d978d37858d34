"""Progress of long work: a bar on a terminal, a line in a notebook, lines where output is piped."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from swsjax.training.history import Epoch

__all__ = ["Show", "figures_of", "shown", "watched"]

Show = Callable[[str, int, int, str], None]
"""Shows a title, the epochs done, their number, and figures as text."""

# Until the first epoch has ended; it is what takes longest then.
_FIRST = "compiling"


@contextmanager
def watched(
    callback: Callable[[Epoch], None] | None, *, progress: bool
) -> Iterator[Callable[[Epoch], None] | None]:
    """Provide the callback of a run: the given one, or one that shows progress to a person.

    That is on a terminal or in a notebook only: where output is piped, a library is silent.

    Args:
        callback: the caller's.
        progress: whether the run may show its progress if there is none.

    >>> with watched(None, progress=False) as callback:
    ...     print(callback)
    None
    """
    if callback is not None or not progress or not (_has_bar() or _is_notebook()):
        yield callback
        return
    with shown() as show:
        yield lambda epoch: show(epoch.stage, epoch.epoch, epoch.epochs, figures_of(epoch))


def figures_of(epoch: Epoch) -> str:
    """Return the figures of an epoch in about 40 characters.

    Error and non-zeros are those of the net if it were quantised now.

    >>> figures_of(Epoch("hard", 1, 2, loss=0.5, error=0.0213, non_zeros=1234, bound_bytes=820.0))
    'loss 0.5  error 2.13 %  1,234 weights'
    """
    figures = f"loss {epoch.loss:.4g}"
    if epoch.error is not None:
        figures += f"  error {100 * epoch.error:.2f} %"
    if epoch.non_zeros is not None:
        figures += f"  {epoch.non_zeros:,} weights"
    return figures


@contextmanager
def shown() -> Iterator[Show]:
    """Show progress on stderr, never silent for long.

    A terminal has a bar, a notebook a line that changes; elsewhere there are lines with the time.

    >>> with shown() as show:
    ...     show("soft", 1, 30, "loss 0.5")
    """
    if not _has_bar():
        with _Line() if _is_notebook() else _Lines() as show:
            yield show
        return
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=4),  # leaves room for the figures in 80 columns
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(_FIRST, total=None, figures="")

        def update(title: str, done: int, total: int, figures: str) -> None:
            text = f"{title} {done}/{total}"
            bar.update(task, description=text, completed=done, total=total, figures=figures)

        yield update


def _has_bar() -> bool:
    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


def _is_notebook() -> bool:
    interactive = sys.modules.get("IPython")
    return interactive is not None and hasattr(interactive.get_ipython(), "kernel")


class _Lines:
    """Prints a line at most every ``interval`` seconds, the last one of a task, and in silences."""

    interval, silence = 5.0, 15.0

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last = 0.0
        self._doing = _FIRST
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Show:
        self._print(self._doing)
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._ticker.join()

    def __call__(self, title: str, done: int, total: int, figures: str) -> None:
        self._doing = f"{title} {done}/{total}"
        if time.monotonic() >= self._last + self.interval or done == total:
            self._print(f"{self._doing}  {figures}")

    def _tick(self) -> None:
        while not self._ended.wait(1.0):
            if time.monotonic() >= self._last + self.silence:
                self._print(f"{self._doing}, at work on what follows")

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        minutes, seconds = divmod(round(self._last - self._started), 60)
        self._write(f"{minutes}:{seconds:02d} {text}")

    def _write(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class _Line(_Lines):
    """Writes each line over the one before."""

    interval, silence = 0.5, 1.0

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r{line:<79}")
        sys.stderr.flush()
