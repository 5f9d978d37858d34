"""The tables of the page that helps to choose a method."""

from collections.abc import Callable
from functools import partial
from typing import Any

from common.results import RESULTS, read
from fill_tables import count, in_markdown, percent

__all__ = ["methods_page"]


def methods_page(net: str) -> dict[str, Callable[[], str]]:
    """What makes the table at each marker."""
    return {"choices": partial(choices_table, net), "methods": partial(methods_table, net)}


def choices_table(net: str) -> str:
    """What to take in which case, with what it gave on a net."""
    at = partial(cell, table_of(net))
    rows = [
        (
            "a trained network, labels, and several times as long as its training took",
            "[`compress`](quickstart.md) with a target",
            f"{at('soft weight-sharing, default', -1)} ([more](results.md))",
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
            "",
        ),
        (
            "no time to train",
            "few bits (`quantize_affine`), or codebooks (`k_means`)",
            at("affine bits, untrained", 0),
        ),
        (
            "too much to compute",
            "[channels removed](channels.md), then `compress`",
            "",
        ),
        (
            "devices of several sizes",
            "several targets in one run; [one artefact](subspaces.md) if they must share a file",
            "",
        ),
    ]
    return in_markdown(["you have", "take", "LeNet-300-100 then has"], [list(row) for row in rows])


def cell(table: dict[str, Any], method: str, size: int) -> str:
    """Error, bytes and cost of a method's net of one of the sizes."""
    (row,) = (row for row in table["rows"] if row["method"] == method)
    found = row["at"][str(table["sizes"][size])]
    error = percent(found["test_error"]["mean"])
    return f"{error} % at {count(found['file_bytes'])} bytes, {found['passes']:.0f} passes"


def methods_table(net: str) -> str:
    """Test error of every method at each size, and its cost."""
    table = table_of(net)
    rows = []
    for row in table["rows"]:
        passes = max(found["passes"] for found in row["at"].values())
        cells = [written(row["at"].get(str(size))) for size in table["sizes"]]
        rows.append([row["method"], f"{passes:.0f}", *cells])
    sizes = [f"about {count(size)} bytes: error (%), bytes" for size in table["sizes"]]
    return in_markdown(["method", "passes", *sizes], rows)


def written(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    error = found["test_error"]
    span = f"{percent(error['mean'])} ({percent(error['min'])} to {percent(error['max'])})"
    return f"{span}, {count(found['file_bytes'])}"


def table_of(net: str) -> dict[str, Any]:
    content: dict[str, Any] = read(RESULTS / "baselines" / f"table-{net}.json")
    return content
