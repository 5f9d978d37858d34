"""The figures of a file show its numbers."""

import struct
from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import swsjax
from swsjax.codec.bits import BitReader, BitWriter, bits_of
from swsjax.codec.csr import Nonzeros, read_matrix, write_layout
from swsjax.errors import ConfigError
from swsjax.measure.plot import (
    file_pictures,
    plot_codebook,
    plot_encoding,
    plot_features,
    plot_filters,
    plot_layers,
    save_pictures,
    small_example,
)
from swsjax.measure.plot.style import BLUE, ORANGE, light


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


MATRIX = np.zeros((2, 10), np.float32)
MATRIX[0, 1], MATRIX[0, 9], MATRIX[1, 0] = 0.5, -0.25, 0.5


def test_the_encoding_shows_the_entries_that_the_codec_stores():
    axes = Figure().subplots()
    plot_encoding(axes, MATRIX, span_bits=2)
    texts = texts_of(axes)
    # The weights row by row; then, for each entry, its cell again and its column of the table.
    shown, table = texts[:20], np.array(texts[20:36]).reshape(4, 4)
    assert len(axes.patches) == 20 + 16  # each cell once
    fillers = [p for p in axes.patches[:20] if p.get_facecolor()[:3] == to_rgb(light(ORANGE))]
    assert [patch.get_xy() for patch in fillers] == [(5, 0)]
    assert [text for text in shown if text != "0"] == [".50", "−.25", ".50"]
    levels = np.unique(bits_of(MATRIX[MATRIX != 0]))
    layout = Nonzeros(bits_of(MATRIX).reshape(2, 10), levels).lay_out(2)
    assert [int(text) for text in table[:, 0]] == layout.differences.tolist() == [1, 3, 3, 0]
    assert [int(text, 2) for text in table[:, 1]] == layout.differences.tolist()
    assert [int(text, 2) for text in table[:, 3]] == layout.level_index.tolist()
    book = ["0", *(f"{x:.2f}" for x in levels.view(np.float32))]
    for text, index in zip(table[:, 2], layout.level_index, strict=True):
        assert text.replace("−", "-").replace(".", "0.", 1).removesuffix("0.") == book[index]
    summary = texts[-1]
    assert "Ends of rows: 3, 4, in 3 bits each." in summary
    pointers, *_ = layout.size(levels.size, huffman=False)[1:]
    assert f"= {pointers + 4 * (2 + 2)} bits" in summary


def test_the_layout_in_the_figure_decodes_to_the_matrix():
    levels = np.unique(bits_of(MATRIX[MATRIX != 0]))
    writer = BitWriter()
    layout = Nonzeros(bits_of(MATRIX).reshape(2, 10), levels).lay_out(2)
    write_layout(writer, layout, levels.size, huffman=False)
    bits = read_matrix(BitReader(writer.getvalue()), 2, 10, levels, huffman=False)
    np.testing.assert_array_equal(bits.view(np.float32), MATRIX)


@pytest.mark.parametrize("matrix", [np.ones((2, 17)), np.ones((9, 9)), np.zeros((2, 2))])
def test_an_example_too_large_to_read_is_refused(matrix):
    with pytest.raises(ConfigError, match=r"^an example has 1 to 16 entries and columns, got "):
        plot_encoding(Figure().subplots(), matrix)


def test_a_small_example_has_about_the_wanted_number_of_non_zeros():
    matrix = (np.random.default_rng(0).random((60, 80)) < 0.05).astype(np.float32)
    piece = small_example(matrix, rows=3, columns=12, wanted=6)
    assert piece.shape == (3, 12)
    assert np.count_nonzero(piece) == 6
    assert small_example(np.ones((2, 3))).shape == (2, 3)


def picture(axes):
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def test_filters_are_in_the_row_and_column_of_their_channels():
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


