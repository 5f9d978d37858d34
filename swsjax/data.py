"""Image data sets, checked byte for byte: MNIST, Fashion-MNIST and scikit-learn's digits.

Choose models, hyper-parameters and stopping times on the validation split; the test split is only
reported. Images and labels are read-only ``uint8`` arrays: JAX may share the memory of a NumPy
array, so nobody may change it afterwards.
"""

import contextlib
import hashlib
import math
import operator
import os
import secrets
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from swsjax.errors import DataError

__all__ = ["Dataset", "Split", "data_folder", "load_digits", "load_fashion_mnist", "load_mnist"]

_Folder = str | os.PathLike[str] | None
_Mirrors = Sequence[str]
_MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
_FASHION_MNIST_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
_TIMEOUT = 30.0  # seconds without any answer before the next mirror is tried


class Split(NamedTuple):
    """Images ``uint8 (N, H, W)``, 0 (background) to 255, and their labels ``uint8 (N,)``."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set with its `name`: fit on `train`, choose on `validation`, only report `test`."""

    name: str
    train: Split
    validation: Split
    test: Split


class _File(NamedTuple):
    """What one IDX file must be; its checksum is that of the content, or else of the .gz."""

    name: str  # without .gz
    shape: tuple[int, ...]
    sha256: str | None = None  # of the decompressed file
    gz_md5: str | None = None  # of the .gz

    @property
    def header(self) -> bytes:
        """The IDX header: the magic number of ``uint8`` values, then the dimensions."""
        return bytes([0, 0, 8, len(self.shape)]) + np.array(self.shape, ">u4").tobytes()

    @property
    def size(self) -> int:
        """Bytes of the decompressed file."""
        return len(self.header) + math.prod(self.shape)

    @property
    def gz_limit(self) -> int:
        """More bytes than a .gz of it can have: gzip adds less than 0.1 % and its header."""
        return self.size + self.size // 1000 + 4096


_FILES = (
    _File("train-images-idx3-ubyte", (60_000, 28, 28)),
    _File("train-labels-idx1-ubyte", (60_000,)),
    _File("t10k-images-idx3-ubyte", (10_000, 28, 28)),
    _File("t10k-labels-idx1-ubyte", (10_000,)),
)
_MNIST_SHA256 = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
# The checksums published with Fashion-MNIST are MD5s of the .gz files, so only those can be
# checked. MD5 finds damage, which is its task here; it is no defence against a forged file.
_FASHION_MNIST_GZ_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
_MNIST = [f._replace(sha256=d) for f, d in zip(_FILES, _MNIST_SHA256, strict=True)]
_FASHION_MNIST = [f._replace(gz_md5=d) for f, d in zip(_FILES, _FASHION_MNIST_GZ_MD5, strict=True)]


def load_mnist(
    folder: _Folder = None, *, validation: int = 10_000, mirrors: _Mirrors = _MNIST_MIRRORS
) -> Dataset:
    """Load MNIST, 28x28 handwritten digits, from ``mnist/`` in the data folder.

    The `validation` split is the last 10,000 of the 60,000 training images: select on it, and only
    report the 10,000 test images. IDX files are read as they are (``*-ubyte``) or else as
    ``*-ubyte.gz``; missing ones are downloaded from the `mirrors`, tried in turn. All of them are
    checked by SHA-256. See `data_folder` for `folder`.

    Raises:
        DataError: a file is damaged, cannot be downloaded or cannot be written.
        ValueError: `validation` leaves no training image.

    >>> load_mnist().train.images.shape  # doctest: +SKIP
    (50000, 28, 28)
    >>> load_mnist("no-data", mirrors=[])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    swsjax.errors.DataError: no-data/mnist/train-images-idx3-ubyte.gz is missing and cannot be \
downloaded: no mirror given. ...
    """
    return _load("mnist", _MNIST, folder, validation, mirrors)


def load_fashion_mnist(
    folder: _Folder = None, *, validation: int = 10_000, mirrors: _Mirrors = _FASHION_MNIST_MIRRORS
) -> Dataset:
    """Load Fashion-MNIST, 28x28 pictures of clothes, from ``fashion-mnist/`` in the data folder.

    Splits, download and errors are those of `load_mnist`, but only ``*-ubyte.gz`` files are read:
    the published checksums (MD5) are of these.

    >>> load_fashion_mnist().test.labels.shape  # doctest: +SKIP
    (10000,)
    >>> load_fashion_mnist("no-data", mirrors=[])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    swsjax.errors.DataError: no-data/fashion-mnist/train-images-idx3-ubyte.gz is missing and \
cannot be downloaded: no mirror given. ...
    """
    return _load("fashion-mnist", _FASHION_MNIST, folder, validation, mirrors)


