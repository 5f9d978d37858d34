"""Leaves that are a unit times levels of one codebook: ``leaf = unit * level``, exact in float32.

A float32 number is an odd integer, its *mantissa* here, times a power of two. The mantissa of an
exact product is the product of the mantissas. Units are therefore found by exact division.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from swsjax.errors import FormatError

__all__ = [
    "ONE",
    "SHIFT_BITS",
    "UNIT_BITS",
    "WITH_UNITS",
    "checked_unit",
    "divided",
    "find_units",
    "may_have_unit",
    "multiplied",
    "unit_shift",
]

ONE = 0x3F800000
"""Bit pattern of the unit 1.0, that of a leaf without a unit."""
UNIT_BITS = 31
"""Bits of the pattern of a unit, which is positive."""
SHIFT_BITS = 5
"""Bits of a number of trailing zeros of that pattern."""
WITH_UNITS = np.dtype(np.uint32)
"""The pattern type whose shared codebook may have units."""
_INFINITY = 0x7F800000
_FRACTION = 0x007FFFFF  # zero in the pattern of a power of two
_MOST_LEVELS = 256  # leaves with more are not searched
_LEVEL_BITS = 8  # maximum length of the mantissa of a level, as in bfloat16
_MOST_PAIRS = 1 << 16  # limits the time of the search per leaf,
_MOST_PAIRS_IN_ALL = 1 << 24  # and of the whole search
_MANTISSA_BITS = 24
_EXPONENT_SPAN = 1024  # more than twice the difference of any two float32 exponents
_SMALLEST, _LARGEST = 2.0**-126, 2.0**128  # range of the normal float32 numbers


class _Odd(NamedTuple):
    """Values as signed odd mantissas times powers of two."""

    mantissas: np.ndarray
    exponents: np.ndarray


def find_units(levels: Sequence[np.ndarray]) -> list[int] | None:
    """Return the unit of every leaf, so that few distinct levels remain over all leaves.

    A unit :math:`u` is a positive float32 number by which all levels of a leaf are divisible:
    each is exactly :math:`u c` with an entry :math:`c` of at most 8 significant bits. The leaves
    are taken in order of their number of levels. The mantissa of the first unit is the greatest
    common divisor of the mantissas. For the other leaves, every quotient of a level and an earlier
    entry is a candidate; that which occurs most often makes the most entries coincide.

    Args:
        levels: the distinct non-zero bit patterns of every leaf, ``uint32``.

    Returns:
        The bit patterns of the units, :data:`ONE` for a leaf that has none; None if no leaf has a
        unit, or if all units are the same power of two.

    Example:
        >>> book, unit = np.float32([0.5, 0.75, -1.5]), np.float32(0.3125)
        >>> units = find_units([book.view(np.uint32), (unit * book[:2]).view(np.uint32)])
        >>> np.array(units, np.uint32).view(np.float32)
        array([1.    , 0.3125], dtype=float32)
    """
    units = [ONE] * len(levels)
    members = {i: odd for i, leaf in enumerate(levels) if (odd := _odd_parts(leaf)) is not None}
    book = np.zeros(0, np.uint32)
    odd_book = _odd_of(book)
    used: set[int] = set()
    pairs = 0
    for i in sorted(members, key=lambda i: -levels[i].size):
        pairs += levels[i].size * book.size
        known = odd_book if pairs <= _MOST_PAIRS_IN_ALL else _odd_of(book[:0])
        unit = _best_unit(members[i], known, levels[i], used)
        if unit is not None:
            units[i] = unit
            used.add(unit)
            grown = np.union1d(book, divided(levels[i], unit))
            if grown.size > book.size:
                book, odd_book = grown, _odd_of(grown)
    trivial = len(used) < 2 and all(unit & _FRACTION == 0 for unit in used)
    return None if trivial else units


def may_have_unit(levels: np.ndarray) -> bool:
    """Return whether :func:`find_units` considers a leaf of these levels.

    Example:
        >>> unit = np.float32(0.3125)
        >>> [may_have_unit(np.float32(x).view(np.uint32)) for x in ([unit, 3 * unit], [0.1, 0.7])]
        [True, False]
    """
    return _odd_parts(levels) is not None


def multiplied(levels: np.ndarray, unit: int) -> np.ndarray:
    """Return the bit patterns of levels times a unit; infinities and NaN stay as they are.

    The product is that of IEEE 754, rounded to nearest, ties to even. It keeps the order of the
    levels.

    Args:
        levels: bit patterns, ``uint32``.
        unit: bit pattern of a positive float32 number.

    Example:
        >>> two = np.array([2.0], np.float32).view(np.uint32)
        >>> multiplied(two, int(two[0])).view(np.float32)
        array([4.], dtype=float32)
    """
    if unit == ONE:
        return levels
    with np.errstate(all="ignore"):
        products = levels.view(np.float32) * _value(unit)
    return np.where((levels & _INFINITY) == _INFINITY, levels, products.view(np.uint32))


def divided(levels: np.ndarray, unit: int) -> np.ndarray:
    """Return the bit patterns of the entries of which a unit found makes the levels.

    Args:
        levels: bit patterns, ``uint32``, of a leaf.
        unit: bit pattern of its unit, from :func:`find_units`.

    Example:
        >>> levels = np.array([3.0, 6.0], np.float32).view(np.uint32)
        >>> divided(levels, int(levels[0])).view(np.float32)
        array([1., 2.], dtype=float32)
    """
    if unit == ONE:
        return levels
    return (levels.view(np.float32) / _value(unit)).view(np.uint32)


def checked_unit(unit: int) -> int:
    """Return the bit pattern of a unit that was read from a file.

    Raises:
        FormatError: it is not a positive normal float32 number.

    Example:
        >>> checked_unit(ONE) == ONE
        True
    """
    if not _FRACTION < unit < _INFINITY:
        raise FormatError(f"unit has bit pattern {unit:#x}, expected a positive normal float32")
    return unit


def unit_shift(units: Sequence[int]) -> int:
    """Return the number of trailing zero bits common to all units; 0 without units.

    Example:
        >>> unit_shift([ONE, 0x3FC00000])
        22
    """
    union = int(np.bitwise_or.reduce(units)) if units else 0
    return (union & -union).bit_length() - 1 if union else 0


def _value(unit: int) -> np.ndarray:
    return np.array(unit, np.uint32).view(np.float32)


def _odd_parts(levels: np.ndarray) -> _Odd | None:
    """Return the parts of a leaf's levels, or None if the leaf can have no unit."""
    if not 0 < levels.size <= _MOST_LEVELS:
        return None
    sizes = np.abs(levels.view(np.float32))
    sizes = sizes[sizes != 0]  # -0.0 is -0.0 in any unit
    if not sizes.size or not (np.isfinite(sizes) & (sizes >= _SMALLEST)).all():
        return None
    odd = _odd_of(levels)
    mantissas = np.abs(odd.mantissas)
    if int(mantissas.max()) // int(np.gcd.reduce(mantissas)) >> _LEVEL_BITS:
        return None
    return odd


