"""The storage format of Han et al. (2015), as a decodable bit stream.

Compression rates in the literature are computed in this format: compressed sparse rows with
relative column indexes (:mod:`swsjax.codec.csr`) and weights as indexes into a codebook.
``docs/format.md`` gives the bit layout.

References:
    Han, Mao, Dally: Deep Compression. ICLR 2016, arXiv:1510.00149.
    Ullrich, Meeds, Welling: Soft Weight-Sharing. ICLR 2017, arXiv:1702.04008.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swsjax.codec.bits import BitReader, BitWriter, bits_of, levels_of
from swsjax.codec.csr import Layout, Nonzeros, read_matrix, write_layout
from swsjax.codec.header import Shape, matrix_shape, pattern_shape
from swsjax.codec.units import ONE, WITH_UNITS, checked_unit, divided, find_units, multiplied
from swsjax.errors import FormatError

__all__ = ["HanBits", "HanStream", "decode_han", "encode_han", "han_size"]

_RAW, _ROWS, _COLUMNS = 0, 1, 2
_MODE_BITS, _LEVEL_COUNT_BITS, _UNIT_FIELD = 2, 16, 32
_MAX_LEVELS = 2**_LEVEL_COUNT_BITS - 1


class HanBits(NamedTuple):
    """Bits that one leaf takes in the Han format, by purpose.

    ``header`` counts fields of fixed size, ``pointers`` the row ends, ``positions`` and ``values``
    the entries that stand for weights, and ``fillers`` the other entries. Each ``codebook`` level
    is charged to the first leaf that uses it if the codebook is shared; the unit of a leaf, if
    leaves have units, counts as ``codebook`` as well. ``raw`` counts the bits of a leaf stored
    without a codebook.
    """

    header: int = 0
    pointers: int = 0
    positions: int = 0
    fillers: int = 0
    values: int = 0
    codebook: int = 0
    raw: int = 0

    @property
    def total(self) -> int:
        """Total bits of the leaf."""
        return sum(self)


class _Plan(NamedTuple):
    """How one leaf will be written."""

    mode: int
    size: HanBits
    levels: np.ndarray  # levels that the leaf uses
    layout: Layout | None = None  # None for a raw leaf
    unit: int = ONE


class _Stream(NamedTuple):
    """How all leaves will be written."""

    plans: list[_Plan]
    shared: dict[int, np.ndarray]  # shared codebooks, by element width in bytes
    has_units: bool = False


class HanStream(NamedTuple):
    """What :func:`encode_han` returns: the stream, and whether its leaves have units."""

    coded: bytes
    """The stream."""
    has_units: bool
    """Whether its leaves have units."""


def han_size(arrays: Iterable[np.ndarray], huffman: bool = False) -> list[HanBits]:
    """Return the exact bits of every array in the Han format.

    For a leaf with n stored entries of which f are fillers, R rows, L levels and p-bit
    differences: ``pointers = R * ceil(log2(n + 1))``, ``positions = (n - f) * p``,
    ``values = (n - f) * ceil(log2(L + [f > 0]))``, ``fillers = f * (both)`` and
    ``codebook = L * 8 * itemsize``. p and the orientation are chosen to minimise the size of the
    leaf. Leaves that are a unit times levels of one codebook
    (:func:`swsjax.codec.units.find_units`) share that codebook and have 32 bits each for the unit,
    if that is smaller. With ``huffman=True``, ``positions`` and ``values`` are the Huffman codes
    and tables of differences and values, fillers included.

    Args:
        arrays: NumPy arrays, one per leaf.
        huffman: whether to Huffman code differences and values.

    Returns:
        A list of :class:`HanBits`; their totals add up to the length of the stream.

    Example:
        >>> kernel = np.zeros((4, 8), np.float32)
        >>> kernel[0, 3] = kernel[3, 7] = 0.5
        >>> han_size([kernel])[0]
        HanBits(header=30, pointers=8, positions=6, fillers=0, values=0, codebook=32, raw=0)
    """
    arrays = list(arrays)
    shapes = [pattern_shape(array.dtype.itemsize, array.shape) for array in arrays]
    bits = [bits_of(array) for array in arrays]
    return [plan.size for plan in _plan(shapes, bits, huffman).plans]


def encode_han(
    shapes: Sequence[Shape], bits: Sequence[np.ndarray], huffman: bool = False
) -> HanStream:
    """Write leaves as one Han-format stream.

    Args:
        shapes: shape of every leaf.
        bits: flat bit patterns of every leaf (:func:`swsjax.codec.bits.bits_of`).
        huffman: whether to Huffman code differences and values.

    Returns:
        The stream, zero-padded to a whole number of bytes, and whether its leaves have units.

    Example:
        >>> stream, has_units = encode_han([(2, 3)], [np.array([0, 0, 5, 0, 0, 0], np.uint8)])
        >>> decode_han(stream, [(2, 3)], [np.uint8])[0].tolist()
        [0, 0, 5, 0, 0, 0]
    """
    plans, shared, has_units = _plan(shapes, bits, huffman)
    writer = BitWriter()
    for width in _widths(leaf.dtype for leaf in bits):
        writer.write(width in shared, 1)
        if width in shared:
            _write_levels(writer, shared[width], 8 * width)
    for plan, leaf in zip(plans, bits, strict=True):
        width = leaf.dtype.itemsize
        writer.write(plan.mode, _MODE_BITS)
        if plan.layout is None:
            writer.write(leaf, 8 * width)
            continue
        levels = shared.get(width)
        if levels is None:
            levels = plan.levels
            _write_levels(writer, levels, 8 * width)
        elif has_units and leaf.dtype == WITH_UNITS:
            writer.write(plan.unit, _UNIT_FIELD)
        write_layout(writer, plan.layout, levels.size, huffman)
    return HanStream(writer.getvalue(), has_units)


def decode_han(
    data: bytes,
    shapes: Sequence[Shape],
    dtypes: Sequence[npt.DTypeLike],
    huffman: bool = False,
    where: int = 0,
    has_units: bool = False,
) -> list[np.ndarray]:
    """Read a Han-format stream.

    Args:
        data: the stream that :func:`encode_han` returned.
        shapes: shape of every leaf.
        dtypes: unsigned dtype of every leaf's bit patterns.
        huffman: whether the stream is Huffman coded.
        where: file offset of ``data``, for messages.
        has_units: whether the leaves that share the codebook of 32-bit patterns have units.

    Returns:
        The flat bit patterns of every leaf.

    Raises:
        FormatError: the stream is damaged.

    Example:
        >>> stream, _ = encode_han([(3,)], [np.array([0, 9, 9], np.uint8)], huffman=True)
        >>> decode_han(stream, [(3,)], ["u1"], huffman=True)
        [array([0, 9, 9], dtype=uint8)]
    """
    reader = BitReader(data, where)
    patterns = [np.dtype(dtype) for dtype in dtypes]
    shared = {}
    for width in _widths(patterns):
        if reader.read_int(1):
            shared[width] = _read_levels(reader, width)
    out = []
    for shape, dtype in zip(shapes, patterns, strict=True):
        mode = reader.read_int(_MODE_BITS)
        if mode == _RAW:
            out.append(reader.read(math.prod(shape), 8 * dtype.itemsize, dtype))
            continue
        if mode not in (_ROWS, _COLUMNS):
            raise FormatError(f"unknown matrix orientation {mode} at byte {reader.offset}")
        levels = shared.get(dtype.itemsize)
        if levels is None:
            levels = _read_levels(reader, dtype.itemsize)
        elif has_units and dtype == WITH_UNITS:
            levels = multiplied(levels, checked_unit(reader.read_int(_UNIT_FIELD)))
        rows, columns = matrix_shape(shape)
        if mode == _COLUMNS:
            matrix = read_matrix(reader, columns, rows, levels, huffman).T
        else:
            matrix = read_matrix(reader, rows, columns, levels, huffman)
        out.append(np.ascontiguousarray(matrix).reshape(-1))
    if reader.remaining >= 8 or reader.read_bits(reader.remaining).any():
        raise FormatError(f"data is left after the last leaf at byte {reader.offset}")
    return out


def _widths(dtypes: Iterable[np.dtype]) -> list[int]:
    """Distinct element widths in bytes, in order of first appearance."""
    return list(dict.fromkeys(dtype.itemsize for dtype in dtypes))


def _plan(shapes: Sequence[Shape], bits: Sequence[np.ndarray], huffman: bool) -> _Stream:
    """Plan every leaf with its own codebook and with a shared one; keep the smallest plan."""
    plans = [
        _plan_leaf(shape, leaf, levels_of(leaf, _MAX_LEVELS), None, huffman)
        for shape, leaf in zip(shapes, bits, strict=True)
    ]
    shared, has_units = {}, False
    for width in _widths(leaf.dtype for leaf in bits):
        alone = {
            i: plan
            for i, plan in enumerate(plans)
            if plan.mode != _RAW and bits[i].dtype.itemsize == width
        }
        smallest = sum(plan.size.total for plan in alone.values())
        found = None
        if width == WITH_UNITS.itemsize:
            found = find_units([plan.levels for plan in alone.values()])
        for units in [None] if found is None else [None, found]:
            union, sharing = _share(shapes, bits, alone, units, huffman)
            together = _LEVEL_COUNT_BITS + union.size * 8 * width
            together += sum(plan.size.total for plan in sharing.values())
            if sharing and together < smallest:
                smallest, shared[width], has_units = together, union, units is not None
                for i, plan in sharing.items():
                    plans[i] = plan
    return _Stream(_charge(plans, bits, shared), shared, has_units)


def _share(
    shapes: Sequence[Shape],
    bits: Sequence[np.ndarray],
    alone: Mapping[int, _Plan],
    units: Sequence[int] | None,
    huffman: bool,
) -> tuple[np.ndarray, dict[int, _Plan]]:
    """Plan leaves with a shared codebook.

    Args:
        shapes, bits: of all leaves.
        alone: the plans of leaves of one element width with codebooks of their own, by index.
        units: the unit of each of them, or None for no units.
        huffman: as in :func:`han_size`.

    Returns:
        The codebook and the plans; no plans if a shared codebook is impossible.
    """
    of_leaf = dict(zip(alone, units or [ONE] * len(alone), strict=True))
    used = [divided(plan.levels, of_leaf[i]) for i, plan in alone.items()]
    union = np.unique(np.concatenate(used)) if used else np.zeros(0)
    if union.size > _MAX_LEVELS:
        return union, {}
    out = {}
    for i, plan in alone.items():
        book = multiplied(union, of_leaf[i])
        shared = _plan_leaf(shapes[i], bits[i], plan.levels, book, huffman)
        if shared.mode == _RAW:
            return union, {}
        if units:
            size = shared.size._replace(codebook=_UNIT_FIELD)
            shared = shared._replace(unit=of_leaf[i], size=size)
        out[i] = shared
    return union, out


def _charge(
    plans: Sequence[_Plan], bits: Sequence[np.ndarray], shared: dict[int, np.ndarray]
) -> list[_Plan]:
    """Charge the fields of the stream and the shared codebooks to the leaves."""
    plans = list(plans)
    widths, seen = set(), {}
    for i, leaf in enumerate(bits):
        width = leaf.dtype.itemsize
        header, codebook = 0, 0
        if width not in widths:
            widths.add(width)
            header += 1
        if width in shared and plans[i].mode != _RAW:
            if width not in seen:
                seen[width] = leaf[:0]
                header += _LEVEL_COUNT_BITS
            union = np.union1d(seen[width], divided(plans[i].levels, plans[i].unit))
            codebook = (union.size - seen[width].size) * 8 * width
            seen[width] = union
        size = plans[i].size
        size = size._replace(header=size.header + header, codebook=size.codebook + codebook)
        plans[i] = plans[i]._replace(size=size)
    return plans


def _plan_leaf(
    shape: Shape,
    leaf: np.ndarray,
    levels: np.ndarray | None,
    shared: np.ndarray | None,
    huffman: bool,
) -> _Plan:
    """Choose orientation and p for one leaf, or raw if that is smaller."""
    width = 8 * leaf.dtype.itemsize
    best = _Plan(_RAW, HanBits(header=_MODE_BITS, raw=leaf.size * width), leaf[:0])
    if levels is None or leaf.size == 0:
        return best
    if shared is None:
        book, header, codebook = levels, _MODE_BITS + _LEVEL_COUNT_BITS, levels.size * width
    else:
        book, header, codebook = shared, _MODE_BITS, 0
    matrix = leaf.reshape(matrix_shape(shape))
    for mode, oriented in ((_ROWS, matrix), (_COLUMNS, matrix.T)):
        nonzeros = Nonzeros(oriented, book)
        for span_bits in range(nonzeros.most_span_bits + 1):
            if not huffman and nonzeros.least_bits(span_bits) >= best.size.total:
                continue  # the lower bound rules out this p
            layout = nonzeros.lay_out(span_bits)
            size = HanBits(*layout.size(book.size, huffman), codebook=codebook)
            size = size._replace(header=size.header + header)
            if size.total < best.size.total:
                best = _Plan(mode, size, levels, layout)
    return best


def _write_levels(writer: BitWriter, levels: np.ndarray, width: int) -> None:
    writer.write(levels.size, _LEVEL_COUNT_BITS)
    writer.write(levels, width)


def _read_levels(reader: BitReader, itemsize: int) -> np.ndarray:
    count = reader.read_int(_LEVEL_COUNT_BITS)
    return reader.read(count, 8 * itemsize, f"u{itemsize}")
