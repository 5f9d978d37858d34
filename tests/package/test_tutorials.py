"""Every tutorial runs, with a few steps where the page has thousands.

``python -m sphinx docs`` runs the pages in full.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pytest

import swsjax
from swsjax import lab
from swsjax.sws import recipes

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
PAGES = sorted(path.stem for path in TUTORIALS.glob("*.md"))
TRIALS = {"trials": 2}

pytestmark = pytest.mark.usefixtures("promoting_ranks")


def cells(page):
    return re.findall(r"^```\{code-cell\} python3\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def short(config):
    """One epoch of a few steps: of the soft stage, or of pruning where the page has no other."""
    config = config or swsjax.Config()
    soft = min(config.soft_epochs, 1)
    once = {"soft_epochs": soft, "hard_epochs": 0, "prune_epochs": 1 - soft}
    # Settings under which the weights gather soon.
    return replace(config, **once, least_steps=1, initial_std=0.02, tolerance=1.0)


def enlarged_digits():
    """Instead of MNIST, which is a download: digits in its format."""

    def enlarged(split):
        images = np.kron(split.images, np.ones((1, 3, 3), np.uint8))
        return lab.Split(np.pad(images, ((0, 0), (2, 2), (2, 2))), split.labels)

    name, *splits = lab.load_digits()
    return lab.Dataset(name, *map(enlarged, splits))


def shorten(monkeypatch):
    """Replace everything that takes minutes on the pages by something that takes seconds."""
    of_a_tree, search, of_a_task = swsjax.compress, swsjax.search, recipes.compress_task
    pretrain = lab.pretrain_task

    def compress(params, loss, data, config=None, **given):
        if config is None or config.tau is None:  # the first net is small enough
            given["target_bytes"] = [10**9] * len(given.get("target_bytes", [0]))
        given.pop("budget", None)  # stages would become longer again
        return of_a_tree(params, loss, data, short(config), **given)

    def compress_task(task, net, recipe, **given):
        return of_a_task(task, net, recipe._replace(config=short(recipe.config)), **given)

    def pretrain_task(task, config):
        return pretrain(task, replace(config, epochs=1))

    monkeypatch.setattr(swsjax, "compress", compress)
    monkeypatch.setattr(swsjax, "search", lambda *given, **named: search(*given, **named | TRIALS))
    monkeypatch.setattr(recipes, "compress_task", compress_task)
    monkeypatch.setattr(lab, "pretrain_task", pretrain_task)
    monkeypatch.setattr(lab, "load_mnist", enlarged_digits)


def without_pruning(monkeypatch):
    compress = swsjax.compress

    def retrain(params, loss, data, config):
        return compress(params, loss, data, replace(config, prune_epochs=0))

    monkeypatch.setattr(swsjax, "compress", retrain)


@pytest.mark.parametrize("name", PAGES)
def test_a_tutorial_runs(name, tmp_path, capsys, monkeypatch):
    if name == "prior":  # a thousand weights, and a run that must fail
        without_pruning(monkeypatch)
    else:
        shorten(monkeypatch)
    # Replaces what shows figures in a notebook.
    shown = []
    display = ModuleType("IPython.display")
    display.Image, display.display = bytes, shown.append
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    monkeypatch.chdir(tmp_path)

    page = (TUTORIALS / f"{name}.md").read_text()
    names = {"__name__": "__main__"}
    for cell in cells(page):
        exec(compile(cell, f"{name}.md", "exec"), names)
        figures = len(re.findall(r"plt\.show\(\)|^display\(", cell, flags=re.MULTILINE))
        assert len(shown) == figures
        assert figures or capsys.readouterr().out
        shown.clear()
    plt.close("all")
