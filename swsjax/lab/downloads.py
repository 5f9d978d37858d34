"""Files of the data sets: downloaded if missing, read with a check, written completely or not."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from swsjax.errors import DataError
from swsjax.file.atomic import write_bytes

__all__ = ["fetch", "read_checked", "write_data"]

_T = TypeVar("_T")
_TIMEOUT = 30.0  # seconds that a mirror may stay silent


def fetch(path: Path, mirrors: Sequence[str], check: Callable[[Path], object]) -> None:
    """Download the missing file `path` with pooch from the first mirror that has it undamaged.

    Args:
        path: where the file goes; its folder is made if missing.
        mirrors: URLs of folders that have a file of this name, tried in turn, each twice.
        check: called with the file under a temporary name; raises a ValueError if it is damaged.

    Raises:
        DataError: no mirror has the file undamaged, pooch is missing, or `path` cannot be written.

    >>> fetch(Path("no-data/file"), [], Path.read_bytes)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    swsjax.errors.DataError: no-data/file is missing and cannot be downloaded: no mirror given. ...
    """
    if not mirrors:
        raise DataError(_missing(path, "no mirror given"))
    try:
        import pooch
        from requests import RequestException
    except ImportError as error:
        reason = "downloading needs pooch: pip install 'swsjax[data]'"
        raise DataError(_missing(path, reason)) from error

    def download(url: str, temporary: str, _: object) -> None:
        # pooch itself could only check the sum of the file as it is; after a ValueError it retries.
        pooch.HTTPDownloader(timeout=_TIMEOUT)(url, temporary, None)
        check(Path(temporary))
        os.chmod(temporary, 0o644)  # pooch makes it readable for its owner only

    pooch.get_logger().setLevel("WARNING")  # it would write every step to stderr
    reasons = []
    for mirror in mirrors:
        source = pooch.create(path.parent, mirror, registry={path.name: None}, retry_if_failed=1)
        try:
            source.fetch(path.name, downloader=download)
            return
        except (RequestException, ValueError) as error:
            reasons.append(f"{source.get_url(path.name)}: {error}")
        except OSError as error:
            raise DataError(_unwritable(path, error)) from error
    raise DataError(_missing(path, "; ".join(reasons)))


def read_checked(path: Path, read: Callable[[Path], _T]) -> _T:
    """Return ``read(path)``; its errors become a DataError that says what to do.

    Raises:
        DataError: the file cannot be read (an OSError of `read`) or is damaged (a ValueError).

    >>> read_checked(Path("no-data"), Path.read_bytes)
    Traceback (most recent call last):
        ...
    swsjax.errors.DataError: no-data cannot be read: No such file or directory. Make it readable.
    """
    try:
        return read(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Make it readable.") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}. Delete it and run again to download it.") from error


def write_data(path: Path, content: bytes) -> None:
    """Write a file completely or not at all.

    Raises:
        DataError: the file cannot be written.

    >>> write_data(Path("no-data/file"), b"content")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    swsjax.errors.DataError: no-data/file cannot be written: No such file or directory. ...
    """
    try:
        write_bytes(path, content)
    except OSError as error:
        raise DataError(_unwritable(path, error)) from error


def _missing(path: Path, reason: str) -> str:
    """Say why a missing file cannot be downloaded, and what to do."""
    return (
        f"{path} is missing and cannot be downloaded: {reason}. "
        "Put the file there yourself, or name a folder that has it, as `folder` or in SWSJAX_DATA."
    )


def _unwritable(path: Path, error: OSError) -> str:
    """Say why a file cannot be written, and what to do."""
    reason = error.strerror or "Permission denied"  # which pooch raises as a long text
    return (
        f"{path} cannot be written: {reason}. "
        "Name a writable folder, as the argument `folder` or in SWSJAX_DATA."
    )
