"""What the commands that compress share: their nets, what they write, and how they end."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from swsjax.cli.datasets import DATASETS
from swsjax.cli.output import drawn, versions, writable_folder, write_json, write_page
from swsjax.cli.parser import MISSED, USELESS
from swsjax.cli.pretrained import Origin, kept
from swsjax.cli.terminal import Reporter
from swsjax.errors import ConfigError
from swsjax.file.files import load, save
from swsjax.lab.nets import NETS
from swsjax.lab.task import Task, Variables, classification
from swsjax.measure.flops import multiply_adds
from swsjax.measure.html import Picture
from swsjax.measure.plot import file_pictures, save_pictures
from swsjax.measure.reports import report
from swsjax.sws.plot import run_pictures
from swsjax.sws.prior import HyperPriors
from swsjax.sws.recipes import teacher_seeds
from swsjax.sws.result import Result
from swsjax.trees import form_of

__all__ = [
    "FIGURES",
    "Errors",
    "Output",
    "Run",
    "errors_on",
    "nets_of",
    "origins_of",
    "output_of",
    "task_of",
    "useless",
    "write_run",
]

FIGURES = ("*.png", "*.pdf")
"""Names of the figures of a run."""

Errors = dict[str, dict[str, float]]
"""Error rates by stage and split."""


class Output(NamedTuple):
    """Where a run writes."""

    folder: Path
    """Of everything."""
    name: str
    """Of the file, without its ending."""
    sizes: list[int]
    """Bytes that files should have, from large to small; each has a file."""
    metadata: dict[str, Any]
    """Of the files."""

    @property
    def state(self) -> Path:
        """Folder of the state: the same command, run again, resumes from there."""
        return self.folder / "state"

    def file(self, size: int | None = None) -> Path:
        """Path of the file, or of that of a size."""
        return self.folder / (f"{self.name}.sws" if size is None else f"{self.name}-{size}.sws")


class Run(NamedTuple):
    """A finished run, to be written."""

    task: Task
    """Net and data."""
    pretrained: Variables
    """The net before compression, with all of its channels."""
    result: Result[Any]
    """The compressed net; its mixtures and history are empty if it was only pruned."""
    errors: Callable[[Variables], Errors]
    """From the net that is read back from the file to the errors of the report."""
    settings: dict[str, Any]
    """Shown on the page."""
    hyper_priors: HyperPriors | None = None
    """To be drawn."""


def output_of(options: argparse.Namespace, name: str, **metadata: str) -> Output:
    """Return where a command writes, created and checked before any work.

    Args:
        options: of the command.
        name: of the file, without its ending.
        **metadata: of the files, beside the names of net and data set.

    Raises:
        ConfigError: a file is where the state belongs.
        OSError: something else is where a file belongs.

    >>> about = {"model": "lenet-300-100", "data": "digits", "target_bytes": [2_000]}
    >>> output = output_of(argparse.Namespace(out=Path("small"), **about), "net")
    >>> output.file().name, output.file(2_000).name
    ('net.sws', 'net-2000.sws')
    """
    sizes = sorted(options.target_bytes or (), reverse=True)
    about = {"model": options.model, "data": options.data} | metadata
    output = Output(options.out, name, sizes, about)
    files = [output.file(size).name for size in (None, *sizes)]
    writable_folder(options.out, [*files, "report.json", "report.html", *FIGURES])
    if output.state.is_file():
        raise ConfigError(
            f"{output.state} is a file, not a folder; move it away, or choose another --out"
        )
    return output


def task_of(options: argparse.Namespace) -> Task:
    """Return net and data of a command."""
    return classification(NETS[options.model].model, DATASETS[options.data]())


def origins_of(options: argparse.Namespace, teachers: int = 0) -> list[Origin]:
    """Return the pretrained net and further teachers, each with its folder; checked.

    >>> about = {"model": "lenet-300-100", "data": "digits", "seed": 3}
    >>> [origin.seed for origin in origins_of(argparse.Namespace(out=Path("small"), **about), 1)]
    [3, 400]
    """
    seeds = [options.seed, *teacher_seeds(options.seed, teachers)]
    names = options.model, options.data
    folders = [options.out / "pretrained" / "-".join([*names, str(seed)]) for seed in seeds]
    return [
        Origin(*names, seed, folder).check() for seed, folder in zip(seeds, folders, strict=True)
    ]


def nets_of(
    own: Variables | None, task: Task, origins: list[Origin], show: Reporter
) -> list[Variables]:
    """Return the pretrained net, unless the user has one of their own, and further teachers.

    >>> nets_of("a net", "its task", ["its origin"], "nothing to report")
    ['a net']
    """
    first, *others = origins
    pretrained = kept(task, first, show) if own is None else own
    return [pretrained, *(kept(task, origin, show) for origin in others)]


def errors_on(task: Task, net: Variables) -> dict[str, float]:
    """Return the errors of a net on the images that it was not trained on, by split.

    >>> from swsjax.lab import LeNet300100, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> list(errors_on(task, task.init(0)))
    ['validation', 'test']
    """
    splits = {"validation": task.dataset.validation, "test": task.dataset.test}
    return {name: task.error(net, split) for name, split in splits.items()}


def useless(error: float, examples: int) -> float:
    """Return the error above which a net is of no use.

    Args:
        error: of the pretrained net; if it is zero, one example counts as an error.
        examples: number of examples.

    >>> useless(0.02, 1000), useless(0.0, 1000)
    (0.06, 0.003)
    """
    return USELESS * max(error, 1 / examples)


def write_run(output: Output, run: Run) -> int:
    """Write files, reports and figures, say what was reached, and return the exit code.

    The state is deleted: nothing is left to do.

    >>> from contextlib import redirect_stdout
    >>> from io import StringIO
    >>> from swsjax.lab import LeNet300100, load_digits
    >>> from swsjax.training import select
    >>> task = classification(LeNet300100, load_digits())
    >>> net, output = task.init(0), Output(Path(), "net", [], {})
    >>> result = Result(net.params, net.params, {}, [], select(net.params), net.aux)
    >>> errors = lambda decoded: dict.fromkeys(["pretrained", "decoded"], errors_on(task, decoded))
    >>> output.state.mkdir()
    >>> with redirect_stdout(StringIO()):
    ...     code = write_run(output, Run(task, net, result, errors, {}))
    >>> code, output.file().exists(), output.state.exists()
    (0, True, False)
    """
    for outcome, size in zip(run.result.outcomes, output.sizes, strict=False):
        net = run.task.whole(Variables(outcome.params, outcome.aux))
        save(output.file(size), net, metadata=output.metadata)
    errors = _write(output, run)
    shutil.rmtree(output.state)
    return _ended(run.result, errors, len(run.task.dataset.validation.labels))


def _write(output: Output, run: Run) -> Errors:
    """Write file, reports and figures, and print the table, all from the decoded file."""
    task, pretrained, result, path = run.task, run.pretrained, run.result, output.file()
    whole = task.whole(Variables(result.params, result.aux))
    save(path, whole, metadata=output.metadata)
    decoded = task.parts(load(path, like=whole))
    errors = run.errors(decoded)
    operations = _operations(task, pretrained, decoded)
    measured = report(path, baseline=task.whole(pretrained), errors=errors, operations=operations)
    write_json(output.folder / "report.json", measured.to_dict() | {"versions": versions()})
    print(measured)

    def draw() -> list[Picture]:
        shape = task.dataset.train.images.shape[1:]
        is_small = form_of(decoded) != form_of(pretrained)
        return file_pictures(decoded.params, measured) + run_pictures(
            result.retrained if is_small else pretrained.params,
            result,
            hyper_priors=run.hyper_priors,
            image_shape=(shape[0], shape[1]) if len(shape) == 2 else None,
        )

    pictures = drawn(draw)
    save_pictures(output.folder, pictures)
    write_page(output.folder / "report.html", measured, path, pictures, run.settings)
    print(f"\nwrote {path}, report.html, report.json and {len(pictures)} figures next to it")
    return errors


def _operations(task: Task, pretrained: Variables, decoded: Variables) -> dict[str, int]:
    """Multiply-adds for one image: of all channels, of those that are left, and without zeros."""
    image = task.dataset.test.images[:1]
    after = multiply_adds(task.predict, decoded, image)
    is_small = form_of(decoded) != form_of(pretrained)
    before = multiply_adds(task.predict, pretrained, image) if is_small else after
    small = {} if after.total == before.total else {"shrunk": after.total}
    return {"dense": before.total, **small, "zeros skipped": after.masked(decoded)}


def _ended(result: Result[Any], errors: Errors, examples: int) -> int:
    """Say what was reached, what was missed last, and return the exit code."""
    for outcome in sorted(result.outcomes, key=lambda outcome: not outcome.reached):
        print(outcome)
    if result.outcomes:
        return 0 if all(outcome.reached for outcome in result.outcomes) else MISSED
    before, after = (errors[stage]["validation"] for stage in ("pretrained", "decoded"))
    if after <= useless(before, examples):
        return 0
    print(
        f"lost: the validation error is {100 * after:.2f} %, over {USELESS:g} times the "
        f"{100 * before:.2f} % of the pretrained net"
    )
    return MISSED
