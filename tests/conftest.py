"""Settings and fixtures of the whole test suite."""

import io
import os
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings

from swsjax.sws.prior import GaussianMixture

if not hasattr(jax, "enable_x64"):  # where the oldest supported JAX has it
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64

# How long an example takes is that of the machine, and of what else it does.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

QUICKLY = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
)


def pytest_configure(config):
    """Forbid rank promotion; compile quickly rather than well, and once."""
    # All of it also in the environment, for the processes that tests start.
    ranks = os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
    jax.config.update("jax_numpy_rank_promotion", ranks)
    if config.option.markexpr != "not slow":
        return
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else this is a worker, or somebody's own
        folder = tempfile.TemporaryDirectory(prefix="swsjax-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    # Less than half the time that XLA takes to compile, here; read when the first array is made.
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = " ".join([*QUICKLY, given])
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def promoting_ranks(monkeypatch):
    """Let code of users promote ranks, also in the processes that it starts."""
    monkeypatch.setenv("JAX_NUMPY_RANK_PROMOTION", "allow")
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="session")
def mixture_of():
    """Build a mixture from means (J,), and standard deviations and shares (J + 1,)."""

    def build(means, stds, shares):
        shares = np.asarray(shares) / np.sum(shares)
        return GaussianMixture(
            means=jnp.asarray(means, float),
            log_precisions=jnp.asarray(-2 * np.log(stds)),
            mixing_logits=jnp.asarray(np.log(shares[1:])),
            zero_logit=jnp.asarray(np.log(shares[0]) - np.log(shares[1:].sum())),
        )

    return build


@pytest.fixture
def pretrain_for(monkeypatch):
    """Shorten the pretraining of all nets to a number of epochs."""
    from swsjax.cli import datasets
    from swsjax.lab.nets import NETS
    from swsjax.training.pretraining import PretrainConfig

    def shorten(epochs):
        for name, net in NETS.items():
            monkeypatch.setitem(NETS, name, net._replace(pretraining=PretrainConfig(epochs)))
        monkeypatch.delitem(datasets.PRETRAINING, "digits", raising=False)

    return shorten


@pytest.fixture
def no_work(monkeypatch):
    """Loading data, making a net and training fail."""
    from swsjax.cli import datasets

    def work(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setitem(datasets.DATASETS, "digits", work)
    monkeypatch.setattr("swsjax.lab.task.Task", work)
    monkeypatch.setattr("swsjax.cli.pretrained.pretrain_task", work)


class Trained(NamedTuple):
    folder: Path
    out: str
    err: str


EPOCHS_OF_TRAINED = 8


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A net that `swsjax pretrain` wrote in a few epochs, and what the command said."""
    from swsjax.cli import datasets, main
    from swsjax.lab import NETS
    from swsjax.training.pretraining import PretrainConfig

    folder = tmp_path_factory.mktemp("trained")
    net = NETS["lenet-300-100"]._replace(pretraining=PretrainConfig(EPOCHS_OF_TRAINED))
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
    pretrain_for(EPOCHS_OF_TRAINED)


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
