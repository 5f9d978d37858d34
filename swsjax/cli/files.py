"""The commands that read and write files: compare, evaluate, inspect, decode and encode."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swsjax.cli.output import check_output, drawn, versions, write_page, write_text
from swsjax.codec import MAX_BYTES
from swsjax.errors import ConfigError, FormatError
from swsjax.file.files import bytes_of, leaves_of, load, named_errors, read_metadata, save
from swsjax.file.safetensors import from_safetensors, safetensors_metadata, to_safetensors
from swsjax.measure import compare, published
from swsjax.measure.comparison_page import comparison_page
from swsjax.measure.plot import comparison_picture, file_pictures
from swsjax.measure.reports import Report, report
from swsjax.trees import name_of

if TYPE_CHECKING:
    from swsjax.lab.task import Task

__all__ = ["run_compare", "run_decode", "run_encode", "run_evaluate", "run_inspect"]


def run_compare(options: argparse.Namespace) -> None:
    """Print what several files hold and cost, and their errors; write it as a page.

    Raises:
        ConfigError: a file is given twice, or the files hold different nets.
        FormatError: a file does not name its net, or does not fit it.
    """
    if options.html is not None:
        check_output(options.html, *options.files)
    files = _named(options.files)
    models = {name: _model_of(file) for name, file in files.items()} if options.data else {}
    if len(set(models.values())) > 1:
        raise ConfigError(
            "files of different nets cannot be compared: "
            + ", ".join(f"{name} holds {model}" for name, model in models.items())
        )
    errors, original = _errors(files, options) if options.data else ({}, None)
    found = compare(files, errors=errors, baseline=original, max_bytes=_limit(options))
    print(json.dumps(found.to_dict(), indent=2) if options.json else found)
    if options.html is None:
        return
    pictures = []
    if errors:
        on_mnist = options.data == "mnist"
        (model,) = set(models.values())
        others = published.BY_NET.get(model, ()) if on_mnist else ()
        pictures = drawn(lambda: [comparison_picture(found.points, others)])
    text = comparison_page(found, data=options.data or "", pictures=pictures, versions=versions())
    write_text(options.html, text)
    if not options.json:
        print(f"\nwrote {options.html}")


def _named(files: list[Path]) -> dict[str, Path]:
    """Files by their names without endings, or by their paths where those are not enough."""
    for file, count in Counter(files).items():
        if count > 1:
            raise ConfigError(f"{file} is given twice; give each file once")
    stems = Counter(file.stem for file in files)
    return {file.stem if stems[file.stem] == 1 else str(file): file for file in files}


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the test error of a file.

    Raises:
        FormatError: the file does not name its net, or does not fit it.
    """
    errors, _ = _errors({"": options.file}, options)
    (test_error,) = errors.values()
    if options.json:
        content = {"file": str(options.file), "data": options.data, "test_error": test_error}
        print(json.dumps(content))
    else:
        print(f"test error {100 * test_error:.2f} %")


def _model_of(file: Path) -> str:
    """The name of the net that a file holds."""
    # Imported here: the other commands need neither nets nor data.
    from swsjax.lab.nets import NETS

    name = read_metadata(file).get("model")
    if not isinstance(name, str) or name not in NETS:
        raise FormatError(
            f"{file} does not name its model; expected one of {', '.join(NETS)} in its metadata"
        )
    return name


def _errors(files: Mapping[str, Path], options: argparse.Namespace) -> tuple[dict[str, float], Any]:
    """Test errors of files of one net, by the names of the files; and a net with all channels."""
    from swsjax.cli.datasets import DATASETS
    from swsjax.lab.nets import NETS
    from swsjax.lab.task import classification

    model = _model_of(next(iter(files.values())))
    task = classification(NETS[model].model, DATASETS[options.data]())
    like = task.whole(task.init(0))

    def error(file: Path) -> float:
        try:
            net = task.parts(_loaded(file, task, like, _limit(options)))
        except FormatError:
            raise
        except ValueError as error:
            problems = str(error).removeprefix("the file does not fit the tree given: ")
            raise FormatError(
                f"{file} does not fit {model} on {options.data}: {problems}"
            ) from error
        return task.error(net, task.dataset.test)

    return {name: error(file) for name, file in files.items()}, like


