"""What the commands write: checked before any work, and written completely or not at all."""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import swsjax
from swsjax.errors import ConfigError
from swsjax.file.atomic import check_writable, write_bytes
from swsjax.measure.html import Picture
from swsjax.measure.page import page
from swsjax.measure.reports import Report

__all__ = [
    "check_output",
    "drawn",
    "versions",
    "writable_folder",
    "write_json",
    "write_page",
    "write_text",
]


def check_output(path: Path, *inputs: Path) -> None:
    """Check that a file can be written, before time is spent on what it will hold.

    Args:
        path: of the file.
        inputs: files that are read, none of which it may be, through links neither.

    Raises:
        ConfigError: its folder does not exist, or it is an input.
        OSError: it is something other than a file.

    >>> check_output(Path("none/net.sws"))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: none/net.sws cannot be written: the folder none does not exist
    """
    try:
        check_writable(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} cannot be written: the folder {path.parent} does not exist"
        ) from error
    for given in inputs:
        if path.exists() and os.path.exists(given) and path.samefile(given):
            raise ConfigError(f"{path} is the file that is read; choose another to write")


def writable_folder(folder: Path, files: Iterable[str]) -> Path:
    """Create a folder and write to it for a test, before hours of work are to be stored there.

    Args:
        folder: which may exist.
        files: names of the files that will be written in it, with ``*`` where they vary.

    >>> writable_folder(Path("runs"), ["net.sws"]).is_dir()
    True
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        for path in [folder / name, *folder.glob(name)]:
            check_output(path)
    probe = folder / ".swsjax-probe"
    write_bytes(probe, b"")
    probe.unlink()
    return folder


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as a JSON file.

    >>> write_json(Path("net.json"), {"seed": 3})
    >>> Path("net.json").read_text()
    '{\\n  "seed": 3\\n}\\n'
    """
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def write_page(
    path: Path,
    measured: Report,
    file: Path,
    pictures: list[Picture],
    settings: dict[str, Any] | None = None,
) -> None:
    """Write the report of a file as a web page.

    >>> from swsjax.file import dumps
    >>> from swsjax.measure import report
    >>> write_page(Path("net.html"), report(dumps({"w": np.ones(3)})), Path("net.sws"), [])
    >>> "net.sws: a compressed network" in Path("net.html").read_text()
    True
    """
    text = page(measured, file.name, pictures=pictures, settings=settings, versions=versions())
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text, such as a web page.

    >>> write_text(Path("page.html"), "<!doctype html>")
    >>> Path("page.html").read_text()
    '<!doctype html>'
    """
    # Names on a disk, and metadata of others, may have characters that no encoding has.
    write_bytes(path, text.encode(errors="backslashreplace"))


def drawn(draw: Callable[[], list[Picture]]) -> list[Picture]:
    """Return what a function draws, or nothing, and the reason on stderr, without matplotlib.

    >>> drawn(lambda: [Picture("weights", "Weights.", b"PNG")])[0].name
    'weights'
    """
    try:
        return draw()
    except ImportError as error:
        print(f"no figures: {error}", file=sys.stderr)
        return []


def versions() -> dict[str, str]:
    """Return the versions of the programs that made a file, by name.

    >>> sorted(versions())
    ['jax', 'numpy', 'python', 'swsjax']
    """
    found = {"python": platform.python_version(), "swsjax": swsjax.__version__}
    return found | {name: version(name) for name in ("jax", "numpy")}
