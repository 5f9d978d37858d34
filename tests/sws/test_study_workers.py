"""Workers that share a search, on a file and on PostgreSQL, and what happens if one is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from postgres import INITDB, server
from search_worker import find, finished

optuna = pytest.importorskip("optuna")

WORKER = Path(__file__).parent / "search_worker.py"


def start(storage, trials, *slow):
    return subprocess.Popen(
        [sys.executable, WORKER, str(storage), str(trials), *slow],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=WORKER.parent,
    )


def end(*workers):
    """Wait for workers; none may fail or write to stderr."""
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert (worker.returncode, errors) == (0, "")


def test_workers_share_the_budget_of_a_file(tmp_path):
    storage = tmp_path / "search.journal"
    end(start(storage, 9), start(storage, 9))
    front = find(storage, 9)
    assert 9 <= finished(front) <= 10  # each worker finishes its current trial
    numbers = [point.trial for point in [*front.points, *front.dominated]]
    assert len(set(numbers)) == len(numbers)


def killed_in_a_trial(storage, trials):
    """Kill a worker during a trial, and go on in this process; return the number of that trial."""
    worker = start(storage, trials, "slow")
    for _ in range(4):  # three epochs per trial, so this is the second trial
        number = int(worker.stdout.readline())
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    find(storage, trials)
    return number


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_killed_worker_loses_only_its_trial(tmp_path):
    storage = tmp_path / "search.journal"
    lost = killed_in_a_trial(storage, 4)
    front = find(storage, 4)
    assert finished(front) == 4
    assert lost not in [point.trial for point in [*front.points, *front.dominated]]
    assert finished(find(storage, 5)) == 5


@pytest.fixture(scope="module")
def database():
    if INITDB is None:
        pytest.skip("PostgreSQL is not installed (no initdb found)")
    with server() as url:
        yield url


def test_two_workers_on_postgresql(database):
    end(start(database, 6), start(database, 6))  # on an empty database, both at once
    front = find(database, 6)
    assert 6 <= finished(front) <= 7


def test_killed_worker_on_postgresql(database, monkeypatch):
    """Its heartbeat stops, so another worker marks its trial as failed."""
    monkeypatch.setattr("swsjax.sws.storage._HEARTBEAT_SECONDS", 1)
    before = finished(find(database, 1))
    lost = killed_in_a_trial(database, before + 4)
    front = find(database, before + 4)
    assert finished(front) == before + 4
    assert lost not in [point.trial for point in [*front.points, *front.dominated]]
    time.sleep(3)
    find(database, before + 5)
    storage = optuna.storages.RDBStorage(database)
    study = optuna.load_study(study_name="swsjax", storage=storage)
    assert study.trials[lost].state == optuna.trial.TrialState.FAIL
    storage.remove_session()
    storage.engine.dispose()
