"""The Pareto front of error and size, and its figure."""

import numpy as np
from matplotlib.figure import Figure

from swsjax.measure.front import pareto
from swsjax.measure.plot import front_picture, plot_front
from swsjax.measure.published import BY_NET, Published


def test_the_front_has_the_points_that_none_beats():
    points = [(100, 0.05), (300, 0.01), (200, 0.05), (200, 0.03), (400, 0.01), (100, 0.06)]
    assert [points[i] for i in pareto(points)] == [(100, 0.05), (200, 0.03), (300, 0.01)]
    assert pareto([]) == []
    axes = Figure().subplots()
    plot_front(axes, points)
    front, beaten = axes.lines
    np.testing.assert_allclose(front.get_xydata(), [(100, 5), (200, 3), (300, 1)])
    assert sorted(map(tuple, beaten.get_xydata())) == [(100, 6), (200, 5), (400, 1)]
    assert front.get_drawstyle() == "steps-post"  # no error between two files is promised
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == (
        "log",
        "bytes",
        "error (%)",
    )


def test_published_results_are_numbered_with_what_their_size_counts():
    published = [
        Published("one method", 1000, 0.02, "file"),
        Published("a second", 1010, 0.02, "Han format"),
        Published("a third", 9000, 0.01, "file"),
    ]
    axes = Figure().subplots()
    plot_front(axes, [(500, 0.03), (800, 0.01)], published=published)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[1:] == [
        "1  one method (file)",
        "2  a second (Han format)",
        "3  a third (file)",
    ]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    anchors = axes.lines[1:]
    markers = [line.get_marker() for line in anchors]
    assert markers[0] == markers[2] != markers[1]
    assert [tuple(line.get_xydata()[0]) for line in anchors] == [(1000, 2), (1010, 2), (9000, 1)]
    # The numbers of two results at nearly the same place are apart.
    first, second = (np.array(text.get_position()) for text in axes.texts[:2])
    assert np.hypot(*(first - second)) >= 6


def test_the_picture_of_a_search_has_room_for_the_published_results():
    sizes = [(5000, 0.02), (3000, 0.03)]
    heights = [
        int.from_bytes(front_picture(sizes, published).png[20:24])
        for published in ((), BY_NET["lenet-300-100"], BY_NET["lenet-5-caffe"])
    ]
    assert heights == sorted(heights)
    assert heights[2] > 1.3 * heights[0]
