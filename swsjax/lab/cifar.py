"""CIFAR-10 from its official binary batches, each checked by MD5 (the sums its authors publish).

A batch is 10,000 records of one label and 3,072 bytes: the red, the green and the blue plane of an
image, row by row.
"""

import hashlib
import os
import tarfile
from collections.abc import Container, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from swsjax.lab.data import Dataset, Split, data_folder, hold_out
from swsjax.lab.downloads import fetch, read_checked, write_data

__all__ = ["load_cifar10"]

_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
_FOLDER = "cifar-10-batches-bin"  # in the data folder, and in the archive
_ARCHIVE = "cifar-10-binary.tar.gz"
_ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_BATCHES = {  # the test batch last
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
_RECORDS = 10_000  # in a batch
_PLANES = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32  # bytes


def load_cifar10(
    folder: str | os.PathLike[str] | None = None,
    *,
    validation: int = 5000,
    mirrors: Sequence[str] = _MIRRORS,
) -> Dataset:
    """Load CIFAR-10, 32x32 colour pictures of ten things, from ``cifar-10-batches-bin/``.

    The images are (N, 32, 32, 3), red, green, blue. The `validation` split is the last 5,000 of
    the 50,000 training images: select on it, and only report the 10,000 test images. The six
    ``.bin`` files are in ``cifar-10-batches-bin/`` in the data folder, each checked by MD5. If any
    is missing, it is taken from ``cifar-10-binary.tar.gz`` in the same folder; a missing archive is
    downloaded from the `mirrors` in turn, which needs the extra ``data``, and removed afterwards.
    See `data_folder` for `folder`.

    Raises:
        DataError: a file is damaged, unreadable, or missing and cannot be downloaded or written.
        ValueError: `validation` leaves no training image.

    >>> load_cifar10().train.images.shape  # doctest: +SKIP
    (45000, 32, 32, 3)
    >>> load_cifar10("no-data", mirrors=[])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    swsjax.errors.DataError: no-data/cifar-10-batches-bin/cifar-10-binary.tar.gz is missing and \
cannot be downloaded: no mirror given. ...
    """
    batches = data_folder(folder) / _FOLDER
    missing = [name for name in _BATCHES if not os.path.exists(batches / name)]
    if missing:
        _unpack(batches / _ARCHIVE, missing, mirrors)
    *train, test = [
        read_checked(batches / name, partial(_read_batch, md5=md5))
        for name, md5 in _BATCHES.items()
    ]
    return hold_out("cifar10", _split(train), _split([test]), validation)


def _unpack(archive: Path, missing: Container[str], mirrors: Sequence[str]) -> None:
    """Write the missing batches next to the archive; a downloaded archive is removed."""
    is_found = os.path.exists(archive)
    if not is_found:
        fetch(archive, mirrors, _read_archive)
    try:
        for name, content in read_checked(archive, _read_archive).items():
            if name in missing:
                write_data(archive.with_name(name), content)
    finally:
        if not is_found:
            archive.unlink(missing_ok=True)  # another process may have removed it


def _read_archive(path: Path) -> dict[str, bytes]:
    """Read and check the batches in the archive; a ValueError says what is wrong with it.

    Only regular files with exactly the names of the batches are read, into memory and no further
    than their size: no path of the archive reaches the file system.
    """
    contents = {}
    with path.open("rb") as file:
        # Before anything is decompressed.
        _check_md5(hashlib.file_digest(file, "md5").hexdigest(), _ARCHIVE_MD5)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:  # in their order: going back would decompress it all again
                folder, _, name = member.name.rpartition("/")
                stream = archive.extractfile(member) if member.isreg() else None
                if folder == _FOLDER and name in _BATCHES and stream:
                    content = stream.read(_RECORDS * _RECORD + 1)
                    try:
                        contents[name] = _checked(content, _BATCHES[name])
                    except ValueError as error:
                        raise ValueError(f"{name}: {error}") from error
    if lacking := [name for name in _BATCHES if name not in contents]:
        raise ValueError(f"expected the file {_FOLDER}/{lacking[0]} in the archive, actual none")
    return contents


def _read_batch(path: Path, md5: str) -> bytes:
    with path.open("rb") as file:
        return _checked(file.read(_RECORDS * _RECORD + 1), md5)


def _checked(content: bytes, md5: str) -> bytes:
    """Return the content of a batch if its size and sum are right."""
    size = _RECORDS * _RECORD
    if len(content) != size:
        actual = f"more than {size}" if len(content) > size else len(content)
        raise ValueError(f"expected {size} bytes, actual {actual}")
    _check_md5(hashlib.md5(content).hexdigest(), md5)
    return content


def _check_md5(actual: str, expected: str) -> None:
    if actual != expected:
        raise ValueError(f"expected the MD5 {expected}, actual {actual}")


def _split(batches: Sequence[bytes]) -> Split:
    """Parse batches into read-only images and labels."""
    records = [np.frombuffer(batch, np.uint8).reshape(-1, _RECORD) for batch in batches]
    labels = np.concatenate([batch[:, 0] for batch in records])
    images = np.empty((len(labels), *_PLANES[1:], _PLANES[0]), np.uint8)
    planes = [batch[:, 1:].reshape(-1, *_PLANES) for batch in records]
    # Into an array in C order: without `out` it would keep the order of the planes.
    np.concatenate([batch.transpose(0, 2, 3, 1) for batch in planes], out=images)
    for array in (images, labels):
        array.setflags(write=False)
    return Split(images, labels)
