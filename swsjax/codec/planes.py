"""Byte planes for values with too many levels for a codebook, each raw or entropy coded."""

import numpy as np
import numpy.typing as npt

from swsjax.codec.logistic import ln_q16
from swsjax.codec.rangecoder import Coder
from swsjax.errors import FormatError

__all__ = ["RawSection", "code_planes", "entropy_q16", "planes_q16"]

_FIRST_BLOCK, _LAST_BLOCK = 256, 1 << 16
_BYTE_Q16 = 363409  # ln 256 in units of 2**-16


class RawSection:
    """The uncoded bytes of a file: written by appending, read from the front.

    Args:
        data: the bytes to read; empty when writing.
        where: file offset of ``data``, for messages.

    Example:
        >>> section = RawSection(b"abc")
        >>> section.take(2).tobytes(), section.left
        (b'ab', 1)
    """

    def __init__(self, data: bytes = b"", where: int = 0) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._where = where
        self._taken = 0
        self.parts: list[bytes] = []
        self.size = 0

    def append(self, values: np.ndarray) -> None:
        """Append bytes."""
        self.parts.append(values.tobytes())
        self.size += values.size

    def take(self, count: int) -> np.ndarray:
        """Return the next ``count`` bytes.

        Raises:
            FormatError: fewer than ``count`` bytes are left.
        """
        if count > self.left:
            raise FormatError(
                f"raw values at byte {self._where + self._taken} need {count} bytes, "
                f"{self.left} are left"
            )
        self._taken += count
        return self._data[self._taken - count : self._taken]

    @property
    def left(self) -> int:
        """Number of bytes not yet taken."""
        return self._data.size - self._taken


def entropy_q16(counts: npt.ArrayLike) -> int:
    """Return the empirical entropy of a sequence with these symbol counts, in nats * 2**16.

    Integer arithmetic makes choices based on it the same on every machine.

    Example:
        >>> entropy_q16(np.array([2, 2])) / 45426  # in bits
        4.0
    """
    counts = np.asarray(counts, np.int64)
    counts = counts[counts > 0]
    if counts.size < 2:
        return 0
    return int((counts * (ln_q16(counts.sum()) - ln_q16(counts))).sum())


def planes_q16(values: np.ndarray) -> int:
    """Estimate the cost of byte planes in nats * 2**16.

    Example:
        >>> round(planes_q16(np.arange(1000, dtype=np.uint16)) / 45426 / 8)  # bytes
        1254
    """
    shifts = range(0, 8 * values.dtype.itemsize, 8)
    planes = ((values >> values.dtype.type(shift)).astype(np.uint8) for shift in shifts)
    return sum(min(_plane_q16(plane), plane.size * _BYTE_Q16) for plane in planes)


def _plane_q16(plane: np.ndarray) -> int:
    """Estimate the cost of a plane with frequencies that adapt."""
    counts = np.bincount(plane, minlength=256)
    return entropy_q16(counts) + int((counts > 0).sum()) * _BYTE_Q16


def code_planes(coder: Coder, raw: RawSection, values: np.ndarray) -> None:
    """Code the byte planes of ``values``, least significant byte first.

    A plane that entropy coding would shrink noticeably is coded with frequencies that adapt block
    by block. Any other plane goes to the raw section.

    Args:
        coder: an Encoder or Decoder.
        raw: the :class:`RawSection` to write to or read from.
        values: flat array of bit patterns; filled in when decoding.

    Example:
        >>> from swsjax.codec.rangecoder import Decoder, Encoder
        >>> encoder, section = Encoder(), RawSection()
        >>> code_planes(encoder, section, np.array([258, 3], np.uint16))
        >>> values = np.zeros(2, np.uint16)
        >>> code_planes(Decoder(encoder.getvalue()), RawSection(b"".join(section.parts)), values)
        >>> values.tolist()
        [258, 3]
    """
    width = values.dtype.itemsize
    for place in range(width):
        shift = values.dtype.type(8 * place)
        plane, pays = np.zeros(values.size, np.uint8), 0
        if coder.writes:
            plane = (values >> shift).astype(np.uint8)
            pays = int(_plane_q16(plane) * 64 < plane.size * _BYTE_Q16 * 63)
        if coder.integer(pays, 1):
            plane = _code_adaptively(coder, plane)
        elif coder.writes:
            raw.append(plane)
        else:
            plane = raw.take(values.size)
        if not coder.writes:
            values |= plane.astype(values.dtype) << shift


def _code_adaptively(coder: Coder, plane: np.ndarray) -> np.ndarray:
    """Code bytes with frequencies ``16 * n + 1``, n being the counts in earlier blocks."""
    counts = np.ones(256, np.int64)
    start = 0
    while start < plane.size:
        part = slice(start, start + min(max(_FIRST_BLOCK, start // 2), _LAST_BLOCK))
        plane[part] = coder.symbols(counts, plane[part])
        counts += 16 * np.bincount(plane[part], minlength=256)
        start = part.stop
    return plane
