"""The relative indexes of the sparse format of Han et al., on a small example."""

from typing import TYPE_CHECKING

import numpy as np

from swsjax.codec.bits import bit_width, bits_of
from swsjax.codec.csr import Nonzeros
from swsjax.errors import ConfigError
from swsjax.measure.plot.style import BLUE, GREY, ORANGE, light

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_encoding", "small_example"]

_MOST_COLUMNS = 16  # cells with legible text in a paper column


def plot_encoding(axes: "Axes", matrix: np.ndarray, *, span_bits: int = 2) -> None:
    """Draw a small matrix, and below it the entries that the Han format stores for it.

    Each entry has p bits for the number of zero columns since the previous entry (or the left
    edge), and a few more for its level in the codebook. A gap that p bits cannot express takes a
    filler zero.

    Args:
        axes: one axes, which becomes a drawing without scales.
        matrix: (rows, columns) floats; at most 16 columns, and 16 entries with the fillers.
        span_bits: p, the bits of a difference.

    Raises:
        ConfigError: the matrix is larger than can be read, or all zero.

    Han, Mao, Dally, ICLR 2016, figure 3; Ullrich, Meeds, Welling, ICLR 2017, appendix.

    >>> from matplotlib.figure import Figure
    >>> plot_encoding(Figure().subplots(), np.eye(3, 8, dtype=np.float32))
    """
    matrix = np.asarray(matrix, np.float32) + 0.0  # no -0.0
    values = np.unique(matrix[matrix != 0])
    levels = np.sort(bits_of(values))
    rows, columns = matrix.shape
    layout = Nonzeros(bits_of(matrix).reshape(matrix.shape), levels).lay_out(span_bits)
    entries = layout.differences.size
    if max(columns, entries) > _MOST_COLUMNS or not entries:
        raise ConfigError(
            f"an example has 1 to {_MOST_COLUMNS} entries and columns, got {entries} entries and "
            f"{columns} columns"
        )
    width = bit_width(max(levels.size + layout.has_fillers - 1, 0))
    book = [0.0] * layout.has_fillers + list(levels.view(np.float32))
    is_filler = layout.has_fillers & (layout.level_index == 0)
    row = np.repeat(np.arange(rows), np.diff(layout.row_ends, prepend=0))
    start = np.concatenate([[0], layout.row_ends])[row]
    along = np.cumsum(layout.differences + 1)
    column = along - np.concatenate([[0], along])[start] - 1

    colors = [light(ORANGE if filler else BLUE) for filler in is_filler]
    entry = dict(zip(zip(row.tolist(), column.tolist(), strict=True), colors, strict=True))
    for (r, c), value in np.ndenumerate(matrix):
        _cell(axes, c, r, _short(value), entry.get((r, c), "white"))
    for i, color in enumerate(colors):
        texts = [
            f"{layout.differences[i]}",
            f"{layout.differences[i]:0{span_bits}b}" if span_bits else "",
            _short(book[layout.level_index[i]]),
            f"{layout.level_index[i]:0{width}b}" if width else "",
        ]
        for line, text in enumerate(texts):
            _cell(axes, i, rows + 1.6 + line, text, color)
    names = ["gap less one", f"in p = {span_bits} bits", "level", f"in {_counted(width, 'bit')}"]
    for line, name in enumerate(names):
        axes.text(-0.3, rows + 2.1 + line, name, ha="right", va="center", size=6.5)
    axes.text(-0.3, rows / 2, "weights", ha="right", va="center", size=6.5)
    pointer_bits = bit_width(entries)
    total = entries * (span_bits + width) + rows * pointer_bits
    wide = max(columns, entries)
    left = -0.37 * wide
    summary = (
        "Blue: weights that are not zero; orange: filler zeros.\n"
        f"Ends of rows: {', '.join(map(str, layout.row_ends))}, in "
        f"{_counted(pointer_bits, 'bit')} each.\n"
        f"{entries} × ({span_bits} + {width}) + {rows} × {pointer_bits} = {total} bits, and a "
        f"codebook of {_counted(levels.size, 'level')}."
    )
    axes.text(left, rows + 6.1, summary, ha="left", va="top", size=6.5)
    axes.set_title("Relative indexes in the Han format")
    axes.set(xlim=(left, wide + 0.05), ylim=(rows + 8.2, -0.2))
    axes.set_axis_off()


def small_example(
    matrix: np.ndarray, *, rows: int = 3, columns: int = 12, wanted: int = 6
) -> np.ndarray:
    """Cut out of a matrix the window whose non-zeros are nearest in number to those wanted.

    Args:
        matrix: (R, C), of any size.
        rows: of the window, or R where that is less.
        columns: of the window, or C where that is less.
        wanted: number of non-zeros.

    >>> small_example(np.diag(np.arange(5.0)), rows=2, columns=2, wanted=2)
    array([[1., 0.],
           [0., 2.]])
    """
    rows, columns = min(rows, matrix.shape[0]), min(columns, matrix.shape[1])
    sums = np.pad(matrix != 0, ((1, 0), (1, 0))).astype(np.int64).cumsum(0).cumsum(1)
    counts = (sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns]) + sums[
        :-rows, :-columns
    ]
    r, c = np.unravel_index(np.argmin(abs(counts - wanted)), counts.shape)
    return matrix[r : r + rows, c : c + columns]


def _cell(axes: "Axes", x: float, y: float, text: str, color: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor=GREY, linewidth=0.5))
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", size=6)


def _short(value: float) -> str:
    """A weight in as few characters as a cell has room for."""
    return "0" if value == 0 else f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
