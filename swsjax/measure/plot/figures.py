"""The figures of a file, as pictures for a folder and for the report page."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from swsjax.codec.header import matrix_shape
from swsjax.file.atomic import write_bytes
from swsjax.measure.html import Picture
from swsjax.measure.plot.encoding import plot_encoding, small_example
from swsjax.measure.plot.layers import MOST_LAYERS, plot_codebook, plot_layers
from swsjax.measure.plot.style import column_picture
from swsjax.measure.reports import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["alone", "beside", "file_pictures", "save_pictures", "two_high"]


def file_pictures(tree: Any, report: Report) -> list[Picture]:
    """Draw what a file alone shows: its layers, its values and how the Han format works.

    Args:
        tree: what ``load`` returns.
        report: of the file.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> from swsjax.file import dumps
    >>> from swsjax.measure import report
    >>> tree = {"w": np.eye(32, dtype=np.float32)}
    >>> [picture.name for picture in file_pictures(tree, report(dumps(tree)))]
    ['layers', 'codebook', 'encoding']
    """
    drawn = min(len(report.layers), MOST_LAYERS)
    pictures = [
        column_picture(
            "layers",
            "The density of each layer, that is the fraction of its weights that are not zero, and "
            "its size in the file.",
            partial(plot_layers, report=report),
            beside,
            0.8 + 0.17 * drawn,
        ),
        column_picture(
            "codebook",
            "The number of weights with each value.",
            partial(plot_codebook, tree=tree),
            alone,
            2.2,
        ),
    ]
    example = _example(tree)
    if example is not None:
        pictures.append(
            column_picture(
                "encoding",
                "How the Han format stores weights: a small piece of this net, its gaps as "
                "relative indexes, with a filler where a gap is too long.",
                partial(plot_encoding, matrix=example),
                alone,
                2.2,
            )
        )
    return pictures


def save_pictures(folder: str | Path, pictures: Iterable[Picture]) -> list[Path]:
    """Write each picture as ``NAME.png``, and ``NAME.pdf`` if it has one; return the paths.

    >>> [path.name for path in save_pictures(".", [Picture("weights", "Weights.", b"PNG")])]
    ['weights.png']
    """
    paths = []
    for picture in pictures:
        for content, ending in ((picture.png, "png"), (picture.pdf, "pdf")):
            if content:
                paths.append(Path(folder) / f"{picture.name}.{ending}")
                write_bytes(paths[-1], content)
    return paths


def alone(figure: "Figure") -> "Axes":
    """Lay out one axes.

    >>> from matplotlib.figure import Figure
    >>> alone(Figure()).get_title()
    ''
    """
    return figure.subplots()


def beside(figure: "Figure") -> "list[Axes]":
    """Lay out two axes side by side.

    >>> from matplotlib.figure import Figure
    >>> len(beside(Figure()))
    2
    """
    return list(figure.subplots(1, 2))


def two_high(figure: "Figure") -> "list[Axes]":
    """Lay out two axes, one above the other.

    >>> from matplotlib.figure import Figure
    >>> len(two_high(Figure()))
    2
    """
    return list(figure.subplots(2, 1))


def _example(tree: Any) -> np.ndarray | None:
    """A small part of the first array that has one with zeros and few other values, if any."""
    for leaf in jax.tree.leaves(tree):
        matrix = np.asarray(leaf)
        matrix = matrix.reshape(matrix_shape(matrix.shape))
        if matrix.dtype.kind == "f" and min(matrix.shape) > 1:
            with np.errstate(over="ignore"):
                piece = small_example(matrix).astype(np.float32)  # in which it is drawn
            if 3 <= np.count_nonzero(piece) <= 8:
                return piece
    return None
