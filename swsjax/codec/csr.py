"""One matrix as compressed sparse rows with relative column indexes, as in Han et al. (2015).

Each stored entry is an index into the codebook and a p-bit difference, the distance in columns from
the previous entry. Gaps too long for p bits are bridged by filler zeros.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from swsjax.codec.bits import BitReader, BitWriter, bit_width
from swsjax.codec.huffman import huffman_bits, read_huffman, write_huffman
from swsjax.errors import FormatError

__all__ = [
    "MAX_SPAN_BITS",
    "Counts",
    "Layout",
    "LayoutBits",
    "Nonzeros",
    "count_entries",
    "layout_bits",
    "read_matrix",
    "write_layout",
]

_SPAN_FIELD, _POINTER_FIELD = 4, 6
MAX_SPAN_BITS = 2**_SPAN_FIELD - 1
"""Maximum of p."""


class LayoutBits(NamedTuple):
    """Bits of a layout: header, row pointers, positions, fillers (whole entries), values."""

    header: int
    pointers: int
    positions: int
    fillers: int
    values: int


class Layout(NamedTuple):
    """The stored entries of a matrix, row by row."""

    span_bits: int
    """p: a difference field stands for 1 to 2**p columns."""
    differences: np.ndarray
    """Columns from the previous entry, or from the left edge, minus 1."""
    level_index: np.ndarray
    """Index into the codebook; with fillers, index + 1, and 0 for a filler."""
    row_ends: np.ndarray
    """Number of entries up to the end of each row."""
    has_fillers: bool
    """Whether any entry is a filler."""

    def size(self, level_count: int, huffman: bool) -> LayoutBits:
        """Bits that :func:`write_layout` writes."""
        entries = self.differences.size
        if huffman:
            header = _SPAN_FIELD + 1 + _POINTER_FIELD
            pointers = self.row_ends.size * bit_width(entries)
            positions = sum(huffman_bits(np.bincount(self.differences, minlength=1)))
            values = sum(huffman_bits(np.bincount(self.level_index, minlength=1)))
            return LayoutBits(header, pointers, positions, 0, values)
        fillers = int((self.level_index == 0).sum()) if self.has_fillers else 0
        rows, nonzeros = self.row_ends.size, entries - fillers
        return LayoutBits(
            *map(int, layout_bits(rows, nonzeros, fillers, level_count, self.span_bits))
        )


class Counts(NamedTuple):
    """What the sizes of the layouts of n matrices depend on."""

    nonzeros: np.ndarray
    """(n,) number of non-zeros."""
    fillers: np.ndarray
    """(n, 16) number of fillers for each p."""


def count_entries(masks: Sequence[np.ndarray]) -> Counts:
    """Count the entries that the layouts of matrices would have, for every p.

    Args:
        masks: where each matrix is not zero; it may be a transposed view.

    Example:
        >>> counts = count_entries([np.array([[1, 0, 0, 0, 0, 1]]) > 0])
        >>> counts.nonzeros.tolist(), counts.fillers[0, :4].tolist()
        ([2], [4, 2, 1, 0])
    """
    nonzeros = np.zeros(len(masks), np.int64)
    fillers = np.zeros((len(masks), MAX_SPAN_BITS + 1), np.int64)
    for part in _batches([mask.size for mask in masks]):
        batch = masks[part]
        sizes = np.array([mask.size for mask in batch])
        columns = np.array([max(mask.shape[1], 1) for mask in batch])
        starts = np.cumsum(sizes) - sizes
        place = np.flatnonzero(np.concatenate([mask.ravel() for mask in batch]))
        of_matrix = np.searchsorted(starts, place, side="right") - 1
        row, column = np.divmod(place - starts[of_matrix], columns[of_matrix])
        gaps = np.diff(place, prepend=-1)
        first = np.diff(row, prepend=-1) != 0
        first |= np.diff(of_matrix, prepend=-1) != 0
        gaps[first] = column[first] + 1
        nonzeros[part] = np.bincount(of_matrix, minlength=len(batch))
        for span_bits in range(bit_width(int(gaps.max(initial=1)) - 1)):
            if span_bits <= MAX_SPAN_BITS:
                needed = (gaps - 1) >> span_bits
                fillers[part, span_bits] = np.bincount(of_matrix, needed, len(batch))
    return Counts(nonzeros, fillers)


def _batches(sizes: Sequence[int]) -> Iterator[slice]:
    """Yield slices of matrices with about 2**20 entries in total, to limit working memory."""
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and total + size > 1 << 20:
            yield slice(start, i)
            start = i
            total = 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def layout_bits(
    rows: int | np.ndarray,
    nonzeros: int | np.ndarray,
    fillers: int | np.ndarray,
    level_counts: int | np.ndarray,
    span_bits: int | np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Return the fields of :class:`LayoutBits` for layouts without Huffman codes.

    Args:
        rows, nonzeros, fillers: number of rows, of non-zeros and of fillers.
        level_counts: number of levels of the codebook.
        span_bits: p.

    Example:
        >>> [int(bits) for bits in layout_bits(2, 9, 3, level_counts=5, span_bits=2)]
        [11, 8, 18, 15, 27]
    """
    width = _bit_widths(np.maximum(level_counts + (fillers > 0) - 1, 0))
    return np.broadcast_arrays(
        _SPAN_FIELD + 1 + _POINTER_FIELD,
        rows * _bit_widths(nonzeros + fillers),
        nonzeros * span_bits,
        fillers * (span_bits + width),
        nonzeros * width,
    )


