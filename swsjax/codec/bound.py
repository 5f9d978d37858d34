"""Entropy bound of a code that treats positions and values as i.i.d. within each leaf."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from swsjax.codec.bits import bits_of, levels_of

__all__ = ["EntropyBound", "entropy_bound"]

_MAX_LEVELS = 2**16


class EntropyBound(NamedTuple):
    """Minimum bits of a leaf under any code with one density and one value distribution per leaf.

    The bound is the sum of ``positions``, ``values`` and ``codebook``. A leaf that is smaller
    uncompressed has only ``raw``.
    """

    positions: float = 0.0
    values: float = 0.0
    codebook: float = 0.0
    raw: float = 0.0

    @property
    def total(self) -> float:
        """Total bits of the leaf."""
        return sum(self)


def entropy_bound(arrays: Iterable[np.ndarray]) -> list[EntropyBound]:
    """Return the iid entropy bound of every array.

    For a leaf of N weights, n of them non-zero with empirical level frequencies f_k:
    ``positions = N * H2(n / N)`` with H2 the binary entropy, ``values = -n * sum_k f_k log2 f_k``,
    and ``codebook = 8 * itemsize`` for every level that no earlier leaf of the same element
    width used. This is a shared codebook, never larger than separate ones.

    Args:
        arrays: NumPy arrays, one per leaf.

    Returns:
        A list of :class:`EntropyBound`, in bits.

    Example:
        >>> kernel = np.zeros((4, 8), np.float32)
        >>> kernel[0, 3] = kernel[3, 7] = 0.5
        >>> bound = entropy_bound([kernel])[0]
        >>> round(bound.positions, 2), bound.values, bound.codebook
        (10.79, 0.0, 32.0)
    """
    seen: dict[int, np.ndarray] = {}
    out = []
    for array in arrays:
        bits = bits_of(array)
        width = bits.dtype.itemsize
        raw = EntropyBound(raw=8.0 * width * bits.size)
        levels = levels_of(bits, _MAX_LEVELS)
        if levels is None:
            out.append(raw)
            continue
        known = seen.get(width, levels[:0])
        union = np.union1d(known, levels)
        nonzero = bits[bits != 0]
        counts = np.bincount(np.searchsorted(levels, nonzero), minlength=levels.size)
        bound = EntropyBound(
            _entropy_bits([nonzero.size, bits.size - nonzero.size]),
            _entropy_bits(counts.tolist()),
            8.0 * width * (union.size - known.size),
        )
        if bound.total < raw.total:
            seen[width] = union
            out.append(bound)
        else:
            out.append(raw)
    return out


def _entropy_bits(counts: Sequence[int]) -> float:
    """Bits of a sequence with these symbol counts at its empirical entropy."""
    total = sum(counts)
    return math.fsum(n * math.log2(total / n) for n in counts if n)
