"""Bit patterns of arrays, and bit strings made of fixed-width fields."""

import numpy as np
import numpy.typing as npt

from swsjax.errors import FormatError

__all__ = ["BitReader", "BitWriter", "bit_width", "bits_of", "levels_of"]


def bits_of(array: np.ndarray) -> np.ndarray:
    """Return the bit patterns of an array as unsigned integers, C-contiguous, flat.

    The codec compares weights by bit pattern, so -0.0 is not zero and every NaN payload is a
    separate level. A 16-byte element (``complex128``) becomes two integers. A 4-bit integer has a
    byte of its own, the upper half of which becomes 0, as it has no meaning.

    Args:
        array: any NumPy array with 1, 2, 4, 8 or 16 bytes per element.

    Returns:
        A flat array of ``uint8``, ``uint16``, ``uint32`` or ``uint64``; a view where possible.

    Example:
        >>> bits_of(np.array([[0.0, -0.0, 1.0]], np.float32)).tolist()
        [0, 2147483648, 1065353216]
    """
    array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    width = min(array.dtype.itemsize, 8)
    bits = np.ascontiguousarray(array).reshape(-1).view(f"u{width}")
    return bits & 0xF if array.dtype.name in ("int4", "uint4") else bits


def levels_of(bits: np.ndarray, limit: int) -> np.ndarray | None:
    """Return the distinct non-zero values of ``bits``, increasing, or None if over ``limit``.

    Floating-point patterns come out as the positive levels by magnitude, then the negative levels
    by magnitude.

    Args:
        bits: flat array of unsigned integers.
        limit: maximum number of levels; the search stops as soon as there are more.

    Example:
        >>> levels_of(np.array([0, 7, 0, 3, 7], np.uint8), 2).tolist()
        [3, 7]
    """
    found = bits[:0]
    start, block = 0, 1 << 16
    while start < bits.size:
        part = bits[start : start + block]
        found = np.union1d(found, part[part != 0])
        if found.size > limit:
            return None
        start, block = start + block, 1 << 20
    return found


def bit_width(largest: int) -> int:
    """Return the width in bits of a field that holds any integer from 0 to ``largest``.

    Example:
        >>> [bit_width(n) for n in (0, 1, 2, 255, 256)]
        [0, 1, 2, 8, 9]
    """
    return int(largest).bit_length()


class BitWriter:
    """Writes fixed-width fields, most significant bit first.

    Example:
        >>> writer = BitWriter()
        >>> writer.write([5, 1], width=4)
        >>> writer.bit_count, writer.getvalue()
        (8, b'Q')
    """

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self.bit_count = 0

    def write(self, values: npt.ArrayLike, width: int) -> None:
        """Append every value as a field of ``width`` bits."""
        values = np.atleast_1d(np.asarray(values, np.uint64))
        shifts = np.arange(width - 1, -1, -1, dtype=np.uint64)
        for start in range(0, values.size, 1 << 18):  # bounds the 64-bit temporaries
            part = values[start : start + (1 << 18), None] >> shifts
            self.write_bits((part & np.uint64(1)).astype(np.uint8).reshape(-1))

    def write_bits(self, bits: np.ndarray) -> None:
        """Append an array of zeros and ones."""
        self._parts.append(bits)
        self.bit_count += bits.size

    def getvalue(self) -> bytes:
        """Return the bytes written so far; unused bits of the last byte are zero."""
        if not self._parts:
            return b""
        return np.packbits(np.concatenate(self._parts)).tobytes()


class BitReader:
    """Reads fixed-width fields, most significant bit first.

    Args:
        data: the bytes to read.
        where: offset of ``data`` in its file, for messages.

    Example:
        >>> BitReader(b"Q").read(2, width=4).tolist()
        [5, 1]
    """

    def __init__(self, data: bytes, where: int = 0) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._where = where
        self.position = 0

    @property
    def offset(self) -> int:
        """File offset of the byte that holds the next bit."""
        return self._where + self.position // 8

    @property
    def remaining(self) -> int:
        """Number of bits not yet read."""
        return 8 * self._data.size - self.position

    def read_bits(self, count: int) -> np.ndarray:
        """Return the next ``count`` bits as an array of zeros and ones.

        Raises:
            FormatError: fewer than ``count`` bits are left.
        """
        if count > self.remaining:
            raise FormatError(
                f"bit stream ends early: {count} more bits expected at byte {self.offset}, "
                f"{self.remaining} left"
            )
        start, stop = self.position, self.position + count
        self.position = stop
        bits = np.unpackbits(self._data[start // 8 : (stop + 7) // 8])
        return bits[start % 8 : start % 8 + count]

    def read(self, count: int, width: int, dtype: npt.DTypeLike = np.uint64) -> np.ndarray:
        """Return the next ``count`` fields of ``width`` bits.

        Raises:
            FormatError: fewer than ``count * width`` bits are left.
        """
        if count * width > self.remaining:
            self.read_bits(count * width)
        out = np.zeros(count, dtype)
        for start in range(0, count if width else 0, 1 << 18):
            part = np.zeros(min(1 << 18, count - start), np.uint64)
            fields = self.read_bits(part.size * width).reshape(part.size, width)
            for column in range(width):
                part <<= np.uint64(1)
                part |= fields[:, column]
            out[start : start + part.size] = part
        return out

    def read_int(self, width: int) -> int:
        """Return one field as a Python integer."""
        return int(self.read(1, width)[0])
