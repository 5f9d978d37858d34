"""A run that was interrupted ends bit-equal to one that was not."""

import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from killed_run import CONFIG, DATA, PARAMS, RULES, everything, loss_fn, run, stream

from swsjax.errors import CheckpointError
from swsjax.file import load
from swsjax.training import select

SCRIPT = Path(__file__).parent / "killed_run.py"
EPOCHS = 10


class PowerCutError(Exception):
    """Ends a run like a power cut, without the time that a new process takes."""


def interrupt_at(epoch):
    def callback(record):
        if record.epoch == epoch:
            raise PowerCutError

    return callback


def assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def whole():
    return everything(run())


def test_killed_at_random_and_started_again(tmp_path, whole):
    """With SIGKILL, in the middle of a step, several times in one run."""
    random_delay = random.Random(0)
    target, kills = tmp_path / "result.sws", 0
    while not target.exists():
        process = subprocess.Popen(
            [sys.executable, SCRIPT, tmp_path / "state", target],
            stdout=subprocess.PIPE,
            text=True,
            cwd=SCRIPT.parent,
        )
        # Steps take about a millisecond, and the first of a stage a second to compile.
        for epochs_here, _ in enumerate(process.stdout, start=1):
            if kills < 3 and epochs_here == random_delay.randint(1, 3):
                time.sleep(random_delay.uniform(0, 0.3))
                process.kill()
                kills += 1
                break
        process.stdout.close()
        process.wait(timeout=120)
    assert kills == 3
    assert_equal(load(target, like=whole), jax.tree.map(np.asarray, whole))


@pytest.mark.parametrize("epoch", [1, 3, 7])  # within a stage, at its end, and in the pruning stage
def test_interrupted_after_an_epoch(tmp_path, whole, epoch):
    with pytest.raises(PowerCutError):
        run(tmp_path / "state", callback=interrupt_at(epoch))
    seen = []
    resumed = run(tmp_path / "state", callback=lambda record: seen.append(record.epoch))
    assert seen == list(range(epoch + 1, EPOCHS + 1))  # no epoch is run twice
    assert [record.epoch for record in resumed.history] == list(range(1, EPOCHS + 1))
    assert_equal(everything(resumed), whole)


def test_stream_resumes_at_its_next_pass(tmp_path):
    expected = everything(run(data=stream()))
    with pytest.raises(PowerCutError):
        run(tmp_path / "state", data=stream(), callback=interrupt_at(5))
    assert_equal(everything(run(tmp_path / "state", data=stream())), expected)


def test_completed_run_is_not_run_again(tmp_path, whole):
    run(tmp_path / "state")
    again = run(tmp_path / "state", callback=interrupt_at(1))
    assert_equal(everything(again), whole)
    assert again.selection == select(PARAMS, RULES)


def test_a_run_is_the_same_whatever_the_types_of_its_settings(tmp_path, whole):
    run(tmp_path / "state", rules=RULES, config=replace(CONFIG, tau=1e-6, seed=0))
    config = replace(CONFIG, tau=np.float64(1e-6), seed=np.int64(0))
    again = run(tmp_path / "state", rules=tuple(RULES), config=config, callback=interrupt_at(1))
    assert len(again.history) == EPOCHS


def test_a_folder_of_a_different_run(tmp_path):
    with pytest.raises(PowerCutError):
        run(tmp_path, callback=interrupt_at(1))

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
            f"{tmp_path} holds a run with other {what}; choose a different folder, or delete this "
            "one to start again"
        )
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
            run(tmp_path, **change)
