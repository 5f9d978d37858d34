"""The tables of the README and of the pages in docs/, from the committed JSON files.

python benchmarks/fill_tables.py    # rewrites the tables between their markers
"""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from swsjax.lab import NETS
from swsjax.measure import published

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Table 1 of the paper: error before, non-zero weights, rate in the Han format.
PAPER = "soft weight-sharing, 2017"
PAPER_TABLE = {"lenet-300-100": (0.0189, 0.043, 64), "lenet-5-caffe": (0.0088, 0.005, 162)}
TITLES = {net: NETS[net].title for net in PAPER_TABLE}
MEASURED = ["validation error (%)", "test error (%)", "file (bytes)"]


def main() -> None:
    for path in tables():
        path.write_text(with_tables(path))


def tables() -> dict[Path, dict[str, Callable[[], str]]]:
    """What makes the table at each marker of each page."""
    made = "results: python benchmarks/fill_tables.py"
    experiments = read("experiments.json")["experiments"]
    return {
        ROOT / "README.md": {made: readme_table},
        ROOT / "docs" / "speed.md": {
            "gains": gains_table,
            "costs": costs_table,
        },
        ROOT / "docs" / "engine.md": {
            "components": components_table,
            "sizes": scaling_table,
            "engine": prior_table,
        },
        ROOT / "docs" / "experiments.md": {
            group: partial(experiments_table, lines) for group, lines in experiments.items()
        },
        ROOT / "docs" / "results.md": {
            made: settings_table,
            "targets": targets_table,
            "transformer": transformer_table,
            "residual": residual_table,
            "others": others_table,
            "published": published_table,
            "front of lenet-300-100": partial(front_table, "lenet-300-100"),
            "front of lenet-5-caffe": partial(front_table, "lenet-5-caffe"),
            "search": search_table,
            "codec": coding_table,
        },
    }


def with_tables(path: Path) -> str:
    """A page with its tables made again."""
    return filled(path.read_text(), tables()[path])


def filled(text: str, tables: dict[str, Callable[[], str]]) -> str:
    """A text with what is made at each marker between its start and its end."""
    for marker, make in tables.items():
        start = f"<!-- {marker} -->\n"
        end = f"<!-- end of {marker.partition(': ')[0]} -->\n"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = before + start + make() + end + after
    return text


def readme_table() -> str:
    """Error and size: LeNet-300-100 by the default, LeNet-5-Caffe by its settings."""
    rows = [*default_rows("lenet-300-100"), *map(readme_row, settings_of("lenet-5-caffe"))]
    header = ["network and setting", "test error before → after (%)", "file (bytes)"]
    return in_markdown([*header, "times smaller than float32"], rows)


def default_rows(net: str) -> list[list[str]]:
    """Error and size at each target, from large to small."""
    content = read(f"targets-{net}.json")
    before = mean(seed["pretrained"]["test"] for seed in content["seeds"])
    whole = settings_of(net)[0]["seeds"][0]["float32_bytes"]
    sizes = {f"target_bytes={size}": f"{size:,} bytes" for size in content["target_bytes"]}
    named = sizes | {f"max_loss={content['max_loss']:g}": f"{100 * content['max_loss']:g} points"}
    rows = []
    for argument, name in named.items():
        found = content["summary"][name]
        after, size = found["test_error"]["mean"], found["file_bytes"]["mean"]
        errors = f"{percent(before)} → {percent(after)}"
        rows.append([f"{TITLES[net]}, `{argument}`", errors, count(size), factor(whole / size)])
    return rows


def readme_row(content: dict[str, Any]) -> list[str]:
    """Error and size of a setting."""
    summary = content["summary"]
    before, after = summary["pretrained_test_error"], summary["test_error"]
    return [
        f"{TITLES[content['net']]}, {content['setting']}",
        f"{percent(before['mean'])} → {percent(after['mean'])}",
        count(summary["file_bytes"]["mean"]),
        factor(summary["file_rate"]["mean"]),
    ]


def settings_table() -> str:
    """Every setting of both nets, one network after the other, with the paper's row."""
    rows = [
        row for net in PAPER_TABLE for row in (*map(settings_row, settings_of(net)), paper_row(net))
    ]
    header = ["network", "setting", "before (%)", "after (%)", "seeds (%)", "non-zero (%)"]
    header += ["file (bytes)", "rate, file", "rate, Han format"]
    return in_markdown(header, rows)


def settings_of(net: str) -> list[dict[str, Any]]:
    """The results of the settings of one net, the smallest error first."""
    found = [read(path) for path in (RESULTS / net).glob("*.json")]
    return sorted(found, key=lambda content: content["summary"]["test_error"]["mean"])


