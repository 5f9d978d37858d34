"""What users of the command line read: messages of the library, without what only Python has."""

import re
import warnings

import numpy as np
import pytest

import swsjax
from swsjax.cli.messages import _WORDS, in_words, short_warnings
from swsjax.errors import CheckpointError, SwsjaxWarning
from swsjax.lab import load_mnist
from swsjax.sws.advice import warn_before, why_zero
from swsjax.sws.config import LEARNED, Config
from swsjax.sws.prior import init_mixture
from swsjax.sws.storage import opened as storage_opened
from swsjax.sws.walk import allowed
from swsjax.training.net import take_apart
from swsjax.training.resume import identity_of, opened

FILE = swsjax.dumps({"w": np.ones(1000)})


def learns_nothing():
    allowed(lambda *net: np.float64(0.9), take_apart({"w": np.ones(3, np.float32)}, None), None)


def another_run():
    for seed in (1, 2):
        with opened("state", identity_of(settings=seed, weights=(), data=())) as resume:
            resume.save(1, {"w": np.ones(2)}, [])


def another_file():
    with open("notes.txt", "w") as file:
        file.write("To do")
    with storage_opened("notes.txt"):
        pass


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        (
            lambda: swsjax.loads(FILE, max_bytes=10),
            r"leaf .* over the limit of 10; give a larger --max-bytes if you trust the file",
        ),
        (
            lambda: load_mnist("none", mirrors=[]),
            r"none/mnist/.* is missing and cannot be downloaded: no mirror given\. Put the file "
            r"there yourself, or name a folder that has it, in SWSJAX_DATA\.",
        ),
        (
            learns_nothing,
            "the pretrained net has a validation error of 0.9, one of zeros 0.9: train it better, "
            "or give --max-loss",
        ),
        (
            another_run,
            "state holds a run with other settings; choose another --out, or delete this one to "
            "start again",
        ),
        (
            another_file,
            "notes.txt is not the file of a search; choose another --storage or --out",
        ),
        (lambda: Config.from_dict([1]), r"expected an object of JSON, got \[1\]"),
        (lambda: Config.from_dict({"kept": 1}), "there is no setting 'kept'; it has 'tau', .*"),
    ],
)
def test_errors(fail, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(swsjax.SwsjaxError) as raised:
        fail()
    assert re.fullmatch(line, in_words(raised.value))


def shown(give, capsys):
    """The lines on stderr of the warnings that a function gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with short_warnings():
            give()
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (Config(tau=1.0), "tau 1 lets the prior over 5,000 weights outweigh the loss; .*"),
        (
            Config(components=2),
            "components 2 gives the 5,000 weights of the group 'weights' few values to share; 16 "
            "suit most nets",
        ),
    ],
)
def test_warnings(config, line, capsys):
    groups = {"weights": [np.linspace(-1, 1, 5000)]}
    (found,) = shown(lambda: warn_before(config, groups), capsys)
    assert re.fullmatch(f"swsjax: warning: {line}", found)


def test_a_warning_of_a_leaf_that_sticks_out(capsys):
    weights = np.append(np.linspace(-0.1, 0.1, 5000), 9.0)
    (found,) = shown(lambda: warn_before(Config(), {"weights": [weights]}), capsys)
    assert found.endswith("where there are no weights; from Python, a rule leaves them out")


def test_reasons_name_the_settings_of_a_file():
    mixture = init_mixture(-1.0, 1.0, std=0.5)
    text = in_words(swsjax.SwsjaxError(why_zero({"weights": mixture}, LEARNED)))
    assert text.endswith("lower weights in soft_learning_rates (see --config)")


def test_advice_about_rules_is_left_out(capsys):
    text = (
        "every weight of a is zero after the soft stage, so no signal passes through; lower tau or "
        "pi_zero, or move such arrays to a group of their own by a rule"
    )
    (found,) = shown(lambda: warnings.warn(text, SwsjaxWarning, stacklevel=1), capsys)
    assert found.endswith("lower tau or pi_zero")


@pytest.mark.parametrize("words", _WORDS)
def test_what_replaces_words_has_none_to_replace(words):
    text = re.sub(r"\\\d", "x", _WORDS[words])
    assert in_words(CheckpointError(text)) == text
