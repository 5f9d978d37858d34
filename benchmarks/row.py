"""One row of a results table: a net, a setting, several seeds, from untrained to decoded file.

What settings have in common, pretrained nets and the stages before pruning, is trained once a seed
and kept under ``runs/``, which git ignores; delete it after a change of the code.
"""

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

import swsjax
from swsjax.file.atomic import write_bytes
from swsjax.lab.task import (
    TEMPERATURE,
    Classifier,
    build,
    compress_classifier,
    errors_of,
    pretrain_classifier,
    teacher_seeds,
)
from swsjax.lab.data import Dataset, load_mnist
from swsjax.sws.recipes import Recipe
from swsjax.training.loop import PretrainConfig

RESULTS = Path(__file__).parent / "results"
RUNS = Path(__file__).parent.parent / "runs"


def run_row(
    *,
    command: str,
    net: str,
    model: Callable[..., nnx.Module],
    pretraining: PretrainConfig,
    setting: str,
    recipe: Recipe,
    seeds: Sequence[int],
    folder: Path | None = None,
) -> None:
    """Run all seeds on MNIST, write ``SETTING-seedK.sws`` and ``SETTING.json`` to the folder.

    The folder is ``results/NET`` if none is given.

    The JSON is written after every seed, and seeds that it holds for the same settings are not run
    again. The test images are looked at once, at the end.
    """
    folder = folder or RESULTS / net
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{setting}.json"
    settings = {
        "config": repr(recipe.config),
        "share": recipe.share,
        "temperature": recipe.temperature,
        "teachers": recipe.teachers,
        "pretraining": repr(pretraining),
    }
    rows = _done(target, settings)
    dataset = load_mnist()
    for seed in seeds:
        if seed in [row["seed"] for row in rows]:
            continue
        row = _run(
            folder / f"{setting}-seed{seed}.sws", net, model, pretraining, recipe, seed, dataset
        )
        rows = sorted([*rows, row], key=lambda row: row["seed"])
        content = {
            "command": command,
            "net": net,
            "setting": setting,
            **settings,
            "machine": f"{platform.machine()}, {jax.default_backend()}, "
            f"{jax.device_count()} device(s)",
            "versions": {"jax": jax.__version__, "numpy": np.__version__},
            "summary": _summary(rows),
            "seeds": rows,
        }
        write_bytes(target, (json.dumps(content, indent=1) + "\n").encode())


def _done(target: Path, settings: dict[str, str]) -> list[dict[str, Any]]:
    """Seeds that the results hold for these settings."""
    if not target.exists():
        return []
    content = json.loads(target.read_text())
    same = all(content.get(name) == value for name, value in settings.items())
    return content["seeds"] if same else []


def _run(
    path: Path,
    net: str,
    model: Callable[..., nnx.Module],
    pretraining: PretrainConfig,
    recipe: Recipe,
    seed: int,
    dataset: Dataset,
) -> dict[str, Any]:
    config = replace(recipe.config, seed=seed)
    nets = [
        pretrained_of(net, build(model, dataset, seed=one), replace(pretraining, seed=one), dataset)
        for one in (seed, *teacher_seeds(seed, recipe.teachers))
    ]
    (pretrained, *teachers), took = zip(*nets, strict=True)
    given = {"share": recipe.share, "temperature": recipe.temperature, "teachers": teachers}
    result, seconds = start_of(net, pretrained, pretraining, config, dataset, **given)
    seconds += sum(took)
    folder = _folder(f"{net}-pruned-seed{seed}", repr((pretraining, recipe)))
    state = folder.with_suffix(".state")
    if config.prune_epochs:
        last = replace(config, soft_epochs=0, hard_epochs=0)
        result, pruning = _timed(
            state, partial(compress_classifier, pretrained, dataset, last, start=result, **given)
        )
        seconds += pruning
    swsjax.save(path, result.params, metadata={"model": net, "data": "mnist"})
    decoded = swsjax.load(path, like=pretrained.params)
    measured = swsjax.report(path, errors=errors_of(pretrained, result, decoded, dataset))
    print(f"seed {seed}, {seconds:.0f} s\n{measured}\n", flush=True)
    _forget(state)
    return {"seed": seed, "file": path.name, "seconds": seconds} | measured.to_dict()


def pretrained_of(
    net: str, untrained: Classifier, pretraining: PretrainConfig, dataset: Dataset
) -> tuple[Classifier, float]:
    """The pretrained net, and the seconds that it took."""

    def train(state: Path) -> dict[str, Any]:
        del state  # soon done
        started = time.perf_counter()
        params = pretrain_classifier(untrained, dataset, pretraining).params
        return {"params": params, "seconds": np.float64(time.perf_counter() - started)}

    kept = _kept(f"{net}-pretrained-seed{pretraining.seed}", repr(pretraining), train)
    return untrained._replace(params=kept["params"]), kept["seconds"].item()


def start_of(
    net: str,
    pretrained: Classifier,
    pretraining: PretrainConfig,
    config: swsjax.Config,
    dataset: Dataset,
    *,
    share: float = 0.5,
    temperature: float = TEMPERATURE,
    teachers: Sequence[Classifier] = (),
) -> tuple[swsjax.Result, float]:
    """The result of soft and hard stage, and the seconds that they took."""
    # What only pruning asks for does not matter here.
    config = replace(config, prune_epochs=0, kept=1.0, prune_rates=swsjax.Rates())

    def train(state: Path) -> dict[str, Any]:
        result, seconds = _timed(
            state,
            partial(
                compress_classifier,
                pretrained,
                dataset,
                config,
                share=share,
                temperature=temperature,
                teachers=teachers,
            ),
        )
        return {
            "retrained": result.retrained,
            "mixture": result.mixtures["weights"]._asdict(),
            "seconds": np.float64(seconds),
        }

    settings = repr((pretraining, config, share, temperature, len(teachers)))
    kept = _kept(f"{net}-seed{config.seed}", settings, train)
    mixture = swsjax.GaussianMixture(**kept["mixture"])
    quantised = swsjax.quantize(mixture, kept["retrained"])
    result = swsjax.Result(quantised, kept["retrained"], {"weights": mixture}, [])
    return result, kept["seconds"].item()


def _timed(state: Path, compress: Callable[..., swsjax.Result]) -> tuple[swsjax.Result, float]:
    """The result of a run that keeps its state there, and the seconds, earlier tries counted in."""
    watch = state.with_suffix(".seconds")
    before = float(watch.read_text()) if watch.exists() else 0.0
    started = time.perf_counter()

    def seconds() -> float:
        return before + time.perf_counter() - started

    result = compress(
        checkpoint=state, callback=lambda progress: write_bytes(watch, str(seconds()).encode())
    )
    return result, seconds()


def _forget(state: Path) -> None:
    """Remove a state and its seconds, once what came of them is written."""
    shutil.rmtree(state, ignore_errors=True)
    state.with_suffix(".seconds").unlink(missing_ok=True)


def _folder(name: str, settings: str) -> Path:
    return RUNS / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


def _kept(name: str, settings: str, train: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What was trained with these settings, or is now; ``train`` may keep a state meanwhile."""
    folder = _folder(name, settings)
    with ocp.StandardCheckpointer() as checkpointer:
        if not folder.exists():
            state = folder.with_suffix(".state")
            checkpointer.save(folder, train(state))
            checkpointer.wait_until_finished()
            _forget(state)
        return checkpointer.restore(folder)


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
