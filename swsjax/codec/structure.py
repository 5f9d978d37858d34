"""Structure that helps to predict a matrix: orientation, neighbouring rows, linked layers."""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from swsjax.codec.bits import bit_width
from swsjax.codec.header import Shape
from swsjax.codec.logistic import ONE, ln_q16, rate_logit
from swsjax.codec.rangecoder import Coder
from swsjax.errors import FormatError

__all__ = ["Neighbours", "Profiles", "Structure", "code_structure", "find_structure", "taps"]

_NO_NEIGHBOURS, _TAPS, _OFFSETS = range(3)
_NEIGHBOUR_BITS, _OFFSET_BITS = 2, 12
_REMEMBERED, _MOST_LINKS = 64, 8
_LINK_PRIOR = 2
# Minimum gains over chance, in nats * 2**16, for a structure to be used.
_SEARCH_GAIN, _TAPS_GAIN, _LINK_GAIN = 100 * ONE, 10 * ONE, 20 * ONE
_SEARCH_BYTES = 1 << 28


class Neighbours:
    """Rows that are spatial neighbours, as offsets between row indexes.

    The rows of a dense layer on images are pixels: the pixel to the right is ``step`` rows further,
    the pixel below ``line`` rows. The taps of a convolution kernel have such offsets as well.

    Args:
        step: row offset to the next neighbour along the first direction.
        line: row offset to the next neighbour along the second direction; 0 for none.

    Example:
        >>> Neighbours(1, 28).near
        [1, -1, 28, -28]
    """

    def __init__(self, step: int, line: int) -> None:
        self.step, self.line = step, line
        near = [step, line] if line else [step]
        middle = [2 * step, 2 * line, line - step, line + step] if line else [2 * step]
        self.near = [sign * offset for offset in near for sign in (1, -1)]
        self.middle = [sign * offset for offset in middle for sign in (1, -1)]


class Structure(NamedTuple):
    """Structure of a matrix.

    ``transposed`` is its orientation; ``neighbours`` are the neighbouring rows after transposition.
    ``link`` is the 1-based index of a profile that fits, or 0 for none. ``even`` means that all
    rows are about equally dense, and all columns too, so their statistics add little.
    """

    transposed: bool = False
    neighbours: Neighbours | None = None
    link: int = 0
    even: bool = False