def settings_row(content: dict[str, Any]) -> list[str]:
    """Means over the seeds, with the range of the error."""
    summary = content["summary"]
    return [
        TITLES[content["net"]],
        content["setting"],
        percent(summary["pretrained_test_error"]["mean"]),
        percent(summary["test_error"]["mean"]),
        span(summary["test_error"], percent),
        percent(summary["density"]["mean"], 1),
        count(summary["file_bytes"]["mean"]),
        factor(summary["file_rate"]["mean"]),
        factor(summary["han_rate"]["mean"]),
    ]


def paper_row(net: str) -> list[str]:
    before, density, rate = PAPER_TABLE[net]
    (paper,) = (result for result in published.BY_NET[net] if result.label == PAPER)
    errors = [percent(before), percent(paper.error), ""]
    return [TITLES[net], "the paper", *errors, percent(density, 1), "", "", factor(rate)]


def front_table(net: str) -> str:
    """The points between and beyond the settings of one net."""
    rows = [
        [
            point["setting"],
            percent(point["validation_error"]),
            percent(point["test_error"]),
            count(point["file_bytes"]),
            factor(point["han_rate"]),
        ]
        for point in read(f"frontier-{net}.json")["points"]
    ]
    return in_markdown(["setting", *MEASURED, "rate, Han format"], rows)


def targets_table() -> str:
    """What one default and a target make of LeNet-300-100; ranges where there are seeds."""
    content = read("targets-lenet-300-100.json")
    before = [seed["pretrained"]["test"] for seed in content["seeds"]]
    ranges = ["test error, seeds (%)", "file, seeds (bytes)"][: 2 * (len(before) > 1)]
    rows = [["pretrained", "", percent(sum(before) / len(before)), "", *[""] * len(ranges)]]
    for name, summary in content["summary"].items():
        test, sizes = summary["test_error"], summary["file_bytes"]
        rows.append(
            [
                f"at most {name}" + (" lost" if name.endswith("points") else ""),
                percent(summary["validation_error"]["mean"]),
                percent(test["mean"]),
                count(sizes["mean"]),
                *[span(test, percent), span(sizes, count)][: len(ranges)],
            ]
        )
    return in_markdown(["target", *MEASURED, *ranges], rows)


def transformer_table() -> str:
    """What the default makes of a transformer."""
    content = read("targets-character-transformer.json")
    rows = []
    for row in content["seeds"]:
        report, errors = row["report"], row["errors"]
        for name, size in (
            ("pretrained", report["float32_bytes"]),
            ("decoded", report["file_bytes"]),
        ):
            rows.append(stage_row(name, errors[name], size, report["float32_bytes"]))
    return in_markdown(["network", *MEASURED, "rate"], rows)


def residual_table() -> str:
    """What the default makes of ResNet-8."""
    whole = 4 * read(Path("baselines/channels-resnet-8.json"))["seeds"][0]["parameters"]
    rows = []
    for row in read("targets-resnet-8.json")["seeds"]:
        (end,) = row["targets"].values()
        for name, errors, size in (
            ("pretrained", row["pretrained"], whole),
            ("decoded", end["errors"], end["file_bytes"]),
        ):
            rows.append(stage_row(name, errors, size, whole))
    return in_markdown(["network", *MEASURED, "rate"], rows)


def others_table() -> str:
    """What the default makes of nets that it was not made with."""
    rows = read("other-nets.json")["seeds"]
    lines = []
    for name in dict.fromkeys(row["net"] for row in rows):
        seeds = [row for row in rows if row["net"] == name]
        errors = [
            mean_and_range(spread([row[stage]["test"] for row in seeds]))
            for stage in ("pretrained", "decoded")
        ]
        size = mean(row["file_bytes"] for row in seeds)
        parameters = seeds[0]["parameters"]
        reached = f"{sum(row['reached'] for row in seeds)} of {len(seeds)}"
        figures = [count(size), factor(4 * parameters / size, 1), reached]
        lines.append([name, count(parameters), *errors, *figures])
    header = ["network, data", "parameters", "pretrained (%)", "compressed (%)"]
    return in_markdown([*header, "file (bytes)", "rate", "reached"], lines)


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": mean(values), "min": min(values), "max": max(values)}


def stage_row(name: str, errors: dict[str, float], size: int, whole: int) -> list[str]:
    """Errors, bytes and rate of a network before or after."""
    found = [percent(errors[split]) for split in ("validation", "test")]
    return [name, *found, count(size), factor(whole / size, 1)]


