"""The data sets: splits, checks of files on disk, and downloads from a real local server."""

import errno
import gzip
import hashlib
import http.server
import os
import re
import socket
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from swsjax import data
from swsjax.errors import DataError

# Read once, before any test changes the environment.
FOLDER = Path(
    os.environ.get("SWSJAX_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)
AGAIN = "Delete it and run again to download it anew."
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
FILES = [data._File(name, a.shape, sha256=sha256(PLAIN[name])) for name, a in ARRAYS.items()]
MD5_FILES = [
    data._File(name, a.shape, gz_md5=hashlib.md5(PACKED[f"{name}.gz"]).hexdigest())
    for name, a in ARRAYS.items()
]
LABELS = FILES[1]  # the file that the tests of errors damage
NAME = f"{LABELS.name}.gz"


def load(folder, mirrors=(), files=FILES):
    """Load the small stand-in, whose two last training images are for validation."""
    return data._load("fake", files, folder, 2, mirrors)


def write(folder, contents):
    (folder / "fake").mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / "fake" / name).write_bytes(content)


def raises(message):
    """Expect a DataError with exactly this message."""
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def assert_same(found, expected):
    for part in ("train", "validation", "test"):
        for a, b in zip(getattr(found, part), getattr(expected, part), strict=True):
            assert a.dtype == b.dtype == np.uint8
            np.testing.assert_array_equal(a, b)


class Server(http.server.ThreadingHTTPServer):
    """Serves `contents`; adds `missing` to each Content-Length, and counts what is asked for."""

    def __init__(self, contents, missing=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.missing, self.asked = contents, missing, []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.asked.append(name)
        if name not in self.server.contents:
            self.send_error(404)
            return
        content = self.server.contents[name]
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
    names = [f"{file.name}.gz" for file in data._MNIST]
    if not all((FOLDER / "mnist" / name).is_file() for name in names):
        pytest.skip("needs the .gz files of MNIST in the data folder")
    server = serve({name: (FOLDER / "mnist" / name).read_bytes() for name in names})
    assert_same(data.load_mnist(tmp_path, mirrors=(server.url,)), mnist)
    assert server.asked == names
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(names)


def test_fashion_mnist_is_checked_by_the_md5_of_the_gz(tmp_path):
    labels = idx(np.zeros(60_000, np.uint8))
    images = idx(np.zeros((60_000, 28, 28), np.uint8))
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(images, 1, mtime=0))
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with raises(
        f"{path}: the MD5 is {found}, expected is 8d4fb7e6c68d591d4c3dfef9ec88bf0d. {AGAIN}"
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


def test_validation_is_the_last_of_the_training_images(tmp_path):
    write(tmp_path, PACKED)
    fake = load(tmp_path)
    images, labels = ARRAYS["train-images-idx3-ubyte"], ARRAYS["train-labels-idx1-ubyte"]
    test = data.Split(ARRAYS["t10k-images-idx3-ubyte"], ARRAYS["t10k-labels-idx1-ubyte"])
    expected = data.Dataset(
        "fake", data.Split(images[:5], labels[:5]), data.Split(images[5:], labels[5:]), test
    )
    assert fake.name == "fake"
    assert_same(fake, expected)
    assert not any(array.flags.writeable for split in fake[1:] for array in split)
    assert not any(array.flags.writeable for split in data.load_digits()[1:] for array in split)


@pytest.mark.parametrize(("validation", "sizes"), [(0, (7, 0)), (6, (1, 6)), (np.int64(1), (6, 1))])
def test_any_validation_size_that_leaves_a_training_image(tmp_path, validation, sizes):
    write(tmp_path, PACKED)
    fake = data._load("fake", FILES, tmp_path, validation, ())
    assert (len(fake.train.images), len(fake.validation.images)) == sizes
    assert (len(fake.train.labels), len(fake.validation.labels)) == sizes


@pytest.mark.parametrize("validation", [-1, 7, 8])
def test_other_validation_sizes(tmp_path, validation):
    write(tmp_path, PACKED)
    with pytest.raises(ValueError, match=f"^validation is {validation}, expected 0 to 6$"):
        data._load("fake", FILES, tmp_path, validation, ())


def test_a_fraction_is_no_validation_size(tmp_path):
    write(tmp_path, PACKED)
    with pytest.raises(TypeError, match="float"):
        data._load("fake", FILES, tmp_path, 0.5, ())


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


def test_plain_files_are_preferred(tmp_path):
    write(tmp_path, PLAIN)
    write(tmp_path, {NAME: b"not looked at"})
    assert_same(load(tmp_path), load_from(tmp_path / "packed"))


def load_from(folder):
    folder.mkdir()
    write(folder, PACKED)
    return load(folder)


def test_plain_files_without_a_checksum_are_not_read(tmp_path):
    write(tmp_path, PACKED)
    write(tmp_path, {LABELS.name: b"not looked at"})
    assert_same(load(tmp_path, files=MD5_FILES), load_from(tmp_path / "packed"))


# Damaged files on the disk


def damaged(content):
    """Change the last value only: sizes and headers stay right."""
    return content[:-1] + bytes([content[-1] ^ 1])


BAD = damaged(PLAIN[LABELS.name])
DAMAGES = {
    "wrong checksum": (
        NAME,
        gzip.compress(BAD),
        f": the SHA-256 of the content is {sha256(BAD)}, expected is {LABELS.sha256}.",
    ),
    "wrong checksum, plain": (
        LABELS.name,
        BAD,
        f": the SHA-256 of the content is {sha256(BAD)}, expected is {LABELS.sha256}.",
    ),
    "truncated gz": (NAME, PACKED[NAME][:-1], " is cut short: it unpacks to 15 of 15 bytes."),
    "truncated gz, early": (NAME, PACKED[NAME][:5], " is cut short: it unpacks to 0 of 15 bytes."),
    "empty": (NAME, b"", " is cut short: it unpacks to 0 of 15 bytes."),
    "no gz": (
        NAME,
        b"<html>",
        " is not a sound gzip file: Error -3 while decompressing data: incorrect header check.",
    ),
    "truncated idx": (
        LABELS.name,
        PLAIN[LABELS.name][:-2],
        " holds 13 bytes, expected are 15.",
    ),
    "truncated idx in gz": (
        NAME,
        gzip.compress(PLAIN[LABELS.name][:-2]),
        " holds 13 bytes, expected are 15.",
    ),
    "too long": (LABELS.name, bytes(16), " holds more than 15 bytes, expected are 15."),
    "wrong magic": (
        LABELS.name,
        b"\0\0\x0d" + PLAIN[LABELS.name][3:],
        " has the IDX header '00 00 0d 01 00 00 00 07', expected is '00 00 08 01 00 00 00 07'.",
    ),
    "wrong count": (
        LABELS.name,
        idx(np.zeros(6, np.uint8)) + b"\0",
        " has the IDX header '00 00 08 01 00 00 00 06', expected is '00 00 08 01 00 00 00 07'.",
    ),
    "wrong shape": (
        LABELS.name,
        idx(np.zeros((3, 1), np.uint8)),
        " has the IDX header '00 00 08 02 00 00 00 03', expected is '00 00 08 01 00 00 00 07'.",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_files_are_refused_and_kept(tmp_path, case):
    name, content, message = DAMAGES[case]
    write(tmp_path, PACKED)
    write(tmp_path, {name: content})
    path = tmp_path / "fake" / name
    with raises(f"{path}{message} {AGAIN}"):
        load(tmp_path)
    assert path.read_bytes() == content


def test_a_damaged_gz_with_an_md5(tmp_path):
    content = gzip.compress(PLAIN[LABELS.name], mtime=1)  # same content, other header
    write(tmp_path, PACKED | {NAME: content})
    path, found = tmp_path / "fake" / NAME, hashlib.md5(content).hexdigest()
    with raises(f"{path}: the MD5 is {found}, expected is {MD5_FILES[1].gz_md5}. {AGAIN}"):
        load(tmp_path, files=MD5_FILES)


def test_a_gzip_bomb_takes_no_memory(tmp_path):
    bomb = gzip.compress(bytes(3_000_000))
    assert len(bomb) < LABELS.gz_limit  # so that it is the unpacking that has to stop
    write(tmp_path, PACKED | {NAME: bomb})
    tracemalloc.start()
    try:
        with raises(
            f"{tmp_path / 'fake' / NAME} holds more than 15 bytes, expected are 15. {AGAIN}"
        ):
            load(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_a_folder_in_the_place_of_a_file(tmp_path):
    write(tmp_path, {})
    path = tmp_path / "fake" / f"{FILES[0].name}.gz"
    path.mkdir()
    with raises(f"{path} cannot be read: Is a directory. Make it readable."):
        load(tmp_path)


# Downloads


def cannot(path, reasons):
    return f"{path} is missing and cannot be downloaded: {reasons}. {PUT}"


@pytest.mark.parametrize("files", [FILES, MD5_FILES], ids=["sha256", "md5"])
def test_download_puts_the_files_in_place(serve, tmp_path, files):
    server = serve(PACKED)
    folder = tmp_path / "made" / "here"
    fake = load(folder, (server.url,), files)
    assert server.asked == list(PACKED)
    assert {path.name: path.read_bytes() for path in (folder / "fake").iterdir()} == PACKED
    assert_same(fake, load_from(tmp_path / "packed"))
    assert_same(load(folder, (server.url,), files), fake)
    assert server.asked == list(PACKED)  # the second time they are read from the folder


def test_only_what_is_missing_is_downloaded(serve, tmp_path):
    server = serve(PACKED)
    write(tmp_path, {name: content for name, content in PACKED.items() if name != NAME})
    load(tmp_path, (server.url.rstrip("/"),))
    assert server.asked == [NAME]


def test_the_next_mirror_is_tried(serve, tmp_path):
    bad = serve(PACKED | {NAME: gzip.compress(BAD)})
    good = serve(PACKED)
    load(tmp_path, (bad.url, good.url))
    assert (len(bad.asked), good.asked) == (4, [NAME])
    assert (tmp_path / "fake" / NAME).read_bytes() == PACKED[NAME]


def refused_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_the_error_names_every_mirror(serve, tmp_path):
    wrong = serve({NAME: gzip.compress(BAD)})
    cut = serve({NAME: PACKED[NAME][:10]}, missing=100)
    gone = serve({})
    nobody = refused_url()
    write(tmp_path, {name: content for name, content in PACKED.items() if name != NAME})
    reasons = (
        f"{wrong.url}{NAME}: the SHA-256 of the content is {sha256(BAD)}, "
        f"expected is {LABELS.sha256}",
        f"{cut.url}{NAME}: the connection closed after 10 of 110 bytes",
        f"{gone.url}{NAME}: HTTP Error 404: Not Found",
        f"{nobody}/{NAME}: <urlopen error [Errno {errno.ECONNREFUSED}] Connection refused>",
        f"nonsense/{NAME}: unknown url type: 'nonsense/{NAME}'",
    )
    with raises(cannot(tmp_path / "fake" / NAME, "; ".join(reasons))):
        load(tmp_path, (wrong.url, cut.url, gone.url, nobody, "nonsense"))
    assert NAME not in os.listdir(tmp_path / "fake")
    assert len(os.listdir(tmp_path / "fake")) == 3  # no temporary file either


def first(folder):
    return folder / "fake" / f"{FILES[0].name}.gz"


def test_404_on_all_mirrors(serve, tmp_path):
    one, two = serve({}), serve({})
    name = first(tmp_path).name
    reasons = "; ".join(f"{server.url}{name}: HTTP Error 404: Not Found" for server in (one, two))
    with raises(cannot(first(tmp_path), reasons)):
        load(tmp_path, (one.url, two.url))
    assert os.listdir(tmp_path / "fake") == []


def test_no_mirror(tmp_path):
    with raises(cannot(first(tmp_path), "no mirror given")):
        load(tmp_path)


@pytest.mark.parametrize("missing", [0, 5])
def test_interrupted_download_leaves_nothing(serve, tmp_path, missing):
    """With missing=5 the server announced the full length, with 0 that of what it sends."""
    name = first(tmp_path).name
    server = serve({name: PACKED[name][:-5]}, missing=missing)
    size = len(PACKED[name])
    reason = (
        f": the connection closed after {size - 5} of {size} bytes"
        if missing
        else f" is cut short: it unpacks to {len(PLAIN[FILES[0].name])} of {FILES[0].size} bytes"
    )
    with raises(cannot(first(tmp_path), f"{server.url}{name}{reason}")):
        load(tmp_path, (server.url,))
    assert os.listdir(tmp_path / "fake") == []


def test_an_endless_answer_is_not_read_to_its_end(serve, tmp_path):
    name = first(tmp_path).name
    server = serve({name: bytes(1_000_000)}, missing=10**9)
    with raises(
        cannot(
            first(tmp_path),
            f"{server.url}{name} is not a sound gzip file: "
            "Error -3 while decompressing data: incorrect header check",
        )
    ):
        load(tmp_path, (server.url,))


def test_a_server_that_does_not_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(data, "_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with raises(cannot(first(tmp_path), f"{url}/{first(tmp_path).name}: timed out")):
            load(tmp_path, (url,))


@pytest.mark.parametrize("place", ["", "fake"])
def test_a_folder_that_cannot_be_written(serve, tmp_path, place):
    """A file stands where the folder should be: that binds root as well."""
    server = serve(PACKED)
    folder = tmp_path / "data"
    if place:
        folder.mkdir()
    (folder / place).write_bytes(b"a file")
    error = "File exists" if place else "Not a directory"
    with raises(
        f"{first(folder)} cannot be written: {error}. "
        "Name a folder that can be, as the argument `folder` or in SWSJAX_DATA."
    ):
        load(folder, (server.url,))
    assert server.asked == []  # found out before the download


@pytest.mark.parametrize("moment", ["download", "write"])
def test_ctrl_c_leaves_nothing(serve, tmp_path, monkeypatch, moment):
    def interrupt(*args, **kwargs):
        assert len(os.listdir(tmp_path / "fake")) == 1  # the temporary file
        raise KeyboardInterrupt

    server = serve(PACKED)
    target = {"download": (data.urllib.request, "urlopen"), "write": (data.os, "fsync")}[moment]
    monkeypatch.setattr(*target, interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, (server.url,))
    assert os.listdir(tmp_path / "fake") == []


def test_a_full_disk(serve, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    server = serve(PACKED)
    monkeypatch.setattr(data.os, "fsync", full)
    with raises(
        f"{first(tmp_path)} cannot be written: No space left on device. "
        "Name a folder that can be, as the argument `folder` or in SWSJAX_DATA."
    ):
        load(tmp_path, (server.url,))
    assert os.listdir(tmp_path / "fake") == []


def test_the_mirrors_are_folders_of_gz_files():
    for mirror in data._MNIST_MIRRORS + data._FASHION_MNIST_MIRRORS:
        assert re.fullmatch(r"https?://[\w.-]+/([\w.-]+/)*", mirror)
