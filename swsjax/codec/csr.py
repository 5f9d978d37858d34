"""The storage format of Han et al. (2015), as a bit stream that decodes again.

Compression rates in the literature are computed in this format: compressed sparse rows with
relative column indexes of p bits, a filler zero wherever a gap is longer than p bits can say, and
weights as indexes into a codebook. ``docs/format.md`` gives the bit layout.

References:
    Han, Mao, Dally: Deep Compression. ICLR 2016, arXiv:1510.00149.
    Ullrich, Meeds, Welling: Soft Weight-Sharing. ICLR 2017, arXiv:1702.04008.
"""

import math
from typing import NamedTuple

import numpy as np

from swsjax.codec.bits import BitReader, BitWriter, bit_width, bits_of, levels_of
from swsjax.codec.huffman import huffman_bits, read_huffman, write_huffman
from swsjax.errors import FormatError

__all__ = ["HanBits", "decode_han", "encode_han", "han_size", "matrix_shape"]

_RAW, _ROWS, _COLUMNS = 0, 1, 2
_MODE_BITS, _LEVEL_COUNT_BITS, _SPAN_BITS, _POINTER_WIDTH_BITS = 2, 16, 4, 6
_MAX_LEVELS = 2**_LEVEL_COUNT_BITS - 1
_MAX_SPAN = 2**_SPAN_BITS - 1


class HanBits(NamedTuple):
    """Bits that one leaf takes in the Han format.

    A codebook level is charged to the first leaf that uses it when the codebook is shared.
    ``raw`` counts the leaves that are stored as they are, having too many distinct values.
    """

    header: int = 0
    pointers: int = 0
    positions: int = 0
    fillers: int = 0
    values: int = 0
    codebook: int = 0
    raw: int = 0

    @property
    def total(self):
        """All bits of the leaf."""
        return sum(self)


class _Plan(NamedTuple):
    """How one leaf is going to be written."""

    mode: int
    span_bits: int = 0  # p: a difference field says 1 to 2**p columns
    differences: np.ndarray | None = None
    level_index: np.ndarray | None = None  # 0 is the filler where there are fillers
    row_ends: np.ndarray | None = None
    has_fillers: bool = False
    levels: np.ndarray | None = None
    size: HanBits = HanBits()


def matrix_shape(shape):
    """Return ``(rows, columns)`` of the matrix that an array is coded as.

    The last axis becomes the columns, as in the dense and convolution kernels of Flax; a vector
    is one row and a scalar a 1x1 matrix.

    Example:
        >>> matrix_shape((3, 3, 16, 32)), matrix_shape((300,)), matrix_shape(())
        ((144, 32), (1, 300), (1, 1))
    """
    if not shape:
        return 1, 1
    return math.prod(shape[:-1]), shape[-1]


def han_size(arrays, huffman=False):
    """Return the exact bits of every array in the Han format.

    For a leaf with n stored entries of which f are fillers, R rows, L levels and p-bit
    differences: ``pointers = R * ceil(log2(n + 1))``, ``positions = (n - f) * p``,
    ``values = (n - f) * ceil(log2(L + [f > 0]))``, ``fillers = f * (both)`` and
    ``codebook = L * 8 * itemsize``. p and the orientation are those that make the leaf smallest.
    With ``huffman=True`` differences and values are Huffman coded, tables included (under
    ``positions`` and ``values``; fillers are then not told apart).

    Args:
        arrays: NumPy arrays, one a leaf.
        huffman: also Huffman code differences and values.

    Returns:
        A list of :class:`HanBits`; the sum of their totals is the length of the stream.

    Example:
        >>> kernel = np.zeros((4, 8), np.float32)
        >>> kernel[0, 3] = kernel[3, 7] = 0.5
        >>> han_size([kernel])[0]
        HanBits(header=30, pointers=8, positions=6, fillers=0, values=0, codebook=32, raw=0)
    """
    shapes = [np.shape(array) for array in arrays]
    bits = [bits_of(array) for array in arrays]
    return [plan.size for plan in _plan(shapes, bits, huffman)[0]]


