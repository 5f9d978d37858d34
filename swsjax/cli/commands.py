"""The commands, from parsed options to what they print and write."""

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from swsjax.cli.terminal import Reporter, reporter
from swsjax.errors import ConfigError, FormatError
from swsjax.file.atomic import write_bytes
from swsjax.file.checkpoint import load_checkpoint, save_checkpoint
from swsjax.file.files import load, read_metadata, save
from swsjax.file.safetensors import from_safetensors, safetensors_metadata, to_safetensors
from swsjax.lab.cifar import load_cifar10
from swsjax.lab.data import Dataset, load_digits, load_fashion_mnist, load_mnist
from swsjax.lab.nets import NETS
from swsjax.lab.task import Task, Variables, classification, pretrain_task
from swsjax.measure import published
from swsjax.measure.page import Picture, page
from swsjax.measure.plot import file_pictures, front_picture, save_pictures
from swsjax.measure.reports import Report, report
from swsjax.sws.compression import Result
from swsjax.sws.config import Config
from swsjax.sws.plot import run_pictures
from swsjax.sws.recipes import RECIPES, Recipe, compress_task, errors_of, teacher_seeds
from swsjax.sws.study import Study, search
from swsjax.training.history import Epoch
from swsjax.training.pretraining import PretrainConfig

__all__ = [
    "DATASETS",
    "USELESS",
    "run_compress",
    "run_decode",
    "run_demo",
    "run_encode",
    "run_evaluate",
    "run_inspect",
    "run_pretrain",
    "run_search",
    "versions",
]

USELESS = 3.0
"""Nets with more than this many times the error of the pretrained net are left out of a search."""
DATASETS: dict[str, Callable[[], Dataset]] = {
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "digits": load_digits,
}
"""Data sets by their names on the command line."""
# So that the demo takes less than a minute: an epoch is one pass through the 1,197 images.
_DEMO = Recipe(
    Config(tau=5e-6, soft_epochs=60, hard_epochs=40, prune_epochs=0, batch_size=32, least_steps=1)
)


def run_demo(options: argparse.Namespace) -> None:
    """Pretrain on handwritten digits, compress, reload and report."""
    folder = _writable(options.out)
    task = classification(NETS["lenet-300-100"].model, load_digits())
    with reporter() as show:
        config = PretrainConfig(epochs=60, batch_size=32)
        pretrained = pretrain_task(task, config, callback=show.epoch)
        result = compress_task(task, pretrained, _DEMO, callback=show.epoch)
    metadata = {"model": "lenet-300-100", "data": "digits"}
    run = _Run(task, pretrained, result, _DEMO)
    _write(folder / "demo.sws", run, metadata)


def run_pretrain(options: argparse.Namespace) -> None:
    """Train a net in the ordinary way."""
    folder = _writable(options.out)
    task = _task(options.model, options.data)
    with reporter() as show:
        pretrained = _pretrained(options, task, options.seed, show)
    save_checkpoint(folder / "checkpoint", task.whole(pretrained))
    errors = {
        "validation": task.error(pretrained, task.dataset.validation),
        "test": task.error(pretrained, task.dataset.test),
    }
    settings = {"model": options.model, "data": options.data, "seed": options.seed}
    _write_json(folder / "pretrain.json", settings | {"errors": errors})
    print(f"validation error {100 * errors['validation']:.2f} %, test {100 * errors['test']:.2f} %")
    print(f"wrote {folder / 'checkpoint'}")


def run_compress(options: argparse.Namespace) -> None:
    """Retrain, quantise and write a net."""
    folder = _writable(options.out)
    recipe, targets = _recipe(options), _targets(options)
    task = _task(options.model, options.data)
    state = folder / "state"  # the same command, run again, resumes from there
    with reporter() as show:
        pretrained = _given(options, task, show)
        result = compress_task(
            task,
            pretrained,
            recipe,
            teachers=_teachers(options, task, recipe.teachers, show),
            augment=NETS[options.model].pretraining.augment(),
            callback=show.epoch,
            resume=state,
            **targets,
        )
    metadata = {"model": options.model, "data": options.data}
    run = _Run(task, pretrained, result, recipe)
    sizes = sorted(options.target_bytes or [], reverse=True)
    for outcome, size in zip(result.outcomes, sizes, strict=False):
        net = task.whole(Variables(outcome.params, outcome.aux))
        save(folder / f"{options.model}-{size}.sws", net, metadata=metadata)
    _write(folder / f"{options.model}.sws", run, metadata)
    for outcome in result.outcomes:
        print(outcome)
    shutil.rmtree(state)


