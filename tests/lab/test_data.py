"""The data sets: splits, checks of files on disk, and downloads from a real local server."""

import gzip
import hashlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from swsjax.lab import data
from swsjax.errors import DataError

# Read once, before any test changes the environment.
FOLDER = Path(
    os.environ.get("SWSJAX_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)
AGAIN = "Delete it and run again to download it."
PUT = "Put the file there yourself, or name a folder that has it, as `folder` or in SWSJAX_DATA."
MNIST_LABELS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # train
MNIST_TEST_LABELS = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (7, 4, 3), np.uint8),
    "train-labels-idx1-ubyte": np.arange(7, dtype=np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (2, 4, 3), np.uint8),
    "t10k-labels-idx1-ubyte": np.array([8, 9], np.uint8),
}
PLAIN = {name: idx(array) for name, array in ARRAYS.items()}
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in PLAIN.items()}
FIRST = next(iter(PACKED))
LABELS = "train-labels-idx1-ubyte"  # the file that the tests of errors damage
NAME = f"{LABELS}.gz"


@pytest.fixture
def load(monkeypatch):
    """Load the stand-in for MNIST, whose two last training images are for validation."""
    monkeypatch.setattr(data, "_SHAPES", {name: array.shape for name, array in ARRAYS.items()})
    monkeypatch.setattr(data, "_MNIST", list(map(sha256, PLAIN.values())))
    monkeypatch.setattr(data, "_FASHION_MNIST", data._MNIST)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before a retry

    def load(folder, *mirrors, validation=2):
        return data.load_mnist(folder, validation=validation, mirrors=mirrors)

    return load


def write(folder, contents, name="mnist"):
    (folder / name).mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / name / file).write_bytes(content)


def raises(message):
    """Expect a DataError with exactly this message."""
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def assert_same(found, expected):
    for part, other in zip(found[1:], expected[1:], strict=True):
        for a, b in zip(part, other, strict=True):
            assert a.dtype == b.dtype == np.uint8
            np.testing.assert_array_equal(a, b)


def assert_loaded(found):
    """Expect the stand-in with two images for validation."""
    images, labels, *test = ARRAYS.values()
    train = data.Split(images[:5], labels[:5])
    validation = data.Split(images[5:], labels[5:])
    assert_same(found, data.Dataset("", train, validation, data.Split(*test)))


class Server(http.server.ThreadingHTTPServer):
    """Serves `contents`; adds `missing` to each Content-Length, and lists what is asked for."""

    def __init__(self, contents, missing=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.missing, self.asked = contents, missing, []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.asked.append(name)
        content = self.server.contents.get(name)
        if callable(content):
            content = content()
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + self.server.missing))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = []

    def start(contents, **options):
        server = Server(contents, **options)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def mnist():
    # A download that failed leaves an empty folder.
    if not list((FOLDER / "mnist").glob("t10k-images*")):
        pytest.skip("needs MNIST: set SWSJAX_DATA to the data folder that has mnist/")
    return data.load_mnist(FOLDER, mirrors=())


# Real data


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


def test_mnist_downloaded_is_mnist_from_the_folder(mnist, serve, tmp_path):
    names = [f"{name}.gz" for name in data._SHAPES]
    if not all((FOLDER / "mnist" / name).is_file() for name in names):
        pytest.skip("needs the .gz files of MNIST in the data folder")
    server = serve({name: (FOLDER / "mnist" / name).read_bytes() for name in names})
    assert_same(data.load_mnist(tmp_path, mirrors=(server.url,)), mnist)
    assert server.asked == names
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(names)


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


# Splits and folders


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
def test_other_validation_sizes(load, tmp_path, validation):
    write(tmp_path, PACKED)
    with pytest.raises(ValueError, match=f"^validation is {validation}, expected 0 to 6$"):
        load(tmp_path, validation=validation)


def test_a_fraction_is_no_validation_size(load, tmp_path):
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


# Files on the disk


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


def damaged(content):
    """Change the last value only: the size stays right."""
    return content[:-1] + bytes([content[-1] ^ 1])


BAD = damaged(PLAIN[LABELS])
GOOD_SUM, BAD_SUM = sha256(PLAIN[LABELS]), sha256(BAD)
WRONG_SUM = f"expected the SHA-256 {GOOD_SUM} of the IDX data, actual {BAD_SUM}"
CUT = "not a valid gzip file: Compressed file ended before the end-of-stream marker was reached"
HTML = b"<html>Log in to this network</html>"
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


# Downloads


def cannot(path, reason):
    return f"{path} is missing and cannot be downloaded: {reason}. {PUT}"


def files(folder):
    """The names and contents of the files of MNIST, temporary ones included."""
    return {path.name: path.read_bytes() for path in (folder / "mnist").iterdir()}


def test_download_puts_the_files_in_place(load, serve, tmp_path):
    server = serve(PACKED)
    folder = tmp_path / "made" / "here"
    assert_loaded(load(folder, server.url))
    assert server.asked == list(PACKED)
    assert files(folder) == PACKED
    assert {path.stat().st_mode & 0o777 for path in (folder / "mnist").iterdir()} == {0o644}
    assert_loaded(load(folder, server.url))
    assert server.asked == list(PACKED)  # the second time they are read from the folder


def test_a_download_prints_nothing(serve, tmp_path):
    """In a new process, as pooch writes to the stderr of its import."""
    path = tmp_path / NAME
    arguments = path, (7,), sha256(PLAIN[LABELS]), [serve(PACKED).url]
    code = f"from pathlib import *; from swsjax import data; data._download(*{arguments})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert path.read_bytes() == PACKED[NAME]


