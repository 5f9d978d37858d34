"""A file is written completely or not at all: kills and failures of real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from swsjax.file import atomic

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
    assert "OSError: [Errno 27] File too large" in process.stderr
    assert path.read_bytes() == OLD
    assert names(path) == ["file.sws"]


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
