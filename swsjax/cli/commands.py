"""What each command does, from its parsed options to what it prints and writes."""

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from swsjax.measure import published
from swsjax.file.atomic import write_bytes
from swsjax.file.checkpoint import load_checkpoint, save_checkpoint
from swsjax.lab.task import (
    Classifier,
    build,
    compress_classifier,
    errors_of,
    pretrain_classifier,
    teacher_seeds,
)
from swsjax.sws.compression import Result
from swsjax.sws.config import Config
from swsjax.lab.data import Dataset, load_digits, load_fashion_mnist, load_mnist
from swsjax.errors import ConfigError, FormatError
from swsjax.file.files import load, read_metadata, save
from swsjax.file.safetensors import from_safetensors, safetensors_metadata, to_safetensors
from swsjax.lab.nets import LeNet5Caffe, LeNet300100
from swsjax.measure.page import Picture, page
from swsjax.measure.plot import file_pictures, front_picture, run_pictures, save_pictures
from swsjax.cli.terminal import Reporter, reporter
from swsjax.sws.recipes import (
    LENET_5_CAFFE,
    LENET_5_CAFFE_PRETRAINING,
    LENET_300_100,
    LENET_300_100_PRETRAINING,
)
from swsjax.measure.reports import Report, report
from swsjax.sws.step import Rates
from swsjax.sws.study import search
from swsjax.sws.stages import Progress
from swsjax.training.loop import PretrainConfig

USELESS = 3.0  # times the error of the pretrained net
MODELS = {"lenet-300-100": LeNet300100, "lenet-5-caffe": LeNet5Caffe}
RECIPES = {"lenet-300-100": LENET_300_100, "lenet-5-caffe": LENET_5_CAFFE}
DATASETS: dict[str, Callable[[], Dataset]] = {
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "digits": load_digits,
}
# Digits are 1,197 training images: an epoch has 37 steps where MNIST's has 390, so there are more
# epochs, the precisions may grow faster, and tau is smaller by the number of examples.
_DIGITS_CONFIG = Config(
    tau=0.01,
    soft_epochs=100,
    soft_rates=Rates(precisions=2e-3),
    hard_epochs=60,
    hard_rates=Rates(precisions=5e-4, warmup_epochs=5.0, final=0.0, epsilon=1e-5),
    batch_size=32,
    least_steps=1,
)
_PRETRAINING = {
    "lenet-300-100": LENET_300_100_PRETRAINING,
    "lenet-5-caffe": LENET_5_CAFFE_PRETRAINING,
}


def run_demo(options: argparse.Namespace) -> None:
    """Pretrain on handwritten digits, compress, reload and report."""
    folder = _writable(options.out)
    dataset = load_digits()
    untrained = build(LeNet300100, dataset, seed=0)
    with reporter() as show:
        pretrained = pretrain_classifier(
            untrained, dataset, PretrainConfig(epochs=60, batch_size=32), callback=show.pretraining
        )
        result = compress_classifier(pretrained, dataset, _DIGITS_CONFIG, callback=show.retraining)
    metadata = {"model": "lenet-300-100", "data": "digits"}
    _write(folder, "demo", pretrained, result, dataset, metadata, asdict(_DIGITS_CONFIG))


def run_pretrain(options: argparse.Namespace) -> None:
    """Train a network in the ordinary way."""
    folder = _writable(options.out)
    dataset = DATASETS[options.data]()
    with reporter() as show:
        pretrained = _pretrained(options, options.seed, dataset, show)
    save_checkpoint(folder / "checkpoint", pretrained.params)
    errors = {
        "validation": pretrained.error(dataset.validation),
        "test": pretrained.error(dataset.test),
    }
    settings = {"model": options.model, "data": options.data, "seed": options.seed}
    _write_json(folder / "pretrain.json", settings | {"errors": errors})
    print(f"validation error {100 * errors['validation']:.2f} %, test {100 * errors['test']:.2f} %")
    print(f"wrote {folder / 'checkpoint'}")


def run_compress(options: argparse.Namespace) -> None:
    """Retrain, quantise and write a network."""
    folder = _writable(options.out)
    recipe, share, temperature, others = RECIPES[options.model].by_name()[options.setting]
    if options.config is not None:
        recipe = _config(options.config)
    if options.kept is not None and not recipe.prune_epochs:
        raise ConfigError(
            f"--kept does nothing with {_named(options)}, which prunes nothing; "
            "choose another setting"
        )
    config = replace(
        recipe,
        kept=recipe.kept if options.kept is None else options.kept,
        tau=recipe.tau if options.tau is None else options.tau,
        seed=options.seed,
    )
    dataset = DATASETS[options.data]()
    state = folder / "state"  # an interrupted command, given again, goes on from there
    with reporter() as show:
        pretrained = _given(options, dataset, show)
        result = compress_classifier(
            pretrained,
            dataset,
            config,
            share=share,
            temperature=temperature,
            teachers=_teachers(options, others, dataset, show),
            callback=show.retraining,
            checkpoint=state,
        )
    metadata = {"model": options.model, "data": options.data}
    settings = asdict(config) | {
        "share": share,
        "temperature": temperature,
        "other_teachers": others,
    }
    _write(folder, options.model, pretrained, result, dataset, metadata, settings)
    shutil.rmtree(state)


