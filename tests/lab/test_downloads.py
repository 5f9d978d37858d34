"""Downloads of the data sets from a real local server."""

import gzip
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest
from stand_in import (
    BAD,
    CUT,
    FIRST,
    FOLDER,
    HTML,
    NAME,
    PACKED,
    WRONG_SUM,
    assert_loaded,
    assert_same,
    cannot,
    raises,
    real_mnist,
    refused_url,
    replace_mnist,
    serving,
    unwritable,
    write,
)

from swsjax.errors import DataError
from swsjax.lab import data, downloads


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as start:
        yield start


@pytest.fixture
def load(monkeypatch):
    return replace_mnist(monkeypatch)


@pytest.fixture(scope="module")
def mnist():
    return real_mnist()


def test_mnist_downloaded_is_mnist_from_the_folder(mnist, serve, tmp_path):
    names = [f"{name}.gz" for name in data._SHAPES]
    if not all((FOLDER / "mnist" / name).is_file() for name in names):
        pytest.skip("needs the .gz files of MNIST in the data folder")
    server = serve({name: (FOLDER / "mnist" / name).read_bytes() for name in names})
    assert_same(data.load_mnist(tmp_path, mirrors=(server.url,)), mnist)
    assert server.asked == names
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(names)


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
    code = (
        "from pathlib import *; from swsjax.lab import downloads; "
        f"downloads.fetch({path!r}, {[serve(PACKED).url]}, Path.read_bytes)"
    )
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
    monkeypatch.setattr(downloads, "_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(DataError, match=f"{re.escape(url + FIRST)}: .*Read timed out.*0.1"):
            load(tmp_path, url)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("place", ["", "mnist"])
def test_a_file_in_the_place_of_the_folder(load, serve, tmp_path, place):
    server = serve(PACKED)
    folder = tmp_path / "data"
    if place:
        folder.mkdir()
    (folder / place).write_bytes(b"a file")
    with raises(unwritable(folder / "mnist" / FIRST, "Not a directory")):
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
    with raises(unwritable(tmp_path / "mnist" / FIRST, error.strerror)):
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
