"""The tables of the README and of the pages in docs/, from the committed JSON files.

python benchmarks/fill_tables.py    # rewrites the tables between their markers
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from swsjax.measure import published

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Table 1 of the paper: error before, non-zero weights, rate in the Han format.
PAPER = "soft weight-sharing, 2017"
PAPER_TABLE = {"lenet-300-100": (0.0189, 0.043, 64), "lenet-5-caffe": (0.0088, 0.005, 162)}


def main() -> None:
    for path in tables():
        path.write_text(with_tables(path))


def tables() -> dict[Path, dict[str, Callable[[], str]]]:
    """What makes the table at each marker of each page."""
    settings = {"results: python benchmarks/fill_tables.py": settings_table}
    experiments = read("experiments.json")["experiments"]
    return {
        ROOT / "README.md": settings,
        ROOT / "docs" / "speed.md": {"speed": speed_table, "engine": prior_table},
        ROOT / "docs" / "experiments.md": {
            group: partial(experiments_table, lines) for group, lines in experiments.items()
        },
        ROOT / "docs" / "results.md": {
            **settings,
            "targets": targets_table,
            "published": published_table,
            "front of lenet-300-100": partial(front_table, "lenet-300-100"),
            "front of lenet-5-caffe": partial(front_table, "lenet-5-caffe"),
            "search": search_table,
            "codec": coding_table,
        },
    }


def with_tables(path: Path) -> str:
    """A page with its tables made again."""
    text = path.read_text()
    for marker, make in tables()[path].items():
        start = f"<!-- {marker} -->\n"
        end = f"<!-- end of {marker.partition(': ')[0]} -->\n"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = before + start + make() + end + after
    return text


def settings_table() -> str:
    """Every setting of both nets, one network after the other."""
    rows = []
    for net in PAPER_TABLE:
        found = [read(path) for path in (RESULTS / net).glob("*.json")]
        found.sort(key=lambda content: content["summary"]["test_error"]["mean"])
        rows += [*map(settings_row, found), paper_row(net)]
    return in_markdown(
        ["network, on MNIST", "test error before → decoded file", "non-zero", "file", "Han format"],
        rows,
    )


def settings_row(content: dict[str, Any]) -> list[str]:
    """Means over the seeds, with the range of the error."""
    summary = content["summary"]
    before, after = summary["pretrained_test_error"], summary["test_error"]
    one = len(content["seeds"]) == 1
    spread = "one seed" if one else f"{100 * after['min']:.2f} to {100 * after['max']:.2f}"
    return [
        f"{content['net']}, {content['setting']}",
        f"{100 * before['mean']:.2f} → {percent(after['mean'])} ({spread})",
        percent(summary["density"]["mean"], 1),
        f"{size(summary['file_bytes']['mean'])}, **{times(summary['file_rate']['mean'])}**",
        times(summary["han_rate"]["mean"]),
    ]


def paper_row(net: str) -> list[str]:
    before, density, rate = PAPER_TABLE[net]
    (paper,) = (result for result in published.BY_NET[net] if result.label == PAPER)
    errors = f"{100 * before:.2f} → {percent(paper.error)}"
    return ["the paper", errors, percent(density, 1), "", times(rate)]


def front_table(net: str) -> str:
    """The points between and beyond the settings of one net."""
    rows = [
        [
            point["setting"],
            percent(point["validation_error"]),
            percent(point["test_error"]),
            size(point["file_bytes"]),
            times(point["han_rate"]),
        ]
        for point in read(f"frontier-{net}.json")["points"]
    ]
    return in_markdown(["", "validation error", "test error", "file", "Han format"], rows)


def targets_table() -> str:
    """What one default and a target make of LeNet-300-100."""
    content = read("targets-lenet-300-100.json")
    before = [seed["pretrained"]["test"] for seed in content["seeds"]]
    rows = [["pretrained", "", percent(sum(before) / len(before)), ""]]
    for name, summary in content["summary"].items():
        test, sizes = summary["test_error"], summary["file_bytes"]
        spread = f"{100 * test['min']:.2f} to {100 * test['max']:.2f}"
        rows.append(
            [
                f"at most {name}" + (" lost" if name.endswith("points") else ""),
                percent(summary["validation_error"]["mean"]),
                f"{percent(test['mean'])} ({spread})",
                f"{size(sizes['mean'])} ({sizes['min']:,} to {sizes['max']:,})",
            ]
        )
    return in_markdown(["target", "validation error", "test error", "file"], rows)


def published_table() -> str:
    """What others published for both networks."""
    rows = [
        [net, result.label, percent(result.error), size(result.size_bytes), result.kind]
        for net, results in published.BY_NET.items()
        for result in results
    ]
    header = ["network", "method", "test error", "size", "what the size counts"]
    return in_markdown(header, rows)


def search_table() -> str:
    """The front that a search found, its first trial, and the chosen one as a file."""
    content = read("search-lenet-300-100.json")
    first = [point for point in content["beaten"] if point["trial"] == 0]
    trials = [
        [
            "0, as it began" if point["trial"] == 0 else str(point["trial"]),
            percent(point["error"]),
            f"{point['file_bytes']:,}",
            f"{point['config']['tau']:.3g}",
            f"{point['config']['pi_zero']:.4g}",
            str(point["config"]["components"]),
            f"{point['config']['soft_learning_rates']['precisions']:.2g}",
            f"{point['config']['keep']:.2f}",
        ]
        for point in sorted(content["front"] + first, key=lambda point: point["file_bytes"])
    ]
    header = ["trial", "validation error", "bytes", "`tau`", "`pi_zero`", "`components`"]
    header += ["`soft_learning_rates.precisions`", "`keep`"]
    completed, stopped = len(content["front"] + content["beaten"]), content["stopped"]
    files = {
        f"trial {content['chosen']['trial']}": content["chosen"]["report"],
        "the balanced setting": content["defaults"],
    }
    measured = [
        [
            name,
            percent(report["errors"]["decoded"]["validation"]),
            percent(report["errors"]["decoded"]["test"]),
            size(report["file_bytes"]),
        ]
        for name, report in files.items()
    ]
    return (
        in_markdown(header, trials)
        + f"\n{completed} trials were completed, {stopped} stopped early. "
        + "As files, both errors:\n\n"
        + in_markdown(["", "validation error", "test error", "file"], measured)
    )


def coding_table() -> str:
    """Bytes of the same weights in several formats."""
    rows = []
    for row in read("coding.json")["rows"]:
        sizes = [row["file_bytes"], row["bound_bytes"], row["huffman_bytes"], row["han_bytes"]]
        sizes += [row["peers"].get(f"{kind} xz -9") for kind in ("csr", "dense")]
        cells = ["" if number is None else f"{number:,.0f}" for number in sizes]
        rows.append([row["net"], percent(row["density"], 1), *cells])
    header = ["weights", "density", "file", "entropy bound", "Han format, Huffman coded"]
    return in_markdown([*header, "Han format", "sparse rows, xz", "dense, xz"], rows)


def experiments_table(lines: dict[str, list[dict[str, Any]]]) -> str:
    """One change per line, seed by seed."""
    rows = []
    for name, seeds in lines.items():
        done = [row for row in seeds if "failed" not in row]
        lost = len(seeds) - len(done)
        errors = ", ".join(f"{100 * row['validation_error']:.2f}" for row in done) + " %"
        cells = [
            "; ".join([f"{lost} of {len(seeds)} nets lost"] * (lost > 0) + [errors] * bool(done)),
            ", ".join(f"{row['file_bytes']:,}" for row in done) + " bytes" * bool(done),
            ", ".join(times(row["han_rate"]) for row in done),
            ", ".join(str(row["levels"]) for row in done),
        ]
        if seeds:
            rows.append([name, " | ".join(cells)])
    return in_markdown(["", "validation error", "file", "Han format", "levels"], rows)


def prior_table() -> str:
    """The exact against the tabulated prior."""
    rows = []
    for row in read("exact-prior-lenet-300-100.json")["seeds"]:
        for prior in ("exact", "tabulated"):
            found = row[prior]
            wrong = found["largest_prior_error"]
            errors = percent(found["validation_error"]), percent(found["test_error"])
            last = f"{wrong:.1e}" if wrong else "-"
            rows.append([f"seed {row['seed']}, {prior}", *errors, size(found["file_bytes"]), last])
    header = ["", "validation error", "test error", "file", "largest error of the prior"]
    return in_markdown(header, rows)


def speed_table() -> str:
    """What the prior costs."""
    speed = read("speed-cpu.json")
    prior, torch, scaling = speed["prior"], speed["against_torch"], speed["scaling"]
    rows = [
        [
            f"prior and all gradients, {prior['weights'] / 1e6:.1f} M weights, 17 components, "
            "against `logsumexp` over (N, J)",
            f"{times(prior['speedup'])} faster",
        ],
        [
            "its temporaries, and those of `logsumexp`",
            f"{prior['temporary_bytes_per_weight']:.1f} and "
            f"{prior['logsumexp_temporary_bytes_per_weight']:.0f} bytes a weight",
        ],
        ["257 components against 17", f"{times(prior['many_components_over_few'], 2)} the time"],
        ["against one Adam update", f"{times(prior['prior_over_adam_update'], 1)} the time"],
        *scaling_rows(scaling),
        *(
            [
                f"a step of {net} against one without a prior, soft and hard stage",
                f"{times(row['soft_over_plain'], 2)} and {times(row['hard_over_plain'], 2)} "
                "the time",
            ]
            for net, row in speed["steps"].items()
        ),
        [
            f"an epoch of LeNet-300-100 under the prior against PyTorch {torch['torch']}",
            f"{times(torch['lenet_300_100_retraining_speedup'])} faster",
        ],
        [
            "a plain epoch of LeNet-300-100 and of LeNet-5-Caffe against PyTorch",
            f"{times(torch['lenet_300_100_plain_speedup'], 1)} and "
            f"{times(torch['lenet_5_caffe_plain_speedup'], 2)} as fast",
        ],
    ]
    return in_markdown(["what", "measured"], rows)


def scaling_rows(scaling: list[dict[str, float]]) -> list[list[str]]:
    """Time and memory per weight, one figure per number of weights."""
    sizes = ", ".join(f"{row['weights']:.0e}".replace("e+0", "e") for row in scaling)

    def figures(name: str) -> str:
        return ", ".join(f"{row[name]:.1f}" for row in scaling)

    loop, single = "nanoseconds_per_weight", "nanoseconds_per_weight_of_a_single_call"
    return [
        [f"{sizes} weights, steps in a compiled loop", f"{figures(loop)} ns a weight"],
        ["the same, single calls", f"{figures(single)} ns a weight"],
        [
            "the same, temporaries in a loop",
            f"{figures('temporary_bytes_per_weight')} bytes a weight",
        ],
    ]


def read(path: str | Path) -> dict[str, Any]:
    return json.loads((RESULTS / path).read_text())


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def times(factor: float, digits: int = 0) -> str:
    return f"{factor:.{digits}f}x"


def size(number: float) -> str:
    return f"{number:,.0f} bytes"


def in_markdown(header: list[str], rows: list[list[str]]) -> str:
    return line(header) + "|" + "---|" * len(header) + "\n" + "".join(map(line, rows))


def line(cells: list[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"


if __name__ == "__main__":
    main()
