"""What a person sees of a run: on a terminal, in a notebook, in a pipe, and from a library."""

import io
import re
import sys
import textwrap
import time

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swsjax.training import Epoch, train
from swsjax.training.progress import _Lines, figures_of, shown

LAST = Epoch("prune", 116, 116, 12.34567, 0.123456, 12_345_678, 1e6)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_terminal(monkeypatch):
    """Called in each test, as pytest replaces stderr after the fixtures."""
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def lines(screen):
    """What was written, without the codes that move the cursor and colour."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").split("\n")


def quick(**options):
    def loss(params, batch):
        return jnp.mean((params - batch) ** 2)

    data = np.ones(8, np.float32)
    return train(jnp.zeros(()), loss, data, optax.sgd(0.1), epochs=2, batch_size=4, **options)


def test_training_is_shown_on_a_terminal(monkeypatch):
    terminal = on_terminal(monkeypatch)
    quick()
    seen = lines(terminal)
    assert any(line.startswith("compiling") for line in seen)
    assert any(line.startswith("train 2/2") and "loss" in line for line in seen)


@pytest.mark.parametrize("options", [{"progress": False}, {"callback": lambda epoch: None}])
def test_progress_can_be_switched_off(options, monkeypatch):
    terminal = on_terminal(monkeypatch)
    quick(**options)
    assert terminal.getvalue() == ""


def test_a_library_is_silent_in_a_pipe(capsys):
    quick()
    assert capsys.readouterr() == ("", "")


def test_training_is_shown_in_a_notebook():
    pytest.importorskip("ipykernel")
    nbclient, nbformat = map(pytest.importorskip, ("nbclient", "nbformat"))
    code = """
        import jax.numpy as jnp, optax, swsjax
        loss = lambda params, batch: jnp.mean((params - batch) ** 2)
        options = {"epochs": 2, "batch_size": 4}
        swsjax.train(jnp.zeros(()), loss, jnp.ones(8), optax.sgd(0.1), **options)
    """
    cell = nbformat.v4.new_code_cell(textwrap.dedent(code))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    written = "".join(output.get("text", "") for output in cell.outputs)
    assert re.search(r"\r0:\d\d compiling +\r", written)
    assert re.search(r"\r0:\d\d train 2/2  loss 0\.33\d+ *$", written)


def test_nothing_is_cut_at_80_columns(monkeypatch):
    terminal = on_terminal(monkeypatch)
    with shown() as show:
        show(LAST.stage, LAST.epoch, LAST.epochs, figures_of(LAST))
    last = next(line for line in reversed(lines(terminal)) if line.startswith("prune"))
    assert last.rstrip().endswith("loss 12.35  error 12.35 %  12,345,678 weights")
    assert len(last.rstrip()) <= 80


def test_lines_in_a_pipe_have_the_time(capsys):
    with shown() as show:
        show("soft", 1, 3, "loss 0.5")  # at once after the first line
        show("soft", 3, 3, "loss 0.25")
    found = capsys.readouterr().err.splitlines()
    assert found == ["0:00 compiling", "0:00 soft 3/3  loss 0.25"]


def test_silences_are_filled(monkeypatch, capsys):
    monkeypatch.setattr(_Lines, "silence", 0.5)
    with shown() as show:
        show("hard", 2, 2, "loss 0.5")
        time.sleep(2.5)
    found = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"0:0\d hard 2/2, at work on what follows", found[2])


def test_the_display_ends_with_the_run(monkeypatch):
    terminal = on_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), shown():
        raise KeyboardInterrupt
    written = terminal.getvalue()
    time.sleep(0.5)
    assert terminal.getvalue() == written
