"""The tables of the README and of the pages in docs/, from the committed JSON files.

python benchmarks/tables.py    # rewrites the tables between their markers
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from swsjax import published

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
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
    seeds = len(content["seeds"])
    spread = f"{100 * after['min']:.2f} to {100 * after['max']:.2f}" if seeds > 1 else "one seed"
    return (
        f"| {content['net']}, {content['setting']} "
        f"| {100 * before['mean']:.2f} → {100 * after['mean']:.2f} % "
        f"({spread}) "
        f"| {100 * summary['density']['mean']:.1f} % "
        f"| {summary['file_bytes']['mean']:,.0f} bytes, **{summary['file_rate']['mean']:.0f}x** "
        f"| {summary['han_rate']['mean']:.0f}x |\n"
    )


def table() -> str:
    """The whole table in Markdown, one network after the other."""
    lines = HEADER
    for net, paper in PUBLISHED.items():
        found = [json.loads(path.read_text()) for path in (RESULTS / net).glob("*.json")]
        found.sort(key=lambda content: content["summary"]["test_error"]["mean"])
        lines += "".join(map(row, found))
        if found:
            lines += paper
    return lines


def speed_table() -> str:
    """What the prior costs, in Markdown."""
    speed = json.loads((RESULTS / "speed-cpu.json").read_text())
    prior, steps, torch = speed["prior"], speed["steps"], speed["against_torch"]
    in_loop, in_calls, bytes_each = (
        ", ".join(f"{row[name]:.1f}" for row in speed["scaling"])
        for name in (
            "nanoseconds_per_weight",
            "nanoseconds_per_weight_of_a_single_call",
            "temporary_bytes_per_weight",
        )
    )
    sizes = ", ".join(f"{row['weights']:.0e}".replace("e+0", "e") for row in speed["scaling"])
    rows = [
        (
            f"prior and all gradients, {prior['weights'] / 1e6:.1f} M weights, 17 components, "
            "against `logsumexp` over (N, J)",
            f"{prior['speedup']:.0f}x faster",
        ),
        (
            "its temporaries, and those of `logsumexp`",
            f"{prior['temporary_bytes_per_weight']:.1f} and "
            f"{prior['logsumexp_temporary_bytes_per_weight']:.0f} bytes a weight",
        ),
        ("257 components against 17", f"{prior['many_components_over_few']:.2f}x the time"),
        ("against one Adam update", f"{prior['prior_over_adam_update']:.1f}x the time"),
        (f"{sizes} weights, steps in a compiled loop", f"{in_loop} ns a weight"),
        ("the same, single calls", f"{in_calls} ns a weight"),
        ("the same, temporaries in a loop", f"{bytes_each} bytes a weight"),
        *(
            (
                f"a step of {net} against one without a prior, soft and hard stage",
                f"{row['soft_over_plain']:.2f}x and {row['hard_over_plain']:.2f}x the time",
            )
            for net, row in steps.items()
        ),
        (
            f"an epoch of LeNet-300-100 under the prior against PyTorch {torch['torch']}",
            f"{torch['lenet_300_100_retraining_speedup']:.0f}x faster",
        ),
        (
            "a plain epoch of LeNet-300-100 and of LeNet-5-Caffe against PyTorch",
            f"{torch['lenet_300_100_plain_speedup']:.1f}x and "
            f"{torch['lenet_5_caffe_plain_speedup']:.2f}x as fast",
        ),
    ]
    return "| what | measured |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


def engine_table() -> str:
    """The exact against the tabulated prior, in Markdown."""
    content = json.loads((RESULTS / "exact-lenet-300-100.json").read_text())
    lines = "| | validation error | test error | file | largest error of the prior |\n"
    lines += "|---|---|---|---|---|\n"
    for row in content["seeds"]:
        for method in ("exact", "tabulated"):
            wrong = row[method]["largest_prior_error"]
            lines += (
                f"| seed {row['seed']}, {method} | {100 * row[method]['validation_error']:.2f} % "
                f"| {100 * row[method]['test_error']:.2f} % "
                f"| {row[method]['file_bytes']:,} bytes | {f'{wrong:.1e}' if wrong else '-'} |\n"
            )
    return lines


def experiments_table(group: str) -> str:
    """One change a line, seed by seed, in Markdown."""
    content = json.loads((RESULTS / "experiments.json").read_text())
    lines = "| | validation error | file | Han format | levels |\n|---|---|---|---|---|\n"
    for name, rows in content["experiments"][group].items():
        if not rows:
            continue
        done = [row for row in rows if "failed" not in row]
        cells = [
            ", ".join(f"{100 * row['validation_error']:.2f}" for row in done) + " %",
            ", ".join(f"{row['file_bytes']:,}" for row in done) + " bytes",
            ", ".join(f"{row['han_rate']:.0f}x" for row in done),
            ", ".join(str(row["levels"]) for row in done),
        ]
        if len(done) < len(rows):
            cells[0] = f"{len(rows) - len(done)} of {len(rows)} nets lost" + (
                f"; {cells[0]}" if done else ""
            )
        if not done:
            cells[1:] = ["", "", ""]
        lines += f"| {name} | {' | '.join(cells)} |\n"
    return lines


def experiments_tables() -> dict[str, Callable[[], str]]:
    """Every group of experiments by its marker."""
    content = json.loads((RESULTS / "experiments.json").read_text())
    return {group: partial(experiments_table, group) for group in content["experiments"]}


def published_table() -> str:
    """What others published for both networks, in Markdown."""
    lines = (
        "| network | method | test error | size | what the size counts |\n|---|---|---|---|---|\n"
    )
    for net, results in published.BY_NET.items():
        for result in results:
            lines += (
                f"| {net} | {result.label} | {100 * result.error:.2f} % "
                f"| {result.size_bytes:,.0f} bytes | {result.kind} |\n"
            )
    return lines


def front_table(net: str) -> str:
    """The points between and beyond the settings of one net, in Markdown."""
    content = json.loads((RESULTS / f"frontier-{net}.json").read_text())
    lines = "| | validation error | test error | file | Han format |\n|---|---|---|---|---|\n"
    for point in content["points"]:
        lines += (
            f"| {point['setting']} | {100 * point['validation_error']:.2f} % "
            f"| {100 * point['test_error']:.2f} % | {point['file_bytes']:,} bytes "
            f"| {point['han_rate']:.0f}x |\n"
        )
    return lines


def search_table() -> str:
    """The front that a search found, its first trial, and the chosen one as a file."""
    content = json.loads((RESULTS / "search-lenet-300-100.json").read_text())
    first = [point for point in content["beaten"] if point["trial"] == 0]
    lines = "| trial | validation error | bytes | `tau` | `pi_zero` | `components` "
    lines += "| `soft_rates.precisions` | `kept` |\n|---|---|---|---|---|---|---|---|\n"
    for point in sorted(content["front"] + first, key=lambda point: point["file_bytes"]):
        config = point["config"]
        name = "0, as it began" if point["trial"] == 0 else point["trial"]
        lines += (
            f"| {name} | {100 * point['error']:.2f} % | {point['file_bytes']:,} "
            f"| {config['tau']:.3g} | {config['pi_zero']:.4g} | {config['components']} "
            f"| {config['soft_rates']['precisions']:.2g} | {config['kept']:.2f} |\n"
        )
    completed, stopped = len(content["front"] + content["beaten"]), content["pruned"]
    lines += (
        f"\n{completed} trials were completed, {stopped} stopped early. As files, both errors:\n\n"
    )
    files = {
        f"trial {content['chosen']['trial']}": content["chosen"]["report"],
        "the balanced setting": content["defaults"],
    }
    lines += "| | validation error | test error | file |\n|---|---|---|---|\n"
    for name, report in files.items():
        validation, test = (
            report["errors"][f"decoded file ({split})"] for split in ("validation", "test")
        )
        lines += f"| {name} | {100 * validation:.2f} % | {100 * test:.2f} % "
        lines += f"| {report['file_bytes']:,} bytes |\n"
    return lines


def codec_table() -> str:
    """Bytes of the same weights in several formats, in Markdown."""
    content = json.loads((RESULTS / "codec.json").read_text())
    lines = "| weights | density | file | entropy bound | Han format, Huffman coded | Han format "
    lines += "| sparse rows, xz | dense, xz |\n|---|---|---|---|---|---|---|---|\n"
    for row in content["rows"]:
        sizes = [row["file_bytes"], row["bound_bytes"], row["huffman_bytes"], row["han_bytes"]]
        sizes += [row["peers"].get(f"{kind} xz -9") for kind in ("csr", "dense")]
        cells = " | ".join("" if size is None else f"{size:,.0f}" for size in sizes)
        lines += f"| {row['net']} | {100 * row['density']:.1f} % | {cells} |\n"
    return lines


TABLES = {
    ROOT / "README.md": {"results: python benchmarks/tables.py": table},
    ROOT / "docs" / "speed.md": {"speed": speed_table, "engine": engine_table},
    ROOT / "docs" / "experiments.md": experiments_tables(),
    ROOT / "docs" / "results.md": {
        "results: python benchmarks/tables.py": table,
        "published": published_table,
        "front of lenet-300-100": partial(front_table, "lenet-300-100"),
        "front of lenet-5-caffe": partial(front_table, "lenet-5-caffe"),
        "search": search_table,
        "codec": codec_table,
    },
}


def with_tables(path: Path) -> str:
    """A page with its tables made anew."""
    text = path.read_text()
    for marker, make in TABLES[path].items():
        start = f"<!-- {marker} -->\n"
        end = f"<!-- end of {marker.partition(': ')[0]} -->\n"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = before + start + make() + end + after
    return text


if __name__ == "__main__":
    for path in TABLES:
        path.write_text(with_tables(path))