class Profiles:
    """Number of non-zero weights of each output, for the layers coded so far.

    An output with few incoming weights tends to have few outgoing weights and no bias. The column
    counts of one kernel therefore predict the row densities of the next.

    Example:
        >>> profiles = Profiles()
        >>> profiles.add(np.array([0, 50]), rows=100)  # a kernel (100, 2)
        >>> profiles.logits(2, link=1)
        array([-1079,   276], dtype=int16)
    """

    def __init__(self) -> None:
        self._counts: collections.deque[tuple[np.ndarray, int]] = collections.deque(
            maxlen=_REMEMBERED
        )

    def add(self, column_counts: np.ndarray, rows: int) -> None:
        """Add the column counts of a matrix with ``rows`` rows."""
        if column_counts.size > 1:
            self._counts.append((column_counts, rows))

    def fitting(self, size: int) -> list[tuple[np.ndarray, int]]:
        """Return the latest profiles whose length divides ``size``, latest first."""
        fits = [entry for entry in self._counts if size % entry[0].size == 0]
        return fits[::-1][:_MOST_LINKS]

    def logits(self, size: int, link: int) -> np.ndarray:
        """Return the expected density of each of ``size`` rows relative to the mean, as logits."""
        counts, rows = self.fitting(size)[link - 1]
        mean = (int(counts.sum()) << 16) // (counts.size * rows)
        mean = min(max(mean, 1), ONE - 1)
        density = rate_logit(counts, rows, mean, _LINK_PRIOR)
        plain = rate_logit(np.zeros(1, np.int64), 0, mean, _LINK_PRIOR)
        return np.tile((density - plain).astype(np.int16), size // counts.size)


def taps(shape: Shape) -> Neighbours | None:
    """Return the neighbours among the taps of a convolution kernel, or None for other shapes.

    Example:
        >>> taps((5, 5, 20, 50)).near
        [20, -20, 100, -100]
    """
    if len(shape) < 3:
        return None
    line = shape[-2] * shape[-3] if len(shape) > 3 else 0
    return Neighbours(shape[-2], line)


def find_structure(mask: np.ndarray, shape: Shape, profiles: Profiles) -> Structure:
    """Choose the structure of a mask, in integer arithmetic: the same on every machine.

    Args:
        mask: (rows, columns) zeros and ones.
        shape: shape of the leaf before it became a matrix.
        profiles: :class:`Profiles` of the leaves coded before.

    Example:
        >>> find_structure(np.ones((3, 100), np.uint8), (3, 100), Profiles()).transposed
        True
    """
    transposed, neighbours = _find_neighbours(mask, shape)
    counts = mask.sum(axis=0 if transposed else 1, dtype=np.int64)
    gains = _link_gains(counts, [profile for profile, _ in profiles.fitting(counts.size)])
    link = 0
    if gains and max(gains) > _LINK_GAIN:
        link = gains.index(max(gains)) + 1
    even = not neighbours and not link and all(_is_even(mask.sum(k, np.int64)) for k in (0, 1))
    return Structure(transposed, neighbours, link, even)


def code_structure(
    coder: Coder,
    structure: Structure | None,
    shape: Shape,
    matrix_shape: tuple[int, int],
    profiles: Profiles,
) -> Structure:
    """Code a structure; return it.

    Args:
        coder: an Encoder or Decoder.
        structure: what :func:`find_structure` returned; ignored when decoding.
        shape: shape of the leaf.
        matrix_shape: rows and columns of its matrix.
        profiles: :class:`Profiles` of the leaves coded before.

    Raises:
        FormatError: the structure does not fit the matrix.

    Example:
        >>> from swsjax.codec.rangecoder import Decoder, Encoder
        >>> encoder, matrix = Encoder(), (784, 300)
        >>> structure = Structure(neighbours=Neighbours(1, 28))
        >>> structure = code_structure(encoder, structure, matrix, matrix, Profiles())
        >>> decoder = Decoder(encoder.getvalue())
        >>> code_structure(decoder, None, matrix, matrix, Profiles()).neighbours.line
        28
    """
    known = structure or Structure()
    neighbours = None
    rows, columns = matrix_shape
    transposed = rows < columns
    if min(rows, columns) > 1:
        transposed = bool(coder.integer(int(known.transposed), 1))
        neighbours = _code_neighbours(coder, known.neighbours, taps(shape))
    if transposed:
        rows, columns = columns, rows
    if not _few_diagonals(rows, columns):
        raise FormatError(f"a {rows}x{columns} matrix must be coded transposed")
    fits = len(profiles.fitting(rows))
    link = coder.integer(known.link, bit_width(fits))
    if link > fits:
        raise FormatError(f"link {link} is out of range, expected at most {fits}")
    even = False
    if columns > 1 and not neighbours and not link:
        even = bool(coder.integer(int(known.even), 1))
    return Structure(transposed, neighbours, link, even)


def _code_neighbours(
    coder: Coder, neighbours: Neighbours | None, of_shape: Neighbours | None
) -> Neighbours | None:
    kind = _OFFSETS if neighbours else _NO_NEIGHBOURS
    if neighbours and of_shape and vars(neighbours) == vars(of_shape):
        kind = _TAPS
    kind = coder.integer(kind, _NEIGHBOUR_BITS)
    if kind == _NO_NEIGHBOURS:
        return None
    if kind == _TAPS and of_shape:
        return of_shape
    if kind != _OFFSETS:
        raise FormatError(f"kind of neighbours {kind} is unknown or does not fit the shape")
    step, line = (neighbours.step, neighbours.line) if neighbours else (0, 0)
    return Neighbours(coder.integer(step, _OFFSET_BITS), coder.integer(line, _OFFSET_BITS))


def _few_diagonals(rows: int, columns: int) -> bool:
    """Whether this orientation is allowed; limits the diagonals, as each takes time to code."""
    return columns <= 4 * rows + 64


def _is_even(counts: np.ndarray) -> bool:
    """Whether counts vary no more than Poisson counts with exponentially distributed rates."""
    total = int(counts.sum())
    return int(counts @ counts) * counts.size <= 2 * total**2 + total * counts.size


def _find_neighbours(mask: np.ndarray, shape: Shape) -> tuple[bool, Neighbours | None]:
    """Return the orientation and the neighbours."""
    rows, columns = mask.shape
    if min(rows, columns) < 2:
        return rows < columns, None
    neighbours = taps(shape)
    if neighbours and _few_diagonals(rows, columns):
        offsets = [offset for offset in (neighbours.step, neighbours.line) if 0 < offset < rows]
        if _coincidence_gains(mask, offsets).sum() > _TAPS_GAIN:
            return False, neighbours
    best = _SEARCH_GAIN
    found: tuple[bool, Neighbours | None] = rows < columns, None
    for transposed in (False, True):
        oriented = mask.T if transposed else mask
        if _few_diagonals(*oriented.shape):
            gain, neighbours = _search_offsets(oriented)
            if gain > best:
                best, found = gain, (transposed, neighbours)
    return found


def _search_offsets(mask: np.ndarray) -> tuple[int, Neighbours]:
    """Return the gain of the best offset, and neighbours at the best one or two offsets."""
    rows = mask.shape[0]
    furthest = min(rows - 1, (1 << _OFFSET_BITS) - 1, max(1, _SEARCH_BYTES // rows))
    gains = np.concatenate([[0], _coincidence_gains(mask, range(1, furthest + 1))])
    step = int(gains.argmax())
    gain = int(gains[step])
    gains[[k * step for k in (1, 2, 3) if k * step <= furthest]] = 0
    line = int(gains.argmax())
    if gains[line] <= _SEARCH_GAIN:
        return gain, Neighbours(step, 0)
    return gain, Neighbours(min(step, line), max(step, line))


def _coincidence_gains(mask: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
    """Gain in nats * 2**16 from non-zeros in both of rows r and r + offset, for each offset."""
    rows, columns = mask.shape
    every = max(1, rows * columns // 8 * len(offsets) // _SEARCH_BYTES)
    sample = mask[:, ::every]
    in_row = sample.sum(axis=1, dtype=np.int64)
    in_column = sample.sum(axis=0, dtype=np.int64)
    # By chance, rows r and s are both non-zero in sum_c (k_r n_c / n) (k_s n_c / n) columns.
    weight, total = int(in_column @ in_column), max(int(in_column.sum()), 1)
    packed = np.packbits(sample, axis=1)
    gains = np.zeros(len(offsets), np.int64)
    for i, offset in enumerate(offsets):
        met = int(np.bitwise_count(packed[offset:] & packed[:-offset]).sum(dtype=np.int64))
        chance = int(in_row[offset:] @ in_row[:-offset]) * weight // total**2
        if met > chance:
            ratio = int(ln_q16(met)) - int(ln_q16(max(chance, 1)))
            gains[i] = met * ratio - (met - chance) * ONE
    return gains


def _link_gains(counts: np.ndarray, profiles: Sequence[np.ndarray]) -> list[int]:
    """Nats * 2**16 that each profile saves on ``counts``, compared with a uniform density."""
    if not profiles:
        return []
    expected = np.stack([np.tile(2 * p + 1, counts.size // p.size) for p in profiles])
    share = ln_q16(expected) - ln_q16(expected.sum(axis=1, keepdims=True)) + ln_q16(counts.size)
    return (share @ counts).tolist()
