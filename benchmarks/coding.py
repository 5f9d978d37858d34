"""The codec against the entropy bound, the Han format and general compressors, net by net.

    SWSJAX_DATA=... python benchmarks/coding.py

Rows: seed 0 of every setting in ``results/``; the same architectures pretrained, then pruned by
magnitude to several densities and clustered by k-means; synthetic nets of 25 million weights whose
rows and columns are unevenly dense. Each encoding and decoding runs in a fresh process on one core;
peak memory is what the process grew by, the net included (Linux). At the end, the full test on
damaged files. Writes ``results/coding.json``.
"""

import gzip
import lzma
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common.results import RESULTS, RUNS, made_by, write
from common.rows import pretrained_net

from swsjax import codec, file
from swsjax.sws.recipes import RECIPES
from swsjax.trees import named_leaves

DENSITIES = (0.1, 0.05, 0.02, 0.01, 0.003)
LEVELS = 16
SYNTHETIC_SHAPE = (5000, 5000)
SYNTHETIC_DENSITIES = (0.01, 0.1)
FUZZ_CASES = 20_000


def main() -> None:
    print(
        f"{'net':<34}{'dense':>7}{'Han B':>10}{'Huffman B':>10}{'bound B':>10}{'file B':>9}"
        f"{'ratio':>7}{'over B':>9}{'enc s':>7}{'dec s':>7}{'mem':>6}{'best peer':>10}"
    )
    rows = []
    for name, tree in nets():
        rows.append(measure(name, tree))
        print(line(rows[-1]), flush=True)
    content = {"cores_used": 1, "rows": rows, "fuzz": fuzz()}
    write(RESULTS / "coding.json", made_by("coding.py", "constriction", "scipy") | content)


def nets() -> Iterator[tuple[str, Any]]:
    """Name and pytree of every row."""
    for path in sorted(RESULTS.glob("*/*-seed0.sws")):
        yield f"{path.parent.name} {path.stem}", file.load(path)
    for name in RECIPES:
        net, _ = pretrained_net(name, 0)
        for density in DENSITIES:
            yield f"{name} pruned to {density:.1%}", pruned(net.params, density)
    for density in SYNTHETIC_DENSITIES:
        yield f"25 million synthetic, {density:.0%}", synthetic(density)


def pruned(params: Any, density: float) -> Any:
    """Keep the largest weights of the whole net, and give them LEVELS values by k-means."""
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, params))
    weights = np.concatenate([leaf.ravel() for leaf in leaves])
    kept = np.abs(weights) > np.quantile(np.abs(weights), 1 - density)
    values = np.sort(weights[kept])
    centres = values[(np.arange(LEVELS) * 2 + 1) * values.size // (2 * LEVELS)].astype(np.float64)
    for _ in range(100):
        cluster = np.digitize(values, (centres[1:] + centres[:-1]) / 2)
        counts = np.bincount(cluster, minlength=LEVELS)
        centres = np.bincount(cluster, values, LEVELS) / np.maximum(counts, 1)
    weights[kept] = centres[np.digitize(weights[kept], (centres[1:] + centres[:-1]) / 2)]
    weights[~kept] = 0
    parts = np.split(weights, np.cumsum([leaf.size for leaf in leaves])[:-1])
    parts = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)


def synthetic(density: float) -> Any:
    rng = np.random.default_rng(0)
    columns = SYNTHETIC_SHAPE[1]
    levels = rng.normal(size=LEVELS).astype(np.float32)
    kernel = np.zeros(SYNTHETIC_SHAPE, np.float32)
    by_column = rng.gamma(1, 1, columns)
    for row in kernel:
        hit = np.flatnonzero(rng.random(columns) < density * rng.gamma(1, 1) * by_column)
        row[hit] = levels[np.minimum(*rng.integers(LEVELS, size=(2, hit.size)))]
    return {"kernel": kernel}