def _bit_widths(largest: int | np.ndarray) -> np.ndarray:
    """:func:`~swsjax.codec.bits.bit_width` of each number."""
    return np.frexp(largest)[1].astype(np.int64)


class Nonzeros:
    """The non-zeros of a matrix, to be laid out for any p.

    Args:
        matrix: (rows, columns) bit patterns.
        levels: the codebook, increasing, with every non-zero value of the matrix.

    Example:
        >>> matrix = np.array([[0, 5, 0], [0, 0, 7]], np.uint8)
        >>> layout = Nonzeros(matrix, np.array([5, 7], np.uint8)).lay_out(span_bits=2)
        >>> layout.differences.tolist(), layout.level_index.tolist(), layout.row_ends.tolist()
        ([1, 2], [0, 1], [1, 2])
    """

    def __init__(self, matrix: np.ndarray, levels: np.ndarray) -> None:
        self._rows, columns = matrix.shape
        self._row, column = np.divmod(np.flatnonzero(matrix.ravel()), max(columns, 1))
        self._gaps = np.diff(column, prepend=-1)
        first = np.diff(self._row, prepend=-1) != 0
        self._gaps[first] = column[first] + 1
        self._index = np.searchsorted(levels, matrix[self._row, column])

    @property
    def most_span_bits(self) -> int:
        """The smallest p that needs no fillers, or the maximum of p if that is smaller."""
        longest = int(self._gaps.max(initial=1))
        return min(bit_width(longest - 1), MAX_SPAN_BITS)

    def lay_out(self, span_bits: int) -> Layout:
        """Return the layout, fillers included, with differences of ``span_bits`` bits."""
        fillers = (self._gaps - 1) >> span_bits
        has_fillers = bool(fillers.any())
        place = np.cumsum(fillers + 1) - 1
        entries = int(place[-1]) + 1 if place.size else 0
        differences = np.full(entries, (1 << span_bits) - 1, np.int64)
        differences[place] = (self._gaps - 1) & ((1 << span_bits) - 1)
        level_index = np.zeros(entries, np.int64)
        level_index[place] = self._index + has_fillers
        counts = np.bincount(self._row, weights=fillers + 1, minlength=self._rows)
        row_ends = np.cumsum(counts.astype(np.int64))
        return Layout(span_bits, differences, level_index, row_ends, has_fillers)


def _index_width(level_count: int, has_fillers: bool) -> int:
    return bit_width(max(level_count + has_fillers - 1, 0))