def encode_han(shapes, bits, huffman=False):
    """Write leaves as one Han-format stream.

    Args:
        shapes: shape of every leaf.
        bits: flat bit patterns of every leaf (:func:`swsjax.codec.bits.bits_of`).
        huffman: Huffman code differences and values.

    Returns:
        The bytes, zero-padded to a whole number of bytes.

    Example:
        >>> stream = encode_han([(2, 3)], [np.array([0, 0, 5, 0, 0, 0], np.uint8)])
        >>> decode_han(stream, [(2, 3)], [np.uint8])[0].tolist()
        [0, 0, 5, 0, 0, 0]
    """
    plans, shared = _plan(shapes, bits, huffman)
    writer = BitWriter()
    for width in _widths(bits):
        writer.write(width in shared, 1)
        if width in shared:
            _write_levels(writer, shared[width], 8 * width)
    for plan, leaf in zip(plans, bits, strict=True):
        width = leaf.dtype.itemsize
        writer.write(plan.mode, _MODE_BITS)
        if plan.mode == _RAW:
            writer.write(leaf, 8 * width)
            continue
        levels = shared.get(width)
        if levels is None:
            levels = plan.levels
            _write_levels(writer, levels, 8 * width)
        _write_entries(writer, plan, levels.size, huffman)
    return writer.getvalue()


def decode_han(data, shapes, dtypes, huffman=False, where=0):
    """Read a Han-format stream.

    Args:
        data: the bytes :func:`encode_han` returned.
        shapes: shape of every leaf.
        dtypes: unsigned dtype of every leaf's bit patterns.
        huffman: whether the stream is Huffman coded.
        where: offset of ``data`` in its file, for messages.

    Returns:
        A list of flat arrays of bit patterns.

    Raises:
        FormatError: the stream is damaged.
    """
    reader = BitReader(data, where)
    dtypes = [np.dtype(dtype) for dtype in dtypes]
    shared = {}
    for width in _widths(dtypes):
        if reader.read_int(1):
            shared[width] = _read_levels(reader, width)
    out = []
    for shape, dtype in zip(shapes, dtypes, strict=True):
        mode = reader.read_int(_MODE_BITS)
        if mode == _RAW:
            out.append(reader.read(math.prod(shape), 8 * dtype.itemsize).astype(dtype))
            continue
        if mode not in (_ROWS, _COLUMNS):
            raise FormatError(f"unknown matrix orientation {mode} at byte {reader.offset}")
        levels = shared.get(dtype.itemsize)
        if levels is None:
            levels = _read_levels(reader, dtype.itemsize)
        rows, columns = matrix_shape(shape)
        if mode == _COLUMNS:
            matrix = _read_entries(reader, columns, rows, levels, huffman).T
        else:
            matrix = _read_entries(reader, rows, columns, levels, huffman)
        out.append(np.ascontiguousarray(matrix).reshape(-1))
    if reader.remaining >= 8 or reader.read_bits(reader.remaining).any():
        raise FormatError(f"data left over after the last leaf at byte {reader.offset}")
    return out


def _widths(leaves):
    """Element widths in bytes, each once, in order of first appearance."""
    dtypes = [leaf if isinstance(leaf, np.dtype) else leaf.dtype for leaf in leaves]
    return list(dict.fromkeys(dtype.itemsize for dtype in dtypes))


