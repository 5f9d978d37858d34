"""Every method in one table: error at three sizes of the file, through one codec.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/table.py lenet-300-100

Runs the scripts below, each of which measures what its results lack, and gathers from all of them
the nets whose files are about 2, 1 and 0.5 % of the original net in float32. Writes
``results/baselines/table-NET.json``; ``tables.py`` makes the table of the page from it.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from common.results import RESULTS, made_by, read, write
from shared import Row, file_of, short

from swsjax.training import PretrainConfig

SCRIPTS = ("sizes", "sharing", "untrained", "subspaces")
"""What is run; ``targets.py``, whose runs are hours, is only read."""
SHARES = (0.02, 0.01, 0.005)
"""Of the bytes of the original net in float32."""
WITHIN = 1.5
"""A file is about as large as a size if neither is more than so many times the other."""
BYTES = {"lenet-300-100": 1_066_440}
"""Of the original nets in float32, all parameters."""
IMAGES, BATCH = 50_000, 128


class Entry(NamedTuple):
    """A net of a method, mean over the seeds."""

    method: str
    passes: float
    """Through the training data, pretraining included; a gradient of a batch counts, whatever it
    is for."""
    of: int
    """Seeds."""
    test_error: dict[str, float]
    """Mean, and range."""
    file_bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("net", choices=BYTES)
    net = parser.parse_args().net
    for script in SCRIPTS:
        path = Path(__file__).with_name(f"{script}.py")
        subprocess.run([sys.executable, path, net], check=True)
    content = made_by(f"baselines/table.py {net}") | {"net": net, "sizes": sizes(net)}
    write(RESULTS / "baselines" / f"table-{net}.json", content | {"rows": rows(net)})


def sizes(net: str) -> list[int]:
    """The sizes that methods are compared at, in bytes."""
    return [round(share * BYTES[net]) for share in SHARES]


def rows(net: str) -> list[Row]:
    """Of each method its net next to each size, if one is near."""
    by_method: dict[str, list[Entry]] = {}
    for entry in (entry for gather in GATHERED for entry in gather(net)):
        by_method.setdefault(entry.method, []).append(entry)
    found = []
    for method, entries in by_method.items():
        at = {}
        for size in sizes(net):
            nearest = min(entries, key=lambda entry: _ratio(entry.file_bytes, size))
            if _ratio(nearest.file_bytes, size) <= WITHIN:
                at[str(size)] = nearest._asdict()
        if at:
            found.append({"method": method, "at": at})
    return found


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def of_pruned(net: str) -> Iterable[Entry]:
    """Pruned nets, as they are and with codebooks."""
    for row in read(file_of("sizes", net))["summary"]:
        for prefix, name in (("raw_", row["method"]), ("", f"{row['method']}, k-means")):
            error, size = row[f"{prefix}test_error"], row[f"{prefix}file_bytes"]
            yield Entry(
                name, _passes(row["gradient_steps"]["mean"]), row["of"], error, size["mean"]
            )


def of_shared(net: str) -> Iterable[Entry]:
    """Soft weight-sharing at the same cost."""
    for row in read(file_of("sharing", net))["summary"]:
        name = row["method"].replace("sharing", "soft weight-sharing").replace(" + ", ", ")
        steps, size = row["gradient_steps"]["mean"], row["file_bytes"]["mean"]
        yield Entry(name, _passes(steps), row["of"], row["test_error"], size)


def of_untrained(net: str) -> Iterable[Entry]:
    """Codebooks and bits without training."""
    for row in read(file_of("untrained", net))["summary"]:
        name = "k-means" if row["method"] == "k-means" else "affine bits"
        kept = "" if row["keep"] == 1 else "magnitude, "
        size = row["file_bytes"]["mean"]
        yield Entry(
            f"{kept}{name}, untrained", short(net).epochs, row["of"], row["test_error"], size
        )


def of_families(net: str) -> Iterable[Entry]:
    """Nets of one size taken from lines and points; of shares with codebooks, too."""
    for row in read(file_of("subspaces", net))["summary"]:
        name = f"{row['system']} ({row['kind']})"
        for prefix, suffix in (("", ""), ("shared_", ", k-means")):
            if f"{prefix}file_bytes" in row:
                error, size = row[f"{prefix}test_error"], row[f"{prefix}file_bytes"]["mean"]
                passes = _passes(row["gradients"]["mean"])
                yield Entry(name + suffix, passes, row["of"], error, size)


def of_targets(net: str) -> Iterable[Entry]:
    """Soft weight-sharing by the default, many times as long."""
    content = read(RESULTS / f"targets-{net}.json")
    config, pretraining = content["config"], PretrainConfig(**content["pretraining"])
    whole = config["soft_epochs"] + config["hard_epochs"]
    epochs = {"anneal": whole, "cycle": whole / 2, "prune": config["prune_epochs"]}
    walks = [seed["levels"]["sizes"] for seed in content["seeds"]]
    mean = sum(epochs[level["kind"]] for walk in walks for level in walk) / len(walks)
    for target, summary in content["summary"].items():
        if target.endswith("bytes"):
            size, seeds = summary["file_bytes"]["mean"], len(content["seeds"])
            passes = pretraining.epochs + mean
            name = "soft weight-sharing, default"
            yield Entry(name, passes, seeds, summary["test_error"], size)


def _passes(steps: float) -> float:
    return steps / (IMAGES // BATCH)


GATHERED: tuple[Callable[[str], Iterable[Entry]], ...] = (
    of_targets,
    of_pruned,
    of_shared,
    of_untrained,
    of_families,
)

if __name__ == "__main__":
    main()
