"""Writing a file completely or not at all; errors that name the file."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

__all__ = ["check_writable", "read_bytes", "write_bytes"]


def check_writable(path: str | PathLike[str]) -> None:
    """Check, before any work, that a path is that of a regular file or of none yet.

    Raises:
        FileNotFoundError: the folder of the file does not exist.
        IsADirectoryError: it is a folder.
        OSError: it is something else that is not a regular file, such as a device or a pipe.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_writable(folder + "/file")
    """
    path = Path(path)
    if _mode_of(path) is None and not _target_of(path).parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def read_bytes(path: str | PathLike[str]) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: the file cannot be read; the error has its name, whatever failed.

    >>> Path("file").write_bytes(b"data")
    4
    >>> read_bytes("file")
    b'data'
    """
    with _named(path):
        return Path(path).read_bytes()


def write_bytes(path: str | PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``; after a crash, a kill or a full disk the old file is still there.

    An existing file keeps its mode. Through a symbolic link, the file that it leads to is written.

    Raises:
        OSError: the file cannot be written, or is not a regular file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bytes(folder + "/file", b"data")
    ...     Path(folder, "file").read_bytes()
    b'data'
    """
    path = Path(path)
    mode = _mode_of(path)
    target = _target_of(path)
    # Short, whatever the name of the file: a file system limits the length of names.
    temporary = target.with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        with _named(path):
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                if mode is not None:
                    os.chmod(temporary, mode)
                os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:  # an interrupt must not leave the temporary file behind either
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def _named(path: str | PathLike[str]) -> Iterator[None]:
    """Give an error of the system the caller's name for the file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not of the system
            raise
        # Python chooses the subclass, such as FileNotFoundError.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _mode_of(path: Path) -> int | None:
    """The permissions of a regular file, or None if there is no file."""
    try:
        mode = os.stat(str(path)).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return stat.S_IMODE(mode)


def _target_of(path: Path) -> Path:
    """The file that a path leads to; the path itself unless it is a symbolic link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
