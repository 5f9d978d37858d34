"""The data sets: their splits, and checks of the files on disk."""

import gzip
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from stand_in import (
    BAD,
    CUT,
    FIRST,
    HTML,
    LABELS,
    NAME,
    PACKED,
    PLAIN,
    WRONG_SUM,
    assert_loaded,
    assert_same,
    idx,
    raises,
    real_mnist,
    replace_mnist,
    sha256,
    write,
)

from swsjax.errors import DataError
from swsjax.lab import data

AGAIN = "Delete it and run again to download it."
MNIST_LABELS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # train
MNIST_TEST_LABELS = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)


@pytest.fixture
def load(monkeypatch):
    return replace_mnist(monkeypatch)


@pytest.fixture(scope="module")
def mnist():
    return real_mnist()


def test_mnist_has_the_published_shapes_and_label_counts(mnist):
    assert mnist.name == "mnist"
    assert [split.images.shape for split in mnist[1:]] == [
        (50_000, 28, 28),
        (10_000, 28, 28),
        (10_000, 28, 28),
    ]
    assert [split.labels.shape for split in mnist[1:]] == [(50_000,), (10_000,), (10_000,)]
    assert all(array.dtype == np.uint8 for split in mnist[1:] for array in split)
    labels = np.concatenate([mnist.train.labels, mnist.validation.labels])
    assert tuple(np.bincount(labels)) == MNIST_LABELS
    assert tuple(np.bincount(mnist.test.labels)) == MNIST_TEST_LABELS
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert (mnist.test.images.min(), mnist.test.images.max()) == (0, 255)


def test_mnist_splits_share_no_image(mnist):
    train, validation, test = ({image.tobytes() for image in split.images} for split in mnist[1:])
    assert (len(train), len(validation), len(test)) == (50_000, 10_000, 10_000)
    assert len(train | validation | test) == 70_000


def test_fashion_mnist_has_its_own_checksums(tmp_path):
    images = idx(np.zeros((60_000, 28, 28), np.uint8))
    write(tmp_path, {"train-images-idx3-ubyte": images}, "fashion-mnist")
    expected = "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    with raises(
        f"{tmp_path}/fashion-mnist/train-images-idx3-ubyte: expected the SHA-256 {expected} "
        f"of the IDX data, actual {sha256(images)}. {AGAIN}"
    ):
        data.load_fashion_mnist(tmp_path, mirrors=())


def test_digits_are_deterministic_and_disjoint():
    digits, again = data.load_digits(), data.load_digits()
    assert_same(digits, again)
    assert [len(split.labels) for split in digits[1:]] == [1197, 300, 300]
    assert [split.images.shape[1:] for split in digits[1:]] == [(8, 8)] * 3
    # The order is promised for all machines and versions.
    assert digits.train.labels[:8].tolist() == [0, 6, 3, 8, 1, 8, 4, 1]
    assert sha256(np.concatenate([split.labels for split in digits[1:]])) == (
        "b4b403bd78a0bb828d40e2baf1ad5da83329f7c4bd55c710cf731bc765c16ca6"
    )
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.concatenate([split.images for split in digits[1:]])
    labels = np.concatenate([split.labels for split in digits[1:]])
    assert np.unique(images).tolist() == [int(v * 255 / 16 + 0.5) for v in range(17)]
    grey = np.round(images.astype(float) * 16 / 255).astype(int).reshape(-1, 64)
    ours = sorted((label, *row) for label, row in zip(labels.tolist(), grey.tolist(), strict=True))
    theirs = sorted(
        (label, *row)
        for label, row in zip(bunch.target.tolist(), bunch.data.astype(int).tolist(), strict=True)
    )
    assert ours == theirs  # each of them once, none lost


def test_digits_test_split_does_not_depend_on_the_validation_split():
    few = data.load_digits(validation=97)
    assert [len(split.labels) for split in few[1:]] == [1400, 97, 300]
    for a, b in zip(few.test, data.load_digits().test, strict=True):
        np.testing.assert_array_equal(a, b)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with raises("The digits need scikit-learn: pip install 'swsjax[digits]'"):
        data.load_digits()


def test_validation_is_the_last_of_the_training_images(load, tmp_path):
    write(tmp_path, PACKED)
    assert_loaded(load(tmp_path))


