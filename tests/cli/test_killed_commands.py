"""A training command that is killed or interrupted, at any stage, goes on from there."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

import swsjax
from swsjax.sws.config import LEARNED

# SIGINT may be ignored from the start if the tests run in the background of a shell.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from swsjax.cli import main
sys.exit(main())
"""
CONFIG = replace(
    LEARNED,
    tau=1e-6,
    pi_zero=0.7,
    soft_epochs=9,
    soft_learning_rates=swsjax.LearningRates(precisions=0.1),
    hard_epochs=1,
    batch_size=32,
    least_steps=1,
    tolerance=1.0,  # one grid to compile
)


@pytest.fixture
def start(tmp_path):
    """Start the command; its output goes to a folder of that name."""
    (tmp_path / "short.json").write_text(json.dumps(CONFIG.to_dict()))
    started = []

    def start(out):
        arguments = ["compress", "lenet-300-100", "--data", "digits", "--config", "short.json"]
        with (tmp_path / "stderr").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *arguments, "--out", out],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def stop_after(process, state, epoch, signal_number):
    """Send a signal once the state of an epoch is written; the exit code."""
    ends = time.monotonic() + 240
    while not any(int(path.name) >= epoch for path in state.glob("[0-9]*") if path.name.isdigit()):
        assert process.poll() is None, "it ended too soon"
        assert time.monotonic() < ends
        time.sleep(0.01)
    process.send_signal(signal_number)
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_a_command_goes_on_where_it_was_stopped(start, tmp_path):
    out = tmp_path / "stopped"
    pretraining = out / "pretrained" / "lenet-300-100-digits-0" / "state"
    assert stop_after(start("stopped"), pretraining, 3, signal.SIGKILL) == -signal.SIGKILL
    assert stop_after(start("stopped"), pretraining, 9, signal.SIGINT) == 130
    last = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert last == "swsjax: interrupted; the same command goes on from here"
    assert stop_after(start("stopped"), out / "state", 4, signal.SIGKILL) == -signal.SIGKILL
    kept = (pretraining.parent / "pretrain.json").stat().st_mtime_ns
    assert not pretraining.exists()
    assert stop_after(start("stopped"), out / "state", 7, signal.SIGINT) == 130
    for name in ("stopped", "whole"):
        process = start(name)
        process.communicate(timeout=240)
        assert process.returncode in (0, 3), (tmp_path / "stderr").read_text()
    assert (pretraining.parent / "pretrain.json").stat().st_mtime_ns == kept
    assert not (out / "state").exists()
    files = [tmp_path / name / "lenet-300-100.sws" for name in ("stopped", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    nets = [swsjax.load(file) for file in files]
    assert nets[0].keys() == nets[1].keys() == {"fc1", "fc2", "fc3"}
