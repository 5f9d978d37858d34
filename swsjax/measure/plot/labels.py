"""Labels next to what they name, away from marks, lines and each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Label", "place_labels"]

# All lengths are in points.
_SIZE = 6.5
_GAPS = np.array([4.0, 9, 16, 24, 34, 46, 60, 80])  # between a label and what it names
_LEADER = 5.0  # a larger gap is bridged by a thin line
_ANGLES = np.arange(0, 2 * np.pi, np.pi / 12)
_MOST_PLACES = 6

# Costs of a spot, to which three times the gap is added.
_CUT, _COVERED, _UNDERLINED, _CROSSED = 5000.0, 2000.0, 1000.0, 300.0
_HIDDEN, _OVER = 100.0, 40.0  # for each point of a mark, or of the line over marks
_MOST_SPOTS, _STARTS, _ROUNDS = 100, 200, 6


class Label(NamedTuple):
    """A text for one of several places, whichever has most room."""

    text: str
    """What is written."""
    places: Sequence[tuple[float, float]]
    """What it may name, in data coordinates; without any, it is not drawn."""
    color: str = "black"
    """Of text and leader."""


class _Spots(NamedTuple):
    """Where labels may be: s spots."""

    places: np.ndarray  # (s, 2): what is named, in data coordinates
    offsets: np.ndarray  # (s, 2): from there to the centre of the label
    boxes: np.ndarray  # (s, 4): left, bottom, right, top
    leaders: np.ndarray  # (s, n, 2): points on the line to what is named
    costs: np.ndarray  # (s,): whatever the other labels do


def place_labels(axes: "Axes", labels: Sequence[Label]) -> None:
    """Write labels where they cover neither lines nor marks nor each other.

    Args:
        axes: in which all else is drawn; its scales must not change afterwards.
        labels: in any order.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> lines = axes.plot([1, 2], [3, 4], "o")
    >>> place_labels(axes, [Label("the first", [(1, 3)]), Label("either", [(1, 3), (2, 4)])])
    >>> [text.get_text() for text in axes.texts]
    ['the first', 'either']
    """
    labels = [label for label in labels if len(label.places)]
    if not labels:
        return
    axes.figure.figure.draw_without_rendering()  # the layout decides where places are
    marks = _marks(axes)
    found = [_spots(axes, label, marks) for label in labels]
    spots = _Spots(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    ends = np.cumsum([len(each.costs) for each in found])
    own = [np.arange(end - len(each.costs), end) for each, end in zip(found, ends, strict=True)]
    for label, i in zip(labels, _arranged(spots, own), strict=True):
        has_leader = (spots.leaders[i, 0] != spots.leaders[i, -1]).any()
        line = {"arrowstyle": "-", "color": label.color, "linewidth": 0.5, "shrinkA": 0}
        axes.annotate(
            label.text,
            tuple(spots.places[i]),
            tuple(spots.offsets[i]),
            textcoords="offset points",
            ha="center",
            va="center",
            size=_SIZE,
            color=label.color,
            arrowprops=line | {"shrinkB": 2.5} if has_leader else None,
        )


def _arranged(spots: _Spots, own: Sequence[np.ndarray]) -> list[int]:
    """The spot of each label: the best of many descents from random spots."""
    rng = np.random.default_rng(0)
    pairs = _conflicts(spots)
    best, least = [int(each[0]) for each in own], np.inf
    for _ in range(_STARTS):
        chosen = [int(rng.choice(each)) for each in own]
        for number in [*rng.permutation(len(own))] * _ROUNDS:
            others = chosen[:number] + chosen[number + 1 :]
            costs = spots.costs[own[number]] + pairs[own[number]][:, others].sum(1)
            chosen[number] = int(own[number][np.argmin(costs)])
        total = spots.costs[chosen].sum() + pairs[np.ix_(chosen, chosen)].sum() / 2
        if total < least:
            best, least = chosen, total
    return best


def _conflicts(spots: _Spots) -> np.ndarray:
    """Cost of each pair of spots, (s, s); those of one label are never both taken."""
    low, high = spots.boxes[:, :2], spots.boxes[:, 2:]
    covered = ((low[:, None] < high) & (low < high[:, None])).all(-1)
    points = spots.leaders[:, :, None]
    underlined = np.any(((low < points) & (points < high)).all(-1), axis=1)
    start, end = spots.leaders[:, 0], spots.leaders[:, -1]
    sides = [_side(start[:, None], end[:, None], point) for point in (start, end)]
    apart = sides[0] * sides[1] < 0  # ends of the second on either side of the first
    crossed = apart & apart.T
    return _COVERED * covered + _UNDERLINED * (underlined | underlined.T) + _CROSSED * crossed


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """On which side of a line a point is, by sign."""
    along, to = end - start, point - start
    return along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]


def _spots(axes: "Axes", label: Label, marks: np.ndarray) -> _Spots:
    """The spots of a label with the least costs."""
    to_points = 72 / axes.figure.dpi
    sample = axes.text(0, 0, label.text, size=_SIZE)
    half = to_points * np.array(sample.get_window_extent().size) / 2
    sample.remove()
    picked = np.linspace(0, len(label.places) - 1, min(len(label.places), _MOST_PLACES))
    given = np.asarray(label.places, float)[picked.astype(int)]
    directions = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    around = (directions * (half + _GAPS[:, None, None])).reshape(-1, 2)

    places = np.repeat(given, len(around), axis=0)
    offsets = np.tile(around, (len(given), 1))
    gaps = np.tile(np.repeat(_GAPS, len(_ANGLES)), len(given))
    anchors = to_points * axes.transData.transform(places)
    centres = anchors + offsets
    boxes = np.concatenate([centres - half - 1, centres + half + 1], axis=1)
    # From the edge of the label until just before the mark.
    edges = offsets * (1 - (half / np.maximum(abs(offsets), 1e-9)).min(-1, keepdims=True))
    ends = edges * np.minimum(1, _LEADER / np.hypot(*edges.T))[:, None]
    starts = np.where(gaps[:, None] > _LEADER, edges, ends)
    leaders = np.linspace(anchors + starts, anchors + ends, 16, axis=1)

    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    frame = to_points * np.asarray(axes.bbox.extents)
    cut = (boxes[:, :2] < frame[:2]).any(-1) | (boxes[:, 2:] > frame[2:]).any(-1)
    hidden = ((low < marks) & (marks < high)).all(-1).sum(-1)
    over = (KDTree(marks).query(leaders)[0] < 1.5).sum(-1) if len(marks) else 0
    costs = 3 * gaps + _CUT * cut + _HIDDEN * hidden + _OVER * over
    best = np.argsort(costs, kind="stable")[:_MOST_SPOTS]
    return _Spots(places[best], offsets[best], boxes[best], leaders[best], costs[best])


def _marks(axes: "Axes") -> np.ndarray:
    """Points (n, 2) that marks and lines cover."""
    from matplotlib.cbook import pts_to_poststep
    from matplotlib.collections import LineCollection

    to_points = 72 / axes.figure.dpi
    around = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 1, 2) / 2
    found = [np.empty((0, 2))]
    for line in axes.lines:
        path = to_points * axes.transData.transform(line.get_xydata())
        if line.get_marker() != "None":
            found.append((path + line.get_markersize() * around).reshape(-1, 2))
        if line.get_drawstyle() == "steps-post":
            path = pts_to_poststep(*path.T).T
        if line.get_linestyle() != "None":
            found.append(_sampled(path))
    for lines in axes.collections:
        if isinstance(lines, LineCollection):
            paths = lines.get_segments()
            found += [_sampled(to_points * axes.transData.transform(path)) for path in paths]
    return np.concatenate(found)


def _sampled(path: np.ndarray) -> np.ndarray:
    """Points (n, 2) on a path, closer to each other than a character is wide."""
    steps = np.linspace(0, 1, 50)[:, None, None]
    return (path[:-1] + steps * np.diff(path, axis=0)).reshape(-1, 2)
