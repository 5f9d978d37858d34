"""The commands that train, from parsed options to what they print and write."""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from swsjax.cli.datasets import DATASETS
from swsjax.cli.output import drawn, versions, writable_folder, write_json, write_page
from swsjax.cli.parser import USELESS
from swsjax.cli.terminal import Reporter, reporter
from swsjax.errors import CheckpointError, ConfigError
from swsjax.file.checkpoint import check_replaceable, load_checkpoint, save_checkpoint
from swsjax.file.files import load, save
from swsjax.lab.nets import NETS
from swsjax.lab.task import Task, Variables, classification, pretrain_task
from swsjax.measure import published
from swsjax.measure.page import Picture
from swsjax.measure.plot import file_pictures, front_picture, save_pictures
from swsjax.measure.reports import report
from swsjax.sws.config import Config
from swsjax.sws.plot import run_pictures
from swsjax.sws.recipes import RECIPES, Recipe, compress_task, errors_of, teacher_seeds
from swsjax.sws.result import Result
from swsjax.sws.study import Study, check_study, search
from swsjax.training.history import Epoch
from swsjax.training.pretraining import PretrainConfig

__all__ = ["run_compress", "run_demo", "run_pretrain", "run_search"]

_REPORTS = ("report.json", "report.html", "*.png")
# So that the demo takes less than a minute: an epoch is one pass through the 1,197 images.
_DEMO = Recipe(
    Config(tau=5e-6, soft_epochs=60, hard_epochs=40, prune_epochs=0, batch_size=32, least_steps=1)
)


def run_demo(options: argparse.Namespace) -> None:
    """Pretrain on handwritten digits, compress, reload and report."""
    folder = writable_folder(options.out, ["demo.sws", *_REPORTS])
    task = classification(NETS["lenet-300-100"].model, DATASETS["digits"]())
    with reporter() as show:
        config = PretrainConfig(epochs=60, batch_size=32)
        pretrained = pretrain_task(task, config, callback=show.epoch)
        result = compress_task(task, pretrained, _DEMO, callback=show.epoch)
    metadata = {"model": "lenet-300-100", "data": "digits"}
    run = _Run(task, pretrained, result, _DEMO)
    _write(folder / "demo.sws", run, metadata)


def run_pretrain(options: argparse.Namespace) -> None:
    """Train a net in the ordinary way."""
    folder = writable_folder(options.out, ["pretrain.json"])
    check_replaceable(folder / "checkpoint")
    task = _task(options.model, options.data)
    with reporter() as show:
        pretrained = _pretrained(options, task, options.seed, show)
    save_checkpoint(folder / "checkpoint", task.whole(pretrained))
    errors = {
        "validation": task.error(pretrained, task.dataset.validation),
        "test": task.error(pretrained, task.dataset.test),
    }
    settings = {"model": options.model, "data": options.data, "seed": options.seed}
    write_json(folder / "pretrain.json", settings | {"errors": errors})
    print(f"validation error {100 * errors['validation']:.2f} %, test {100 * errors['test']:.2f} %")
    print(f"wrote {folder / 'checkpoint'}")


def run_compress(options: argparse.Namespace) -> None:
    """Retrain, quantise and write a net.

    Raises:
        ConfigError: the options contradict each other, or a file is where the state belongs.
    """
    recipe, targets = _recipe(options), _targets(options)
    sizes = sorted(targets.get("target_bytes", ()), reverse=True)
    names = [f"{options.model}.sws", *(f"{options.model}-{size}.sws" for size in sizes)]
    folder = writable_folder(options.out, [*names, *_REPORTS])
    state = folder / "state"  # the same command, run again, resumes from there
    if state.is_file():
        raise ConfigError(f"{state} is a file, not a folder; move it away, or choose another --out")
    task = _task(options.model, options.data)
    given = _given(options, task)
    with reporter() as show:
        pretrained = _pretrained(options, task, options.seed, show) if given is None else given
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
    for outcome, size in zip(result.outcomes, sizes, strict=False):
        net = task.whole(Variables(outcome.params, outcome.aux))
        save(folder / f"{options.model}-{size}.sws", net, metadata=metadata)
    _write(folder / f"{options.model}.sws", run, metadata)
    for outcome in result.outcomes:
        print(outcome)
    shutil.rmtree(state)


