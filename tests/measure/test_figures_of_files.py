"""Each of the paper's figures shows the numbers that it was given."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

import swsjax
from swsjax.codec.bits import BitReader, BitWriter, bits_of
from swsjax.codec.csr import Nonzeros, read_matrix, write_layout
from swsjax.measure.plot import (
    Published,
    pareto,
    plot_betas,
    plot_codebook,
    plot_encoding,
    plot_features,
    plot_filters,
    plot_front,
    plot_gammas,
    plot_layers,
    small_example,
)

ROOT = Path(__file__).parents[2]


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_front_is_of_the_points_that_none_beats():
    points = [(100, 0.05), (300, 0.01), (200, 0.05), (200, 0.03), (400, 0.01), (100, 0.06)]
    assert [points[i] for i in pareto(points)] == [(100, 0.05), (200, 0.03), (300, 0.01)]
    assert pareto([]) == []
    axes = Figure().subplots()
    plot_front(axes, points)
    front, beaten = axes.lines
    np.testing.assert_allclose(front.get_xydata(), [(100, 5), (200, 3), (300, 1)])
    assert len(beaten.get_xdata()) == 3
    assert front.get_drawstyle() == "steps-post"  # no point between two files is promised
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == (
        "log",
        "bytes",
        "error (%)",
    )


def test_published_results_are_numbered_and_their_kind_of_size_is_said():
    published = [
        Published("one method", 1000, 0.02, "file"),
        Published("another", 1010, 0.02, "Han format"),
        Published("a third", 9000, 0.01, "file"),
    ]
    axes = Figure().subplots()
    plot_front(axes, [(500, 0.03), (800, 0.01)], published=published)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[1:] == [
        "1  one method (file)",
        "2  another (Han format)",
        "3  a third (file)",
    ]
    assert texts_of(axes) == ["1", "2", "3"]
    anchors = axes.lines[1:]
    markers = [line.get_marker() for line in anchors]
    assert markers[0] == markers[2] != markers[1]
    assert [tuple(line.get_xydata()[0]) for line in anchors] == [(1000, 2), (1010, 2), (9000, 1)]
    # Two at nearly one place: their numbers lie apart.
    first, second = (np.array(text.get_position()) for text in axes.texts[:2])
    assert np.hypot(*(first - second)) >= 6


def test_the_committed_front_is_drawn_from_the_committed_points():
    content = json.loads((ROOT / "benchmarks/results/frontier-lenet-300-100.json").read_text())
    points = [(point["file_bytes"], point["test_error"]) for point in content["points"]]
    axes = Figure().subplots()
    plot_front(axes, points)
    drawn = {tuple(xy) for line in axes.lines for xy in np.round(line.get_xydata(), 6)}
    assert drawn == {(size, round(100 * error, 6)) for size, error in points}
    assert (ROOT / "docs/figures/front-lenet-300-100.png").exists()


MATRIX = np.zeros((2, 10), np.float32)
MATRIX[0, 1], MATRIX[0, 9], MATRIX[1, 0] = 0.5, -0.25, 0.5


def test_encoding_shows_the_entries_that_the_codec_stores():
    axes = Figure().subplots()
    plot_encoding(axes, MATRIX, span_bits=2)
    texts = texts_of(axes)
    # Weights row by row; then of each entry the cell again and its column of the table.
    shown, table = texts[:20], np.array(texts[20:40]).reshape(4, 5)
    assert [text for text in shown if text != "0"] == [".50", "−.25", ".50"]
    assert table[:, 0].tolist() == [".50", "0", "−.25", ".50"]  # the filler is on a zero
    levels = np.unique(bits_of(MATRIX[MATRIX != 0]))
    layout = Nonzeros(bits_of(MATRIX).reshape(2, 10), levels).lay_out(2)
    assert [int(text) for text in table[:, 1]] == layout.differences.tolist() == [1, 3, 3, 0]
    assert [int(text, 2) for text in table[:, 2]] == layout.differences.tolist()
    assert [int(text, 2) for text in table[:, 4]] == layout.level_index.tolist()
    book = ["0", *(f"{x:.2f}" for x in levels.view(np.float32))]
    for text, index in zip(table[:, 3], layout.level_index, strict=True):
        assert text.replace("−", "-").replace(".", "0.", 1).removesuffix("0.") == book[index]
    summary = texts[-1]
    assert "Ends of rows: 3, 4, in 3 bits each." in summary
    pointers, *_ = layout.size(levels.size, huffman=False)[1:]
    assert f"= {pointers + 4 * (2 + 2)} bits" in summary


def test_encoding_of_the_figure_decodes_again():
    levels = np.unique(bits_of(MATRIX[MATRIX != 0]))
    writer = BitWriter()
    layout = Nonzeros(bits_of(MATRIX).reshape(2, 10), levels).lay_out(2)
    write_layout(writer, layout, levels.size, huffman=False)
    bits = read_matrix(BitReader(writer.getvalue()), 2, 10, levels, huffman=False)
    np.testing.assert_array_equal(bits.view(np.float32), MATRIX)


@pytest.mark.parametrize("matrix", [np.ones((2, 17)), np.ones((9, 9)), np.zeros((2, 2))])
def test_an_example_that_cannot_be_read_is_refused(matrix):
    with pytest.raises(swsjax.ConfigError, match="an example has 1 to 16 entries and columns"):
        plot_encoding(Figure().subplots(), matrix)


def test_small_example_is_a_piece_with_about_so_many_non_zeros():
    matrix = (np.random.default_rng(0).random((60, 80)) < 0.05).astype(np.float32)
    piece = small_example(matrix, rows=3, columns=12, wanted=6)
    assert piece.shape == (3, 12)
    assert np.count_nonzero(piece) == 6
    assert small_example(np.ones((2, 3))).shape == (2, 3)


def test_gammas_are_their_densities_and_modes():
    axes = Figure().subplots()
    plot_gammas(axes, {"a": swsjax.Gamma(5000.0, 2.0), "b": swsjax.Gamma(250.0, 0.1)})
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
    plot_betas(axes, {"share": swsjax.Beta(a, b)})
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(y, stats.beta.pdf(x, a, b))
    assert axes.collections[0].get_segments()[0][0, 0] == pytest.approx(mode)
    assert 0 <= axes.get_xlim()[0] < axes.get_xlim()[1] <= 1


def picture(axes):
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def test_filters_lie_where_their_channels_are():
    kernel = np.random.default_rng(0).normal(size=(5, 3, 2, 4))
    left, right = Figure().subplots(1, 2)
    plot_filters([left, right], kernel, kernel.round())
    assert picture(left).shape == (2 * 6 - 1, 4 * 4 - 1)
    np.testing.assert_array_equal(picture(left)[:5, :3], kernel[:, :, 0, 0])
    np.testing.assert_array_equal(picture(right)[6:11, 12:15], kernel.round()[:, :, 1, 3])
    assert np.isnan(picture(left)[5]).all()  # a line between the filters
    assert left.images[0].get_clim() == right.images[0].get_clim()
    assert left.images[0].get_clim()[1] == max(abs(kernel).max(), abs(kernel.round()).max())
    assert left.get_title() == "Before: 8 of 8 filters"


def test_filters_of_one_channel_are_in_rows_of_ten():
    kernel = np.random.default_rng(0).normal(size=(5, 5, 1, 20))
    axes = Figure().subplots(1, 2)
    plot_filters(axes, kernel, kernel)
    assert picture(axes[0]).shape == (2 * 6 - 1, 10 * 6 - 1)
    np.testing.assert_array_equal(picture(axes[0])[6:11, 12:17], kernel[:, :, 0, 12])


def test_features_are_the_units_with_the_largest_weights_after():
    before = np.random.default_rng(0).normal(size=(12, 50))
    after = np.zeros((12, 50))
    after[:, 7], after[:, 3] = 2.0, -1.0
    axes = Figure().subplots(1, 2)
    plot_features(axes, before, after, (3, 4), most=5)
    np.testing.assert_array_equal(picture(axes[0])[:3, :4], before[:, 7].reshape(3, 4))
    np.testing.assert_array_equal(picture(axes[0])[:3, 5:9], before[:, 3].reshape(3, 4))
    np.testing.assert_array_equal(picture(axes[1])[:3, :4], 2.0)
    assert axes[1].get_title() == "After: 5 of 50 units"


def test_pictures_of_other_shapes_are_refused():
    axes = Figure().subplots(1, 2)
    with pytest.raises(swsjax.ConfigError, match="filters must be two kernels of one shape"):
        plot_filters(axes, np.ones((5, 5)), np.ones((5, 5)))
    with pytest.raises(swsjax.ConfigError, match=r"of one shape \(12, units\)"):
        plot_features(axes, np.ones((11, 5)), np.ones((11, 5)), (3, 4))


def test_layers_are_those_of_the_report():
    tree = {"a": np.eye(16, dtype=np.float32), "b": np.arange(50, dtype=np.float32)}
    report = swsjax.report(swsjax.dumps(tree))
    left, right = Figure().subplots(1, 2)
    plot_layers([left, right], report)
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], [100 / 16, 98])
    sizes = [layer.coded_bits / 8 for layer in report.layers]
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], sizes)
    assert texts_of(left) == ["6.2", "98"]
    assert (left.get_xlabel(), right.get_xlabel()) == ("not zero (%)", "bytes in the file")
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first layer is on top


def test_only_the_largest_of_many_layers_are_drawn():
    rng = np.random.default_rng(0)
    tree = {f"{i:02}": rng.normal(size=5 + i).astype(np.float32) for i in range(10)}
    left, right = Figure().subplots(1, 2)
    plot_layers([left, right], swsjax.report(swsjax.dumps(tree)), most=3)
    assert [label.get_text() for label in left.get_yticklabels()] == ["07", "08", "09"]
    assert left.get_title() == "Density\n3 of 10 layers"


def test_codebook_counts_every_weight():
    tree = {"a": np.float32([0, 0, 0.5]), "b": np.float32([0.5, -1, np.nan])}
    axes = Figure().subplots()
    plot_codebook(axes, tree)
    drawn = {tuple(segment[1]) for lines in axes.collections for segment in lines.get_segments()}
    assert drawn == {(-1.0, 1.0), (0.0, 2.0), (0.5, 2.0)}
    assert texts_of(axes) == ["  zero: 2"]
    assert axes.get_title() == "3 values of the weights"


def test_codebook_of_very_many_values_is_binned():
    axes = Figure().subplots()
    plot_codebook(axes, [np.linspace(-1, 1, 5000)])
    heights = [segment[1, 1] for lines in axes.collections for segment in lines.get_segments()]
    assert (len(heights), sum(heights)) == (500, 5000)
    assert axes.get_title() == "5,000 values of the weights, in 500 bins"