def test_of_many_filters_those_of_the_largest_channels_are_drawn():
    after = np.zeros((3, 3, 20, 50))
    inputs, outputs = [2, 3, 5, 7, 11, 13, 17, 19], list(range(1, 49, 3))
    for number, i in enumerate(inputs):
        after[:, :, i, outputs] = 1 + number
    before = np.random.default_rng(0).normal(size=after.shape)
    axes = Figure().subplots(1, 2)
    plot_filters(axes, before, after)
    assert picture(axes[0]).shape == (8 * 4 - 1, 16 * 4 - 1)
    np.testing.assert_array_equal(picture(axes[0])[4:7, 8:11], before[:, :, 3, 7])
    assert axes[0].get_title() == "Before: 128 of 1,000 filters"
    for axis in axes:
        assert [text.get_text() for text in axis.get_yticklabels()] == list(map(str, inputs))
        assert [text.get_text() for text in axis.get_xticklabels()] == list(map(str, outputs))


def test_filters_of_a_single_channel_are_in_rows_of_ten():
    kernel = np.random.default_rng(0).normal(size=(5, 5, 1, 20))
    axes = Figure().subplots(1, 2)
    plot_filters(axes, kernel, kernel)
    assert picture(axes[0]).shape == (2 * 6 - 1, 10 * 6 - 1)
    np.testing.assert_array_equal(picture(axes[0])[6:11, 12:17], kernel[:, :, 0, 12])


def test_features_are_those_of_the_units_with_the_largest_weights_after():
    before = np.random.default_rng(0).normal(size=(12, 50))
    after = np.zeros((12, 50))
    after[:, 7], after[:, 3] = 2.0, -1.0
    axes = Figure().subplots(1, 2)
    plot_features(axes, before, after, (3, 4), most=5)
    np.testing.assert_array_equal(picture(axes[0])[:3, :4], before[:, 7].reshape(3, 4))
    np.testing.assert_array_equal(picture(axes[0])[:3, 5:9], before[:, 3].reshape(3, 4))
    np.testing.assert_array_equal(picture(axes[1])[:3, :4], 2.0)
    assert axes[1].get_title() == "After: 5 of 50 units"


def test_kernels_of_other_shapes_are_refused():
    axes = Figure().subplots(1, 2)
    both = r"got \((\d+), 5\) and \(\1, 5\)$"
    filters = rf"^filters must be two kernels of the same shape \(height, width, in, out\), {both}"
    with pytest.raises(ConfigError, match=filters):
        plot_filters(axes, np.ones((5, 5)), np.ones((5, 5)))
    features = rf"^features must be two kernels of the same shape \(12, units\), {both}"
    with pytest.raises(ConfigError, match=features):
        plot_features(axes, np.ones((11, 5)), np.ones((11, 5)), (3, 4))


def test_the_layers_are_those_of_the_report():
    tree = {"a": np.eye(16, dtype=np.float32), "b": np.arange(50, dtype=np.float32)}
    report = swsjax.report(swsjax.dumps(tree))
    left, right = Figure().subplots(1, 2)
    plot_layers([left, right], report)
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], [100 / 16, 98])
    sizes = [layer.coded_bits / 8 for layer in report.layers]
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], sizes)
    assert texts_of(left) == ["6.2", "98"]
    assert left.get_xlim() == (0, 100)
    assert [text.get_ha() for text in left.texts] == ["left", "right"]  # the long bar's is inside
    assert (left.get_xlabel(), right.get_xlabel()) == ("not zero (%)", "bytes in the file")
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first layer is on top


def test_only_the_largest_of_many_layers_are_drawn():
    rng = np.random.default_rng(0)
    tree = {f"{i:02}": rng.normal(size=5 + i).astype(np.float32) for i in range(10)}
    left, right = Figure().subplots(1, 2)
    plot_layers([left, right], swsjax.report(swsjax.dumps(tree)), most=3)
    assert [label.get_text() for label in left.get_yticklabels()] == ["07", "08", "09"]
    assert left.get_title() == "Density\n3 of 10 layers"


