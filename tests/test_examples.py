"""Every page of ``examples/`` is run as it is, and keeps what the README promises."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from swsjax.files import load

EXAMPLES = Path(__file__).parents[1] / "examples"
ONE_POINT, TWO_PERCENT = 0.01, 0.02


def run(name, tmp_path):
    """The compressed net of an example, its report, and its file."""
    file = tmp_path / f"{name}.sws"
    net, measured = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](file)
    assert file.stat().st_size == measured.file_bytes
    return net, measured, file


@pytest.mark.parametrize(
    "name",
    [
        "plain_dict",
        "nnx_batchnorm",
        "linen_batchnorm_dropout",
        "equinox_mlp",
        "transformer",
        "unlabelled",
        "own_loop",
    ],
)
def test_a_classifier_is_small_and_as_good(name, tmp_path, capsys):
    net, measured, file = run(name, tmp_path)
    before, after = measured.errors["before"], measured.errors["after"]
    assert before < 0.05  # there was something to lose
    assert after <= before + ONE_POINT
    assert measured.rates["file"] >= 15
    for written, read in zip(jax.tree.leaves(net), jax.tree.leaves(load(file)), strict=True):
        assert np.asarray(written).tobytes() == np.asarray(read).tobytes()
    assert str(measured) in capsys.readouterr().out


def test_a_regression_is_small_and_as_good(tmp_path):
    _, measured, _ = run("regression", tmp_path)
    before, after = measured.errors["before"], measured.errors["after"]
    assert 0.3 < before < 0.8  # half a digit tells no more of the other
    assert after <= before * (1 + TWO_PERCENT)
    assert measured.rates["file"] >= 15


def test_every_example_is_tested():
    here = Path(__file__).read_text()
    assert all(f'"{path.stem}"' in here for path in EXAMPLES.glob("*.py"))
