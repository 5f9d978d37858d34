"""What a search found: its completed trials, and which of them no other beats."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from swsjax.sws.config import Config
from swsjax.trees import is_number

__all__ = ["Front", "Point"]


class Point(NamedTuple):
    """A completed trial: its result and its settings."""

    trial: int
    """Number of the trial in the study; trial 0 has the settings that the search started from."""
    error: float
    """What ``evaluate`` returned for the quantised net."""
    file_bytes: int
    """Size of the net as a file."""
    config: Config
    """Settings of ``compress``."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return self._asdict() | {"config": self.config.to_dict()}


@dataclass(frozen=True)
class Front:
    """Results of a search, by all workers so far; ``str`` gives the front as a table."""

    points: tuple[Point, ...]
    """The trials that no other dominates, that is beats in both error and bytes; smallest file
    first."""
    dominated: tuple[Point, ...]
    """The other completed trials, in the order of the study."""
    stopped: int
    """Number of trials that were stopped early, or lost the net."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "front": [point.to_dict() for point in self.points],
            "dominated": [point.to_dict() for point in self.dominated],
            "stopped": self.stopped,
        }

    def __str__(self) -> str:
        lines = [f"{'trial':>5}  {'bytes':>10}  {'error':>8}     {'tau':>8}  {'pi_zero':>8}  "]
        lines[0] += f"{'components':>10}  {'precisions':>10}  {'keep':>6}"
        for trial, error, size, config in self.points:
            keep = f"{config.keep:6.3f}" if config.prune_epochs else f"{'-':>6}"
            learned = config.annealing is None
            speed = f"{config.soft_learning_rates.precisions:10.3g}" if learned else f"{'-':>10}"
            tau = f"{config.tau:.4g}" if is_number(config.tau) else "-"
            lines.append(
                f"{trial:>5}  {size:>10,}  {100 * error:>8.2f} %   {tau:>8}  "
                f"{config.pi_zero:>8.5f}  {config.components:>10}  "
                f"{speed}  {keep}"
            )
        completed = len(self.points) + len(self.dominated)
        return "\n".join(
            [*lines, "", f"{completed} trials completed, {self.stopped} stopped early"]
        )