def load_digits(*, validation: int = 300) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits, 8x8, with no download.

    They are shuffled once and for all: the last 300 are the test split, the last `validation` of
    the others the validation split. The grey levels 0..16 are scaled to 0..255 and rounded.

    Raises:
        DataError: scikit-learn is missing; the message names the extra that brings it.
        ValueError: `validation` leaves no training image.

    >>> digits = load_digits()
    >>> [len(split.labels) for split in (digits.train, digits.validation, digits.test)]
    [1197, 300, 300]
    >>> digits.train.images.shape, digits.train.images.dtype
    ((1197, 8, 8), dtype('uint8'))
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError("The digits need scikit-learn: pip install 'swsjax[digits]'") from error
    bunch = datasets.load_digits()
    # NumPy promises that the raw bits of a generator never change; its shuffles may.
    order = np.argsort(np.random.PCG64(0).random_raw(len(bunch.target)), kind="stable")
    images = ((bunch.images[order].astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)
    labels = bunch.target[order].astype(np.uint8)
    for array in (images, labels):
        array.setflags(write=False)
    cut = len(labels) - 300
    test = Split(images[cut:], labels[cut:])
    return _dataset("digits", Split(images[:cut], labels[:cut]), test, validation)


def data_folder(folder: _Folder = None) -> Path:
    """Give the data folder: `folder`, else ``$SWSJAX_DATA``, else ``swsjax`` in the user's cache.

    >>> data_folder("my-data").name
    'my-data'
    """
    chosen = folder or os.environ.get("SWSJAX_DATA")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or Path(cache, "swsjax")).expanduser()


def _dataset(name: str, rest: Split, test: Split, validation: int) -> Dataset:
    """Split the last `validation` images off the `rest`, which must keep at least one."""
    cut = len(rest.labels) - operator.index(validation)
    if not 0 < cut <= len(rest.labels):
        raise ValueError(f"validation is {validation}, expected 0 to {len(rest.labels) - 1}")
    train = Split(rest.images[:cut], rest.labels[:cut])
    return Dataset(name, train, Split(rest.images[cut:], rest.labels[cut:]), test)


def _load(
    name: str, files: Sequence[_File], folder: _Folder, validation: int, mirrors: _Mirrors
) -> Dataset:
    """Load the four `files`, in the order of `_FILES`, of the data set `name`."""
    arrays = [_load_file(file, data_folder(folder) / name, mirrors) for file in files]
    return _dataset(name, Split(*arrays[:2]), Split(*arrays[2:]), validation)


def _load_file(file: _File, folder: Path, mirrors: _Mirrors) -> np.ndarray:
    """Read one file from the folder, plain before .gz, or else download it into the folder."""
    packed = folder / f"{file.name}.gz"
    for path in (folder / file.name, packed) if file.sha256 else (packed,):
        try:
            with path.open("rb") as handle:
                data = handle.read(file.gz_limit)
            return _decode(file, data, str(path), packed=path == packed)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}. Make it readable."
            raise DataError(message) from error
        except DataError as error:
            raise DataError(f"{error} Delete it and run again to download it anew.") from error
    # The file is opened before the download: a folder that cannot be written costs no download.
    with _replacing(packed) as handle:
        data, array = _download(file, packed, mirrors)
        handle.write(data)
    return array


def _decode(file: _File, data: bytes, where: str, *, packed: bool) -> np.ndarray:
    """Unpack, check and parse one file: the most telling check first, the checksum last."""
    content = _gunzip(data, file.size, where) if packed else data
    if len(content) != file.size:
        size = f"more than {file.size}" if len(content) > file.size else len(content)
        raise DataError(f"{where} holds {size} bytes, expected are {file.size}.")
    header = content[: len(file.header)]
    if header != file.header:
        raise DataError(
            f"{where} has the IDX header '{header.hex(' ')}', expected is '{file.header.hex(' ')}'."
        )
    expected = file.sha256 or file.gz_md5
    if file.sha256:
        kind, found = "SHA-256 of the content", hashlib.sha256(content)
    else:
        kind, found = "MD5", hashlib.md5(data, usedforsecurity=False)
    if found.hexdigest() != expected:
        raise DataError(f"{where}: the {kind} is {found.hexdigest()}, expected is {expected}.")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(file.shape)


def _gunzip(data: bytes, size: int, where: str) -> bytes:
    """Decompress to at most `size` + 1 bytes, which bounds the memory whatever came."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise DataError(f"{where} is not a sound gzip file: {error}.") from error
    if not stream.eof and len(content) <= size:
        raise DataError(f"{where} is cut short: it unpacks to {len(content)} of {size} bytes.")
    return content


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` at the end, or vanishes with any exception."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}. "
            "Name a folder that can be, as the argument `folder` or in SWSJAX_DATA."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # after success it is gone already
            temporary.unlink()


def _download(file: _File, path: Path, mirrors: _Mirrors) -> tuple[bytes, np.ndarray]:
    """Return the checked .gz and its array from the first mirror that has it."""
    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{path.name}"
        try:
            data = _get(url, file.gz_limit)
            return data, _decode(file, data, url, packed=True)
        except DataError as error:
            reasons.append(str(error).rstrip("."))
    raise DataError(
        f"{path} is missing and cannot be downloaded: {'; '.join(reasons) or 'no mirror given'}. "
        "Put the file there yourself, or name a folder that has it, as `folder` or in SWSJAX_DATA."
    )


def _get(url: str, limit: int) -> bytes:
    """Return the body of an answer, of which at most `limit` bytes are read."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            length = answer.headers.get("Content-Length", "")
            data = answer.read(limit)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: not a URL
        raise DataError(f"{url}: {error}") from error
    if length.isdecimal() and len(data) < min(int(length), limit):
        raise DataError(f"{url}: the connection closed after {len(data)} of {length} bytes")
    return data
