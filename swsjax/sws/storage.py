"""Where Optuna keeps the study of a search: a file, or a database."""

import json
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from swsjax.checks import path_of
from swsjax.errors import ConfigError

if TYPE_CHECKING:
    import optuna

__all__ = ["opened", "quiet"]

# A worker on a database reports that it is alive this often; after twice this time without a
# report its trial has failed.
_HEARTBEAT_SECONDS = 60


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from writing to stderr and from warning that its heartbeat is experimental.

    >>> with quiet():
    ...     pass
    """
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def opened(given: str | PathLike[str]) -> "Iterator[optuna.storages.BaseStorage]":
    """Open a storage, a file or a database; connections are closed on exit.

    Args:
        given: path of a file, or URL of a database.

    Raises:
        ConfigError: the database cannot be reached, its driver is not installed, or the file is
            not that of a search.

    >>> with opened("search.journal") as storage:
    ...     type(storage).__name__
    'JournalStorage'
    """
    if isinstance(given, str) and "://" in given:
        database = _database(given)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()
        return
    path = path_of(given, "storage is a file, or the URL of a database")
    path.parent.mkdir(parents=True, exist_ok=True)
    yield _journal(path)


def _journal(path: Path) -> "optuna.storages.JournalStorage":
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    # The default lock is a symbolic link, which Windows does not allow most users to create.
    backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
    try:
        if path.exists():  # Optuna would write to any file
            _check_first_line(path)
        return optuna.storages.JournalStorage(backend)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # in reading it
        raise ConfigError(
            f"{path} is not the file of a search; choose a different storage"
        ) from error


def _check_first_line(path: Path) -> None:
    with path.open("rb") as file:
        first = file.readline().decode()
    if not first or (first[0] == "{" and first[-1] != "\n"):  # another worker is writing it
        return
    if "op_code" not in dict(json.loads(first)):
        raise ValueError("not a record of Optuna's")


def _database(url: str) -> "optuna.storages.RDBStorage":
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    shown = re.sub(":[^:@/]*@", ":***@", url)
    tries = 5  # workers that start together all create the tables, and all but one fail
    while True:
        tries -= 1
        try:
            return optuna.storages.RDBStorage(url, heartbeat_interval=_HEARTBEAT_SECONDS)
        except SQLAlchemyError as error:
            if tries:
                time.sleep(0.2)
                continue
            reason = str(error).splitlines()[0]
            raise ConfigError(f"the database {shown} cannot be used: {reason}") from error
        except ImportError as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ConfigError(f"the database {shown} needs a driver: {reason}") from error
        except ValueError as error:  # such as a port that is not a number
            raise ConfigError(f"the database {shown} cannot be used: {error}") from error
