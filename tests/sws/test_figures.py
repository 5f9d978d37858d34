"""The figures of a run show its numbers."""

import struct
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from swsjax.sws.compression import Result
from swsjax.sws.plot import (
    plot_betas,
    plot_components,
    plot_gammas,
    plot_moves,
    plot_weights,
    run_pictures,
    save_figures,
)
from swsjax.sws.prior import Beta, Gamma, HyperPriors, init_mixture, log_prob
from swsjax.sws.record import Details
from swsjax.training.history import Epoch
from swsjax.training.selection import select


def mixture_at(means, shares=None):
    mixture = init_mixture(-1.0, 1.0, components=len(means), std=0.05)
    logits = np.log(np.ones(len(means)) if shares is None else shares)
    mixture = mixture._replace(means=np.array(means), mixing_logits=logits)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), mixture)


def epoch_of(stage, epoch, mixture, error=0.1):
    return Epoch(
        stage=stage,
        epoch=epoch,
        epochs=4,
        loss=0.1,
        error=error,
        non_zeros=2000 // epoch,
        bound_bytes=500.0,
        details=Details(levels=5, components=4, smallest_sigma=0.05, mixtures={"weights": mixture}),
    )


@pytest.fixture(scope="module")
def before() -> dict:
    return {"w": np.random.default_rng(0).normal(0, 0.3, (50, 40)).astype(np.float32)}


@pytest.fixture(scope="module")
def result(before) -> Result:
    """Four components: one vanishes and two merge before the hard stage."""
    soft = mixture_at([-1.0, 0.5, 0.52, 1.0], [0.5, 0.2, 0.2, 0.1])
    faded = mixture_at([-1.0, 0.5, 0.52, 1.0], [0.5, 0.2, 0.2, 1e-6])
    hard = mixture_at([-1.0, 0.51, 1.0], [0.5, 0.4, 1e-6])
    history = [
        epoch_of(stage, epoch, mixture, error=0.1 / epoch)
        for epoch, (stage, mixture) in enumerate(
            [("soft", soft), ("soft", faded), ("hard", hard), ("hard", hard)], start=1
        )
    ]
    after = {"w": np.round(before["w"], 1)}
    return Result(after, after, {"weights": hard}, history, select(before))


def test_the_figure_of_the_weights_counts_every_weight(before, result):
    top, side, scatter = Figure().subplots(1, 3)
    plot_weights([top, side, scatter], before, result, most=100)
    assert sum(bar.get_height() for bar in top.patches) == 2000
    assert sum(bar.get_width() for bar in side.patches) == 2000
    assert (top.get_yscale(), side.get_xscale()) == ("log", "log")
    density, grid = side.lines[0].get_data()
    bin_width = side.patches[0].get_height()
    at = len(grid) // 3
    expected = np.exp(log_prob(result.mixtures["weights"], grid[at])) * 2000 * bin_width
    assert density[at] == pytest.approx(float(expected), rel=1e-4)
    low, high = top.get_xlim()  # the scale is that of the weights before
    assert low < before["w"].min() < low + 0.2
    assert high > before["w"].max() > high - 0.2
    assert all(axis.get_title() for axis in (top, side, scatter))
    assert top.get_ylabel() == side.get_xlabel() == "weights / bin"


def test_moves_are_those_of_the_weights_with_a_band_per_component(before, result):
    axes = Figure().subplots()
    plot_moves(axes, before, result, most=100)
    (scatter,) = axes.lines
    picked = np.linspace(0, 1999, 100).astype(int)
    np.testing.assert_array_equal(scatter.get_xdata(), before["w"].ravel()[picked])
    np.testing.assert_array_equal(scatter.get_ydata(), result.retrained["w"].ravel()[picked])
    bands = [(band.get_y(), band.get_y() + band.get_height()) for band in axes.patches]
    expected = [(mean - 0.1, mean + 0.1) for mean in (0.0, -1.0, 0.51, 1.0)]
    np.testing.assert_allclose(bands, expected, atol=1e-6)
    assert axes.get_legend().get_texts()[0].get_text() == "component: mean ± 2 sd"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("weight before", "weight after")


def test_a_few_weights_far_away_do_not_decide_the_scale(before, result):
    far = {"w": before["w"].copy()}
    far["w"][0, 0] = 90.0
    top, *others = Figure().subplots(1, 3)
    plot_weights([top, *others], far, result)
    assert top.get_xlim()[1] < 3
    assert sum(bar.get_height() for bar in top.patches) == 2000  # it is counted at the end


def test_components_are_followed_through_each_stage(result):
    above, below = Figure().subplots(2)
    plot_components([above, below], result.history)
    paths = [np.concatenate(lines.get_segments()) for lines in above.collections[1::2]]
    ends = [tuple(path[-1]) for path in paths]
    expected = [(2, mean) for mean in (0, -1, 0.5, 0.52, 1)] + [(4, m) for m in (0, -1, 0.51, 1)]
    np.testing.assert_allclose(ends, expected, atol=1e-6)
    texts = [text.get_text() for text in above.texts]
    assert texts == ["soft\n4 free", "hard\n3 free"]
    counts = below.lines[0].get_ydata()
    assert list(counts) == [p.non_zeros for p in result.history]
    twin = below.figure.axes[-1]
    np.testing.assert_allclose(twin.lines[0].get_ydata(), [10, 5, 10 / 3, 2.5])
    assert twin.get_ylabel() == "error once quantised (%)"
    for axis in (above, below):
        assert 2.5 in [line.get_xdata()[0] for line in axis.lines]  # the start of the hard stage


