"""A run that was interrupted ends bit-equal to one that was not."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from interrupting import PowerCutError, interrupt_at
from killed_run import CONFIG, DATA, PARAMS, RULES, everything, loss_fn, run, stream

from swsjax.errors import CheckpointError
from swsjax.file import load
from swsjax.training import select

SCRIPT = Path(__file__).parent / "killed_run.py"
EPOCHS = 6


def assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def whole():
    return everything(run())


def test_killed_and_started_again(tmp_path, whole):
    """With SIGKILL, in the middle of an epoch."""
    target = tmp_path / "result.sws"

    def start(**settings):
        command = [sys.executable, SCRIPT, tmp_path / "state", target]
        return subprocess.Popen(command, cwd=SCRIPT.parent, text=True, **settings)

    with start(stdout=subprocess.PIPE) as process:
        for _ in range(3):  # the next epoch compiles nothing
            assert process.stdout.readline() == "epoch\n"
        time.sleep(0.03)  # steps take about a millisecond
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    with start(stdout=subprocess.DEVNULL) as process:
        assert process.wait(timeout=120) == 0
    assert_equal(load(target, like=whole), jax.tree.map(np.asarray, whole))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Interrupted within a stage, at its end, and in the pruning stage: its folder and results."""
    folder, seen = tmp_path_factory.mktemp("run") / "state", []
    for epoch in (1, 2, 5):
        with pytest.raises(PowerCutError):
            run(folder, callback=interrupt_at(epoch, seen))
    return folder, seen, run(folder, callback=interrupt_at(None, seen))


def test_interrupted_after_some_epochs(interrupted, whole):
    _, seen, resumed = interrupted
    assert seen == list(range(1, EPOCHS + 1))  # no epoch is run twice
    assert [record.epoch for record in resumed.history] == seen
    assert_equal(everything(resumed), whole)


def test_stream_resumes_at_its_next_pass(tmp_path):
    config = replace(CONFIG, soft_epochs=1, prune_epochs=0)
    expected = everything(run(data=stream(), config=config))
    with pytest.raises(PowerCutError):
        run(tmp_path / "state", data=stream(), config=config, callback=interrupt_at(2))
    again = run(tmp_path / "state", data=stream(), config=config)
    assert_equal(everything(again), expected)


def test_completed_run_is_not_run_again(interrupted, whole):
    folder, _, _ = interrupted
    again = run(folder, callback=interrupt_at(1))
    assert_equal(everything(again), whole)
    assert again.selection == select(PARAMS, RULES)


def test_a_run_is_the_same_whatever_the_types_of_its_settings(interrupted):
    folder, _, _ = interrupted
    config = replace(CONFIG, tau=np.float64(CONFIG.tau), seed=np.int64(CONFIG.seed))
    again = run(folder, rules=tuple(RULES), config=config, callback=interrupt_at(1))
    assert len(again.history) == EPOCHS


def test_a_folder_of_a_different_run(interrupted):
    folder, _, _ = interrupted

    def other_loss(params, aux, batch):
        loss, aux = loss_fn(params, aux, batch)
        return 1.1 * loss, aux

    swapped = {name: array[::-1] for name, array in DATA.items()}
    for what, change in {
        "settings": {"config": replace(CONFIG, seed=1)},
        "settings and weights": {"rules": ()},
        "data": {"data": swapped},
        "loss": {"loss_fn": other_loss},
    }.items():
        message = (
            f"{folder} holds a run with other {what}; choose a different folder, or delete this "
            "one to start again"
        )
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
            run(folder, **change)