def run_search(options: argparse.Namespace) -> None:
    """Try many settings; write the front of error against bytes, and its settings."""
    folder = _writable(options.out)
    base, share, temperature, others = RECIPES[options.model].by_name()[options.setting]
    dataset = DATASETS[options.data]()

    def error(params: Any) -> float:
        return pretrained._replace(params=params).error(dataset.validation)

    with reporter() as show:
        pretrained = _given(options, dataset, show)
        teachers = _teachers(options, others, dataset, show)

        def compress(
            config: Config, *, evaluate: Any, callback: Callable[[Progress], None]
        ) -> Result:
            del evaluate  # the same
            return compress_classifier(
                pretrained,
                dataset,
                config,
                share=share,
                temperature=temperature,
                teachers=teachers,
                callback=callback,
            )

        front = search(
            compress,
            replace(base, seed=options.seed),
            evaluate=error,
            trials=options.trials,
            max_error=options.max_error or USELESS * error(pretrained.params),
            storage=options.storage or folder / "search.journal",
            name=f"{options.model} {options.data} {options.setting}",
            seed=options.seed,
            callback=show.searching,
        )
    _write_json(folder / "front.json", front.to_dict())
    for point in front.points:
        _write_json(folder / f"trial-{point.trial}.json", point.config.to_dict())
    print(front)

    def draw() -> list[Picture]:
        sizes = [(point.file_bytes, point.error) for point in (*front.points, *front.beaten)]
        others = published.BY_NET[options.model] if options.data == "mnist" else ()
        return [front_picture(sizes, others)]

    for picture in _drawn(draw):
        write_bytes(folder / f"{picture.name}.png", picture.png)
    print(f"\nwrote {folder / 'front.json'}; --config {folder}/trial-N.json gives compress a row")


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the test error of a file."""
    dataset = DATASETS[options.data]()
    error = _decoded(options.file, dataset).error(dataset.test)
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
    """Write a file's weights as safetensors."""
    to_safetensors(load(options.file), options.out, metadata=read_metadata(options.file))
    print(f"wrote {options.out}")


def run_encode(options: argparse.Namespace) -> None:
    """Write a safetensors file small."""
    tree = from_safetensors(options.file)
    save(options.out, tree, metadata=safetensors_metadata(options.file))
    print(_shown(report(options.out), options))
    if not options.json:
        print(f"\nwrote {options.out}")


def _shown(measured: Report, options: argparse.Namespace) -> str:
    return json.dumps(measured.to_dict(), indent=2) if options.json else str(measured)


def _pretrained(
    options: argparse.Namespace, seed: int, dataset: Dataset, show: Reporter
) -> Classifier:
    untrained = build(MODELS[options.model], dataset, seed=seed)
    config = replace(_PRETRAINING[options.model], seed=seed)
    return pretrain_classifier(untrained, dataset, config, callback=show.pretraining)


def _given(options: argparse.Namespace, dataset: Dataset, show: Reporter) -> Classifier:
    """The pretrained net, from the checkpoint where there is one."""
    if options.checkpoint is None:
        return _pretrained(options, options.seed, dataset, show)
    like = build(MODELS[options.model], dataset, seed=options.seed)
    return like._replace(params=load_checkpoint(options.checkpoint, like.params))


def _teachers(
    options: argparse.Namespace, number: int, dataset: Dataset, show: Reporter
) -> list[Classifier]:
    seeds = teacher_seeds(options.seed, number)
    return [_pretrained(options, seed, dataset, show) for seed in seeds]


def _named(options: argparse.Namespace) -> str:
    """Where the settings come from."""
    if options.config is None:
        return f"--setting {options.setting}"
    return f"--config {options.config}"


def _config(path: Path) -> Config:
    """Settings from a JSON file."""
    try:
        return Config.from_dict(json.loads(path.read_text()))
    except ValueError as error:  # no JSON, no text, or no settings
        raise ConfigError(f"{path} holds no settings: {error}") from error


def _decoded(path: Path, dataset: Dataset) -> Classifier:
    """The classifier in a file, from the file alone and the images it is to be tried on."""
    name = read_metadata(path).get("model")
    if name not in MODELS:
        raise FormatError(
            f"{path} does not say which model it holds; expected one of {', '.join(MODELS)} "
            "in its metadata"
        )
    like = build(MODELS[name], dataset)
    try:
        return like._replace(params=load(path, like=like.params))
    except ValueError as error:
        raise FormatError(f"{path} does not fit {name} on {dataset.name}: {error}") from error


def _write(
    folder: Path,
    name: str,
    pretrained: Classifier,
    result: Result,
    dataset: Dataset,
    metadata: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    """Write file, reports and figures, and print the table, all from what the file gives back."""
    path = folder / f"{name}.sws"
    save(path, result.params, metadata=metadata)
    decoded = load(path, like=pretrained.params)
    errors = errors_of(pretrained, result, decoded, dataset)
    measured = report(path, errors=errors)
    _write_json(folder / "report.json", measured.to_dict() | {"version": version("swsjax")})
    print(measured)

    def draw() -> list[Picture]:
        height, width = dataset.train.images.shape[1:]
        return file_pictures(decoded, measured) + run_pictures(
            pretrained.params,
            result,
            hyper_priors=settings["hyper_priors"],
            image_shape=(height, width),
        )

    pictures = _drawn(draw)
    save_pictures(folder, pictures)
    _write_page(folder / "report.html", measured, path, pictures, settings)
    print(f"\nwrote {path}, report.html, report.json and {len(pictures)} figures beside it")


def _drawn(draw: Callable[[], list[Picture]]) -> list[Picture]:
    """Figures, or none and a word why where matplotlib is missing."""
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
    versions = {name: version(name) for name in ("swsjax", "jax", "numpy")}
    versions["python"] = platform.python_version()
    text = page(measured, file.name, pictures=pictures, settings=settings, versions=versions)
    write_bytes(path, text.encode())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def _writable(folder: Path) -> Path:
    """Make a folder and try it, before hours of work are to be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".swsjax-probe"
    write_bytes(probe, b"")
    probe.unlink()
    return folder