def _plan(shapes, bits, huffman):
    """Plan every leaf with its own codebook and with shared ones; keep what is smaller."""
    levels = [levels_of(leaf, _MAX_LEVELS) for leaf in bits]
    own = [
        _plan_leaf(shape, leaf, level, None, huffman)
        for shape, leaf, level in zip(shapes, bits, levels, strict=True)
    ]
    shared = {}
    for width in _widths(bits):
        group = [i for i, leaf in enumerate(bits) if leaf.dtype.itemsize == width]
        coded = [i for i in group if own[i].mode != _RAW]
        union = np.unique(np.concatenate([levels[i] for i in coded])) if coded else None
        if union is None or union.size > _MAX_LEVELS:
            continue
        plans = {i: _plan_leaf(shapes[i], bits[i], levels[i], union, huffman) for i in coded}
        together = _LEVEL_COUNT_BITS + union.size * 8 * width
        together += sum(plan.size.total for plan in plans.values())
        if together < sum(own[i].size.total for i in coded):
            shared[width] = union
            for i, plan in plans.items():
                own[i] = plan
    return _charge(own, bits, levels, shared), shared


def _charge(plans, bits, levels, shared):
    """Charge the stream's own fields and the shared codebooks to the leaves."""
    plans = list(plans)
    seen = {}
    for i, leaf in enumerate(bits):
        width = leaf.dtype.itemsize
        header, codebook = 0, 0
        if width not in seen:
            seen[width] = leaf[:0]
            header += 1
        if width in shared and plans[i].mode != _RAW:
            if seen[width].size == 0:
                header += _LEVEL_COUNT_BITS
            union = np.union1d(seen[width], levels[i])
            codebook = (union.size - seen[width].size) * 8 * width
            seen[width] = union
        size = plans[i].size
        size = size._replace(header=size.header + header, codebook=size.codebook + codebook)
        plans[i] = plans[i]._replace(size=size)
    return plans


def _plan_leaf(shape, leaf, levels, shared, huffman):
    """Choose orientation and p for one leaf; raw where that is smaller."""
    raw = _Plan(_RAW, size=HanBits(header=_MODE_BITS, raw=leaf.size * 8 * leaf.dtype.itemsize))
    if levels is None:
        return raw
    book = levels if shared is None else shared
    best = raw
    rows, columns = matrix_shape(shape)
    matrix = leaf.reshape(rows, columns)
    for mode, oriented in ((_ROWS, matrix), (_COLUMNS, matrix.T)):
        if mode == _COLUMNS and min(rows, columns) == 0:
            continue
        flat = np.flatnonzero(oriented.reshape(-1) if mode == _ROWS else oriented.ravel())
        row, column = np.divmod(flat, max(oriented.shape[1], 1))
        gaps = np.diff(column, prepend=-1)
        new_row = np.diff(row, prepend=-1) != 0
        gaps[new_row] = column[new_row] + 1
        index = np.searchsorted(book, oriented[row, column])
        top = bit_width(max(int(gaps.max(initial=1)) - 1, 0))
        for span_bits in range(min(top, _MAX_SPAN) + 1):
            if not huffman:
                # Sizes first: entries are laid out only for a p that wins.
                fillers = int(((gaps - 1) >> span_bits).sum())
                entries = gaps.size + fillers
                value_bits = bit_width(max(book.size + (fillers > 0) - 1, 0))
                bound = entries * (span_bits + value_bits)
                bound += oriented.shape[0] * bit_width(entries)
                if bound >= best.size.total:
                    continue
            plan = _lay_out(mode, oriented.shape[0], row, gaps, index, span_bits)
            size = _size(plan, oriented.shape[0], book.size, huffman)
            own = shared is None
            size = size._replace(
                header=size.header + own * _LEVEL_COUNT_BITS,
                codebook=own * levels.size * 8 * leaf.dtype.itemsize,
            )
            if size.total < best.size.total:
                best = plan._replace(levels=levels, size=size)
    return best


def _lay_out(mode, row_count, row, gaps, index, span_bits):
    """Stored entries, fillers among them, for differences of ``span_bits`` bits."""
    fillers = (gaps - 1) >> span_bits
    has_fillers = bool(fillers.any())
    place = np.cumsum(fillers + 1) - 1
    entries = int(place[-1]) + 1 if place.size else 0
    differences = np.full(entries, (1 << span_bits) - 1, np.int64)
    differences[place] = (gaps - 1) & ((1 << span_bits) - 1)
    level_index = np.zeros(entries, np.int64)
    level_index[place] = index + has_fillers
    counts = np.bincount(row, weights=fillers + 1, minlength=row_count).astype(np.int64)
    return _Plan(mode, span_bits, differences, level_index, np.cumsum(counts), has_fillers)


