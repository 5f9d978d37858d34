"""Byte strings and variable-length integers, with file offsets in error messages."""

from swsjax.errors import FormatError

__all__ = ["ByteReader", "varint"]

_MAX_VARINT_BYTES = 9  # 63 bits: every size fits a signed 64-bit integer


def varint(value: int) -> bytes:
    """Encode a non-negative integer below 2**63 in 7-bit groups, least significant first.

    Every byte but the last has its high bit set (unsigned LEB128).

    Example:
        >>> varint(300)
        b'\\xac\\x02'
    """
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class ByteReader:
    """Reads a byte string from front to back.

    Args:
        data: the bytes.
        stop: offset at which reading ends; by default the end of ``data``.

    Example:
        >>> reader = ByteReader(b"\\xac\\x02xyz")
        >>> reader.varint("size"), reader.take(2, "name"), reader.offset
        (300, b'xy', 4)
    """

    def __init__(self, data: bytes, stop: int | None = None) -> None:
        self._data = data
        self._stop = len(data) if stop is None else stop
        self.offset = 0

    @property
    def remaining(self) -> int:
        """Number of bytes not yet read."""
        return self._stop - self.offset

    def take(self, count: int, what: str) -> bytes:
        """Return the next ``count`` bytes.

        Raises:
            FormatError: fewer than ``count`` bytes are left.
        """
        if count > self.remaining:
            raise FormatError(
                f"{what} at byte {self.offset} needs {count} bytes, {self.remaining} are left"
            )
        start = self.offset
        self.offset += count
        return bytes(self._data[start : self.offset])

    def until(self, mark: bytes, what: str) -> bytes:
        """Return the bytes up to the next ``mark``, and pass it.

        Raises:
            FormatError: ``mark`` does not follow.
        """
        stop = self._data.find(mark, self.offset, self._stop)
        if stop < 0:
            raise FormatError(f"{what} at byte {self.offset} has no end")
        found = bytes(self._data[self.offset : stop])
        self.offset = stop + len(mark)
        return found

    def varint(self, what: str) -> int:
        """Return the next variable-length integer.

        Raises:
            FormatError: the integer ends early, has more than 9 bytes, or is not in shortest form.
        """
        start, value = self.offset, 0
        for position in range(_MAX_VARINT_BYTES):
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                if byte == 0 and position > 0:
                    raise FormatError(f"{what} at byte {start} is not in its shortest form")
                return value
        raise FormatError(f"{what} at byte {start} has more than {_MAX_VARINT_BYTES} bytes")
