"""Writing a file completely or not at all."""

import contextlib
import os
import secrets
from os import PathLike
from pathlib import Path

__all__ = ["write_bytes"]


def write_bytes(path: str | PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``; after a crash, a kill or a full disk the old file is still there.

    Raises:
        OSError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bytes(folder + "/file", b"data")
    ...     Path(folder, "file").read_bytes()
    b'data'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt must not leave the temporary file behind either
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is not None:
            # The caller's name for it; Python chooses the subclass, such as FileNotFoundError.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