def write_layout(writer: BitWriter, layout: Layout, level_count: int, huffman: bool) -> None:
    """Append a layout to a bit string.

    Args:
        writer: the bit string to append to.
        layout: the layout of a matrix.
        level_count: number of levels of the codebook.
        huffman: Huffman code differences and indexes.

    Example:
        >>> levels, writer = np.array([7], np.uint8), BitWriter()
        >>> layout = Nonzeros(7 * np.eye(2, dtype=np.uint8), levels).lay_out(span_bits=1)
        >>> write_layout(writer, layout, 1, huffman=False)
        >>> writer.bit_count == sum(layout.size(1, huffman=False))
        True
    """
    writer.write(layout.span_bits, _SPAN_FIELD)
    writer.write(layout.has_fillers, 1)
    pointer_width = bit_width(layout.differences.size)
    writer.write(pointer_width, _POINTER_FIELD)
    writer.write(layout.row_ends, pointer_width)
    if huffman:
        write_huffman(writer, layout.differences, 1 << layout.span_bits)
        write_huffman(writer, layout.level_index, level_count + layout.has_fillers)
    else:
        writer.write(layout.differences, layout.span_bits)
        writer.write(layout.level_index, _index_width(level_count, layout.has_fillers))


def read_matrix(
    reader: BitReader, rows: int, columns: int, levels: np.ndarray, huffman: bool
) -> np.ndarray:
    """Read the layout of a matrix; return its bit patterns.

    Args:
        reader: the bit string.
        rows: number of rows of the matrix.
        columns: number of columns of the matrix.
        levels: the codebook, increasing bit patterns.
        huffman: whether differences and indexes are Huffman coded.

    Returns:
        (rows, columns) array of the levels' dtype.

    Raises:
        FormatError: the layout does not fit the matrix or the codebook, or ends early.

    Example:
        >>> levels, writer = np.array([7], np.uint8), BitWriter()
        >>> layout = Nonzeros(7 * np.eye(2, dtype=np.uint8), levels).lay_out(span_bits=1)
        >>> write_layout(writer, layout, 1, huffman=False)
        >>> read_matrix(BitReader(writer.getvalue()), 2, 2, levels, huffman=False).tolist()
        [[7, 0], [0, 7]]
    """
    start = reader.offset
    matrix = np.zeros((rows, columns), levels.dtype)
    span_bits = reader.read_int(_SPAN_FIELD)
    fillers = reader.read_int(1)
    pointer_width = reader.read_int(_POINTER_FIELD)
    symbols = levels.size + fillers
    if pointer_width == 0:
        entries, row_ends = 0, np.zeros(0, np.int64)
    else:
        row_ends = reader.read(rows, pointer_width, np.int64)
        entries = int(row_ends[-1]) if rows else 0
        sizes = np.diff(row_ends, prepend=0)
        if (sizes < 0).any() or (sizes > columns).any():
            raise FormatError(f"row pointers at byte {start} do not fit a {rows}x{columns} matrix")
    if huffman:
        differences = read_huffman(reader, entries, 1 << span_bits)
        level_index = read_huffman(reader, entries, symbols)
    else:
        differences = reader.read(entries, span_bits, np.uint16)
        level_index = reader.read(entries, _index_width(levels.size, fillers > 0), np.uint16)
    if entries and (symbols == 0 or level_index.max() >= symbols):
        raise FormatError(
            f"a codebook index after byte {start} is out of range, expected less than {symbols}"
        )
    for part in _row_blocks(row_ends):
        first = int(row_ends[part.start - 1]) if part.start else 0
        ends = row_ends[part] - first
        inside = slice(first, first + int(ends[-1]))
        column = _columns(differences[inside], ends)
        if column.max(initial=0) >= columns:
            raise FormatError(
                f"a column index after byte {start} is out of range, expected less than {columns}"
            )
        row = np.repeat(np.arange(part.start, part.stop), np.diff(ends, prepend=0))
        index = level_index[inside].astype(np.int64) - fillers
        kept = index >= 0
        matrix[row[kept], column[kept]] = levels[index[kept]]
    return matrix


def _row_blocks(row_ends: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows with about 2**18 entries each, to limit working memory."""
    start = 0
    while start < row_ends.size:
        before = int(row_ends[start - 1]) if start else 0
        stop = int(np.searchsorted(row_ends, before + (1 << 18), side="right"))
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _columns(differences: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Column of every entry, from 0 in every row."""
    steps = np.cumsum(differences.astype(np.int64) + 1)
    sizes = np.diff(ends, prepend=0)
    before = np.concatenate([[0], steps])[ends - sizes]
    return steps - np.repeat(before, sizes) - 1
