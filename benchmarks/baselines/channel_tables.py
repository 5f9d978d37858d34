"""The tables of ``docs/channels.md``, which ``tables.py`` fills in."""

from collections.abc import Callable
from functools import partial

from common.results import read
from fill_tables import count, factor, in_markdown, mean_and_range, percent
from shared import Row, file_of

__all__ = ["channel_page"]


def channel_page(net: str) -> dict[str, Callable[[], str]]:
    """What makes the table at each marker of the page."""
    return {
        "scores": partial(scores_table, net),
        "kept": partial(kept_table, net),
        "finishers": partial(finishers_table, net),
        "widths": partial(widths_table, net),
        "libraries": partial(libraries_table, net),
    }


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
        of_method = [cells[method, way] for way in ways if (method, way) in cells]
        errors = [mean_and_range(row["test_error"]) for row in of_method]
        epochs = f"{of_method[-1]['epochs']['mean']:g}" if len(of_method) == len(ways) else ""
        lines.append([method, *errors, *[""] * (len(ways) - len(errors)), epochs])
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
            factor(1e3 * row["processor_seconds"]["mean"]),
        ]
        for row in read(file_of("channels-libraries", net))["summary"]
    ]
    header = ["", "parameters", "multiply-adds", "channels as ours (%)"]
    header += ["validation error, not tuned (%)", "test error, tuned (%)", "time to prune (ms)"]
    return in_markdown(header, lines)


def finished(net: str) -> dict[tuple[str, str], Row]:
    rows = read(file_of("channel-finishers", net))["summary"]
    return {(row["method"], row["finish"]): row for row in rows}
