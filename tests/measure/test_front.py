"""The Pareto front of error and size, and its figure."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from swsjax.measure.front import pareto
from swsjax.measure.plot import Label, front_picture, plot_front
from swsjax.measure.plot.labels import place_labels
from swsjax.measure.published import BY_NET, Published


def test_the_front_has_the_points_that_none_beats():
    points = [(100, 0.05), (300, 0.01), (200, 0.05), (200, 0.03), (400, 0.01), (100, 0.06)]
    assert [points[i] for i in pareto(points)] == [(100, 0.05), (200, 0.03), (300, 0.01)]
    assert pareto([]) == []
    axes = Figure().subplots()
    plot_front(axes, points)
    front, dominated = axes.lines
    np.testing.assert_allclose(front.get_xydata(), [(100, 5), (200, 3), (300, 1)])
    assert sorted(map(tuple, dominated.get_xydata())) == [(100, 6), (200, 5), (400, 1)]
    assert front.get_drawstyle() == "steps-post"  # no error between two files is promised
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == (
        "log",
        "file size (bytes)",
        "error (%)",
    )
    assert texts_of(axes) == ["front", "dominated"]
    assert axes.get_legend() is None  # the labels say it all


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


PUBLISHED = [
    Published("one method", 1000, 0.02, "file"),
    Published("a second", 1010, 0.02, "Han format"),
    Published("a third", 9000, 0.01, "file"),
]


def test_published_results_are_hollow_and_named_with_a_legend_of_what_their_size_counts():
    axes = Figure().subplots()
    plot_front(axes, [(500, 0.03), (800, 0.01)], published=PUBLISHED, label="one seed")
    assert texts_of(axes) == ["one seed", "one method", "a second", "a third"]
    files, han = axes.lines[1:]
    assert files.get_xydata().tolist() == [[1000, 2], [9000, 1]]
    assert han.get_xydata().tolist() == [[1010, 2]]
    assert files.get_marker() != han.get_marker()
    assert {line.get_markerfacecolor() for line in (files, han)} == {"none"}
    assert axes.lines[0].get_markerfacecolor() != "none"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["file", "Han format"]


@pytest.mark.parametrize("kinds", [1, 4, 5, 6])
def test_the_legend_has_four_kinds_at_most(kinds):
    published = [Published("a method", 100 * i, 0.01 * i, f"kind {i}") for i in range(1, kinds + 1)]
    axes = Figure().subplots()
    plot_front(axes, [(500, 0.03)], published=published)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(labels) == min(kinds, 4)
    assert " or ".join(labels) == " or ".join(result.kind for result in published)
    assert sum(len(line.get_xydata()) for line in axes.lines[1:]) == kinds


def box_of(text):
    return Text.get_window_extent(text)  # without the line to what it names


@pytest.mark.parametrize("net", BY_NET)
def test_labels_are_inside_and_cover_neither_each_other_nor_marks(net):
    figure = Figure(figsize=(5, 3.4), layout="compressed")
    axes = figure.subplots()
    plot_front(axes, [(5000, 0.02), (3000, 0.03), (9000, 0.03)], published=BY_NET[net])
    figure.draw_without_rendering()
    boxes = [box_of(text) for text in axes.texts]
    assert len(boxes) == 2 + len(BY_NET[net])
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    for line in axes.lines:
        marks = axes.transData.transform(line.get_xydata())
        assert not any(box.contains(*mark) for box in boxes for mark in marks)
    for box in boxes:
        assert axes.bbox.x0 < box.x0 < box.x1 < axes.bbox.x1
        assert axes.bbox.y0 < box.y0 < box.y1 < axes.bbox.y1
    legend = axes.get_legend().get_window_extent()
    assert legend.height < figure.bbox.height / 5


def test_a_label_is_next_to_the_place_with_most_room():
    figure = Figure()
    axes = figure.subplots()
    axes.plot(*np.random.default_rng(0).uniform([[0], [0]], [[1], [0.4]], (2, 900)), "o")
    axes.plot(0.5, 0.9, "o")
    axes.set(xlim=(-0.1, 1.1), ylim=(0, 1))
    place_labels(axes, [Label("here", [(0.5, 0.2), (0.5, 0.9)]), Label("nowhere", [])])
    (text,) = axes.texts
    assert text.xy == (0.5, 0.9)
    assert np.hypot(*text.get_position()) < 30  # points


def test_other_labels_are_placed_with_those_of_the_front():
    axes = Figure().subplots()
    axes.axhline(2.5)
    label = Label("before", [(600, 2.5)], "green")
    plot_front(axes, [(500, 0.03), (800, 0.01)], others=[label])
    assert texts_of(axes) == ["front", "before"]
    assert axes.texts[1].get_color() == "green"


def test_the_picture_of_a_search_is_the_same_file_each_time():
    first, again = (front_picture([(5000, 0.02), (3000, 0.03)], PUBLISHED) for _ in range(2))
    assert first == again
    assert first.pdf.startswith(b"%PDF")
