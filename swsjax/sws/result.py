"""What ``compress`` returns."""

from html import escape
from typing import Any, Generic, NamedTuple, TypeVar

from swsjax.sws.prior import GaussianMixture
from swsjax.sws.targets import Level
from swsjax.sws.units import Unit
from swsjax.sws.walk import Outcome
from swsjax.training.history import Epoch
from swsjax.training.selection import Selection

__all__ = ["Result"]

NetT = TypeVar("NetT")


class Result(NamedTuple, Generic[NetT]):
    """What ``compress`` returns; printed, it says what was reached."""

    params: NetT
    """The quantised net: like the given one, with few distinct values, most of them 0."""
    retrained: NetT
    """The net at the end of retraining, before its weights were quantised."""
    mixtures: dict[str, GaussianMixture]
    """The priors at the end, merged, by group: ``"weights"`` unless a rule names another."""
    history: list[Epoch]
    """One entry per epoch; its details are ``sws.Details``."""
    selection: Selection
    """What was done with each leaf."""
    aux: Any = None
    """What the loss carried from step to step, at the end. Statistics are those of the quantised
    net."""
    units: dict[str, list[Unit]] | None = None
    """The unit of each compressed array, by group: the mixtures are over weights in these units.
    None if precisions are learned."""
    levels: list[Level] = []  # noqa: RUF012
    """The nets on the way to the targets, each with its loss and bytes; none with a given tau."""
    outcomes: list[Outcome] = []  # noqa: RUF012
    """What was reached, for each of ``target_bytes``, or for ``max_loss``. The last one's net is
    ``params``."""

    def __repr__(self) -> str:
        """Return a summary of a few lines."""
        return "\n".join([self._title(), *self._ends()])

    def _repr_html_(self) -> str:
        """Return the summary and, as a table, the nets on the way; for notebooks."""
        ends = "".join(f"<br>{escape(end.strip())}" for end in self._ends())
        head = "<tr><th>made by</th><th>from</th><th>tau</th><th>bytes</th><th>loss</th></tr>"
        rows = "".join(map(_row, self.levels))
        table = f"<table>{head}{rows}</table>" if rows else ""
        return f"<p>{escape(self._title())}{ends}</p>{table}"

    def _title(self) -> str:
        made = f", {len(self.levels)} nets on the way" if self.levels else ""
        return f"Result of {len(self.history)} epochs{made}"

    def _ends(self) -> list[str]:
        if self.outcomes or not self.history:
            return [f"  {outcome}" for outcome in self.outcomes]
        last = self.history[-1]
        error = "" if last.error is None else f", error {last.error:.4g}"
        return [f"  {last.non_zeros or 0:,} weights are not zero{error}"]


def _row(level: Level) -> str:
    move = level.move
    start = "pretrained" if move.start is None else f"net {move.start}"
    made = f"{move.kind}, keeping {move.keep:.0%}" if move.keep < 1 else move.kind
    figures = f"{move.tau:.2g}", f"{level.file_bytes:,}", f"{level.loss:.4g}"
    return "".join(["<tr>", *(f"<td>{cell}</td>" for cell in (made, start, *figures)), "</tr>"])
