"""Every case of the catalogue in ``bad_input``: its error or warning, and the whole message."""

import re
from pathlib import Path

import pytest
from bad_input import case, cli, file, lab, measure, sws, sws_loops, sws_settings, training

from swsjax.cli import main
from swsjax.errors import SwsjaxWarning

CASES = [
    *(file.CASES + training.CASES + lab.CASES + measure.CASES),
    *(sws_settings.CASES + sws.CASES + sws_loops.CASES),
]


def by_name(cases):
    return [pytest.param(*rest, id=name) for name, *rest in cases]


def fits(text, message, folder):
    """Whether a text is the message, up to the words that the message leaves open."""
    pattern = re.escape(message)
    pattern = pattern.replace(case.FOLDER, re.escape(str(folder))).replace(case.REASON, ".+")
    return re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    ("call", "error", "message"), by_name(given for given in CASES if given.error != SwsjaxWarning)
)
def test_error(call, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    assert fits(str(caught.value), message, tmp_path), str(caught.value)


@pytest.mark.parametrize(
    ("call", "category", "message"),
    by_name(given for given in CASES if given.error == SwsjaxWarning),
)
def test_warning(call, category, message):
    """It names the line of the caller, not one of the package."""
    with pytest.warns(category) as seen:
        call()
    (warning,) = seen
    assert str(warning.message) == message
    assert Path(warning.filename) == Path(case.__file__)


@pytest.mark.parametrize(("arguments", "code", "message"), by_name(cli.COMMANDS))
def test_command(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.write_files()
    try:
        actual = main(arguments.split())
    except SystemExit as stopped:
        actual = stopped.code
    out, err = capsys.readouterr()
    assert actual == code
    assert out == ""
    assert fits(err, f"swsjax: error: {message}\n", tmp_path), err