def test_the_codebook_counts_every_weight():
    tree = {"a": np.float32([0, 0, 0.5]), "b": np.float32([0.5, -1, np.nan])}
    axes = Figure().subplots()
    plot_codebook(axes, tree)
    drawn = {tuple(segment[1]) for lines in axes.collections for segment in lines.get_segments()}
    assert drawn == {(-1.0, 1.0), (0.0, 2.0), (0.5, 2.0)}
    assert texts_of(axes) == ["  zero: 2"]
    assert axes.get_title() == "3 values of the weights"


def test_a_codebook_of_very_many_values_is_binned():
    axes = Figure().subplots()
    plot_codebook(axes, [np.linspace(-1, 1, 5000)])
    heights = [segment[1, 1] for lines in axes.collections for segment in lines.get_segments()]
    assert (len(heights), sum(heights)) == (500, 5000)
    assert axes.get_title() == "5,000 values of the weights, in 500 bins"


def test_pictures_of_a_file(tmp_path):
    kernel = np.random.default_rng(0).choice(np.float32([0, 0, 0, 0, 0, 0.5]), (40, 30))
    tree = {"kernel": kernel, "bias": np.zeros(30, np.float32)}
    pictures = file_pictures(tree, swsjax.report(swsjax.dumps(tree)))
    assert [picture.name for picture in pictures] == ["layers", "codebook", "encoding"]
    paths = save_pictures(tmp_path, pictures)
    assert [path.name for path in paths[::2]] == ["layers.png", "codebook.png", "encoding.png"]
    assert [path.name for path in paths[1::2]] == ["layers.pdf", "codebook.pdf", "encoding.pdf"]
    for path, drawn, picture in zip(paths[::2], paths[1::2], pictures, strict=True):
        assert path.read_bytes() == picture.png
        assert drawn.read_bytes() == picture.pdf
        assert picture.pdf.startswith(b"%PDF")
        width = struct.unpack(">I", picture.png[16:20])[0] / 220  # dots per inch
        assert 3.2 < width < 3.5
    tree = {"dense": kernel + 1.0}  # no part of it is sparse
    pictures = file_pictures(tree, swsjax.report(swsjax.dumps(tree)))
    assert [picture.name for picture in pictures] == ["layers", "codebook"]


def test_colours_differ_in_lightness_too():
    """So that lines can be distinguished in grey, too."""

    def lightness(color):
        return np.dot([0.2126, 0.7152, 0.0722], to_rgb(color))

    assert abs(lightness(BLUE) - lightness(light(BLUE))) > 0.3
    assert light(ORANGE, 1.0).lower() == ORANGE.lower()
    assert light(ORANGE, 0.0) == "#ffffff"


LARGE, TINY = np.eye(30) * 1.7e308, np.eye(30) * 1e-320
VECTORS = [
    np.where(np.arange(2000) % 9, np.linspace(-1, 1, 2000), np.nan),
    np.append(np.linspace(-1, 1, 2000), -np.inf),
    np.float64([-1.7e308, 1.0, 1.7e308]),
    np.full(5, np.nan),
    np.complex64([1j, 2]),
]


@pytest.mark.parametrize("tree", [{"w": LARGE}, {"w": TINY, "vectors": VECTORS}])
def test_pictures_of_values_without_a_place_on_an_axis(tree):
    data = swsjax.dumps(tree)
    names = [picture.name for picture in file_pictures(swsjax.loads(data), swsjax.report(data))]
    assert names[:2] == ["layers", "codebook"]


@pytest.mark.parametrize("leaf", [*VECTORS, LARGE, TINY])
def test_values_without_a_place_on_an_axis_are_left_out(leaf):
    axes = Figure(layout="compressed").subplots()
    plot_codebook(axes, {"w": leaf, "b": np.zeros(3)})
    for form in ("png", "pdf"):
        axes.figure.savefig(BytesIO(), format=form, bbox_inches="tight")
    axes = Figure().subplots()
    plot_codebook(axes, {"w": leaf})
    shown = np.isrealobj(leaf) * len(np.unique(leaf[np.abs(leaf) < 2]))
    assert axes.get_title().startswith(f"{shown:,} values")