def _odd_of(levels: np.ndarray) -> _Odd:
    """Write every level but -0.0 as an odd mantissa times a power of two."""
    values = levels.view(np.float32).astype(np.float64)
    fraction, exponent = np.frexp(values[values != 0])
    whole = (fraction * (1 << _MANTISSA_BITS)).astype(np.int64)
    lowest = whole & -whole
    zeros = np.frexp(lowest.astype(np.float64))[1] - 1
    return _Odd(whole // lowest, exponent.astype(np.int64) - _MANTISSA_BITS + zeros)


def _best_unit(leaf: _Odd, book: _Odd, levels: np.ndarray, used: set[int]) -> int | None:
    """Return the unit that makes the most levels of a leaf coincide with entries of the book.

    Of equally good units, one of an earlier leaf is best, then the one of fewest bits. Without any
    coincidence the largest level becomes one from 1 to 2.
    """
    mantissas = np.abs(leaf.mantissas)
    divisor, largest = int(np.gcd.reduce(mantissas)), int(mantissas.max())
    keys, counts = _quotients(leaf, book, divisor, largest)
    candidates = []
    for key in keys[counts == counts.max(initial=0)].tolist():
        mantissa, exponent = divmod(key, _EXPONENT_SPAN)
        unit = mantissa * 2.0 ** (exponent - _EXPONENT_SPAN // 2)
        candidates.append((_pattern(unit) not in used, mantissa.bit_length(), unit))
    greatest = float(np.abs(levels.view(np.float32)).max())
    alone = divisor * 2.0 ** (int(np.frexp(greatest / divisor)[1]) - 1)
    for unit in (*(unit for _, _, unit in sorted(candidates)), alone):
        if _fits(levels, unit):
            return _pattern(unit)
    return None


def _quotients(leaf: _Odd, book: _Odd, divisor: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the possible units as keys, mantissa and exponent, and how often each occurs.

    A level and a unit determine the entry, so that no unit occurs twice for one level.
    """
    if leaf.mantissas.size * book.mantissas.size > _MOST_PAIRS:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    quotient, rest = np.divmod(leaf.mantissas[:, None], book.mantissas[None])
    quotient = np.where((rest == 0) & (quotient > 0), quotient, 0)
    at_least_one = np.maximum(quotient, 1)
    divides = (quotient > 0) & (divisor % at_least_one == 0)
    divides &= largest // at_least_one < 1 << _LEVEL_BITS
    exponent = leaf.exponents[:, None] - book.exponents[None] + _EXPONENT_SPAN // 2
    return np.unique((quotient * _EXPONENT_SPAN + exponent)[divides], return_counts=True)


def _fits(levels: np.ndarray, unit: float) -> bool:
    """Whether the unit and all quotients are normal float32 numbers, and all products exact."""
    if not _SMALLEST <= unit < _LARGEST:
        return False
    sizes = np.abs(levels.view(np.float32).astype(np.float64)) / unit
    sizes = sizes[sizes != 0]
    if not ((sizes >= _SMALLEST) & (sizes < _LARGEST)).all():
        return False
    pattern = _pattern(unit)
    return bool((multiplied(divided(levels, pattern), pattern) == levels).all())


def _pattern(unit: float) -> int:
    return int(np.array(unit, np.float32).view(np.uint32)) if unit < _LARGEST else 0