def published_table() -> str:
    """What others published for both networks."""
    rows = [
        [TITLES[net], result.label, percent(result.error), count(result.size_bytes), result.kind]
        for net, results in published.BY_NET.items()
        for result in results
    ]
    header = ["network", "method", "test error (%)", "size (bytes)", "what the size counts"]
    return in_markdown(header, rows)


def search_table() -> str:
    """The front that a search found, its first trial, and the chosen one as a file."""
    content = read("search-lenet-300-100.json")
    first = [point for point in content["dominated"] if point["trial"] == 0]
    trials = [
        [
            str(point["trial"]),
            percent(point["error"]),
            count(point["file_bytes"]),
            f"{point['config']['tau']:.3g}",
            f"{point['config']['pi_zero']:.4g}",
            str(point["config"]["components"]),
            f"{point['config']['soft_learning_rates']['precisions']:.2g}",
            f"{point['config']['keep']:.2f}",
        ]
        for point in sorted(content["front"] + first, key=lambda point: point["file_bytes"])
    ]
    header = ["trial", "validation error (%)", "size (bytes)", "`tau`", "`pi_zero`"]
    header += ["`components`", "`soft_learning_rates.precisions`", "`keep`"]
    completed, stopped = len(content["front"] + content["dominated"]), content["stopped"]
    files = {
        f"trial {content['chosen']['trial']}": content["chosen"]["report"],
        "the balanced setting": content["defaults"],
    }
    measured = [
        [
            name,
            percent(report["errors"]["decoded"]["validation"]),
            percent(report["errors"]["decoded"]["test"]),
            count(report["file_bytes"]),
        ]
        for name, report in files.items()
    ]
    return (
        in_markdown(header, trials)
        + f"\n{completed} trials were completed, {stopped} stopped early. "
        + "As files, both errors:\n\n"
        + in_markdown(["settings", *MEASURED], measured)
    )


def coding_table() -> str:
    """Bytes of the same weights in several formats."""
    rows = []
    for row in read("coding.json")["rows"]:
        sizes = [row["file_bytes"], row["bound_bytes"], row["huffman_bytes"], row["han_bytes"]]
        sizes += [row["peers"].get(f"{kind} xz -9") for kind in ("csr", "dense")]
        cells = ["" if number is None else count(number) for number in sizes]
        rows.append([row["net"], percent(row["density"], 1), *cells])
    header = ["weights", "density (%)", "file (bytes)", "entropy bound (bytes)"]
    header += ["Han format, Huffman coded (bytes)", "Han format (bytes)"]
    return in_markdown([*header, "sparse rows, xz (bytes)", "dense, xz (bytes)"], rows)


def experiments_table(lines: dict[str, list[dict[str, Any]]]) -> str:
    """One change per line, seed by seed."""
    rows = []
    for name, seeds in lines.items():
        done = [row for row in seeds if "failed" not in row]
        lost = len(seeds) - len(done)
        errors = ", ".join(percent(row["validation_error"]) for row in done)
        cells = [
            "; ".join([f"{lost} of {len(seeds)} nets lost"] * (lost > 0) + [errors] * bool(done)),
            ", ".join(count(row["file_bytes"]) for row in done),
            ", ".join(factor(row["han_rate"]) for row in done),
            ", ".join(str(row["levels"]) for row in done),
        ]
        if seeds:
            rows.append([name, *cells])
    header = ["change", "validation error (%)", "file (bytes)", "rate, Han format", "levels"]
    return in_markdown(header, rows)


def prior_table() -> str:
    """The exact against the tabulated prior."""
    rows = []
    for row in read("exact-prior-lenet-300-100.json")["seeds"]:
        for prior in ("exact", "tabulated"):
            found = row[prior]
            wrong = found["largest_prior_error"]
            errors = percent(found["validation_error"]), percent(found["test_error"])
            last = f"{wrong:.1e}" if wrong else ""
            rows.append([prior, str(row["seed"]), *errors, count(found["file_bytes"]), last])
    return in_markdown(["prior", "seed", *MEASURED, "largest error of the prior"], rows)


def gains_table() -> str:
    """What is faster here than elsewhere."""
    prior, torch = read("speed-cpu.json")["prior"], read("speed-cpu.json")["against_torch"]
    library = f"PyTorch {torch['torch'].partition('+')[0]}"
    return in_markdown(
        ["what", "against", "times as fast"],
        [
            [
                f"prior and all gradients, {prior['weights'] / 1e6:.1f} M weights, 17 components",
                "`logsumexp` over (N, J)",
                factor(prior["speedup"]),
            ],
            [
                "an epoch of LeNet-300-100 under the prior",
                library,
                factor(torch["lenet_300_100_retraining_speedup"]),
            ],
            [
                "an ordinary epoch of LeNet-300-100",
                library,
                factor(torch["lenet_300_100_plain_speedup"], 1),
            ],
            [
                "an ordinary epoch of LeNet-5-Caffe",
                library,
                factor(torch["lenet_5_caffe_plain_speedup"], 2),
            ],
        ],
    )


