"""WRN-16-4 on CIFAR-10, from untrained to decoded file, in one command that can be interrupted.

    SWSJAX_DATA=... python benchmarks/wrn_16_4.py                     # a GPU: about 8 minutes
    SWSJAX_DATA=... python benchmarks/wrn_16_4.py --net resnet-8 --images 2000 --epochs 2

Pretrains with SGD, crops and flips, then compresses to the sizes below by the default settings,
distilled from the net itself on images cropped and flipped in the same way. Everything is kept
under ``--folder``: the pretrained net, the nets on the way, the log; started again, it goes on
after the last epoch. Writes the files and ``results.json`` there; ``--out`` also writes it among
the results.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
from common.results import RESULTS, RUNS, levels, made_by, write

import swsjax
from swsjax.file import load_checkpoint, save_checkpoint
from swsjax.lab import (
    NETS,
    Split,
    Task,
    Variables,
    classification,
    load_cifar10,
    pretrain_task,
)
from swsjax.sws import Outcome
from swsjax.sws.recipes import Recipe, compress_task
from swsjax.training import Epoch

SIZES = (200_000, 150_000, 100_000)


def main() -> None:
    options = _options()
    folder = options.folder / f"{options.net}-seed{options.seed}-images{options.images or 'all'}"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    task = _task(options.net, options.images)
    log = _logged(folder / "log.txt", started)
    net = _pretrained(task, options, folder / "pretrained", log)
    config = swsjax.Config(
        soft_epochs=options.epochs or 30,
        hard_epochs=options.epochs or 20,
        prune_epochs=options.epochs or 24,
        seed=options.seed,
    )
    result = compress_task(
        task,
        net,
        Recipe(config),
        augment=NETS[options.net].pretraining.augment(),
        target_bytes=options.sizes,
        callback=log,
        resume=folder / "state",
    )
    names = [f"{size:,} bytes" for size in options.sizes]
    ends = zip(names, result.outcomes, strict=True)
    found = {
        "net": options.net,
        "seed": options.seed,
        "images": len(task.dataset.train.labels),
        "config": config.to_dict(),
        "pretraining": asdict(NETS[options.net].pretraining),
        "errors": {"pretrained": _errors(task, net)},
        "targets": {name: _figures(task, one, folder, options.net) for name, one in ends},
        "levels": levels(result),
        "device": jax.devices()[0].device_kind,
        "seconds": time.perf_counter() - started,
    }
    write(folder / "results.json", made_by("wrn_16_4.py") | found)
    if options.out:
        write(RESULTS / f"{options.net}-seed{options.seed}.json", made_by("wrn_16_4.py") | found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", choices=["wrn-16-4", "resnet-8"], default="wrn-16-4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, help="of the training images; all by default")
    parser.add_argument("--epochs", type=int, help="of each stage and of pretraining, for a trial")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="bytes of the files")
    parser.add_argument("--folder", type=Path, default=RUNS / "cifar10")
    parser.add_argument("--out", action="store_true")
    return parser.parse_args()


def _task(net: str, images: int | None) -> Task:
    cifar = load_cifar10()
    train = Split(*(array[:images] for array in cifar.train))
    return classification(NETS[net].model, cifar._replace(train=train))


def _pretrained(
    task: Task, options: argparse.Namespace, path: Path, log: Callable[[Epoch], None]
) -> Variables:
    if not path.exists():
        config = replace(NETS[options.net].pretraining, seed=options.seed)
        if options.epochs:
            config = replace(config, epochs=options.epochs)
        save_checkpoint(path, task.whole(pretrain_task(task, config, callback=log)))
    return task.parts(load_checkpoint(path, task.whole(task.init(options.seed))))


def _errors(task: Task, net: Variables) -> dict[str, float]:
    data = task.dataset
    return {name: task.error(net, getattr(data, name)) for name in ("validation", "test")}


def _figures(task: Task, outcome: Outcome, folder: Path, net: str) -> dict[str, Any]:
    """Measured on what the file decodes to, statistics and all."""
    whole = task.whole(Variables(outcome.params, outcome.aux))
    path = folder / f"{net}-{outcome.file_bytes}.sws"
    swsjax.save(path, whole, metadata={"model": net, "data": "cifar10"})
    decoded = task.parts(swsjax.load(path, like=whole))
    report = swsjax.report(path, errors={"decoded": _errors(task, decoded)})
    return {"text": outcome.text, "reached": outcome.reached, "file": path.name} | report.to_dict()


def _logged(path: Path, started: float) -> Callable[[Epoch], None]:
    def log(epoch: Epoch) -> None:
        seconds = time.perf_counter() - started
        error = "" if epoch.error is None else f" error {epoch.error:.4f}"
        line = f"{seconds:.0f} s {epoch.stage} {epoch.epoch}/{epoch.epochs} loss {epoch.loss:.4f}"
        with path.open("a") as file:
            file.write(f"{line}{error} non-zero {epoch.non_zeros}\n")

    return log


if __name__ == "__main__":
    main()
