"""The storage format of Han et al. (2015), as a decodable bit stream.

Compression rates in the literature are computed in this format: compressed sparse rows with
relative column indexes (:mod:`swsjax.codec.csr`) and weights as indexes into a codebook.
``docs/format.md`` gives the bit layout.

References:
    Han, Mao, Dally: Deep Compression. ICLR 2016, arXiv:1510.00149.
    Ullrich, Meeds, Welling: Soft Weight-Sharing. ICLR 2017, arXiv:1702.04008.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swsjax.codec.bits import BitReader, BitWriter, bits_of
from swsjax.codec.csr import Nonzeros, read_matrix, write_layout
from swsjax.codec.hanplan import (
    COLUMNS,
    LEVEL_COUNT_BITS,
    MODE_BITS,
    RAW,
    ROWS,
    UNIT_FIELD,
    HanBits,
    oriented,
    plan_han,
    widths_of,
)
from swsjax.codec.header import Shape, matrix_shape, pattern_shape
from swsjax.codec.units import WITH_UNITS, checked_unit, multiplied
from swsjax.errors import FormatError

__all__ = ["HanStream", "decode_han", "encode_han", "han_size"]


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
    return [plan.size for plan in plan_han(shapes, bits, huffman).leaves]


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
    plans, shared, has_units = plan_han(shapes, bits, huffman)
    writer = BitWriter()
    for width in widths_of(leaf.dtype for leaf in bits):
        writer.write(width in shared, 1)
        if width in shared:
            _write_levels(writer, shared[width], 8 * width)
    for plan, shape, leaf in zip(plans, shapes, bits, strict=True):
        width = leaf.dtype.itemsize
        writer.write(plan.mode, MODE_BITS)
        if plan.mode == RAW:
            writer.write(leaf, 8 * width)
            continue
        levels = shared.get(width)
        if levels is None:
            levels = plan.levels
            _write_levels(writer, levels, 8 * width)
        elif has_units and leaf.dtype == WITH_UNITS:
            writer.write(plan.unit, UNIT_FIELD)
            levels = multiplied(levels, plan.unit)
        layout = Nonzeros(oriented(leaf, shape, plan.mode), levels).lay_out(plan.span_bits)
        write_layout(writer, layout, levels.size, huffman)
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
    for width in widths_of(patterns):
        if reader.read_int(1):
            shared[width] = _read_levels(reader, width)
    out = []
    for shape, dtype in zip(shapes, patterns, strict=True):
        mode = reader.read_int(MODE_BITS)
        if mode == RAW:
            out.append(reader.read(math.prod(shape), 8 * dtype.itemsize, dtype))
            continue
        if mode not in (ROWS, COLUMNS):
            raise FormatError(f"unknown matrix orientation {mode} at byte {reader.offset}")
        levels = shared.get(dtype.itemsize)
        if levels is None:
            levels = _read_levels(reader, dtype.itemsize)
        elif has_units and dtype == WITH_UNITS:
            levels = multiplied(levels, checked_unit(reader.read_int(UNIT_FIELD)))
        rows, columns = matrix_shape(shape)
        if mode == COLUMNS:
            matrix = read_matrix(reader, columns, rows, levels, huffman).T
        else:
            matrix = read_matrix(reader, rows, columns, levels, huffman)
        out.append(np.ascontiguousarray(matrix).reshape(-1))
    if reader.remaining >= 8 or reader.read_bits(reader.remaining).any():
        raise FormatError(f"data is left after the last leaf at byte {reader.offset}")
    return out


def _write_levels(writer: BitWriter, levels: np.ndarray, width: int) -> None:
    writer.write(levels.size, LEVEL_COUNT_BITS)
    writer.write(levels, width)


def _read_levels(reader: BitReader, itemsize: int) -> np.ndarray:
    count = reader.read_int(LEVEL_COUNT_BITS)
    return reader.read(count, 8 * itemsize, f"u{itemsize}")
