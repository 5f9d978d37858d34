"""A file is written completely or not at all: kills and failures of real processes."""

import errno
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import time

import pytest

from swsjax.file import atomic, files, safetensors
from swsjax.measure import report

OLD, NEW = b"old" * 1000, b"new" * 500_000

# Runs the module by its path: importing the package would take seconds.
PRELUDE = f"""
import os, resource, runpy, signal, sys
write_bytes = runpy.run_path({atomic.__file__!r})["write_bytes"]
path, new = sys.argv[1], b"new" * 500_000
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_WHILE_WRITING = PRELUDE + "os.fsync = kill; write_bytes(path, new)"
KILLED_BEFORE_REPLACING = PRELUDE + "os.replace = kill; write_bytes(path, new)"
DISK_FULL = PRELUDE + (
    "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)); write_bytes(path, new)"
)
FOREVER = PRELUDE + (
    "print('ready', flush=True)\nwhile True: write_bytes(path, new); write_bytes(path, new[::-1])"
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.sws"
    path.write_bytes(OLD)
    return path


def names(path):
    return [entry.name for entry in path.parent.iterdir()]


@pytest.mark.parametrize("convert", [str, lambda path: path])
def test_the_content_is_replaced(convert, path):
    atomic.write_bytes(convert(path), NEW)
    assert path.read_bytes() == NEW
    assert names(path) == ["file.sws"]


def test_a_new_and_empty_file(tmp_path):
    atomic.write_bytes(tmp_path / "new", b"")
    assert (tmp_path / "new").read_bytes() == b""
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("script", [KILLED_WHILE_WRITING, KILLED_BEFORE_REPLACING])
def test_a_killed_process_leaves_the_old_content(script, path):
    process = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    assert len(names(path)) == 2  # the temporary file of the interrupted write is there, too


def test_a_process_killed_at_any_moment_leaves_a_complete_file(path):
    complete = {OLD, NEW, NEW[::-1]}
    for delay in (0.0, 0.003, 0.01, 0.03):
        with subprocess.Popen(
            [sys.executable, "-c", FOREVER, str(path)], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
        assert path.read_bytes() in complete


def test_a_full_disk_leaves_the_old_content_and_no_other_file(path):
    process = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(path)], timeout=60, capture_output=True, text=True
    )
    assert process.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: {str(path)!r}"
    assert path.read_bytes() == OLD
    assert names(path) == ["file.sws"]


def test_an_error_while_reading_has_the_name_of_the_file(path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pathlib.Path, "read_bytes", fail)
    text = f"[Errno 5] Input/output error: {str(path)!r}"
    for read in (
        atomic.read_bytes,
        files.load,
        files.read_metadata,
        safetensors.from_safetensors,
        report,
    ):
        with pytest.raises(OSError, match=f"^{re.escape(text)}$"):
            read(path)


def test_an_error_that_is_not_of_the_system_stays(path, monkeypatch):
    def fail(*_):
        raise OSError("odd")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"^odd$"):
        atomic.write_bytes(path, NEW)


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
def test_an_interrupt_leaves_no_temporary_file(function, error, path, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(error):
        atomic.write_bytes(path, NEW)
    assert path.read_bytes() == OLD
    assert names(path) == ["file.sws"]


def test_the_data_are_on_disk_before_the_name(path, monkeypatch):
    calls = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(os.fstat(descriptor).st_size))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("replace") or replace(*names))
    atomic.write_bytes(path, b"tiny")  # less than Python's own buffer
    assert calls == [4, "replace"]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory"):
        atomic.write_bytes(tmp_path / "none" / "file", NEW)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_an_existing_file_keeps_its_mode(mode, path):
    path.chmod(mode)
    atomic.write_bytes(path, NEW)
    assert (path.read_bytes(), mode_of(path)) == (NEW, mode)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_new_file_follows_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        atomic.write_bytes(tmp_path / "new", NEW)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "new") == 0o666 & ~mask


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_leads_to_the_file_that_is_written(exists, tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    if exists:
        target.write_bytes(OLD)
        target.chmod(0o600)
    (tmp_path / "between").symlink_to(target)
    link.symlink_to("between")
    atomic.check_writable(link)
    atomic.write_bytes(link, NEW)
    assert os.readlink(link) == "between"
    assert target.read_bytes() == NEW
    assert not target.is_symlink()
    assert mode_of(target) == 0o600 or not exists
    assert names(target) == ["target"]


def folder(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def link_to_a_device(path):
    path.symlink_to(os.devnull)


def link_to_itself(path):
    path.symlink_to(path.name)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (folder, IsADirectoryError, "[Errno 21] Is a directory: "),
        (pipe, OSError, "[Errno 22] Not a regular file: "),
        (link_to_a_device, OSError, "[Errno 22] Not a regular file: "),
        (link_to_itself, OSError, f"[Errno {errno.ELOOP}] Too many levels of symbolic links: "),
    ],
)
def test_what_is_not_a_regular_file_is_refused_and_stays(make, error, text, tmp_path):
    path = tmp_path / "special"
    make(path)
    before = path.lstat()
    for refuse in (atomic.check_writable, lambda path: atomic.write_bytes(path, NEW)):
        with pytest.raises(error, match=f"^{re.escape(text + repr(str(path)))}$"):
            refuse(path)
    assert path.lstat() == before
    assert names(path) == ["special"]


@pytest.mark.parametrize("given", ["", ".", "..", "/", "folder/.."])
def test_a_path_without_a_name_is_a_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for refuse in (atomic.check_writable, lambda path: atomic.write_bytes(path, NEW)):
        with pytest.raises(IsADirectoryError, match=re.escape(repr(given or "."))):
            refuse(given)


@pytest.mark.parametrize("size", [1, 242, 243, 255])
def test_every_name_that_the_file_system_allows(size, tmp_path):
    path = tmp_path / ("n" * size)
    atomic.check_writable(path)
    atomic.write_bytes(path, NEW)
    assert path.read_bytes() == NEW


def test_a_name_that_is_too_long_is_the_one_of_the_message(tmp_path):
    path = tmp_path / ("n" * 256)
    for refuse in (atomic.check_writable, lambda path: atomic.write_bytes(path, NEW)):
        with pytest.raises(OSError, match=re.escape(repr(str(path)))):
            refuse(path)


def test_a_missing_folder_is_found_before_any_work(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "none" / "file")
    for path in (tmp_path / "none" / "file", tmp_path / "link"):
        with pytest.raises(FileNotFoundError, match=re.escape(repr(str(path)))):
            atomic.check_writable(path)