def run_search(options: argparse.Namespace) -> None:
    """Try many settings; write the front of error against bytes, and its settings."""
    folder = _writable(options.out)
    recipe = RECIPES[options.model].by_name()[options.setting]
    task = _task(options.model, options.data)
    name = f"{options.model} {options.data} {options.setting}"
    study = Study(options.storage or folder / "search.journal", name, options.seed)

    def error(*net: Any) -> float:
        return task.error(Variables(*net), task.dataset.validation)

    def compress(config: Config, *, evaluate: Any, callback: Callable[[Epoch], None]) -> Result:
        del evaluate  # compress_task evaluates in the same way
        return compress_task(
            task, pretrained, recipe._replace(config=config), teachers=teachers, callback=callback
        )

    with reporter() as show:
        pretrained = _given(options, task, show)
        teachers = _teachers(options, task, recipe.teachers, show)
        limit = USELESS * error(*pretrained) if options.max_error is None else options.max_error
        front = search(
            compress,
            replace(recipe.config, seed=options.seed),
            evaluate=error,
            trials=options.trials,
            max_error=limit,
            study=study,
            callback=show.trial,
        )
    _write_json(folder / "front.json", front.to_dict())
    for point in front.points:
        _write_json(folder / f"trial-{point.trial}.json", point.config.to_dict())
    print(front)
    sizes = [(point.file_bytes, point.error) for point in (*front.points, *front.beaten)]
    others = published.BY_NET.get(options.model, ()) if options.data == "mnist" else ()
    save_pictures(folder, _drawn(lambda: [front_picture(sizes, others)]))
    print(f"\nwrote {folder / 'front.json'}; compress --config {folder}/trial-N.json uses a row")


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the test error of a file."""
    task, net = _decoded(options.file, options.data)
    error = task.error(net, task.dataset.test)
    if options.json:
        print(json.dumps({"file": str(options.file), "data": options.data, "test_error": error}))
    else:
        print(f"test error {100 * error:.2f} %")


def run_inspect(options: argparse.Namespace) -> None:
    """Print what a file holds and what it costs; write it as a page."""
    measured = report(options.file)
    print(_shown(measured, options))
    if options.html is None:
        return
    pictures = _drawn(lambda: file_pictures(load(options.file), measured))
    _write_page(options.html, measured, options.file, pictures)
    if not options.json:
        print(f"\nwrote {options.html}")


def run_decode(options: argparse.Namespace) -> None:
    """Write the weights of a file as safetensors.

    Raises:
        ConfigError: safetensors does not support a type or name in the file.
    """
    tree, metadata = load(options.file), read_metadata(options.file)
    try:
        to_safetensors(tree, options.out, metadata=metadata)
    except (TypeError, ValueError) as error:  # safetensors has fewer types, and reserves a name
        raise ConfigError(f"{options.file} cannot be written as safetensors: {error}") from error
    print(f"wrote {options.out}")


def run_encode(options: argparse.Namespace) -> None:
    """Compress a safetensors file losslessly."""
    tree = from_safetensors(options.file)
    save(options.out, tree, metadata=safetensors_metadata(options.file))
    print(_shown(report(options.out), options))
    if not options.json:
        print(f"\nwrote {options.out}")


def versions() -> dict[str, str]:
    """Versions of the programs that made a file, by name.

    >>> sorted(versions())
    ['jax', 'numpy', 'python', 'swsjax']
    """
    found = {"python": platform.python_version()}
    for name in ("swsjax", "jax", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            found[name] = "not installed"
    return found


def _task(model: str, data: str) -> Task:
    return classification(NETS[model].model, DATASETS[data]())


def _shown(measured: Report, options: argparse.Namespace) -> str:
    return json.dumps(measured.to_dict(), indent=2) if options.json else str(measured)


def _pretrained(options: argparse.Namespace, task: Task, seed: int, show: Reporter) -> Variables:
    config = replace(NETS[options.model].pretraining, seed=seed)
    return pretrain_task(task, config, callback=show.epoch)


def _given(options: argparse.Namespace, task: Task, show: Reporter) -> Variables:
    """The pretrained net, from the checkpoint if one is given."""
    if options.pretrained is None:
        return _pretrained(options, task, options.seed, show)
    like = task.whole(task.init(options.seed))
    return task.parts(load_checkpoint(options.pretrained, like))


def _teachers(
    options: argparse.Namespace, task: Task, number: int, show: Reporter
) -> list[Variables]:
    seeds = teacher_seeds(options.seed, number)
    return [_pretrained(options, task, seed, show) for seed in seeds]


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that the options of ``compress`` describe."""
    recipe, source = Recipe(Config()), "the default"
    if options.setting is not None:
        if options.model not in RECIPES:
            raise ConfigError(
                f"--setting is for {' and '.join(RECIPES)}; without it, every net is compressed "
                "by the same default"
            )
        recipe = RECIPES[options.model].by_name()[options.setting]
        source = f"--setting {options.setting}"
    if options.config is not None:
        recipe = recipe._replace(config=_config(options.config))
        source = f"--config {options.config}"
    if options.keep is not None and not recipe.config.prune_epochs:
        raise ConfigError(
            f"--keep has no effect with {source}, which prunes nothing; choose another setting"
        )
    given = {name: getattr(options, name) for name in ("keep", "tau")}
    changes = {name: value for name, value in given.items() if value is not None}
    return recipe._replace(config=replace(recipe.config, seed=options.seed, **changes))