def costs_table() -> str:
    """What takes longer under the prior."""
    speed = read("speed-cpu.json")
    prior = speed["prior"]
    rows = [
        ["the prior", "an update of Adam", factor(prior["prior_over_adam_update"], 1)],
        ["257 components", "17 components", factor(prior["many_components_over_few"], 2)],
    ]
    for net, row in speed["steps"].items():
        name, _, when = net.partition(" ")
        for stage in ("soft", "hard"):
            what = " ".join(filter(None, [f"a {stage} step of {TITLES[name]}", when]))
            rows.append([what, "one without a prior", factor(row[f"{stage}_over_plain"], 2)])
    for net, row in speed["epochs"].items():
        for stage in ("soft", "hard"):
            what = f"a whole {stage} epoch of {TITLES[net]}, its state on disk"
            times = 1 / (1 - row[stage]["share_outside_steps"])
            rows.append([what, "its steps alone", factor(times, 2)])
    return in_markdown(["what", "against", "times as long"], rows)


def components_table() -> str:
    """The prior over weights and components, against a copy and the obvious implementation."""
    rows = [
        [
            count(row["weights"]),
            count(row["components"]),
            "kernel" if row["kernel"] else "table",
            f"{100 * row['share_of_copy']:.0f}",
            factor(row["speedup_over_logsumexp"]) if "speedup_over_logsumexp" in row else "",
        ]
        for row in read("speed-cpu.json")["components"]
    ]
    header = ["weights", "components", "by", "speed of a copy (%)", "times as fast as logsumexp"]
    return in_markdown(header, rows)


def scaling_table() -> str:
    """Time and memory per weight, one row per number of weights."""
    speed = read("speed-cpu.json")
    rows = [
        [
            count(row["weights"]),
            f"{row['nanoseconds_per_weight']:.1f}",
            f"{row['nanoseconds_per_weight_of_a_single_call']:.1f}",
            f"{row['temporary_bytes_per_weight']:.1f}",
        ]
        for row in speed["scaling"]
    ]
    header = ["weights", "in a compiled loop (ns per weight)", "single calls (ns per weight)"]
    ours, others = (
        speed["prior"][f"{kind}temporary_bytes_per_weight"] for kind in ("", "logsumexp_")
    )
    return (
        in_markdown([*header, "temporaries in the loop (bytes per weight)"], rows)
        + f"\nIn single calls, temporaries of the prior take {ours:.1f} bytes per weight, those of "
        + f"`logsumexp` {others:.0f}.\n"
    )


def read(path: str | Path) -> dict[str, Any]:
    return json.loads((RESULTS / path).read_text())


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}"


def factor(number: float, digits: int = 0) -> str:
    return f"{number:,.{digits}f}"


def count(number: float) -> str:
    return f"{number:,.0f}"


def span(summary: dict[str, float], written: Callable[[float], str]) -> str:
    return f"{written(summary['min'])} to {written(summary['max'])}"


def mean_and_range(summary: dict[str, float], digits: int = 2) -> str:
    """A mean in percent, with its range over the seeds if there is one."""
    mean, least, most = (percent(summary[name], digits) for name in ("mean", "min", "max"))
    return mean if least == most else f"{mean} ({least} to {most})"


def in_markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table whose columns of numbers are aligned to the right.

    A number and its range in brackets may be on two lines, the range is on one.
    """
    columns = [list(column) for column in zip(*rows, strict=True)]
    numbers = [all(map(is_number, column)) for column in columns]
    marks = ["---:" if number else "---" for number in numbers]
    cells = [
        map(unbroken, column) if number else column
        for number, column in zip(numbers, columns, strict=True)
    ]
    body = "".join(line(list(row)) for row in zip(*cells, strict=True))
    return line(header) + "|" + "".join(f"{mark}|" for mark in marks) + "\n" + body


def unbroken(cell: str) -> str:
    """A cell whose brackets are not broken."""
    return re.sub(r"\([^)]*\)", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), cell)


def is_number(cell: str) -> bool:
    """Whether a cell has numbers, such as ``1.60 → 1.85`` or ``9, 9``, or nothing."""
    return not cell or cell[0].isdigit()


def line(cells: list[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"


if __name__ == "__main__":
    main()
