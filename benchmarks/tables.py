"""The results table of the README, from the committed JSON files.

python benchmarks/tables.py    # rewrites the table between the markers in README.md
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- results: python benchmarks/tables.py -->\n", "<!-- end of results -->\n"
HEADER = """\
| network, on MNIST | test error before → decoded file | non-zero | file | Han format |
|---|---|---|---|---|
"""
# Ullrich, Meeds, Welling, ICLR 2017, Table 1: error after, rate in the Han format.
PUBLISHED = {
    "lenet-300-100": "| the paper | 1.89 → 1.94 % | 4.3 % | | 64x |\n",
    "lenet-5-caffe": "| the paper | 0.88 → 0.97 % | 0.5 % | | 162x |\n",
}


def row(content: dict[str, Any]) -> str:
    """One line of the table: means over the seeds, with the range of what matters most."""
    summary = content["summary"]
    before, after = summary["pretrained_test_error"], summary["test_error"]
    return (
        f"| {content['net']}, {content['setting']} "
        f"| {100 * before['mean']:.2f} → {100 * after['mean']:.2f} % "
        f"({100 * after['min']:.2f} to {100 * after['max']:.2f}) "
        f"| {100 * summary['density']['mean']:.1f} % "
        f"| {summary['file_bytes']['mean']:,.0f} bytes, **{summary['file_rate']['mean']:.0f}x** "
        f"| {summary['han_rate']['mean']:.0f}x |\n"
    )


def table() -> str:
    """The whole table in Markdown, one network after the other."""
    lines = HEADER
    for net, published in PUBLISHED.items():
        found = sorted((RESULTS / net).glob("*.json"))
        lines += "".join(row(json.loads(path.read_text())) for path in found)
        if found:
            lines += published
    return lines


def with_table(text: str) -> str:
    """The README with its table made anew."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return before + START + table() + END + after


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text()))