def _targets(options: argparse.Namespace) -> dict[str, Any]:
    """The targets that the options of ``compress`` describe."""
    given = {name: getattr(options, name) for name in ("max_loss", "target_bytes")}
    return {name: value for name, value in given.items() if value is not None}


def _config(path: Path) -> Config:
    """Settings from a JSON file."""
    try:
        return Config.from_dict(json.loads(path.read_text()))
    except ValueError as error:  # not JSON, not text, or not settings
        raise ConfigError(f"{path} holds no settings of compress: {error}") from error


def _settings(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values."""
    return recipe.config.to_dict() | {
        "teacher_weight": recipe.teacher_weight,
        "temperature": recipe.temperature,
        "teachers": recipe.teachers,
    }


def _decoded(path: Path, data: str) -> tuple[Task, Variables]:
    """The task and net of a file, from the file alone and the images to try it on."""
    name = read_metadata(path).get("model")
    if name not in NETS:
        raise FormatError(
            f"{path} does not name its model; expected one of {', '.join(NETS)} in its metadata"
        )
    task = _task(name, data)
    try:
        return task, task.parts(load(path, like=task.whole(task.init(0))))
    except ValueError as error:
        raise FormatError(f"{path} does not fit {name} on {data}: {error}") from error


class _Run(NamedTuple):
    """A finished run, to be written."""

    task: Task
    pretrained: Variables
    result: Result
    recipe: Recipe


def _write(path: Path, run: _Run, metadata: dict[str, Any]) -> None:
    """Write file, reports and figures, and print the table, all from the decoded file."""
    task, pretrained, result = run.task, run.pretrained, run.result
    save(path, task.whole(Variables(result.params, result.aux)), metadata=metadata)
    decoded = task.parts(load(path, like=task.whole(pretrained)))
    errors = errors_of(task, pretrained, result, decoded)
    measured = report(path, errors=errors)
    folder = path.parent
    _write_json(folder / "report.json", measured.to_dict() | {"versions": versions()})
    print(measured)

    def draw() -> list[Picture]:
        config = run.recipe.config
        shape = task.dataset.train.images.shape[1:]
        return file_pictures(decoded.params, measured) + run_pictures(
            pretrained.params,
            result,
            hyper_priors=config.hyper_priors if config.annealing is None else None,
            image_shape=(shape[0], shape[1]) if len(shape) == 2 else None,
        )

    pictures = _drawn(draw)
    save_pictures(folder, pictures)
    _write_page(folder / "report.html", measured, path, pictures, _settings(run.recipe))
    print(f"\nwrote {path}, report.html, report.json and {len(pictures)} figures next to it")


def _drawn(draw: Callable[[], list[Picture]]) -> list[Picture]:
    """Figures, or none and the reason if matplotlib is missing."""
    try:
        return draw()
    except ImportError as error:
        print(f"no figures: {error}", file=sys.stderr)
        return []


def _write_page(
    path: Path,
    measured: Report,
    file: Path,
    pictures: list[Picture],
    settings: dict[str, Any] | None = None,
) -> None:
    text = page(measured, file.name, pictures=pictures, settings=settings, versions=versions())
    write_bytes(path, text.encode())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def _writable(folder: Path) -> Path:
    """Create a folder and try to write to it, before hours of work are to be stored there."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".swsjax-probe"
    write_bytes(probe, b"")
    probe.unlink()
    return folder