def _loaded(file: Path, task: "Task", like: Any, limit: int) -> Any:
    """The net in a file; one that has lost channels is as good as one that has them all.

    Raises:
        FormatError: the file is damaged or too large.
        ValueError: it holds something else, or channels that do not fit together.
    """
    try:
        return load(file, like=like, max_bytes=limit)
    except FormatError:
        raise
    except ValueError:
        small = _narrowed(load(file, max_bytes=limit), task, like)
        if small is None:
            raise
    return load(file, like=small, max_bytes=limit)


def _narrowed(found: Any, task: "Task", like: Any) -> Any | None:
    """The form of a net with fewer channels than those of a task, if a file holds such a net."""
    import jax

    from swsjax.baselines import narrowed

    structures: list[Any] = [jax.tree.structure(tree) for tree in (found, like)]
    if structures[0] != structures[1]:
        return None
    try:
        small = jax.eval_shape(lambda: narrowed(task, task.parts(found)).init(0))
        image = task.dataset.test.images[:1]
        logits = [jax.eval_shape(task.predict, net, image) for net in (small, task.parts(like))]
    except (TypeError, ValueError):  # arrays that are no parts, or do not fit together
        return None
    return task.whole(small) if logits[0].shape == logits[1].shape else None


def run_inspect(options: argparse.Namespace) -> None:
    """Print what a file holds and what it costs; write it as a page."""
    if options.html is not None:
        check_output(options.html, options.file)
    measured = report(options.file, max_bytes=_limit(options))
    print(_shown(measured, options))
    if options.html is None:
        return
    leaves = leaves_of(bytes_of(options.file), _limit(options))
    pictures = drawn(lambda: file_pictures([leaf for _, leaf in leaves], measured))
    write_page(options.html, measured, options.file, pictures)
    if not options.json:
        print(f"\nwrote {options.html}")


def run_decode(options: argparse.Namespace) -> None:
    """Write the weights of a file as safetensors.

    Raises:
        ConfigError: safetensors does not support a type or name in the file.
    """
    check_output(options.out, options.file)
    with named_errors(options.file):
        leaves = leaves_of(bytes_of(options.file), _limit(options))
    names = Counter(name_of(path) for path, _ in leaves)
    refused = f"{options.file} cannot be written as safetensors: "
    for name in (name for name, count in names.items() if count > 1):
        raise ConfigError(f"{refused}two arrays have the name {name}")
    arrays = {name_of(path): leaf for path, leaf in leaves}
    try:
        to_safetensors(arrays, options.out, metadata=read_metadata(options.file))
    except (TypeError, ValueError) as error:  # safetensors has fewer types, and reserves a name
        raise ConfigError(f"{refused}{error}") from error
    print(f"wrote {options.out}")


def run_encode(options: argparse.Namespace) -> None:
    """Compress a safetensors file losslessly."""
    check_output(options.out, options.file)
    tree = from_safetensors(options.file)
    metadata = safetensors_metadata(options.file)
    save(options.out, tree, metadata=metadata, negative_zeros=not options.drop_negative_zeros)
    measured = report(options.out, max_bytes=sys.maxsize)  # no limit on a file of our own
    print(_shown(measured, options))
    if not options.json:
        print(f"\nwrote {options.out}")


def _limit(options: argparse.Namespace) -> int:
    return MAX_BYTES if options.max_bytes is None else options.max_bytes


def _shown(measured: Report, options: argparse.Namespace) -> str:
    return json.dumps(measured.to_dict(), indent=2) if options.json else str(measured)
