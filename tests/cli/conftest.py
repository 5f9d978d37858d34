"""What the tests of commands share: a net that is trained once, and runs without figures."""

import io
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from swsjax.cli import datasets, main
from swsjax.lab import NETS
from swsjax.training.pretraining import PretrainConfig

EPOCHS = 8


class Trained(NamedTuple):
    folder: Path
    out: str
    err: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A net that `swsjax pretrain` wrote in a few epochs, and what the command said."""
    folder = tmp_path_factory.mktemp("trained")
    net = NETS["lenet-300-100"]._replace(pretraining=PretrainConfig(EPOCHS))
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setitem(NETS, "lenet-300-100", net)
        patch.delitem(datasets.PRETRAINING, "digits")
        command = ["pretrain", "lenet-300-100", "--data", "digits", "--out", str(folder)]
        assert main(command) == 0
    return Trained(folder, out.getvalue(), err.getvalue())


@pytest.fixture
def so_few_epochs(pretrain_for):
    """All nets are pretrained like that net."""
    pretrain_for(EPOCHS)


@pytest.fixture
def is_trained(trained, so_few_epochs):
    """Put that net where a command that writes to a folder keeps its own, and finds it."""

    def put(out):
        shutil.copytree(trained.folder, out / "pretrained" / "lenet-300-100-digits-0")

    return put


@pytest.fixture
def no_figures(monkeypatch):
    """Nothing is drawn, which takes seconds."""
    monkeypatch.setattr("swsjax.cli.runs.drawn", lambda draw: [])
