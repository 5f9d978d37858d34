"""Every method in one table: error at three sizes of the file, through one codec.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/table.py lenet-300-100

Also for ``lenet-5-caffe``. Runs the scripts below, each of which measures what its results lack,
and gathers from all of them the nets whose files are about 2, 1 and 0.5 % of the original net in
float32. Writes ``results/baselines/table-NET.json``; ``tables.py`` makes the table of the page from
it.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from common.results import RESULTS, made_by, read, write
from shared import IMAGES, Row, file_of, short

from swsjax.training import PretrainConfig

SCRIPTS = {
    "lenet-300-100": ("sizes", "sharing", "untrained", "subspaces"),
    "lenet-5-caffe": ("sizes", "sharing", "untrained", "channels", "channels_sharing"),
}
"""What is run for each net; ``targets.py``, whose runs are hours, is only read."""
SHARES = (0.02, 0.01, 0.005)
"""Of the bytes of the original net in float32."""
WITHIN = 1.5
"""A file is about as large as a size if neither is more than so many times the other."""
BYTES = {"lenet-300-100": 1_066_440, "lenet-5-caffe": 1_724_320}
"""Of the original nets in float32, all parameters."""
ALL_IMAGES, BATCH = 50_000, 128


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
    parser.add_argument("net", choices=SCRIPTS)
    net = parser.parse_args().net
    for script in SCRIPTS[net]:
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
    for gather in (of_targets, *(GATHERED[script] for script in SCRIPTS[net])):
        for entry in gather(net):
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
                name, _passes(row["gradient_steps"]["mean"], net), row["of"], error, size["mean"]
            )


def of_shared(net: str) -> Iterable[Entry]:
    """Soft weight-sharing at the same cost."""
    for row in read(file_of("sharing", net))["summary"]:
        name = row["method"].replace("sharing", "soft weight-sharing").replace(" + ", ", ")
        steps, size = row["gradient_steps"]["mean"], row["file_bytes"]["mean"]
        yield Entry(name, _passes(steps, net), row["of"], row["test_error"], size)


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
                passes = _passes(row["gradients"]["mean"], net)
                yield Entry(name + suffix, passes, row["of"], error, size)


def of_targets(net: str) -> Iterable[Entry]:
    """Soft weight-sharing by the default, many times as long, where it was measured."""
    path = RESULTS / f"targets-{net}.json"
    if not path.exists():
        return
    content = read(path)
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


def of_channels(net: str) -> Iterable[Entry]:
    """Nets without some of their channels, fine-tuned and with codebooks."""
    content = read(file_of("channels", net))
    passes = content["training"]["epochs"] + content["fine_tuning"]["epochs"]
    for row in content["summary"]:
        if row["keep"] < 1:
            name, size = f"channels ({row['method']}), k-means", row["file_bytes"]["mean"]
            yield Entry(name, passes, row["of"], row["k_means_test_error"], size)


def of_shared_channels(net: str) -> Iterable[Entry]:
    """Soft weight-sharing by the default within a budget, alone and after channels are removed."""
    content = read(file_of("channels-sharing", net))
    dense, tuning = content["training"]["epochs"], content["fine_tuning"]["epochs"]
    for row in content["summary"]:
        pretrained = dense + (tuning if row["method"].startswith("channels") else 0)
        passes = pretrained + _passes(content["budget"], net)
        name, size = f"{row['method']}, default in a budget", row["file_bytes"]["mean"]
        yield Entry(name, passes, row["of"], row["test_error"], size)


def _passes(steps: float, net: str) -> float:
    images = IMAGES[net].train if net in IMAGES else ALL_IMAGES
    return steps / (images // BATCH)


GATHERED: dict[str, Callable[[str], Iterable[Entry]]] = {
    "sizes": of_pruned,
    "sharing": of_shared,
    "untrained": of_untrained,
    "subspaces": of_families,
    "channels": of_channels,
    "channels_sharing": of_shared_channels,
}
"""What gathers the results of each script."""

if __name__ == "__main__":
    main()
