"""The tables of ``docs/subspaces.md``, which ``tables.py`` fills in."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from common.results import RESULTS, read
from fill_tables import count, in_markdown, mean_and_range
from shared import Row, file_of, span

from swsjax.lab import NETS

__all__ = [
    "DENSE",
    "LINES",
    "RESIDUAL",
    "TITLES",
    "Measured",
    "files_of_others",
    "files_of_subspaces",
    "levels_of",
    "means",
    "probed",
    "subspace_page",
    "trained_levels",
]

DENSE, RESIDUAL = "lenet-300-100", "resnet-8"
TITLES = {net: NETS[net].title for net in (DENSE, RESIDUAL)}
KINDS = ("share", "width", "bits")
LINES = [
    (DENSE, "share"),
    (DENSE, "bits"),
    (RESIDUAL, "share"),
    (RESIDUAL, "width"),
    (RESIDUAL, "bits"),
]
BYTES = (15_000, 8_000, 4_000)
"""Most bytes of the files that are compared."""


def subspace_page() -> dict[str, Callable[[], str]]:
    """What makes the table at each marker of the page."""
    errors = {
        f"{kind} of {net}": partial(errors_table, net, kind)
        for net in (DENSE, RESIDUAL)
        for kind in KINDS
    }
    return errors | {
        "reversed": reversed_table,
        "probe": probe_table,
        "correlations": correlations_table,
        "sizes": sizes_table,
    }


def errors_table(net: str, kind: str) -> str:
    """Test error of each system at each level, and the bytes of the files."""
    rows = means(net, kind)
    levels = levels_of(rows)
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows):
        of_system = [row for row in rows if row["system"] == system]
        found = {row["level"]: mean_and_range(row["test_error"], 1) for row in of_system}
        artefact = count(of_system[0]["artefact_bytes"]["mean"])
        lines.append([system, *(found.get(level, "") for level in levels), artefact])
    sizes = [[row["file_bytes"] for row in rows if row["level"] == level] for level in levels]
    lines.append(["file of a net (bytes)", *map(bytes_of, sizes), ""])
    header = ["test error (%) at", *(level_text(kind, level) for level in levels)]
    return in_markdown([*header, "artefact (bytes)"], lines)


def reversed_table() -> str:
    """Test errors of lines, and of the same lines reversed, at three levels of the training."""
    lines = []
    for net, kind in LINES:
        rows = [row for row in means(net, kind) if "reversed_test_error" in row]
        for system in dict.fromkeys(row["system"] for row in rows):
            found = {row["level"]: row for row in rows if row["system"] == system}
            levels = trained_levels(system, list(found))
            for level in (levels[0], levels[len(levels) // 2], levels[-1]):
                errors = [found[level][f"{end}test_error"] for end in ("", "reversed_")]
                name = f"{TITLES[net]}, {kind}{system.removeprefix('line')}"
                lines.append(
                    [name, level_text(kind, level), *[mean_and_range(error, 1) for error in errors]]
                )
    return in_markdown(["", "level", "learned line (%)", "reversed line (%)"], lines)


def trained_levels(system: str, levels: Sequence[float]) -> list[float]:
    """The levels of a line that are not outside of those of its training, in order."""
    low, high = (0.005, 0.05) if "high sparsity" in system else (0.025, 8)
    return [level for level in sorted(levels) if low <= level <= high]


def probe_table() -> str:
    """Distance of stored from observed means, and error, of nets with BatchNorm at each level."""
    lines = []
    for (kind, system), rows in probed().items():
        for level in levels_of(rows):
            at_level = [row for row in rows if row["level"] == level]
            distances = span([float(np.mean([*row["distances"].values()])) for row in at_level])
            lines.append(
                [
                    f"{system}, {kind}",
                    level_text(kind, level),
                    f"{distances['mean']:.3f} ({distances['min']:.3f} to {distances['max']:.3f})",
                    mean_and_range(span([row["test_error"] for row in at_level]), 1),
                ]
            )
    return in_markdown(["", "level", "distance of means", "test error (%)"], lines)


def correlations_table() -> str:
    """Correlation of a layer's distance with the error over the levels of a net."""
    found = {
        f"{system}, {kind}": {
            layer: correlation(rows, layer) for layer in rows[0]["distances"] | {ALL: 0}
        }
        for (kind, system), rows in probed().items()
    }
    layers = list(next(iter(found.values())))
    lines = [
        [layer, *(signed(of_system[layer]) for of_system in found.values())] for layer in layers
    ]
    return in_markdown(["norm", *found], lines)


ALL = "mean of all"


