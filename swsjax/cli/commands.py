"""The commands that train, from parsed options to what they print and write."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from swsjax.cli.output import drawn, writable_folder, write_json
from swsjax.cli.parser import MISSED
from swsjax.cli.pretrained import Origin, given, kept
from swsjax.cli.runs import (
    FIGURES,
    Run,
    errors_on,
    nets_of,
    origins_of,
    output_of,
    task_of,
    useless,
    write_run,
)
from swsjax.cli.settings import (
    duration,
    plain_settings,
    recipe_of,
    search_base,
    targets_of,
    weights_of,
)
from swsjax.cli.terminal import reporter
from swsjax.errors import CheckpointError
from swsjax.lab.nets import NETS
from swsjax.lab.task import Variables
from swsjax.measure import published
from swsjax.measure.plot import front_picture, save_pictures
from swsjax.sws.config import Config
from swsjax.sws.recipes import compress_task, errors_of
from swsjax.sws.result import Result
from swsjax.sws.study import Study, check_study, search
from swsjax.training.history import Epoch

__all__ = ["run_compress", "run_demo", "run_pretrain", "run_search"]


def run_demo(options: argparse.Namespace) -> int:
    """Compress LeNet-300-100 on handwritten digits by the setting of the demo."""
    return run_compress(options)


def run_pretrain(options: argparse.Namespace) -> int:
    """Train a net in the ordinary way."""
    weights_of(options.model, options.data)  # raises if they do not fit
    folder = writable_folder(options.out, ["pretrain.json"])
    origin = Origin(options.model, options.data, options.seed, folder).check()
    task = task_of(options)
    with reporter() as show:
        pretrained = kept(task, origin, show)
    errors = errors_on(task, pretrained)
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
    output = output_of(options, "demo" if options.command == "demo" else options.model)
    origins = origins_of(options, recipe.teachers)
    task = task_of(options)
    own = given(options, task)
    with reporter() as show:
        pretrained, *teachers = nets_of(own, task, origins, show)
        expected = duration(options, recipe, task, pretrained)
        print(f"retraining will take about {expected}", flush=True)
        result = compress_task(
            task,
            pretrained,
            recipe,
            teachers=teachers,
            augment=NETS[options.model].pretraining.augment(),
            callback=show.epoch,
            resume=output.state,
            **targets,
        )
    errors = partial(errors_of, task, pretrained, result)
    config = recipe.config
    hyper_priors = config.hyper_priors if config.annealing is None else None
    run = Run(task, pretrained, result, errors, plain_settings(recipe), hyper_priors)
    return write_run(output, run)


def run_search(options: argparse.Namespace) -> int:
    """Try many settings; write the front of error against bytes, and its settings."""
    recipe, name = search_base(options)
    folder = writable_folder(options.out, ["front.json", "trial-*.json", *FIGURES])
    study = _study(options, recipe.config, name)
    origins = origins_of(options, recipe.teachers)
    task = task_of(options)
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
        pretrained, *teachers = nets_of(own, task, origins, show)
        limit = options.max_error
        if limit is None:
            limit = useless(error(*pretrained), len(task.dataset.validation.labels))
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
