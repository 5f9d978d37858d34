"""One row of a results table: a net, a setting, several seeds, from untrained to decoded file."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import swsjax
from swsjax.atomic import write_bytes
from swsjax.classifier import Classifier, build, compress_classifier, pretrain_classifier
from swsjax.data import Dataset, load_mnist
from swsjax.train import PretrainConfig

RESULTS = Path(__file__).parent / "results"


def run_row(
    *,
    command: str,
    net: str,
    model: Callable[..., nnx.Module],
    pretrain_config: Callable[[int], PretrainConfig],
    setting: str,
    config: Callable[[int], swsjax.Config],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Run all seeds on MNIST, write ``results/NET/SETTING-seedK.sws`` and ``SETTING.json``.

    Settings come as functions of the seed. The test images are looked at once, at the end.
    """
    folder = RESULTS / net
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_mnist()
    rows = []
    for seed in seeds:
        started = time.perf_counter()
        pretrained = pretrain_classifier(
            build(model, dataset, seed=seed), dataset, pretrain_config(seed)
        )
        result = compress_classifier(pretrained, dataset, config(seed))
        seconds = time.perf_counter() - started
        path = folder / f"{setting}-seed{seed}.sws"
        swsjax.save(path, result.params, metadata={"model": net, "data": "mnist"})
        measured = swsjax.report(path, errors=_errors(pretrained, result, path, dataset))
        print(f"seed {seed}, {seconds:.0f} s\n{measured}\n", flush=True)
        rows.append({"seed": seed, "file": path.name, "seconds": seconds} | measured.to_dict())
    content = {
        "command": command,
        "net": net,
        "setting": setting,
        "config": repr(config(seeds[0])),
        "machine": f"{platform.machine()}, {jax.default_backend()}, {jax.device_count()} device(s)",
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
        "summary": _summary(rows),
        "seeds": rows,
    }
    write_bytes(folder / f"{setting}.json", (json.dumps(content, indent=1) + "\n").encode())
    return content


def _errors(
    pretrained: Classifier, result: swsjax.Result, path: Path, dataset: Dataset
) -> dict[str, float]:
    decoded = pretrained._replace(params=swsjax.load(path, like=pretrained.params))
    retrained = pretrained._replace(params=result.retrained)
    return {
        "pretrained (validation)": pretrained.error(dataset.validation),
        "decoded file (validation)": decoded.error(dataset.validation),
        "pretrained (test)": pretrained.error(dataset.test),
        "retrained (test)": retrained.error(dataset.test),
        "decoded file (test)": decoded.error(dataset.test),
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}

    return {
        "pretrained_test_error": spread([row["errors"]["pretrained (test)"] for row in rows]),
        "test_error": spread([row["errors"]["decoded file (test)"] for row in rows]),
        "density": spread([row["density"] for row in rows]),
        "file_bytes": spread([row["file_bytes"] for row in rows]),
        "file_rate": spread([row["rates"]["file"] for row in rows]),
        "han_rate": spread([row["rates"]["han"] for row in rows]),
        "entropy_bound_rate": spread([row["rates"]["entropy_bound"] for row in rows]),
        "seconds": spread([row["seconds"] for row in rows]),
    }
