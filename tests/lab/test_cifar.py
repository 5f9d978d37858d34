"""CIFAR-10: batches in the folder, the archive from a real local server, and the real images."""

import gzip
import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from stand_in import (
    FOLDER,
    HTML,
    cannot,
    damaged,
    raises,
    refused_url,
    serving,
    unwritable,
    write,
)

from swsjax.errors import DataError
from swsjax.file import atomic
from swsjax.lab import cifar, load_cifar10

BATCHES = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
AGAIN = "Delete it and run again to download it."
RNG = np.random.default_rng(0)
RECORDS = {name: RNG.integers(0, 256, (2, 3073), np.uint8) for name in cifar._BATCHES}
FILES = {name: records.tobytes() for name, records in RECORDS.items()}  # of 2 images, not 10,000
SIZE = 2 * 3073
NAME = "data_batch_4.bin"  # the batch that the tests of errors damage


def md5(content):
    return hashlib.md5(content).hexdigest()


def packed(members, kinds=()):
    """An archive of these contents by their paths; `kinds` changes attributes of some members."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            for attribute, value in dict(kinds).get(path, {}).items():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


# In an order of its own and with other files, like the official one.
MEMBERS = {f"{BATCHES}/readme.html": HTML} | {
    f"{BATCHES}/{name}": FILES[name] for name in reversed(FILES)
}
GOOD = packed(MEMBERS)


@pytest.fixture(autouse=True)
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before a retry
    with serving() as start:
        yield start


@pytest.fixture
def load(monkeypatch):
    """Replace CIFAR-10 by the stand-in; return what loads it, three images for validation."""
    monkeypatch.setattr(cifar, "_RECORDS", 2)
    monkeypatch.setattr(cifar, "_BATCHES", {name: md5(batch) for name, batch in FILES.items()})
    monkeypatch.setattr(cifar, "_ARCHIVE_MD5", md5(GOOD))
    return lambda folder, *mirrors, **more: load_cifar10(
        folder, **{"validation": 3} | more, mirrors=mirrors
    )


def files(folder):
    """The names and contents of the files of CIFAR-10, temporary ones included."""
    return {path.name: path.read_bytes() for path in (folder / BATCHES).iterdir()}


def assert_loaded(found):
    """Expect the stand-in, pixel by pixel where the format says that it is."""
    assert found.name == "cifar10"
    assert [len(split.labels) for split in found[1:]] == [7, 3, 2]
    records = np.concatenate(list(RECORDS.values()))
    images, labels = (np.concatenate(parts) for parts in zip(*found[1:], strict=True))
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape == (12, 32, 32, 3)
    np.testing.assert_array_equal(labels, records[:, 0])
    for row, column, channel in [(0, 0, 0), (0, 5, 1), (7, 31, 2), (31, 31, 2)]:
        place = 1 + 1024 * channel + 32 * row + column
        np.testing.assert_array_equal(images[:, row, column, channel], records[:, place])


def test_batches_in_the_folder_are_read(load, tmp_path):
    write(tmp_path, FILES, BATCHES)
    found = load(tmp_path)
    assert_loaded(found)
    assert all(split.images.flags.c_contiguous for split in found[1:])
    assert not any(array.flags.writeable for split in found[1:] for array in split)


def test_the_folder_is_the_data_folder(load, tmp_path, monkeypatch):
    write(tmp_path, FILES, BATCHES)
    monkeypatch.setenv("SWSJAX_DATA", str(tmp_path))
    assert_loaded(load(None))


def test_a_validation_size_out_of_range(load, tmp_path):
    write(tmp_path, FILES, BATCHES)
    with pytest.raises(ValueError, match=r"^validation is 10, expected 0 to 9$"):
        load(tmp_path, validation=10)


DAMAGES = {
    "wrong checksum": (
        damaged(FILES[NAME]),
        f"expected the MD5 {md5(FILES[NAME])}, actual {md5(damaged(FILES[NAME]))}",
    ),
    "too short": (FILES[NAME][:-1], f"expected {SIZE} bytes, actual {SIZE - 1}"),
    "too long": (FILES[NAME] + bytes(9), f"expected {SIZE} bytes, actual more than {SIZE}"),
    "empty": (b"", f"expected {SIZE} bytes, actual 0"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_batches_are_refused_and_kept(load, serve, tmp_path, case):
    content, message = DAMAGES[case]
    write(tmp_path, FILES | {NAME: content}, BATCHES)
    server = serve({ARCHIVE: GOOD})
    with raises(f"{tmp_path / BATCHES / NAME}: {message}. {AGAIN}"):
        load(tmp_path, server.url)
    assert server.asked == []
    assert files(tmp_path) == FILES | {NAME: content}


def test_a_folder_in_the_place_of_a_batch(load, tmp_path):
    path = tmp_path / BATCHES / NAME
    write(tmp_path, {name: content for name, content in FILES.items() if name != NAME}, BATCHES)
    path.mkdir()
    with raises(f"{path} cannot be read: Is a directory. Make it readable."):
        load(tmp_path)


def test_download_puts_the_batches_in_place_and_removes_the_archive(load, serve, tmp_path):
    server = serve({ARCHIVE: GOOD})
    folder = tmp_path / "made" / "here"
    assert_loaded(load(folder, server.url))
    assert files(folder) == FILES
    assert_loaded(load(folder, server.url))
    assert server.asked == [ARCHIVE]  # the second time the batches are read from the folder


def test_only_missing_batches_are_written(load, serve, tmp_path):
    write(tmp_path, {name: content for name, content in FILES.items() if name != NAME}, BATCHES)
    before = {path: path.stat().st_ino for path in (tmp_path / BATCHES).iterdir()}
    assert_loaded(load(tmp_path, serve({ARCHIVE: GOOD}).url.rstrip("/")))
    assert files(tmp_path) == FILES
    assert {path: path.stat().st_ino for path in before} == before


def test_an_archive_in_the_folder_is_used_and_kept(load, tmp_path):
    write(tmp_path, {ARCHIVE: GOOD}, BATCHES)
    assert_loaded(load(tmp_path))
    assert files(tmp_path) == FILES | {ARCHIVE: GOOD}


def test_a_damaged_archive_in_the_folder_is_refused_and_kept(load, tmp_path):
    bad = damaged(GOOD)
    write(tmp_path, {ARCHIVE: bad}, BATCHES)
    message = f"expected the MD5 {md5(GOOD)}, actual {md5(bad)}"
    with raises(f"{tmp_path / BATCHES / ARCHIVE}: {message}. {AGAIN}"):
        load(tmp_path)
    assert files(tmp_path) == {ARCHIVE: bad}


@pytest.mark.parametrize("bad", [None, HTML, GOOD[:-5]], ids=["404", "HTML", "cut"])
def test_a_failed_download_is_tried_again(load, serve, tmp_path, bad):
    answers = iter([bad, GOOD])
    server = serve({ARCHIVE: lambda: next(answers)})
    assert_loaded(load(tmp_path, server.url))
    assert server.asked == [ARCHIVE, ARCHIVE]
    assert files(tmp_path) == FILES


def test_the_next_mirror_is_tried(load, serve, tmp_path):
    bad, good = serve({ARCHIVE: damaged(GOOD)}), serve({ARCHIVE: GOOD})
    assert_loaded(load(tmp_path, refused_url(), bad.url, good.url))
    assert (bad.asked, good.asked) == ([ARCHIVE] * 2, [ARCHIVE])


def test_the_error_names_every_mirror_and_nothing_stays(load, serve, tmp_path):
    reasons = {
        serve({ARCHIVE: HTML}).url: f"expected the MD5 {md5(GOOD)}, actual {md5(HTML)}",
        serve({ARCHIVE: GOOD[:-5]}).url: f"expected the MD5 {md5(GOOD)}, actual ",
        serve({ARCHIVE: GOOD[:9]}, missing=100).url: "9 bytes read, 100 more expected",
        serve({}).url: "404 Client Error: Not Found",
        refused_url(): "Connection refused",
    }
    parts = [f"{re.escape(url + ARCHIVE)}: .*{re.escape(part)}.*" for url, part in reasons.items()]
    start, end = map(re.escape, cannot(tmp_path / BATCHES / ARCHIVE, "#").split("#"))
    with pytest.raises(DataError, match=f"^{start}{'; '.join(parts)}{end}$"):
        load(tmp_path, *reasons)
    assert files(tmp_path) == {}


HOSTILE = {
    "too large": (
        packed(MEMBERS | {f"{BATCHES}/{NAME}": bytes(30_000_000)}),
        f"{NAME}: expected {SIZE} bytes, actual more than {SIZE}",
    ),
    "too small": (
        packed(MEMBERS | {f"{BATCHES}/{NAME}": b"few"}),
        f"{NAME}: expected {SIZE} bytes, actual 3",
    ),
    "other content": (
        packed(MEMBERS | {f"{BATCHES}/{NAME}": damaged(FILES[NAME])}),
        f"{NAME}: {DAMAGES['wrong checksum'][1]}",
    ),
    "a link": (
        packed(
            MEMBERS | {f"{BATCHES}/{NAME}": b""},
            {f"{BATCHES}/{NAME}": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}},
        ),
        f"expected the file {BATCHES}/{NAME} in the archive, actual none",
    ),
    "no folder": (
        packed({path.removeprefix(f"{BATCHES}/"): content for path, content in MEMBERS.items()}),
        f"expected the file {BATCHES}/data_batch_1.bin in the archive, actual none",
    ),
    "other folder": (
        packed({f"../{path}": content for path, content in MEMBERS.items()}),
        f"expected the file {BATCHES}/data_batch_1.bin in the archive, actual none",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_archive_of_other_members_is_refused(load, serve, tmp_path, monkeypatch, case):
    """Even if its checksum were right."""
    content, message = HOSTILE[case]
    monkeypatch.setattr(cifar, "_ARCHIVE_MD5", md5(content))
    url = serve({ARCHIVE: content}).url
    with raises(cannot(tmp_path / BATCHES / ARCHIVE, f"{url}{ARCHIVE}: {message}")):
        load(tmp_path, url)
    assert files(tmp_path) == {}


def test_no_path_of_an_archive_is_followed(load, serve, tmp_path, monkeypatch):
    evil = [f"../{NAME}", f"../../{NAME}", f"{tmp_path}/{NAME}", f"{BATCHES}/../{NAME}"]
    content = packed(dict.fromkeys(evil, b"evil") | MEMBERS | {f"{BATCHES}/more.bin": b"evil"})
    monkeypatch.setattr(cifar, "_ARCHIVE_MD5", md5(content))
    folder = tmp_path / "a" / "b"
    assert_loaded(load(folder, serve({ARCHIVE: content}).url))
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(folder / BATCHES / name for name in FILES)


def test_no_mirror(load, tmp_path):
    with raises(cannot(tmp_path / BATCHES / ARCHIVE, "no mirror given")):
        load(tmp_path)
    assert os.listdir(tmp_path) == []


def test_without_pooch(load, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    write(tmp_path, FILES, BATCHES)
    assert_loaded(load(tmp_path, "http://127.0.0.1"))
    (tmp_path / BATCHES / NAME).unlink()
    reason = "downloading needs pooch: pip install 'swsjax[data]'"
    with raises(cannot(tmp_path / BATCHES / ARCHIVE, reason)):
        load(tmp_path, "http://127.0.0.1")


def test_a_file_in_the_place_of_the_folder(load, serve, tmp_path):
    server = serve({ARCHIVE: GOOD})
    (tmp_path / BATCHES).write_bytes(b"a file")
    with raises(unwritable(tmp_path / BATCHES / ARCHIVE, "Not a directory")):
        load(tmp_path, server.url)
    assert server.asked == []  # found out before the download


def failing(monkeypatch, error):
    """Let the third batch fail when it gets its name."""
    rename, done = os.replace, []

    def fail(source, target):
        if len(done) == 2:
            raise error
        done.append(os.path.basename(target))
        rename(source, target)

    monkeypatch.setattr(atomic.os, "replace", fail)
    return done


def test_a_full_disk_leaves_whole_batches_only(load, serve, tmp_path, monkeypatch):
    done = failing(monkeypatch, OSError(28, "No space left on device"))
    third = list(reversed(FILES))[2]
    with raises(unwritable(tmp_path / BATCHES / third, "No space left on device")):
        load(tmp_path, serve({ARCHIVE: GOOD}).url)
    assert files(tmp_path) == {name: FILES[name] for name in done}


def test_ctrl_c_leaves_whole_batches_only(load, serve, tmp_path, monkeypatch):
    done = failing(monkeypatch, KeyboardInterrupt())
    url = serve({ARCHIVE: GOOD}).url
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, url)
    assert files(tmp_path) == {name: FILES[name] for name in done}


def test_the_mirrors_are_folders():
    for mirror in cifar._MIRRORS:
        assert re.fullmatch(r"https?://[\w.-]+/([\w.~-]+/)*", mirror)


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """A data folder with the real batches; without them the test is skipped."""
    script = FOLDER / "unpack_cifar10.py"
    if (FOLDER / BATCHES / "test_batch.bin").is_file():
        return FOLDER
    if not script.is_file():
        pytest.skip("needs CIFAR-10: set SWSJAX_DATA to the data folder that has it")
    if not importlib.util.find_spec("PIL"):
        pytest.skip(f"{script} needs Pillow: pip install pillow")
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, script, folder], capture_output=True, check=True)
    return folder


def test_cifar10_has_the_published_shapes_and_label_counts(real):
    found = load_cifar10(real, mirrors=())
    assert found.name == "cifar10"
    assert [split.images.shape for split in found[1:]] == [
        (45_000, 32, 32, 3),
        (5_000, 32, 32, 3),
        (10_000, 32, 32, 3),
    ]
    labels = np.concatenate([found.train.labels, found.validation.labels])
    assert np.bincount(labels).tolist() == [5_000] * 10
    assert np.bincount(found.test.labels).tolist() == [1_000] * 10
    # The means of red, green and blue that everybody normalises with.
    mean = np.concatenate([found.train.images, found.validation.images]).mean((0, 1, 2)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
