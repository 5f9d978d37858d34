"""The figures draw what the run was."""

import sys

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import swsjax
from swsjax.compress import Result
from swsjax.plot import plot_components, plot_weights, save_figures
from swsjax.stages import Progress


@pytest.fixture
def before() -> dict:
    return {"w": np.random.default_rng(0).normal(0, 0.3, (50, 40)).astype(np.float32)}


@pytest.fixture
def result(before) -> Result:
    mixture = jax.tree.map(np.asarray, swsjax.init_mixture(-1.0, 1.0, components=4, std=0.05))
    history = [
        Progress(
            stage=stage,
            epoch=epoch,
            epochs=4,
            loss=0.1,
            non_zeros=2000 // epoch,
            levels=5,
            bound_bytes=500.0,
            components=4,
            smallest_sigma=0.05,
            error=0.1 / epoch,
            prior_error=1e-6,
            mixtures={"weights": mixture},
        )
        for epoch, stage in enumerate(["soft", "soft", "hard", "hard"], start=1)
    ]
    after = {"w": np.round(before["w"], 1)}
    return Result(after, after, {"weights": mixture}, history)


def test_weights_figure_counts_every_weight(before, result):
    axes = Figure().subplots(1, 3)
    plot_weights(axes, before, result, most=100)
    for axis in axes[:2]:
        assert sum(bar.get_height() for bar in axis.patches) == 2000
        assert axis.get_yscale() == "log"
    (scatter,) = axes[2].lines
    assert len(scatter.get_xdata()) == 100
    np.testing.assert_array_equal(scatter.get_xdata()[0], before["w"][0, 0])
    np.testing.assert_array_equal(scatter.get_ydata()[0], result.retrained["w"][0, 0])
    assert len(axes[2].patches) == 5  # a band for each component
    assert all(axis.get_title() and axis.get_xlabel() for axis in axes)


def test_components_figure_follows_each_component_through_each_stage(result):
    left, right = Figure().subplots(1, 2)
    plot_components([left, right], result.history)
    paths = [line for line in left.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] >= 1]
    means = sorted(line.get_ydata()[-1] for line in paths if line.get_xdata()[0] == 3)
    np.testing.assert_allclose(means, sorted([0, *result.mixtures["weights"].means]))
    counts = right.lines[0].get_ydata()
    assert list(counts) == [p.non_zeros for p in result.history]
    assert 2.5 in [line.get_xdata()[0] for line in left.lines]  # where the hard stage starts


def test_components_figure_without_errors(result):
    history = [p._replace(error=None) for p in result.history if p.stage == "soft"]
    figure = Figure()
    plot_components(figure.subplots(1, 2), history)
    assert len(figure.axes) == 2  # no second scale for an error that was not measured


def test_saved_figures_are_pictures(before, result, tmp_path):
    paths = save_figures(tmp_path, before, result)
    assert [path.name for path in paths] == ["weights.png", "components.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_without_matplotlib_the_error_names_the_extra(before, result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r"^figures need matplotlib: pip install 'swsjax\[plot\]'$"
    ):
        save_figures(tmp_path, before, result)