def test_fashion_mnist_is_downloaded(load, serve, tmp_path):
    mirrors = (serve(PACKED).url,)
    assert_loaded(data.load_fashion_mnist(tmp_path, validation=2, mirrors=mirrors))
    assert sorted(os.listdir(tmp_path / "fashion-mnist")) == sorted(PACKED)


def test_only_what_is_missing_is_downloaded(load, serve, tmp_path):
    server = serve(PACKED)
    write(tmp_path, {name: content for name, content in PACKED.items() if name != NAME})
    load(tmp_path, server.url.rstrip("/"))
    assert server.asked == [NAME]


@pytest.mark.parametrize("bad", [None, HTML, PACKED[NAME][:-5]], ids=["404", "HTML", "cut"])
def test_a_failed_download_is_tried_again(load, serve, tmp_path, bad):
    answers = iter([bad, PACKED[NAME]])
    server = serve(PACKED | {NAME: lambda: next(answers)})
    assert_loaded(load(tmp_path, server.url))
    assert server.asked.count(NAME) == 2
    assert files(tmp_path) == PACKED


def refused_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def test_the_next_mirror_is_tried(load, serve, tmp_path):
    bad, good = serve(PACKED | {NAME: gzip.compress(BAD)}), serve(PACKED)
    assert_loaded(load(tmp_path, refused_url(), bad.url, good.url))
    assert (bad.asked.count(NAME), good.asked) == (2, [NAME])
    assert files(tmp_path) == PACKED


def test_the_error_names_every_mirror(load, serve, tmp_path):
    reasons = {
        serve({NAME: gzip.compress(BAD)}).url: WRONG_SUM,
        serve({NAME: HTML}).url: "Not a gzipped file (b'<h')",
        serve({NAME: PACKED[NAME][:-5]}).url: CUT,
        serve({NAME: PACKED[NAME][:10]}, missing=100).url: "10 bytes read, 100 more expected",
        serve({}).url: "404 Client Error: Not Found",
        refused_url(): "Connection refused",
        "nonsense/": "No scheme supplied",
    }
    others = {name: content for name, content in PACKED.items() if name != NAME}
    write(tmp_path, others)
    parts = [f"{re.escape(url + NAME)}: .*{re.escape(part)}.*" for url, part in reasons.items()]
    start, end = map(re.escape, cannot(tmp_path / "mnist" / NAME, "#").split("#"))
    with pytest.raises(DataError, match=f"^{start}{'; '.join(parts)}{end}$"):
        load(tmp_path, *reasons)
    assert files(tmp_path) == others  # no temporary file either


def test_no_mirror(load, tmp_path):
    with raises(cannot(tmp_path / "mnist" / FIRST, "no mirror given")):
        load(tmp_path)
    assert os.listdir(tmp_path) == []


def test_without_pooch(load, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    write(tmp_path, PACKED)
    path = tmp_path / "mnist" / NAME
    assert_loaded(load(tmp_path, "http://127.0.0.1"))
    path.unlink()
    with raises(cannot(path, "downloading needs pooch: pip install 'swsjax[data]'")):
        load(tmp_path, "http://127.0.0.1")


def test_a_server_that_does_not_answer(load, monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(data, "_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(DataError, match=f"{re.escape(url + FIRST)}: .*Read timed out.*0.1"):
            load(tmp_path, url)
    assert files(tmp_path) == {}


def unwritable(folder, reason):
    return (
        f"{folder / 'mnist' / FIRST} cannot be written: {reason}. "
        "Name a writable folder, as the argument `folder` or in SWSJAX_DATA."
    )


@pytest.mark.parametrize("place", ["", "mnist"])
def test_a_file_in_the_place_of_the_folder(load, serve, tmp_path, place):
    server = serve(PACKED)
    folder = tmp_path / "data"
    if place:
        folder.mkdir()
    (folder / place).write_bytes(b"a file")
    with raises(unwritable(folder, "Not a directory")):
        load(folder, server.url)
    assert server.asked == []  # found out before the download


@pytest.mark.parametrize(
    ("module", "name", "error", "asked"),
    [
        (tempfile, "NamedTemporaryFile", PermissionError(13, "Permission denied"), []),
        (os, "makedirs", PermissionError(13, "Permission denied"), []),
        (shutil, "move", OSError(28, "No space left on device"), [FIRST]),
    ],
    ids=["read-only", "read-only parent", "full disk"],
)
def test_a_folder_that_cannot_be_written(
    load, serve, tmp_path, monkeypatch, module, name, error, asked
):
    """Simulated, because root may write everywhere."""

    def fail(*args, **kwargs):
        raise error

    if module is not os:
        write(tmp_path, {})
    server = serve(PACKED)
    monkeypatch.setattr(module, name, fail)
    with raises(unwritable(tmp_path, error.strerror)):
        load(tmp_path, server.url)
    assert server.asked == asked
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_ctrl_c_leaves_nothing(load, serve, tmp_path, monkeypatch):
    def interrupt(*args):
        assert len(files(tmp_path)) == 1  # the temporary file
        raise KeyboardInterrupt

    server = serve(PACKED)
    monkeypatch.setattr(shutil, "move", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, server.url)
    assert files(tmp_path) == {}


def test_the_mirrors_are_folders_of_gz_files():
    for mirror in data._MNIST_MIRRORS + data._FASHION_MNIST_MIRRORS:
        assert re.fullmatch(r"https?://[\w.-]+/([\w.-]+/)*", mirror)
