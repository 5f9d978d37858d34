"""A small stand-in for MNIST and how to compare what is loaded; a local server; messages."""

import contextlib
import gzip
import hashlib
import http.server
import os
import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from swsjax.errors import DataError
from swsjax.lab import data

# Read once, before any test changes the environment.
FOLDER = Path(
    os.environ.get("SWSJAX_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)


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


def damaged(content):
    """Change the last value only: the size stays right."""
    return content[:-1] + bytes([content[-1] ^ 1])


BAD = damaged(PLAIN[LABELS])
GOOD_SUM, BAD_SUM = sha256(PLAIN[LABELS]), sha256(BAD)
WRONG_SUM = f"expected the SHA-256 {GOOD_SUM} of the IDX data, actual {BAD_SUM}"
CUT = "not a valid gzip file: Compressed file ended before the end-of-stream marker was reached"
HTML = b"<html>Log in to this network</html>"


def replace_mnist(monkeypatch):
    """Replace the data sets by the stand-in; return what loads it, two images for validation."""
    monkeypatch.setattr(data, "_SHAPES", {name: array.shape for name, array in ARRAYS.items()})
    monkeypatch.setattr(data, "_MNIST", list(map(sha256, PLAIN.values())))
    monkeypatch.setattr(data, "_FASHION_MNIST", data._MNIST)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before a retry

    def load(folder, *mirrors, validation=2):
        return data.load_mnist(folder, validation=validation, mirrors=mirrors)

    return load


def real_mnist():
    """MNIST from the data folder; without it the test is skipped."""
    if not list((FOLDER / "mnist").glob("t10k-images*")):  # a failed download leaves the folder
        pytest.skip("needs MNIST: set SWSJAX_DATA to the data folder that has mnist/")
    return data.load_mnist(FOLDER, mirrors=())


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


@contextlib.contextmanager
def serving():
    """What starts a server of some contents; in the end all of them are stopped."""
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


def refused_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def cannot(path, reason):
    """The message about a missing file."""
    return (
        f"{path} is missing and cannot be downloaded: {reason}. "
        "Put the file there yourself, or name a folder that has it, as `folder` or in SWSJAX_DATA."
    )


def unwritable(path, reason):
    return (
        f"{path} cannot be written: {reason}. "
        "Name a writable folder, as the argument `folder` or in SWSJAX_DATA."
    )
