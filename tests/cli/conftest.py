"""What the tests of the commands that train share."""

import pytest

import swsjax
from swsjax.cli import datasets
from swsjax.lab.nets import NETS


@pytest.fixture
def pretrain_for(monkeypatch):
    """Shorten the pretraining of all nets to a number of epochs."""

    def shorten(epochs):
        config = swsjax.PretrainConfig(epochs)
        for name, net in NETS.items():
            monkeypatch.setitem(NETS, name, net._replace(pretraining=config))
        monkeypatch.delitem(datasets.PRETRAINING, "digits", raising=False)

    return shorten


@pytest.fixture
def no_work(monkeypatch):
    """Loading data, making a net and training fail."""

    def work(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setitem(datasets.DATASETS, "digits", work)
    monkeypatch.setattr("swsjax.lab.task.Task", work)
    monkeypatch.setattr("swsjax.cli.pretrained.pretrain_task", work)
