"""Range coding of decisions and symbols with ``constriction``."""

import math
from typing import Any, Literal

import constriction
import numpy as np

from swsjax.codec.logistic import ONE
from swsjax.errors import FormatError

__all__ = ["Coder", "Decoder", "Encoder"]

# ``perfect=False`` selects how constriction rounds probabilities to 24-bit frequencies, as
# specified in docs/format.md, "Range coder".
_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)
_CATEGORICAL = constriction.stream.model.Categorical

# A decision costs at least -log2(1 - 2**-16) bits, so a byte holds at most 8 * 45426 decisions.
# The factor 2 allows for symbols, whose minimum cost is slightly lower.
_DECISIONS_PER_BYTE = 2 * 8 * 45426
_SPARE_BYTES = 16  # for the state of the coder and the words dropped at the end


class Encoder:
    """Writes decisions, symbols and integers to a range-coded string.

    :class:`Encoder` and :class:`Decoder` have the same methods, so each model is written once for
    both directions. A model passes its decisions, or anything when decoding, and continues with
    the decisions returned.

    Example:
        >>> encoder = Encoder()
        >>> bits = encoder.code(np.array([9000.0, 60000.0]), np.array([0, 1]))
        >>> number = encoder.integer(5, width=3)
        >>> decoder = Decoder(encoder.getvalue())
        >>> decoder.code(np.array([9000.0, 60000.0])).tolist(), decoder.integer(None, width=3)
        ([0, 1], 5)
    """

    writes: Literal[True] = True
    where = 0

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def code(self, probabilities: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Write ``bits``, given their probabilities of being 1 in units of 2**-16; return them."""
        self._coder.encode(bits.astype(np.int32), _BERNOULLI, probabilities / ONE)
        return bits

    def symbols(self, counts: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Write ``symbols`` with frequencies proportional to ``counts``; return them."""
        model = _CATEGORICAL(counts.astype(np.float64), perfect=False)
        self._coder.encode(symbols.astype(np.int32), model)
        return symbols

    def integer(self, value: int, width: int) -> int:
        """Write an integer of ``width`` equally likely bits; return it."""
        bits = np.array([value >> place & 1 for place in range(width - 1, -1, -1)], np.int32)
        self.code(np.full(width, ONE // 2, np.float64), bits)
        return value

    @property
    def bits(self) -> float:
        """Information written so far, in bits."""
        position, (_, width) = self._coder.pos()
        return 32 * position + 64 - math.log2(width)

    def getvalue(self) -> bytes:
        """Return the coded bytes with the shortest ending that decodes; empty if none was coded."""
        words = self._coder.get_compressed().astype(">u4").tobytes()
        position, (lower, width) = self._coder.pos()
        if lower + (1 << 32) >= 1 << 64:
            return words  # carry into earlier words: keep the ending of constriction
        for size in range(9):
            unit = 1 << (64 - 8 * size)
            end = -(-lower // unit) * unit
            if end < min(lower + width, 1 << 64):
                return words[: 4 * position] + (end // unit).to_bytes(size, "big")
        raise AssertionError("the coder's interval is never empty")


class Decoder:
    """Reads what :class:`Encoder` wrote.

    Args:
        data: the coded bytes.
        where: file offset of ``data``, for messages.

    Example:
        >>> encoder = Encoder()
        >>> number = encoder.integer(5, width=3)
        >>> Decoder(encoder.getvalue()).integer(None, width=3)
        5
    """

    writes: Literal[False] = False

    def __init__(self, data: bytes, where: int = 0) -> None:
        words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self.where = where
        self._left = (len(data) + _SPARE_BYTES) * _DECISIONS_PER_BYTE

    def code(self, probabilities: np.ndarray, bits: np.ndarray | None = None) -> np.ndarray:
        """Return the next decisions as an array of zeros and ones (``int32``).

        Raises:
            FormatError: the data is damaged or too short.
        """
        return self._decode(_BERNOULLI, probabilities.size, probabilities / ONE)

    def symbols(self, counts: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Return the next ``len(symbols)`` symbols (``int32``).

        Raises:
            FormatError: the data is damaged or too short.
        """
        model = _CATEGORICAL(counts.astype(np.float64), perfect=False)
        return self._decode(model, symbols.size, symbols.size)

    def integer(self, value: int | None, width: int) -> int:
        """Return the next integer of ``width`` bits; ``value`` is ignored."""
        bits = self.code(np.full(width, ONE // 2, np.float64))
        return int("0" + "".join(map(str, bits.tolist())), 2)

    def _decode(self, model: Any, count: int, parameter: Any) -> np.ndarray:
        # Limits the decoding time of a short file: the range decoder itself never ends.
        self._left -= count
        if self._left < 0:
            raise FormatError("the data is too short for what it must contain")
        try:
            return self._coder.decode(model, parameter)
        except AssertionError:  # raised by constriction for a code outside the current interval
            raise FormatError("invalid range code") from None


Coder = Encoder | Decoder
"""Either direction, for code that both encodes and decodes."""