def test_a_vanishing_component_fades_and_merging_components_meet(result):
    above, below = Figure().subplots(2)
    plot_components([above, below], result.history)
    zero, kept, *_, faded = [lines.get_colors()[-1][:3] for lines in above.collections[1:10:2]]
    assert np.min(faded) > 0.85 > np.min(kept)
    assert tuple(zero) != tuple(kept)
    merges = [line.get_data() for line in above.lines if list(line.get_xdata()) == [2, 3]]
    np.testing.assert_allclose(
        [y for _, y in merges], [(0, 0), (-1, -1), (0.5, 0.51), (0.52, 0.51), (1, 1)], atol=1e-6
    )


def test_components_without_errors(result):
    history = [p._replace(error=None) for p in result.history if p.stage == "soft"]
    figure = Figure()
    plot_components(figure.subplots(1, 2), history)
    assert len(figure.axes) == 2  # no second scale for an error that was not measured


def conv_net(seed):
    rng = np.random.default_rng(seed)
    shapes = {"conv1": (5, 5, 1, 8), "conv2": (3, 3, 8, 4), "fc1": (64, 20), "fc2": (20, 10)}
    return {
        name: {"kernel": rng.normal(0, 0.3, shape).astype(np.float32)}
        for name, shape in shapes.items()
    }


def test_pictures_of_a_run_are_those_that_apply(before, result):
    (picture,) = run_pictures(before, result._replace(history=[]))
    assert picture.name == "weights"
    net = conv_net(0)
    result = result._replace(params=conv_net(1), retrained=conv_net(2), selection=select(net))
    pictures = run_pictures(net, result, hyper_priors=HyperPriors(), image_shape=(8, 8))
    assert [picture.name for picture in pictures] == [
        "weights",
        "components",
        "filters-conv1-kernel",
        "filters-conv2-kernel",
        "features-fc1-kernel",
        "hyper-priors",
    ]
    assert all(picture.caption.endswith(".") for picture in pictures)


def test_several_groups_have_figures_of_their_own(before, result):
    net = {"w": before["w"], "out": before["w"] / 2, "free": before["w"] * 9}
    mixtures = dict.fromkeys(("weights", "last layer"), result.mixtures["weights"])
    history = [
        epoch._replace(details=epoch.details._replace(mixtures=mixtures))
        for epoch in result.history
    ]
    selection = select(net, [("out", "last layer"), ("free", None)])
    both = Result(net, net, mixtures, history, selection)
    assert [picture.name for picture in run_pictures(net, both)] == [
        "weights-weights",
        "components-weights",
        "weights-last layer",
        "components-last layer",
    ]
    # Only the weights of the group are drawn.
    axes = Figure().subplots()
    plot_moves(axes, net, both, name="last layer")
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), net["out"].ravel())


def test_a_hyper_prior_on_pi_zero_is_drawn_too(before, result):
    def height_of(hyper):
        (picture,) = run_pictures(before, result._replace(mixtures={}), hyper_priors=hyper)
        return struct.unpack(">I", picture.png[20:24])[0]

    both = replace(HyperPriors(), pi_zero=Beta(99.0, 2.0))
    assert height_of(both) > 1.5 * height_of(HyperPriors())


def test_saved_figures_are_as_wide_as_a_column(before, result, tmp_path):
    paths = save_figures(tmp_path, before, result)
    assert [path.stem for path in paths] == ["weights", "weights", "components", "components"]
    assert all(path.read_bytes().startswith(b"%PDF") for path in paths[1::2])
    for path in paths[::2]:
        png = path.read_bytes()
        assert png.startswith(b"\x89PNG")
        width = struct.unpack(">I", png[16:20])[0] / 220  # dots per inch
        assert 3.2 < width < 3.5


def test_without_matplotlib_the_error_names_the_extra(before, result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r"^figures need matplotlib: pip install 'swsjax\[plot\]'$"
    ):
        save_figures(tmp_path, before, result)


def test_gammas_are_their_densities_and_modes():
    axes = Figure().subplots()
    plot_gammas(axes, {"a": Gamma(5000.0, 2.0), "b": Gamma(250.0, 0.1)})
    for line, (shape, rate) in zip(axes.lines, [(5000, 2), (250, 0.1)], strict=True):
        x, y = line.get_data()
        np.testing.assert_allclose(y, stats.gamma.pdf(x, shape, scale=1 / rate), atol=1e-12)
    modes = [mode.get_segments()[0][0, 0] for mode in axes.collections]
    np.testing.assert_allclose(modes, [2499.5, 2490])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["a: Gamma(5000, 2)", "b: Gamma(250, 0.1)"]
    assert axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle()
    (above,) = axes.child_axes
    axes.figure.draw_without_rendering()  # sets its scale
    low, high = axes.get_xlim()
    np.testing.assert_allclose(sorted(above.get_xlim()), [high**-0.5, low**-0.5])


@pytest.mark.parametrize(("a", "b", "mode"), [(99, 2, 98 / 99), (5, 0.5, 1.0), (0.5, 3, 0.0)])
def test_betas_are_their_densities_and_modes(a, b, mode):
    axes = Figure().subplots()
    plot_betas(axes, {"share": Beta(a, b)})
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(y, stats.beta.pdf(x, a, b))
    assert axes.collections[0].get_segments()[0][0, 0] == pytest.approx(mode)
    assert 0 <= axes.get_xlim()[0] < axes.get_xlim()[1] <= 1