def measure(name: str, tree: Any) -> dict[str, Any]:
    """A row: bytes in every format, and seconds and memory of the codec."""
    arrays = jax.tree.leaves(tree)
    path = RUNS / "coding" / "row.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **dict(named_leaves(tree)))
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        encode_seconds, encode_peak = pool.apply(run, ("encode", path))
        decode_seconds, decode_peak = pool.apply(run, ("decode", path))
    data = path.with_suffix(".sws").read_bytes()
    decoded = jax.tree.leaves(file.loads(data, like=tree))
    if any(a.tobytes() != b.tobytes() for a, b in zip(arrays, decoded, strict=True)):
        raise SystemExit(f"{name}: decoded file differs")
    bound = sum(leaf.total for leaf in codec.entropy_bound(arrays)) / 8
    weights = sum(array.size for array in arrays)
    return {
        "net": name,
        "weights": weights,
        "density": sum(int(np.count_nonzero(array)) for array in arrays) / weights,
        "han_bytes": sum(leaf.total for leaf in codec.han_size(arrays)) / 8,
        "huffman_bytes": sum(leaf.total for leaf in codec.han_size(arrays, huffman=True)) / 8,
        "bound_bytes": bound,
        "file_bytes": len(data),
        "file_over_bound": len(data) / bound,
        "bytes_over_bound": len(data) - bound,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        "peak_over_dense": max(encode_peak, decode_peak) / (4 * weights),
        "peers": peers(arrays),
    }


def run(action: str, path: Path) -> tuple[float, int]:
    """Encode or decode in this process; seconds and the bytes by which its memory grew."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    codec.unpack(codec.pack([(("warm", "up"), np.eye(9))]))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak_memory()
    if action == "encode":
        with np.load(path) as stored:
            leaves = [(tuple(name.split("/")), stored[name]) for name in stored.files]
        started = time.perf_counter()
        data = codec.pack(leaves)
        seconds = time.perf_counter() - started
        path.with_suffix(".sws").write_bytes(data)
    else:
        data = path.with_suffix(".sws").read_bytes()
        started = time.perf_counter()
        codec.unpack(data)
        seconds = time.perf_counter() - started
    return seconds, peak_memory() - before


def peak_memory() -> int:
    """Bytes of the largest resident set of this process."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peers(arrays: list[np.ndarray]) -> dict[str, int]:
    """Bytes of general compressors, on the dense arrays and on SciPy's CSR arrays."""
    dense = b"".join(array.tobytes() for array in arrays)
    sparse = [file.to_sparse(array) for array in arrays]
    csr = b"".join(x.tobytes() for m in sparse for x in (m.data, m.indices, m.indptr))
    out = {}
    for name, data in (("dense", dense), ("csr", csr)):
        out[f"{name} gzip -9"] = len(gzip.compress(data, 9))
        out[f"{name} xz -9"] = len(lzma.compress(data, preset=9))
        if shutil.which("zstd"):
            command = ["zstd", "-19", "-c", "-q"]
            done = subprocess.run(command, input=data, capture_output=True, check=True)
            out[f"{name} zstd -19"] = len(done.stdout)
    return out


def fuzz() -> dict[str, Any]:
    """The full test on damaged files."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "tests/codec/test_fuzz.py"]
    environment = os.environ | {"SWSJAX_FUZZ_CASES": str(FUZZ_CASES)}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, check=False)
    seconds = time.perf_counter() - started
    return {"cases": FUZZ_CASES, "passed": done.returncode == 0, "seconds": seconds}


def line(row: dict[str, Any]) -> str:
    best = min(row["peers"].values())
    return (
        f"{row['net']:<34}{row['density']:>7.2%}{row['han_bytes']:>10.0f}"
        f"{row['huffman_bytes']:>10.0f}{row['bound_bytes']:>10.0f}{row['file_bytes']:>9}"
        f"{row['file_over_bound']:>7.3f}{row['bytes_over_bound']:>9.0f}"
        f"{row['encode_seconds']:>7.2f}{row['decode_seconds']:>7.2f}{row['peak_over_dense']:>6.1f}"
        f"{best:>10}"
    )


if __name__ == "__main__":
    main()
