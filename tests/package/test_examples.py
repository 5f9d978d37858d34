"""Every page of ``examples/`` runs; with ``-m slow`` in full: the file is small, the error kept."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import swsjax

EXAMPLES = Path(__file__).parents[2] / "examples"
CLASSIFIERS = [
    "plain_dict",
    "nnx_batchnorm",
    "linen_batchnorm_dropout",
    "equinox_mlp",
    "transformer",
    "unlabelled",
    "own_loop",
]
ONE_POINT, TWO_PERCENT = 0.01, 0.02

pytestmark = pytest.mark.usefixtures("promoting_ranks")


def load(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(module, tmp_path):
    """The report of an example, once its file is checked against the net that it returns."""
    file = tmp_path / "net.sws"
    net, measured = module.main(file)
    assert file.stat().st_size == measured.file_bytes
    read = swsjax.load(file, like=net)
    for ours, theirs in zip(jax.tree.leaves(net), jax.tree.leaves(read), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    return measured


def errors_of(measured):
    """Errors on the held-out data of the pretrained net, and of the net from the file."""
    return tuple(measured.errors[stage]["held out"] for stage in ("pretrained", "decoded"))


def assert_small_and_as_good(measured):
    before, after = errors_of(measured)
    assert before < 0.05  # there was something to lose
    assert after <= before + ONE_POINT
    assert measured.rates["file"] >= 15


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_small_and_as_good(name, tmp_path):
    assert_small_and_as_good(run(load(name), tmp_path))


@pytest.mark.slow
def test_a_regression_is_small_and_as_good(tmp_path):
    measured = run(load("regression"), tmp_path)
    before, after = errors_of(measured)
    assert before < 0.65  # the targets are noisy
    assert after <= before * (1 + TWO_PERCENT)
    assert measured.rates["file"] >= 15


@pytest.mark.parametrize("name", [*CLASSIFIERS, "regression"])
def test_an_example_runs(name, tmp_path, capsys, monkeypatch):
    """With a few steps where the page has twenty thousand: the errors are large."""
    compress = swsjax.compress

    def short(params, loss, data, config=None, **given):
        quick = {"soft_epochs": 1, "hard_epochs": 0, "least_steps": 1, "batch_size": 32}
        quick |= {"pi_zero": 0.5, "tolerance": 1.0}  # one grid to compile
        quick |= {"tau": 1e-6, "prune_epochs": 0}  # one run, whatever it loses
        return compress(params, loss, data, replace(config or swsjax.Config(), **quick), **given)

    pretrain = swsjax.pretrain

    def shortly(params, loss, data, config):
        return pretrain(params, loss, data, replace(config, epochs=2))

    monkeypatch.setattr(swsjax, "compress", short)
    monkeypatch.setattr(swsjax, "pretrain", shortly)
    module = load(name)
    if name in ("equinox_mlp", "nnx_batchnorm"):
        monkeypatch.setitem(module.train.__kwdefaults__, "epochs", 2)
    if name == "linen_batchnorm_dropout":
        module.EPOCHS = 2
    if name == "own_loop":
        module.EPOCHS = {"train": 20, "soft": 4, "hard": 2}
    measured = run(module, tmp_path)
    assert set(measured.errors) == {"pretrained", "decoded"}
    assert capsys.readouterr().out.endswith(f"{measured}\n")


def test_five_methods_run(capsys):
    module = load("five_methods")
    module.TRAINING = replace(module.TRAINING, epochs=2)
    module.CONFIG = swsjax.Config(
        tau=1e-6, soft_epochs=1, hard_epochs=0, prune_epochs=0, least_steps=1, tolerance=1.0
    )
    module.fine_tune.keywords["epochs"] = 1
    nets, table = module.main()
    assert set(table.errors) == set(table.reports) == set(nets)
    assert len(nets) == 6
    shares = {name: report.non_zeros / report.parameters for name, report in table.reports.items()}
    assert max(shares["magnitude"], shares["FORCE"]) < 0.12  # biases are not pruned
    assert table.reports["half of the units"].parameters < 0.5 * table.reports["FORCE"].parameters
    assert capsys.readouterr().out == f"{table}\n"


@pytest.mark.slow
def test_many_devices_runs(tmp_path):
    devices = "--xla_force_host_platform_device_count=8"
    flags = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}", "JAX_PLATFORMS": "cpu"}
    flags["NPROC"] = "16"  # threads of XLA: with fewer than devices, all would wait for one
    file = tmp_path / "net.sws"
    done = subprocess.run(
        [sys.executable, EXAMPLES / "many_devices.py", "--epochs", "1", "--out", file],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("8 devices: validation error ")
    assert done.stdout.endswith(f", {file.stat().st_size} bytes\n")


def test_every_example_is_tested():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {*CLASSIFIERS, "regression", "five_methods", "many_devices"}
