"""The tables of ``docs/channels.md``, which ``tables.py`` fills in."""

from collections.abc import Callable
from functools import partial

import numpy as np
from common.results import read
from fill_tables import count, factor, in_markdown, mean_and_range, percent
from shared import Row, file_of

__all__ = ["channel_page"]

_NORMS = ("L1", "spectral", "nuclear")
_SHARES = (0.7, 0.5, 0.3, 0.1)
"""Of the channels of a layer, in the table of sensitivities."""


def channel_page(net: str, residual: str) -> dict[str, Callable[[], str]]:
    """What makes the table at each marker of the page.

    Args:
        net: of most of the page.
        residual: of its last part.
    """
    of_both = {
        "scores": scores_table,
        "kept": kept_table,
        "sensitivity": sensitivity_table,
        "finishers": finishers_table,
        "widths": widths_table,
        "libraries": libraries_table,
        "sharing": sharing_table,
    }
    made: dict[str, Callable[[], str]] = {}
    for name, table in of_both.items():
        made |= {name: partial(table, net), f"residual-{name}": partial(table, residual)}
    return made


def scores_table(net: str) -> str:
    """Errors and sizes of each score at each ratio."""
    lines = [
        [
            row["method"],
            f"{100 * row['keep']:g}",
            percent(row["pruned_validation_error"]["mean"]) if row["keep"] < 1 else "",
            mean_and_range(row["validation_error"]),
            mean_and_range(row["test_error"]),
            mean_and_range(row["k_means_test_error"]),
            count(row["file_bytes"]["mean"]),
        ]
        for row in read(file_of("channels", net))["summary"]
    ]
    header = ["", "channels kept (%)", "validation error, not tuned (%)", "validation error (%)"]
    header += ["test error (%)", "with codebooks, test error (%)", "file (bytes)"]
    return in_markdown(header, lines)


def kept_table(net: str) -> str:
    """What is left at each ratio, which is the same for all scores."""
    content = read(file_of("channels", net))
    found = {row["keep"]: row for row in content["seeds"]}
    whole = found[1.0]["multiply_adds"]
    lines = [
        [
            f"{100 * keep:g}",
            *map(str, row["channels"].values()),
            count(row["parameters"]),
            count(row["multiply_adds"]),
            factor(whole / row["multiply_adds"], 1),
        ]
        for keep, row in sorted(found.items(), reverse=True)
    ]
    header = ["channels kept (%)", *found[1.0]["channels"], "parameters", "multiply-adds"]
    return in_markdown([*header, "times fewer"], lines)


def sensitivity_table(net: str) -> str:
    """Skewness of the norms of each layer, and errors with it alone pruned; means over seeds."""
    content = read(file_of("sensitivity", net))
    columns = {keep: content["shares"].index(keep) for keep in _SHARES}
    by_layer: dict[str, list[Row]] = {}
    for row in content["seeds"]:
        by_layer.setdefault(row["layer"], []).append(row)
    lines = []
    for layer, rows in by_layer.items():
        skewness = [np.mean([row["skewness"][norm] for row in rows]) for norm in _NORMS]
        errors = [np.mean([row["errors"][at] for row in rows]) for at in columns.values()]
        shares = sorted({f"{100 * row['share']:g}" for row in rows}, key=float)
        lines.append(
            [
                layer,
                *(f"{round(value, 1) + 0.0:.1f}" for value in skewness),  # no -0.0
                *map(percent, errors),
                shares[0] if len(shares) == 1 else f"{shares[0]} to {shares[-1]}",
            ]
        )
    header = ["layer", *(f"skewness, {norm}" for norm in _NORMS)]
    header += [f"error at {100 * keep:g} % (%)" for keep in _SHARES]
    return in_markdown([*header, "share within a point (%)"], lines)


def finishers_table(net: str) -> str:
    """Test error of each method and way to finish."""
    cells, lines = finished(net), []
    ways = list(dict.fromkeys(finish for _, finish in cells if finish))
    for method in dict.fromkeys(method for method, _ in cells):
        if method == "dense":
            lines.append(
                [method, mean_and_range(cells[method, ""]["test_error"]), *[""] * len(ways)]
            )
            continue
        found = [cells.get((method, way)) for way in ways]
        errors = [mean_and_range(row["test_error"]) if row else "" for row in found]
        lines.append([method, *errors, f"{found[-1]['epochs']['mean']:.3g}" if found[-1] else ""])
    header = ["test error (%)", *ways, "epochs of Scratch-B"]
    return in_markdown(header, lines)


def widths_table(net: str) -> str:
    """Channels, parameters and multiply-adds that each method leaves.

    A layer of a block that is removed is not there any more.
    """
    seeds, cells = read(file_of("channel-finishers", net))["seeds"], finished(net)
    widths: dict[str, list[Row]] = {}
    for row in seeds:
        if row["finish"] in ("", "pruned only"):
            widths.setdefault(row["method"], []).append(row["channels"])
    layers = list(widths["dense"][0])
    lines = []
    for method, found in widths.items():
        row = cells[method, "" if method == "dense" else "pruned only"]
        numbers = [sorted({one.get(layer, 0) for one in found}) for layer in layers]
        lines.append(
            [
                method,
                *(f"{low[0]} to {low[-1]}" if len(low) > 1 else f"{low[0]}" for low in numbers),
                count(row["parameters"]["mean"]),
                count(row["multiply_adds"]["mean"]),
            ]
        )
    return in_markdown(["channels", *layers, "parameters", "multiply-adds"], lines)


def libraries_table(net: str) -> str:
    """L1 norms here and in Torch-Pruning."""
    lines = [
        [
            row["library"],
            count(row["parameters"]["mean"]),
            count(row["multiply_adds"]["mean"]),
            percent(row["channels_shared_with_ours"]["mean"], 0)
            if "channels_shared_with_ours" in row
            else "",
            mean_and_range(row["pruned_validation_error"]),
            mean_and_range(row["test_error"]),
            "{mean:.2f} ({min:.2f} to {max:.2f})".format(**row["times_ours"])
            if "times_ours" in row
            else "",
        ]
        for row in read(file_of("channels-libraries", net))["summary"]
    ]
    header = ["", "parameters", "multiply-adds", "channels as ours (%)"]
    header += [
        "validation error, not tuned (%)",
        "test error, tuned (%)",
        "time to prune, over ours",
    ]
    return in_markdown(header, lines)


def sharing_table(net: str) -> str:
    """Soft weight-sharing alone, and after channels were removed."""
    lines = [
        [
            row["method"],
            percent(row["start_validation_error"]["mean"]),
            mean_and_range(row["validation_error"]),
            mean_and_range(row["test_error"]),
            count(row["file_bytes"]["mean"]),
            f"{count(row['file_bytes']['min'])} to {count(row['file_bytes']['max'])}",
            count(row["multiply_adds_of_live_channels"]["mean"]),
            count(row["multiply_adds_of_non_zeros"]["mean"]),
        ]
        for row in read(file_of("channels-sharing", net))["summary"]
    ]
    header = ["", "validation error before (%)", "validation error (%)", "test error (%)"]
    header += ["file (bytes)", "range", "multiply-adds", "multiply-adds, zeros skipped"]
    return in_markdown(header, lines)


def finished(net: str) -> dict[tuple[str, str], Row]:
    rows = read(file_of("channel-finishers", net))["summary"]
    return {(row["method"], row["finish"]): row for row in rows}
