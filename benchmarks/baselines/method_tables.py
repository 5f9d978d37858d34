"""The tables of the page that helps to choose a method."""

from collections.abc import Callable
from functools import partial
from typing import Any

from common.results import RESULTS, read
from fill_tables import count, in_markdown, percent

__all__ = ["methods_page"]

UNKNOWN = ["", "", ""]
"""Where no row of the table is the answer."""


def methods_page(net: str) -> dict[str, Callable[[], str]]:
    """What makes the table at each marker."""
    return {"choices": partial(choices_table, net), "methods": partial(methods_table, net)}


def choices_table(net: str) -> str:
    """What to take in which case, with what it gave on a net."""
    at = partial(figures_of, table_of(net))
    rows = [
        (
            "a trained network, labels, and several times as long as its training took",
            "[`compress`](quickstart.md) with a target: [results](results.md)",
            at("soft weight-sharing, default", -1),
        ),
        (
            "the same, and little time",
            "magnitude pruning, then a short `compress` of what is left",
            at("magnitude, soft weight-sharing", 1),
        ),
        (
            "no trained network yet, and little time",
            "FORCE, training, then the same",
            at("FORCE, soft weight-sharing", -1),
        ),
        (
            "inputs without labels",
            "`compress` with the network as its own teacher: [how](faq.md#i-have-no-labels)",
            UNKNOWN,
        ),
        (
            "no time to train",
            "few bits (`quantize_affine`), or codebooks (`k_means`)",
            at("affine bits, untrained", 0),
        ),
        (
            "too much to compute",
            "[channels removed](channels.md), then `compress`",
            UNKNOWN,
        ),
        (
            "devices of several sizes",
            "several targets in one run; [one artefact](subspaces.md) if they must share a file",
            UNKNOWN,
        ),
    ]
    header = ["you have", "take", "error (%)", "bytes", "passes"]
    return in_markdown(header, [[case, method, *figures] for case, method, figures in rows])


def figures_of(table: dict[str, Any], method: str, size: int) -> list[str]:
    """Error, bytes and cost of a method's net of one of the sizes."""
    (row,) = (row for row in table["rows"] if row["method"] == method)
    found = row["at"][str(table["sizes"][size])]
    error = percent(found["test_error"]["mean"])
    return [error, count(found["file_bytes"]), f"{found['passes']:.0f}"]


def methods_table(net: str) -> str:
    """Test error of every method at each size, and its cost."""
    table = table_of(net)
    rows = []
    for row in table["rows"]:
        passes = max(found["passes"] for found in row["at"].values())
        cells = [written(row["at"].get(str(size))) for size in table["sizes"]]
        rows.append([row["method"], f"{passes:.0f}", *cells])
    sizes = [f"{size / 1000:.0f} kB: error (%), bytes" for size in table["sizes"]]
    return in_markdown(["method", "passes", *sizes], rows)


def written(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return f"{percent(found['test_error']['mean'])}, {count(found['file_bytes'])}"


def table_of(net: str) -> dict[str, Any]:
    content: dict[str, Any] = read(RESULTS / "baselines" / f"table-{net}.json")
    return content