def _size(plan, row_count, level_count, huffman):
    """Bits of one planned leaf, its codebook aside."""
    entries = plan.differences.size
    header = _MODE_BITS + _SPAN_BITS + 1 + _POINTER_WIDTH_BITS
    pointers = row_count * bit_width(entries)
    symbols = level_count + plan.has_fillers
    if huffman:
        positions = sum(huffman_bits(np.bincount(plan.differences, minlength=1)))
        values = sum(huffman_bits(np.bincount(plan.level_index, minlength=1)))
        return HanBits(header, pointers, positions, 0, values)
    value_bits = bit_width(max(symbols - 1, 0))
    fillers = int((plan.level_index == 0).sum()) if plan.has_fillers else 0
    return HanBits(
        header,
        pointers,
        (entries - fillers) * plan.span_bits,
        fillers * (plan.span_bits + value_bits),
        (entries - fillers) * value_bits,
    )


def _write_levels(writer, levels, width):
    writer.write(levels.size, _LEVEL_COUNT_BITS)
    writer.write(levels, width)


def _read_levels(reader, itemsize):
    count = reader.read_int(_LEVEL_COUNT_BITS)
    return reader.read(count, 8 * itemsize).astype(f"u{itemsize}")


def _write_entries(writer, plan, level_count, huffman):
    writer.write(plan.span_bits, _SPAN_BITS)
    writer.write(plan.has_fillers, 1)
    pointer_width = bit_width(plan.differences.size)
    writer.write(pointer_width, _POINTER_WIDTH_BITS)
    writer.write(plan.row_ends, pointer_width)
    symbols = level_count + plan.has_fillers
    if huffman:
        write_huffman(writer, plan.differences, 1 << plan.span_bits)
        write_huffman(writer, plan.level_index, symbols)
    else:
        writer.write(plan.differences, plan.span_bits)
        writer.write(plan.level_index, bit_width(max(symbols - 1, 0)))


def _read_entries(reader, rows, columns, levels, huffman):
    """Read one matrix."""
    start = reader.offset
    span_bits = reader.read_int(_SPAN_BITS)
    has_fillers = bool(reader.read_int(1))
    pointer_width = reader.read_int(_POINTER_WIDTH_BITS)
    row_ends = reader.read(rows, pointer_width).astype(np.int64)
    counts = np.diff(row_ends, prepend=0)
    if (counts < 0).any() or (counts > columns).any():
        raise FormatError(f"row pointers at byte {start} do not fit {rows}x{columns} entries")
    entries = int(counts.sum())
    symbols = levels.size + has_fillers
    if huffman:
        differences = read_huffman(reader, entries, 1 << span_bits).astype(np.int64)
        level_index = read_huffman(reader, entries, symbols).astype(np.int64)
    else:
        differences = reader.read(entries, span_bits).astype(np.int64)
        level_index = reader.read(entries, bit_width(max(symbols - 1, 0))).astype(np.int64)
    if entries and (symbols == 0 or level_index.max() >= symbols):
        raise FormatError(f"codebook index at byte {start} and beyond: over {symbols} levels")
    # Columns restart at -1 in every row.
    steps = np.cumsum(differences + 1)
    row = np.repeat(np.arange(rows), counts)
    before = np.concatenate([[0], steps])[row_ends - counts]
    column = steps - before[row] - 1
    if entries and column.max() >= columns:
        raise FormatError(f"column indexes at byte {start} and beyond: over {columns} columns")
    matrix = np.zeros((rows, columns), levels.dtype)
    if has_fillers:
        kept = level_index > 0
        row, column, level_index = row[kept], column[kept], level_index[kept] - 1
    matrix[row, column] = levels[level_index]
    return matrix
