"""Negative zeros: a leaf is coded as if all its zeros were positive, and their signs follow."""

import numpy as np

from swsjax.codec.bits import bits_of
from swsjax.codec.diagonals import places, to_diagonals
from swsjax.codec.header import DTYPES
from swsjax.codec.rangecoder import Coder
from swsjax.codec.values import Decisions

__all__ = ["code_zero_signs", "count_negative_zeros", "negative_zeros", "positive_zeros"]

_FIRST_BLOCK, _LAST_BLOCK = 8, 1 << 15
_WEIGHTS = (1.0, 0.4, 0.4)
_CHUNK = 1 << 17


def negative_zeros(bits: np.ndarray) -> np.ndarray:
    """Return where only the top bit of a pattern is set, which is -0.0 in every floating type.

    Example:
        >>> negative_zeros(np.array([0.0, -0.0, -1.0], np.float32).view(np.uint32)).tolist()
        [False, True, False]
    """
    return bits == _top(bits.dtype)


def count_negative_zeros(array: np.ndarray) -> int:
    """Return the number of -0.0 in an array, both parts of complex numbers counted.

    Args:
        array: array of any type; of a type that files do not hold it is said to have none.

    Example:
        >>> count_negative_zeros(np.array([0.0, -0.0, -1.0]))
        1
    """
    parts = _parts(array)
    return 0 if parts is None else int(negative_zeros(bits_of(parts)).sum())


def positive_zeros(array: np.ndarray) -> np.ndarray:
    """Return an array with 0.0 for every -0.0; all else, NaN included, keeps its bits.

    Example:
        >>> positive_zeros(np.array([0.0, -0.0, -1.0]))
        array([ 0.,  0., -1.])
    """
    parts = _parts(array)
    if parts is None:
        return array
    bits = bits_of(parts)
    bits = np.where(negative_zeros(bits), bits.dtype.type(0), bits)
    return bits.view(array.dtype.newbyteorder("=")).reshape(array.shape)


def _parts(array: np.ndarray) -> np.ndarray | None:
    """Return the real numbers that an array consists of, flat; None if it holds no such numbers."""
    name = array.dtype.name
    if name not in DTYPES or not name.startswith(("float", "bfloat", "complex")):
        return None
    if array.dtype.kind == "c":
        flat = np.ascontiguousarray(array).reshape(-1)
        return flat.view(flat.real.dtype)
    return array


def code_zero_signs(coder: Coder, matrix: np.ndarray, negative: np.ndarray | None) -> None:
    """Code the signs of the zeros of a matrix, and set the top bit of the negative ones.

    A sign is predicted by mixing the frequency of negative zeros in the matrix with those in the
    row and in the column. If there are only negative zeros, or none, it costs two bits or one.

    Args:
        coder: an Encoder or Decoder.
        matrix: (R, C) bit patterns without negative zeros; those decoded are filled in.
        negative: (R, C) the negative zeros, None for none; ignored when decoding.

    Example:
        >>> from swsjax.codec.rangecoder import Decoder, Encoder
        >>> encoder, matrix = Encoder(), np.array([[0, 5], [0, 0]], np.uint8)
        >>> code_zero_signs(encoder, matrix, np.array([[True, False], [False, True]]))
        >>> code_zero_signs(Decoder(encoder.getvalue()), matrix, None)
        >>> matrix.tolist()
        [[128, 5], [0, 128]]
    """
    if not coder.integer(int(negative is not None), 1):
        return
    if matrix.shape[0] < matrix.shape[1]:
        matrix, negative = matrix.T, None if negative is None else negative.T
    zeros = matrix == 0
    mixed = negative is not None and negative.sum() < zeros.sum()
    if not coder.integer(int(mixed), 1):
        if not coder.writes:
            matrix[zeros] = _top(matrix.dtype)
        return
    rows, columns = matrix.shape
    has_rows = columns > 1  # a row of one column has one zero
    model = Decisions(1, (1, rows if has_rows else 1, columns), _WEIGHTS)
    done = 0
    for row, column in places(to_diagonals(zeros), _CHUNK):
        signs = np.zeros(row.size, np.int32) if negative is None else negative[row, column]
        start = 0
        while start < row.size:
            size = min(max(_FIRST_BLOCK, done // 8), _LAST_BLOCK)
            part = slice(start, min(start + size, row.size))
            node = np.zeros(part.stop - start, np.int64)
            contexts = [row[part] if has_rows else None, column[part]]
            signs[part] = model.code(coder, node, contexts, signs[part])
            done += node.size
            start = part.stop
        if not coder.writes:
            here = signs.astype(bool)
            matrix[row[here], column[here]] = _top(matrix.dtype)


def _top(dtype: np.dtype) -> np.unsignedinteger:
    """Pattern of which only the top bit is set."""
    return dtype.type(1 << (8 * dtype.itemsize - 1))