def run_search(options: argparse.Namespace) -> None:
    """Try many settings; write the front of error against bytes, and its settings."""
    folder = writable_folder(options.out, ["front.json", "trial-*.json", "*.png"])
    recipe = RECIPES[options.model].by_name()[options.setting]
    base = replace(recipe.config, seed=options.seed)
    study = _study(options, base)
    task = _task(options.model, options.data)

    def error(*net: Any) -> float:
        return task.error(Variables(*net), task.dataset.validation)

    def compress(
        config: Config, *, evaluate: Any, callback: Callable[[Epoch], None]
    ) -> Result[Any]:
        del evaluate  # compress_task evaluates in the same way
        return compress_task(
            task, pretrained, recipe._replace(config=config), teachers=teachers, callback=callback
        )

    given = _given(options, task)
    with reporter() as show:
        pretrained = _pretrained(options, task, options.seed, show) if given is None else given
        teachers = _teachers(options, task, recipe.teachers, show)
        limit = options.max_error
        if limit is None:  # of a net without errors, one error is a third of the limit
            images = len(task.dataset.validation.labels)
            limit = USELESS * max(error(*pretrained), 1 / images)
        front = search(
            compress,
            base,
            evaluate=error,
            trials=options.trials,
            max_error=limit,
            study=study,
            callback=show.trial,
        )
    write_json(folder / "front.json", front.to_dict())
    for point in front.points:
        write_json(folder / f"trial-{point.trial}.json", point.config.to_dict())
    print(front)
    sizes = [(point.file_bytes, point.error) for point in (*front.points, *front.beaten)]
    others = published.BY_NET.get(options.model, ()) if options.data == "mnist" else ()
    save_pictures(folder, drawn(lambda: [front_picture(sizes, others)]))
    print(f"\nwrote {folder / 'front.json'}; compress --config {folder}/trial-N.json uses a row")


def _study(options: argparse.Namespace, base: Config) -> Study:
    """The study of a search, opened once before any work."""
    storage = options.out / "search.journal" if options.storage is None else options.storage
    name = f"{options.model} {options.data} {options.setting}"
    study = Study(storage, name, options.seed)
    try:
        check_study(study, base)
    except CheckpointError as error:
        raise CheckpointError(
            "the search that is stored there began with another --seed, or with another version of "
            "the settings; choose another --storage or --out"
        ) from error
    return study


def _task(model: str, data: str) -> Task:
    return classification(NETS[model].model, DATASETS[data]())


def _pretrained(options: argparse.Namespace, task: Task, seed: int, show: Reporter) -> Variables:
    config = replace(NETS[options.model].pretraining, seed=seed)
    return pretrain_task(task, config, callback=show.epoch)


def _given(options: argparse.Namespace, task: Task) -> Variables | None:
    """The pretrained net of a checkpoint, if one is given."""
    if options.pretrained is None:
        return None
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
    config = replace(recipe.config, seed=options.seed, **changes)
    if config.tau is None and config.annealing is None:
        raise ConfigError(f"{source} learns precisions and has no tau; give --tau")
    if config.tau is not None and _targets(options):
        source = source if options.tau is None else "--tau"
        raise ConfigError(
            f"{source} makes one run with a given tau, which --max-loss and --target-bytes would "
            "find; give only one of them"
        )
    return recipe._replace(config=config)


def _targets(options: argparse.Namespace) -> dict[str, Any]:
    """The targets that the options of ``compress`` describe."""
    given = {name: getattr(options, name) for name in ("max_loss", "target_bytes")}
    return {name: value for name, value in given.items() if value is not None}


def _config(path: Path) -> Config:
    """Settings from a JSON file."""
    try:
        return Config.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except RecursionError as error:
        raise ConfigError(
            f"{path} holds no settings of compress: it is nested too deeply"
        ) from error
    except ValueError as error:  # not JSON, not text, or not settings
        raise ConfigError(f"{path} holds no settings of compress: {error}") from error


def _settings(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values."""
    return recipe.config.to_dict() | {
        "teacher_weight": recipe.teacher_weight,
        "temperature": recipe.temperature,
        "teachers": recipe.teachers,
    }


class _Run(NamedTuple):
    """A finished run, to be written."""

    task: Task
    pretrained: Variables
    result: Result[Any]
    recipe: Recipe


def _write(path: Path, run: _Run, metadata: dict[str, Any]) -> None:
    """Write file, reports and figures, and print the table, all from the decoded file."""
    task, pretrained, result = run.task, run.pretrained, run.result
    save(path, task.whole(Variables(result.params, result.aux)), metadata=metadata)
    decoded = task.parts(load(path, like=task.whole(pretrained)))
    errors = errors_of(task, pretrained, result, decoded)
    measured = report(path, errors=errors)
    folder = path.parent
    write_json(folder / "report.json", measured.to_dict() | {"versions": versions()})
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

    pictures = drawn(draw)
    save_pictures(folder, pictures)
    write_page(folder / "report.html", measured, path, pictures, _settings(run.recipe))
    print(f"\nwrote {path}, report.html, report.json and {len(pictures)} figures next to it")
