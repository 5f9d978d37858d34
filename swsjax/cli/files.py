"""The commands that read and write files: evaluate, inspect, decode and encode."""

import argparse
import json
import sys
from collections import Counter

from swsjax.cli.output import check_output, drawn, write_page
from swsjax.codec import MAX_BYTES
from swsjax.errors import ConfigError, FormatError
from swsjax.file.files import bytes_of, leaves_of, load, named_errors, read_metadata, save
from swsjax.file.safetensors import from_safetensors, safetensors_metadata, to_safetensors
from swsjax.measure.plot import file_pictures
from swsjax.measure.reports import Report, report
from swsjax.trees import name_of

__all__ = ["run_decode", "run_encode", "run_evaluate", "run_inspect"]


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the test error of a file.

    Raises:
        FormatError: the file does not name its net, or does not fit it.
    """
    # Imported here: the other commands need neither nets nor data.
    from swsjax.cli.datasets import DATASETS
    from swsjax.lab.nets import NETS
    from swsjax.lab.task import classification

    name = read_metadata(options.file).get("model")
    if not isinstance(name, str) or name not in NETS:
        raise FormatError(
            f"{options.file} does not name its model; expected one of {', '.join(NETS)} in its "
            "metadata"
        )
    task = classification(NETS[name].model, DATASETS[options.data]())
    like = task.whole(task.init(0))
    try:
        net = task.parts(load(options.file, like=like, max_bytes=_limit(options)))
    except FormatError:
        raise
    except ValueError as error:
        problems = str(error).removeprefix("the file does not fit the tree given: ")
        raise FormatError(
            f"{options.file} does not fit {name} on {options.data}: {problems}"
        ) from error
    test_error = task.error(net, task.dataset.test)
    if options.json:
        content = {"file": str(options.file), "data": options.data, "test_error": test_error}
        print(json.dumps(content))
    else:
        print(f"test error {100 * test_error:.2f} %")


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
