"""Image data sets, checked byte for byte: MNIST, Fashion-MNIST and scikit-learn's digits.

Choose models, hyper-parameters and stopping times on the validation split; the test split is only
reported. Images and labels are read-only ``uint8`` arrays: JAX may share the memory of a NumPy
array, so nobody may change it afterwards.
"""

import gzip
import hashlib
import math
import operator
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swsjax.errors import ConfigError, DataError
from swsjax.lab.downloads import fetch, read_checked

__all__ = [
    "Dataset",
    "Split",
    "data_folder",
    "hold_out",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
]

_Folder = str | os.PathLike[str] | None
_Mirrors = Sequence[str]
_Shape = tuple[int, ...]
_MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
_FASHION_MNIST_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
_SHAPES: dict[str, _Shape] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
# The SHA-256 of each of these files, without gzip.
_MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_FASHION_MNIST = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)


class Split(NamedTuple):
    """Images, ``uint8``, and their labels, ``uint8 (N,)``.

    Grey images are (N, H, W), 0 (background) to 255; colour images are (N, H, W, 3).
    """

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set with its `name`: fit on `train`, choose on `validation`, only report `test`."""

    name: str
    train: Split
    validation: Split
    test: Split


def load_mnist(
    folder: _Folder = None, *, validation: int = 10_000, mirrors: _Mirrors = _MNIST_MIRRORS
) -> Dataset:
    """Load MNIST, 28x28 handwritten digits, from ``mnist/`` in the data folder.

    The `validation` split is the last 10,000 of the 60,000 training images: select on it, and only
    report the 10,000 test images. A plain IDX file (``*-ubyte``) is read in preference to a gzipped
    one (``*-ubyte.gz``), and each is checked by SHA-256. Missing files are downloaded from the
    `mirrors` in turn, which needs the extra ``data``. See `data_folder` for `folder`.

    Raises:
        DataError: a file is damaged, unreadable, or missing and cannot be downloaded or written.
        ConfigError: `validation` leaves no training image.

    >>> load_mnist().train.images.shape  # doctest: +SKIP
    (50000, 28, 28)
    >>> load_mnist("no-data", mirrors=[])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    swsjax.errors.DataError: no-data/mnist/train-images-idx3-ubyte.gz is missing and cannot be \
downloaded: no mirror given. ...
    """
    return _load(data_folder(folder) / "mnist", _MNIST, validation, mirrors)


def load_fashion_mnist(
    folder: _Folder = None, *, validation: int = 10_000, mirrors: _Mirrors = _FASHION_MNIST_MIRRORS
) -> Dataset:
    """Load Fashion-MNIST, 28x28 pictures of clothes, from ``fashion-mnist/`` in the data folder.

    The splits, the files and their download are as in `load_mnist`.

    Raises:
        DataError: a file is damaged, unreadable, or missing and cannot be downloaded or written.
        ConfigError: `validation` leaves no training image.

    >>> load_fashion_mnist("no-data", mirrors=[])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    swsjax.errors.DataError: no-data/fashion-mnist/train-images-idx3-ubyte.gz is missing and \
cannot be downloaded: no mirror given. ...
    """
    return _load(data_folder(folder) / "fashion-mnist", _FASHION_MNIST, validation, mirrors)


def load_digits(*, validation: int = 300) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits, 8x8, with no download.

    They are shuffled once and for all: the last 300 are the test split, the last `validation` of
    the others the validation split. The grey levels 0..16 are scaled to 0..255 and rounded.

    Raises:
        DataError: scikit-learn is missing; the message names the extra that brings it.
        ConfigError: `validation` leaves no training image.

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
    return hold_out("digits", Split(images[:cut], labels[:cut]), test, validation)


def data_folder(folder: _Folder = None) -> Path:
    """Give the data folder: `folder`, else ``$SWSJAX_DATA``, else ``swsjax`` in the user's cache.

    >>> data_folder("my-data").name
    'my-data'
    """
    chosen = folder or os.environ.get("SWSJAX_DATA")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or Path(cache, "swsjax")).expanduser()


def hold_out(name: str, rest: Split, test: Split, validation: int) -> Dataset:
    """Make a data set whose validation split is the last `validation` images of the `rest`.

    Raises:
        ConfigError: `validation` leaves no training image.

    >>> rest = Split(np.zeros((5, 8, 8), np.uint8), np.arange(5, dtype=np.uint8))
    >>> dataset = hold_out("five", rest, rest, 2)
    >>> dataset.train.labels.tolist(), dataset.validation.labels.tolist()
    ([0, 1, 2], [3, 4])
    """
    cut = len(rest.labels) - operator.index(validation)
    if not 0 < cut <= len(rest.labels):
        raise ConfigError(f"validation is {validation}, expected 0 to {len(rest.labels) - 1}")
    train = Split(rest.images[:cut], rest.labels[:cut])
    return Dataset(name, train, Split(rest.images[cut:], rest.labels[cut:]), test)


def _load(folder: Path, digests: Sequence[str], validation: int, mirrors: _Mirrors) -> Dataset:
    """Load a data set of four files; it is named after its folder."""
    arrays = [
        _load_file(folder / name, shape, sha256, mirrors)
        for (name, shape), sha256 in zip(_SHAPES.items(), digests, strict=True)
    ]
    return hold_out(folder.name, Split(*arrays[:2]), Split(*arrays[2:]), validation)


def _load_file(plain: Path, shape: _Shape, sha256: str, mirrors: _Mirrors) -> np.ndarray:
    """Read one file, plain before .gz; download a missing one first."""
    path = plain if os.path.exists(plain) else plain.with_name(f"{plain.name}.gz")
    if not os.path.exists(path):
        # The sum is that of the data without gzip.
        fetch(path, mirrors, lambda packed: _read(packed, shape, sha256, packed=True))
    return read_checked(path, lambda path: _read(path, shape, sha256, packed=path != plain))


def _read(path: Path, shape: _Shape, sha256: str, *, packed: bool) -> np.ndarray:
    """Read, check and parse one file; a ValueError says what is wrong with its content."""
    header = 4 + 4 * len(shape)  # bytes of the magic number and the dimensions
    size = header + math.prod(shape)
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            content = stream.read(size + 1)  # so a gzip bomb cannot fill the memory
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"not a valid gzip file: {error}") from error
    if len(content) != size:
        actual = f"more than {size}" if len(content) > size else len(content)
        raise ValueError(f"expected {size} bytes of IDX data, actual {actual}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ValueError(f"expected the SHA-256 {sha256} of the IDX data, actual {digest}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
