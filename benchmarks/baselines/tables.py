"""The tables of the pages on other methods, from the results of the scripts in this folder.

PYTHONPATH=benchmarks python benchmarks/baselines/tables.py    # rewrites them between their markers
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from channel_tables import channel_page
from common.results import RESULTS, read
from fill_tables import count, factor, filled, in_markdown, mean_and_range
from method_tables import methods_page
from shared import file_of
from subspace_tables import subspace_page

NET = "lenet-300-100"
CONVOLUTIONAL = "lenet-5-caffe"
DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    for page, made in pages().items():
        page.write_text(filled(page.read_text(), made))


def pages() -> dict[Path, dict[str, Callable[[], str]]]:
    """What makes the tables of each page."""
    return {
        DOCS / "baselines.md": tables(),
        DOCS / "methods.md": methods_page(NET),
        DOCS / "channels.md": channel_page("lenet-5-caffe", "resnet-8"),
        DOCS / "subspaces.md": subspace_page(),
    }


def tables() -> dict[str, Callable[[], str]]:
    """What makes the table at each marker of the first page."""
    return {
        "density": partial(density_table, NET),
        "steps": partial(steps_table, NET),
        "finishers": partial(finishers_table, NET),
        "sizes": partial(sizes_table, NET),
        "density with convolutions": partial(density_table, CONVOLUTIONAL),
        "finishers with convolutions": partial(finishers_table, CONVOLUTIONAL),
        "sizes with convolutions": partial(sizes_table, CONVOLUTIONAL),
        "speed": speed_table,
    }


def density_table(net: str) -> str:
    """Test error of each method at each density."""
    rows = read(file_of("density", net))["summary"]
    keeps = sorted({row["keep"] for row in rows}, reverse=True)
    cells = {(row["method"], row["keep"]): mean_and_range(row["test_error"]) for row in rows}
    methods = dict.fromkeys(row["method"] for row in rows)
    header = ["test error (%) at", *(f"{100 * keep:g} %" for keep in keeps)]
    return in_markdown(
        header, [[name, *(cells.get((name, keep), "") for keep in keeps)] for name in methods]
    )


def steps_table(net: str) -> str:
    """Saliency, error and time by the number of steps."""
    rows = read(file_of("progressive", net))["summary"]
    keeps = sorted({row["keep"] for row in rows}, reverse=True)
    found = {(row["method"], row["steps"], row["keep"]): row for row in rows}
    lines = []
    for method, steps in dict.fromkeys((row["method"], row["steps"]) for row in rows):
        saliencies = [
            f"{found[method, steps, keep]['saliency']['mean']:.2g}"
            for keep in keeps
            if (method, steps, keep) in found
        ]
        (trained,) = (
            row
            for row in rows
            if (row["method"], row["steps"]) == (method, steps) and "test_error" in row
        )
        seconds = factor(trained["mask_processor_seconds"]["mean"], 2)
        lines.append(
            [f"{method}, {steps}", *saliencies, mean_and_range(trained["test_error"]), seconds]
        )
    header = [
        "method, steps",
        *(f"saliency at {100 * keep:g} %" for keep in keeps),
        "test error at 1 % (%)",
        "processor seconds",
    ]
    return in_markdown(header, lines)


def finishers_table(net: str) -> str:
    """Test error of each way to finish."""
    rows = read(file_of("finishers", net))["summary"]
    keeps = [keep for keep in dict.fromkeys(row["keep"] for row in rows) if keep < 1]
    cells = {(row["finish"], row["keep"]): row for row in rows}
    lines = [
        [name, "", mean_and_range(cells[name, 1.0]["test_error"]), *[""] * (len(keeps) - 1)]
        for name in dict.fromkeys(row["finish"] for row in rows if row["keep"] == 1)
    ]
    for name in dict.fromkeys(row["finish"] for row in rows if row["keep"] < 1):
        of_name = [cells[name, keep] for keep in keeps if (name, keep) in cells]
        epochs = f"{of_name[0]['epochs_after_pruning']['mean']:g}"
        errors = [mean_and_range(row["test_error"]) for row in of_name]
        lines.append([name, epochs, *errors, *[""] * (len(keeps) - len(errors))])
    header = ["", "epochs", *(f"test error at {100 * keep:g} % (%)" for keep in keeps)]
    return in_markdown(header, lines)


def sizes_table(net: str) -> str:
    """Error and bytes of each method without and with codebooks, and of soft weight-sharing."""
    content = read(file_of("sizes", net))
    lines = [
        [
            f"{row['method']}, {100 * row['keep']:g} %",
            mean_and_range(row["raw_test_error"]),
            count(row["raw_file_bytes"]["mean"]),
            mean_and_range(row["test_error"]),
            count(row["file_bytes"]["mean"]),
            factor(row["file_rate"]["mean"]),
            count(row["gradient_steps"]["mean"]),
        ]
        for row in sorted(content["summary"], key=lambda row: (row["method"], -row["keep"]))
    ]
    sharing = file_of("sharing", net)
    for row in read(sharing)["summary"] if sharing.exists() else []:
        kept = f"{row['method'].partition(' + ')[0]}, {100 * row['keep']:g} %, then "
        name = f"{'' if row['keep'] == 1 else kept}sharing, tau {row['tau']:g}"
        figures = [mean_and_range(row["test_error"]), count(row["file_bytes"]["mean"])]
        cost = [factor(row["file_rate"]["mean"]), count(row["gradient_steps"]["mean"])]
        lines.append([name, "", "", *figures, *cost])
    path = RESULTS / f"targets-{net}.json"
    if path.exists():
        first = content["seeds"][0]
        whole = first["file_bytes"] * first["file_rate"]
        for name, row in read(path)["summary"].items():
            size = row["file_bytes"]["mean"]
            cells = [mean_and_range(row["test_error"]), count(size), factor(whole / size), ""]
            lines.append([f"sharing by default, {name}", "", "", *cells])
    header = [
        "",
        "as pruned, error (%)",
        "file (bytes)",
        "with codebooks, error (%)",
        "file (bytes)",
        "rate",
        "gradient steps",
    ]
    return in_markdown(header, lines)


def speed_table() -> str:
    """Masks against PyTorch's."""
    found = read(RESULTS / "baselines" / "masks-speed-cpu.json")
    header = [
        "cores",
        "swsjax (s)",
        f"PyTorch {found['versions']['torch'].partition('+')[0]} (s)",
        "times as fast",
    ]
    times = [factor(found[name], 2) for name in ("seconds", "torch_seconds", "speedup")]
    return in_markdown(header, [[str(found["cores_used"]), *times]])


if __name__ == "__main__":
    main()
