"""The levels of a codebook, in as few bits as they need."""

import numpy as np
import numpy.typing as npt

from swsjax.codec.rangecoder import Coder
from swsjax.errors import FormatError

__all__ = ["MAX_LEVELS", "code_codebook", "codebook_bits"]

MAX_LEVELS = 2048
"""Levels of a codebook at most; the values of a leaf with more are stored as they are."""
_COUNT_BITS = 12
_SHIFT_BITS = 6


def codebook_bits(levels: np.ndarray, width: int) -> int:
    """Return about how many bits the levels take, for choosing between codebooks.

    Args:
        levels: increasing bit patterns.
        width: bits of a pattern.

    Example:
        >>> codebook_bits(np.array([16256, 16384], np.uint16), 16)  # 1 and 2 in bfloat16
        36
    """
    shift = _trailing_zeros(levels)
    return _COUNT_BITS + _SHIFT_BITS + levels.size * (width - shift)


def code_codebook(coder: Coder, levels: np.ndarray | None, dtype: npt.DTypeLike) -> np.ndarray:
    """Code the levels of a codebook; return them.

    Bits that are zero at the end of every level are left out: levels that were rounded to bfloat16
    cost 16 bits less each. Then each level is coded as its distance from the one before: the
    distance's bit length with frequencies that adapt, the bits after its first as they are.

    Args:
        coder: an Encoder or Decoder.
        levels: increasing bit patterns; ignored when decoding.
        dtype: unsigned type of the patterns.

    Returns:
        The levels, in that type.

    Raises:
        FormatError: the levels do not fit the type.

    Example:
        >>> from swsjax.codec.rangecoder import Decoder, Encoder
        >>> encoder = Encoder()
        >>> levels = code_codebook(encoder, np.array([16256, 16384], np.uint16), np.uint16)
        >>> code_codebook(Decoder(encoder.getvalue()), None, np.uint16)
        array([16256, 16384], dtype=uint16)
    """
    width = 8 * np.dtype(dtype).itemsize
    known = np.zeros(0, dtype) if levels is None else levels
    count = coder.integer(known.size, _COUNT_BITS)
    shift = coder.integer(_trailing_zeros(known), _SHIFT_BITS)
    if not 0 < count <= MAX_LEVELS or shift >= width:
        raise FormatError(f"a codebook of {count} levels, {shift} bits of {width} left out")
    lengths = np.ones(width + 1, np.int64)  # 10 times the counts, plus 1
    out, previous = [], 0
    for i in range(count):
        distance = (int(known[i]) >> shift) - previous if coder.writes else 1
        length = int(coder.symbols(lengths, np.array([distance.bit_length()]))[0])
        lengths[length] += 10
        if length == 0:
            raise FormatError("a codebook has two equal levels")
        rest = coder.integer(distance - (1 << (length - 1)), length - 1)
        previous += (1 << (length - 1)) + rest
        out.append(previous << shift)
    if previous >> (width - shift) > 0:
        raise FormatError(f"a codebook has a level of over {width} bits")
    return np.array(out, dtype)


def _trailing_zeros(levels: np.ndarray) -> int:
    """Zero bits that all levels end in."""
    union = int(np.bitwise_or.reduce(levels)) if levels.size else 0
    return (union & -union).bit_length() - 1 if union else 0
