"""Values of options: from the text of the command line to what it stands for."""

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

__all__ = ["budget", "number", "path", "share", "size", "sizes", "whole"]

_MOST = 2.0**63
_SECONDS = {"min": 60, "h": 3_600}
_FACTORS = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def path(text: str) -> Path:
    """Return a path.

    Raises:
        ArgumentTypeError: the text is empty, or has a character that no path has.

    >>> path("runs/net").name
    'net'
    """
    if not text or "\0" in text:
        raise ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return what reads an integer between two bounds.

    >>> whole(0, 9)("7")
    7
    """
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise ArgumentTypeError(f"expected an integer {limits}, got {text!r}")
        return value

    return read


def number(text: str) -> float:
    """Return a finite number.

    Raises:
        ArgumentTypeError: the text is none.

    >>> number("2e-6")
    2e-06
    """
    value = _float(text)
    if not math.isfinite(value):
        raise ArgumentTypeError(f"expected a number, got {text!r}")
    return value


def share(text: str) -> float:
    """Return a share of a whole, with or without a percent sign.

    Raises:
        ArgumentTypeError: the text is none, or not from 0 to 1.

    >>> share("0.5%"), share("0.02")
    (0.005, 0.02)
    """
    value = _float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"expected 0.5% or 0.005, got {text!r}")
    return value


def size(text: str) -> int:
    """Return a number of bytes or steps, of which k, M and G are multiples.

    Raises:
        ArgumentTypeError: the text is none, less than 1, or needs more than 64 bits.

    >>> size("100k"), size("1.5M"), size("800")
    (100000, 1500000, 800)
    """
    factor = _FACTORS.get(text[-1:], 1)
    value = _float(text[:-1] if factor > 1 else text) * factor
    if not 1 <= value < _MOST:
        raise ArgumentTypeError(f"expected 100k or 100000, got {text!r}")
    return round(value)


def budget(text: str) -> int | timedelta:
    """Return a number of steps, or a time in minutes or hours.

    Raises:
        ArgumentTypeError: the text is neither, or the time is less than a second.

    >>> budget("20k"), budget("10min"), budget("1.5h")
    (20000, datetime.timedelta(seconds=600), datetime.timedelta(seconds=5400))
    """
    try:
        for unit, seconds in _SECONDS.items():
            if text.endswith(unit):
                return timedelta(seconds=size(f"{_float(text.removesuffix(unit)) * seconds}"))
        return size(text)
    except (ArgumentTypeError, OverflowError):
        raise ArgumentTypeError(f"expected 20k, 20000, 10min or 2h, got {text!r}") from None


def sizes(text: str) -> list[int]:
    """Return several numbers of bytes, separated by commas.

    Raises:
        ArgumentTypeError: one is none.

    >>> sizes("100k,50k")
    [100000, 50000]
    """
    try:
        return [size(one) for one in text.split(",")]
    except ArgumentTypeError:
        raise ArgumentTypeError(
            f"expected 100k, 100000 or several as 100k,50k, got {text!r}"
        ) from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
