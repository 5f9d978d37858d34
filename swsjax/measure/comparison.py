"""Several compressed nets side by side, each measured as ``report`` measures it."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from swsjax.codec import MAX_BYTES
from swsjax.errors import ConfigError
from swsjax.file.files import dumps
from swsjax.measure.front import pareto
from swsjax.measure.reports import Report, aligned, html_table, percent, report
from swsjax.trees import Params, is_number

__all__ = ["COLUMNS", "Comparison", "compare"]

COLUMNS = (
    *("net", "error", "weights", "non-zero", "levels"),
    *("file bytes", "rate", "bound bytes", "Han bytes"),
)
"""Of the table of a comparison."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """Reports of several nets and their errors; ``str`` gives the table."""

    reports: Mapping[str, Report]
    """By the name of the net."""
    errors: Mapping[str, float]
    """Error of each net from 0 to 1; empty if they were not measured."""

    @property
    def points(self) -> dict[str, tuple[int, float]]:
        """File bytes and error of each net of which both are known."""
        return {name: (self.reports[name].file_bytes, self.errors[name]) for name in self.errors}

    @property
    def front(self) -> list[str]:
        """The nets that none beats in both bytes and error, from small to large."""
        names = list(self.points)
        return [names[number] for number in pareto(list(self.points.values()))]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells of the table, one row for each net."""
        return [self._row(name, measured) for name, measured in self.reports.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        nets = {name: measured.to_dict() for name, measured in self.reports.items()}
        for name, values in nets.items():
            del values["errors"]  # by stage, of which there is but one here
            values["error"] = self.errors.get(name)
        return {"nets": nets, "front": self.front}

    def __str__(self) -> str:
        table = aligned([COLUMNS, *self.rows], left=1)
        if not self.errors:
            return table
        return f"{table}\n\non the front of error against bytes: {', '.join(self.front)}"

    def __repr__(self) -> str:
        """Return the table."""
        return str(self)

    def _repr_html_(self) -> str:
        """Return the table; for notebooks."""
        return html_table(COLUMNS, self.rows)

    def _row(self, name: str, measured: Report) -> tuple[str, ...]:
        error, rate = self.errors.get(name), measured.rates["file"]
        return (
            name,
            "-" if error is None else f"{100 * error:.2f} %",
            f"{measured.parameters:,}",
            percent(measured.non_zeros, measured.parameters),
            f"{max((layer.levels for layer in measured.layers), default=0):,}",
            f"{measured.file_bytes:,}",
            f"{rate:,.1f}x" if rate else "-",
            f"{measured.entropy_bits / 8:,.0f}",
            f"{measured.han_bits / 8:,.0f}",
        )


def compare(
    nets: Mapping[str, str | PathLike[str] | bytes | Params],
    *,
    errors: Mapping[str, float] | None = None,
    baseline: Params | None = None,
    max_bytes: int = MAX_BYTES,
) -> Comparison:
    """Measure several nets by one codec, for one table.

    Args:
        nets: by name, the path of an ``.sws`` file, its bytes, or a pytree of arrays, which is
            encoded as ``save`` does.
        errors: error rate (0 to 1) of each net, by its name; of all or of none, and all measured
            on the same data.
        baseline: the original net, if a net has fewer parameters, as after removing channels; a
            pytree of arrays. Every rate is against it.
        max_bytes: refuse a file whose arrays take more than this in total.

    Returns:
        The comparison: ``print`` it, or take its ``to_dict()``.

    Raises:
        FormatError: a file is damaged or not an ``.sws`` file, or larger than allowed.
        ConfigError: there are no nets, ``errors`` has other names, or an argument is of the wrong
            type.

    >>> half = np.float32(np.arange(1000) % 2)
    >>> found = compare({"dense": {"w": np.arange(1000.0)}, "half": {"w": half}})
    >>> found.reports["half"].file_bytes < found.reports["dense"].file_bytes
    True
    >>> compare({"dense": {"w": half + 1}, "half": {"w": half}}, errors={"dense": 0.1, "half": 0.1}
    ...     ).front
    ['half']
    """
    errors = {} if errors is None else errors
    for what, given in (("nets", nets), ("errors", errors)):
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"{what} must be a dictionary by the names of the nets, got a "
                f"{type(given).__name__}"
            )
    if not nets:
        raise ConfigError("nets must have at least one net to compare, got none")
    if errors and set(errors) != set(nets):
        raise ConfigError(
            f"errors must have the error of each net, {', '.join(map(repr, nets))}, got those of "
            f"{', '.join(map(repr, errors))}"
        )
    for name, error in errors.items():
        if not (is_number(error) and 0 <= error <= 1):
            raise ConfigError(f"errors[{name!r}] must be a number from 0 to 1, got {error!r}")
    reports = {
        name: report(
            net if isinstance(net, str | bytes | PathLike) else dumps(net),
            baseline=baseline,
            max_bytes=max_bytes,
        )
        for name, net in nets.items()
    }
    return Comparison(reports, {name: float(error) for name, error in errors.items()})
