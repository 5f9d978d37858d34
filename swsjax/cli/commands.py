"""The commands that train, from parsed options to what they print and write."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from swsjax.cli.datasets import DATASETS
from swsjax.cli.output import drawn, versions, writable_folder, write_json, write_page
from swsjax.cli.parser import MISSED, USELESS
from swsjax.cli.pretrained import Origin, given, kept
from swsjax.cli.settings import (
    plain_settings,
    recipe_of,
    search_base,
    targets_of,
    usual_steps,
    weights_of,
)
from swsjax.cli.terminal import Reporter, reporter
from swsjax.errors import CheckpointError, ConfigError
from swsjax.file.files import load, save
from swsjax.lab.nets import NETS
from swsjax.lab.task import Task, Variables, classification
from swsjax.measure import published
from swsjax.measure.page import Picture
from swsjax.measure.plot import file_pictures, front_picture, save_pictures
from swsjax.measure.reports import report
from swsjax.sws.config import Config
from swsjax.sws.plot import run_pictures
from swsjax.sws.recipes import Recipe, compress_task, errors_of, teacher_seeds
from swsjax.sws.result import Result
from swsjax.sws.study import Study, check_study, search
from swsjax.training.history import Epoch

__all__ = ["run_compress", "run_demo", "run_pretrain", "run_search"]

_FIGURES = ("*.png", "*.pdf")


def run_demo(options: argparse.Namespace) -> int:
    """Compress LeNet-300-100 on handwritten digits by the setting of the demo."""
    return run_compress(options)


def run_pretrain(options: argparse.Namespace) -> int:
    """Train a net in the ordinary way."""
    weights_of(options.model, options.data)  # raises if they do not fit
    folder = writable_folder(options.out, ["pretrain.json"])
    origin = Origin(options.model, options.data, options.seed, folder).check()
    task = _task(options)
    with reporter() as show:
        pretrained = kept(task, origin, show)
    errors = {
        "validation": task.error(pretrained, task.dataset.validation),
        "test": task.error(pretrained, task.dataset.test),
    }
    write_json(folder / "pretrain.json", origin.settings | {"errors": errors})
    print(f"validation error {100 * errors['validation']:.2f} %, test {100 * errors['test']:.2f} %")
    print(f"wrote {folder / 'checkpoint'}")
    return 0


def run_compress(options: argparse.Namespace) -> int:
    """Retrain, quantise and write a net.

    Raises:
        ConfigError: the options contradict each other, or a file is where the state belongs.
    """
    recipe, targets = recipe_of(options), targets_of(options)
    sizes = sorted(targets.get("target_bytes", ()), reverse=True)
    name = "demo" if options.command == "demo" else options.model
    files = [f"{name}.sws", *(f"{name}-{size}.sws" for size in sizes)]
    folder = writable_folder(options.out, [*files, "report.json", "report.html", *_FIGURES])
    state = folder / "state"  # the same command, run again, resumes from there
    if state.is_file():
        raise ConfigError(f"{state} is a file, not a folder; move it away, or choose another --out")
    origins = _origins(options, recipe)
    task = _task(options)
    own = given(options, task)
    steps = usual_steps(recipe, len(task.dataset.train.labels))
    print(f"retraining will take about {options.budget or steps:,} steps", flush=True)
    with reporter() as show:
        pretrained, *teachers = _nets(own, task, origins, show)
        result = compress_task(
            task,
            pretrained,
            recipe,
            teachers=teachers,
            augment=NETS[options.model].pretraining.augment(),
            callback=show.epoch,
            resume=state,
            **targets,
        )
    metadata = {"model": options.model, "data": options.data}
    for outcome, size in zip(result.outcomes, sizes, strict=False):
        net = task.whole(Variables(outcome.params, outcome.aux))
        save(folder / f"{name}-{size}.sws", net, metadata=metadata)
    errors = _write(folder / f"{name}.sws", _Run(task, pretrained, result, recipe), metadata)
    shutil.rmtree(state)
    return _ended(result, errors, len(task.dataset.validation.labels))


def run_search(options: argparse.Namespace) -> int:
    """Try many settings; write the front of error against bytes, and its settings."""
    recipe, name = search_base(options)
    folder = writable_folder(options.out, ["front.json", "trial-*.json", *_FIGURES])
    study = _study(options, recipe.config, name)
    origins = _origins(options, recipe)
    task = _task(options)
    own = given(options, task)

    def error(*net: Any) -> float:
        return task.error(Variables(*net), task.dataset.validation)

    def compress(
        config: Config, *, evaluate: Any, callback: Callable[[Epoch], None]
    ) -> Result[Any]:
        del evaluate  # compress_task evaluates in the same way
        return compress_task(
            task,
            pretrained,
            recipe._replace(config=config),
            teachers=teachers,
            augment=NETS[options.model].pretraining.augment(),
            callback=callback,
        )

    with reporter() as show:
        pretrained, *teachers = _nets(own, task, origins, show)
        limit = options.max_error
        if limit is None:
            limit = _useless(error(*pretrained), len(task.dataset.validation.labels))
        front = search(
            compress,
            recipe.config,
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
    sizes = [(point.file_bytes, point.error) for point in (*front.points, *front.dominated)]
    others = published.BY_NET.get(options.model, ()) if options.data == "mnist" else ()
    if sizes:
        save_pictures(folder, drawn(lambda: [front_picture(sizes, others)]))
    print(f"\nwrote {folder / 'front.json'}; compress --config {folder}/trial-N.json uses a row")
    if not front.points:
        print(f"not reached: no trial has a validation error of {100 * limit:.2f} % or less")
    return 0 if front.points else MISSED


def _study(options: argparse.Namespace, base: Config, setting: str) -> Study:
    """The study of a search, opened once before any work."""
    storage = options.out / "search.journal" if options.storage is None else options.storage
    study = Study(storage, f"{options.model} {options.data} {setting}", options.seed)
    try:
        check_study(study, base)
    except CheckpointError as error:
        raise CheckpointError(
            "the search that is stored there began with another --seed, or with another version of "
            "the settings; choose another --storage or --out"
        ) from error
    return study


def _task(options: argparse.Namespace) -> Task:
    return classification(NETS[options.model].model, DATASETS[options.data]())


def _origins(options: argparse.Namespace, recipe: Recipe) -> list[Origin]:
    """The pretrained net and the further teachers, each with its folder; checked."""
    seeds = [options.seed, *teacher_seeds(options.seed, recipe.teachers)]
    names = options.model, options.data
    folders = [options.out / "pretrained" / "-".join([*names, str(seed)]) for seed in seeds]
    return [
        Origin(*names, seed, folder).check() for seed, folder in zip(seeds, folders, strict=True)
    ]


def _nets(
    own: Variables | None, task: Task, origins: list[Origin], show: Reporter
) -> list[Variables]:
    """The pretrained net, unless the user has one of their own, and the further teachers."""
    first, *others = origins
    pretrained = kept(task, first, show) if own is None else own
    return [pretrained, *(kept(task, origin, show) for origin in others)]


def _useless(error: float, examples: int) -> float:
    """The error above which a net is of no use; if there are no errors, one is a third of it."""
    return USELESS * max(error, 1 / examples)


def _ended(result: Result[Any], errors: dict[str, dict[str, float]], examples: int) -> int:
    """Say what was reached, what was missed last, and return the exit code."""
    for outcome in sorted(result.outcomes, key=lambda outcome: not outcome.reached):
        print(outcome)
    if result.outcomes:
        return 0 if all(outcome.reached for outcome in result.outcomes) else MISSED
    before, after = (errors[stage]["validation"] for stage in ("pretrained", "decoded"))
    if after <= _useless(before, examples):
        return 0
    print(
        f"lost: the validation error is {100 * after:.2f} %, over {USELESS:g} times the "
        f"{100 * before:.2f} % of the pretrained net"
    )
    return MISSED


class _Run(NamedTuple):
    """A finished run, to be written."""

    task: Task
    pretrained: Variables
    result: Result[Any]
    recipe: Recipe


def _write(path: Path, run: _Run, metadata: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Write file, reports and figures, and print the table, all from the decoded file.

    Returns:
        The errors of the report.
    """
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
    write_page(folder / "report.html", measured, path, pictures, plain_settings(run.recipe))
    print(f"\nwrote {path}, report.html, report.json and {len(pictures)} figures next to it")
    return errors