def test_arrays_are_read_only(load, tmp_path):
    write(tmp_path, PACKED)
    for dataset in (load(tmp_path), data.load_digits()):
        assert not any(array.flags.writeable for split in dataset[1:] for array in split)


@pytest.mark.parametrize(("validation", "sizes"), [(0, (7, 0)), (6, (1, 6)), (np.int64(1), (6, 1))])
def test_any_validation_size_that_leaves_a_training_image(load, tmp_path, validation, sizes):
    write(tmp_path, PACKED)
    found = load(tmp_path, validation=validation)
    assert (len(found.train.images), len(found.validation.images)) == sizes
    assert (len(found.train.labels), len(found.validation.labels)) == sizes


@pytest.mark.parametrize("validation", [-1, 7, 8])
def test_a_validation_size_out_of_range(load, tmp_path, validation):
    write(tmp_path, PACKED)
    with pytest.raises(ValueError, match=f"^validation is {validation}, expected 0 to 6$"):
        load(tmp_path, validation=validation)


def test_a_validation_size_that_is_not_an_integer(load, tmp_path):
    write(tmp_path, PACKED)
    with pytest.raises(TypeError, match="float"):
        load(tmp_path, validation=0.5)


def test_data_folder_is_the_argument_then_the_variable_then_the_cache(monkeypatch):
    monkeypatch.setenv("SWSJAX_DATA", "variable")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", "home")
    assert data.data_folder("argument") == Path("argument")
    assert data.data_folder("~/argument") == Path("home/argument")
    assert data.data_folder() == Path("variable")
    monkeypatch.setenv("SWSJAX_DATA", "")
    assert data.data_folder() == Path("cache/swsjax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.data_folder() == Path("home/.cache/swsjax")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("files", [PLAIN, PACKED], ids=["plain", "gz"])
def test_plain_and_gzipped_files_are_read(load, tmp_path, name, files):
    write(tmp_path, files, name)
    loader = {"mnist": data.load_mnist, "fashion-mnist": data.load_fashion_mnist}[name]
    found = loader(tmp_path, validation=2, mirrors=())
    assert found.name == name
    assert_loaded(found)


def test_plain_files_are_preferred(load, tmp_path):
    write(tmp_path, PLAIN | {NAME: b"not looked at"})
    assert_loaded(load(tmp_path))


DAMAGES = {
    "wrong checksum": (NAME, gzip.compress(BAD), WRONG_SUM),
    "wrong checksum, plain": (LABELS, BAD, WRONG_SUM),
    "truncated gz": (NAME, PACKED[NAME][:-1], CUT),
    "truncated gz, early": (NAME, PACKED[NAME][:5], CUT),
    "empty": (NAME, b"", "expected 15 bytes of IDX data, actual 0"),
    "HTML": (NAME, HTML, "not a valid gzip file: Not a gzipped file (b'<h')"),
    "no deflate data": (
        NAME,
        PACKED[NAME][:10] + b"\xff" * 20,
        "not a valid gzip file: Error -3 while decompressing data: invalid block type",
    ),
    "truncated IDX": (LABELS, PLAIN[LABELS][:-2], "expected 15 bytes of IDX data, actual 13"),
    "truncated IDX in gz": (
        NAME,
        gzip.compress(PLAIN[LABELS][:-2]),
        "expected 15 bytes of IDX data, actual 13",
    ),
    "too long": (LABELS, bytes(16), "expected 15 bytes of IDX data, actual more than 15"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_files_are_refused_and_kept(load, tmp_path, case):
    name, content, message = DAMAGES[case]
    write(tmp_path, PACKED | {name: content})
    path = tmp_path / "mnist" / name
    with raises(f"{path}: {message}. {AGAIN}"):
        load(tmp_path)
    assert path.read_bytes() == content


def test_a_gzip_bomb_takes_no_memory(load, tmp_path):
    write(tmp_path, PACKED | {NAME: gzip.compress(bytes(30_000_000))})
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="actual more than 15"):
            load(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_folder_in_the_place_of_a_file(load, tmp_path):
    path = tmp_path / "mnist" / FIRST
    path.mkdir(parents=True)
    with raises(f"{path} cannot be read: Is a directory. Make it readable."):
        load(tmp_path)
