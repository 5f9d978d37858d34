"""Coding of the levels of a codebook."""

import numpy as np
import numpy.typing as npt

from swsjax.codec.rangecoder import Coder
from swsjax.errors import FormatError

__all__ = ["MAX_LEVELS", "code_codebook", "codebook_bits"]

MAX_LEVELS = 2048
"""Maximum number of levels of a codebook; a leaf with more is coded without a codebook."""
_COUNT_BITS = 12
_SHIFT_BITS = 6


def codebook_bits(levels: np.ndarray, width: int) -> int:
    """Estimate the coded size of the levels in bits, to choose between codebooks.

    Args:
        levels: increasing bit patterns.
        width: bits per pattern.

    Example:
        >>> codebook_bits(np.array([16256, 16384], np.uint16), 16)  # 1 and 2 in bfloat16
        36
    """
    shift = _trailing_zeros(levels)
    return _COUNT_BITS + _SHIFT_BITS + levels.size * (width - shift)


def code_codebook(coder: Coder, levels: np.ndarray | None, dtype: npt.DTypeLike) -> np.ndarray:
    """Code the levels of a codebook; return them.

    Trailing zero bits common to all levels are dropped, which saves 16 bits per float32 level
    rounded to bfloat16. Each level is then coded as its difference from the previous level: the
    bit length of the difference with adaptive frequencies, and the bits after the leading one as
    they are.

    Args:
        coder: an Encoder or Decoder.
        levels: increasing bit patterns; ignored when decoding.
        dtype: unsigned type of the patterns.

    Returns:
        The levels, as ``dtype``.

    Raises:
        FormatError: the levels are not increasing or do not fit ``dtype``.

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
        raise FormatError(
            f"codebook has {count} levels and drops {shift} of {width} bits; expected 1 to "
            f"{MAX_LEVELS} levels and fewer than {width} bits"
        )
    lengths = np.ones(width + 1, np.int64)  # 1 + 10 * count of each bit length
    out, previous = [], 0
    for i in range(count):
        distance = (int(known[i]) >> shift) - previous if coder.writes else 1
        length = int(coder.symbols(lengths, np.array([distance.bit_length()]))[0])
        lengths[length] += 10
        if length == 0:
            raise FormatError("codebook has two equal levels; expected increasing levels")
        rest = coder.integer(distance - (1 << (length - 1)), length - 1)
        previous += (1 << (length - 1)) + rest
        out.append(previous << shift)
    if previous >> (width - shift) > 0:
        raise FormatError(f"codebook has a level of more than {width} bits")
    return np.array(out, dtype)


def _trailing_zeros(levels: np.ndarray) -> int:
    """Number of trailing zero bits common to all levels."""
    union = int(np.bitwise_or.reduce(levels)) if levels.size else 0
    return (union & -union).bit_length() - 1 if union else 0
