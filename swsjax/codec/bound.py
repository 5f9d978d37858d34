"""Entropy bound of a code that treats positions and values as i.i.d. within each leaf."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from swsjax.codec.bits import bits_of, levels_of
from swsjax.codec.units import WITH_UNITS, divided, find_units

__all__ = ["EntropyBound", "entropy_bound"]

_MAX_LEVELS = 2**16
_UNIT_BITS = 32.0


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
    width used. This is a shared codebook, never larger than separate ones. Leaves that are a unit
    times levels of one codebook (:func:`swsjax.codec.units.find_units`) are charged 32 bits each
    for the unit, and only the levels of the codebook, if that is smaller.

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
    leaves = [_measure(bits_of(array)) for array in arrays]
    candidates = {
        i: leaf.levels
        for i, leaf in enumerate(leaves)
        if leaf.bits.dtype == WITH_UNITS and leaf.levels is not None and leaf.levels.size
    }
    units = find_units(list(candidates.values()))
    plain = _charge(leaves, {})
    if not units:
        return plain
    scaled = _charge(leaves, dict(zip(candidates, units, strict=True)))
    return min(plain, scaled, key=lambda bounds: sum(bound.total for bound in bounds))


class _Leaf(NamedTuple):
    """A leaf, its levels if there are few, and its bound without its codebook."""

    bits: np.ndarray
    levels: np.ndarray | None
    bound: EntropyBound


def _measure(bits: np.ndarray) -> _Leaf:
    levels = levels_of(bits, _MAX_LEVELS)
    if levels is None:
        return _Leaf(bits, None, EntropyBound())
    nonzero = bits[bits != 0]
    counts = np.bincount(np.searchsorted(levels, nonzero), minlength=levels.size)
    positions = _entropy_bits([nonzero.size, bits.size - nonzero.size])
    return _Leaf(bits, levels, EntropyBound(positions, _entropy_bits(counts.tolist())))


def _charge(leaves: Sequence[_Leaf], units: Mapping[int, int]) -> list[EntropyBound]:
    """Add the codebooks to the bounds; ``units`` are the units of leaves by index, if any."""
    seen: dict[int, set[int]] = {}
    out = []
    for i, leaf in enumerate(leaves):
        width = leaf.bits.dtype.itemsize
        best = EntropyBound(raw=8.0 * width * leaf.bits.size)
        if leaf.levels is not None:
            levels = divided(leaf.levels, units[i]) if i in units else leaf.levels
            known = seen.setdefault(width, set())
            new = set(levels.tolist()) - known
            codebook = 8.0 * width * len(new) + _UNIT_BITS * (i in units)
            bound = leaf.bound._replace(codebook=codebook)
            if bound.total < best.total:
                known |= new
                best = bound
        out.append(best)
    return out


def _entropy_bits(counts: Sequence[int]) -> float:
    """Bits of a sequence with these symbol counts at its empirical entropy."""
    total = sum(counts)
    return math.fsum(n * math.log2(total / n) for n in counts if n)