def correlation(rows: Sequence[Row], layer: str) -> Row | None:
    """Mean and range over the seeds of the correlation over the levels, if distances change."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        of_seed = [row for row in rows if row["seed"] == seed]
        distances = [
            np.mean([*row["distances"].values()]) if layer == ALL else row["distances"][layer]
            for row in of_seed
        ]
        if not np.ptp(distances):
            return None
        errors = [row["test_error"] for row in of_seed]
        found.append(float(np.corrcoef(distances, errors)[0, 1]))
    return span(found)


def probed() -> dict[tuple[str, str], list[Row]]:
    """The rows that have distances, by kind and system."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in read(file_of("subspaces", RESIDUAL))["seeds"]:
        if "distances" in row:
            found.setdefault((row["kind"], row["system"]), []).append(row)
    return dict(sorted(found.items(), key=lambda item: KINDS.index(item[0][0])))


class Measured(NamedTuple):
    """A file whose error is known."""

    family: str
    setting: str
    file_bytes: float
    validation_error: float
    test_error: Row
    steps: str
    """Gradients of a batch, of its training."""


def sizes_table() -> str:
    """The best net of each family of at most so many bytes, by the validation error."""
    found, lines = [*files_of_subspaces(), *files_of_others()], []
    for family in dict.fromkeys(row.family for row in found):
        of_family = [row for row in found if row.family == family]
        cells = [best_of(of_family, most) for most in BYTES]
        if any(cells):
            lines.append([family, *cells, of_family[0].steps])
    header = ["error (%), in bytes", *(f"at most {count(most)}" for most in BYTES), "gradients"]
    return in_markdown(header, lines)


def best_of(files: Sequence[Measured], most: int) -> str:
    """Test error and bytes of the best file of at most so many bytes, if there is one."""
    fitting = [file for file in files if file.file_bytes <= most]
    if not fitting:
        return ""
    best = min(fitting, key=lambda file: file.validation_error)
    return f"{mean_and_range(best.test_error, 1)}, in {count(best.file_bytes)}"


def files_of_subspaces() -> list[Measured]:
    """Files of the nets of this page: as they are and, where weights are pruned, with codebooks."""
    found = []
    for row in read(file_of("subspaces", DENSE))["summary"]:
        kind, setting = row["kind"], level_text(row["kind"], row["level"])
        name = (
            row["system"] if row["system"] == "universal slimming" else f"{row['system']}, {kind}"
        )
        for form, shared in (("", ""), ("shared_", ", k-means")):
            if f"{form}file_bytes" in row:
                found.append(
                    Measured(
                        name,
                        setting + shared,
                        row[f"{form}file_bytes"]["mean"],
                        row[f"{form}validation_error"]["mean"],
                        row[f"{form}test_error"],
                        count(row["gradients"]["mean"]),
                    )
                )
    return found


def files_of_others() -> list[Measured]:
    """Files of pruners with codebooks, and of soft weight-sharing, from other pages."""
    names = {"sharing": "soft weight-sharing"}
    found = [
        Measured(
            names.get(row["method"], row["method"]),
            f"{100 * row['keep']:g} %",
            row["file_bytes"]["mean"],
            row["validation_error"]["mean"],
            row["test_error"],
            count(row["gradient_steps"]["mean"]),
        )
        for kind in ("sizes", "sharing")
        for row in read(file_of(kind, DENSE))["summary"]
    ]
    for name, row in read(RESULTS / f"targets-{DENSE}.json")["summary"].items():
        found.append(
            Measured(
                "soft weight-sharing, longer",
                f"target of {name}",
                row["file_bytes"]["mean"],
                row["validation_error"]["mean"],
                row["test_error"],
                "far more",
            )
        )
    return found


def means(net: str, kind: str) -> list[Row]:
    """The rows of a figure, each with mean and range."""
    rows = read(file_of("subspaces", net))["summary"]
    return [row for row in rows if row["kind"] == kind]


def levels_of(rows: Iterable[Row]) -> list[float]:
    return sorted({row["level"] for row in rows})


def level_text(kind: str, level: float) -> str:
    return f"{level:g} bits" if kind == "bits" else f"{100 * level:g} %"


def bytes_of(sizes: Sequence[Row]) -> str:
    """The smallest and the largest mean of some systems."""
    found = sorted(
        {count(size["mean"]) for size in sizes}, key=lambda text: int(text.replace(",", ""))
    )
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def signed(found: Row | None) -> str:
    if found is None:
        return "unchanged"
    return f"{found['mean']:.2f} ({found['min']:.2f} to {found['max']:.2f})"
