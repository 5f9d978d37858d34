"""Published sizes and errors of the LeNets on MNIST, to compare with.

Bytes, test error and what the bytes count, as the papers or later papers state them. Decoding a
file of MIRACLE also needs the sender's random numbers.
"""

from typing import NamedTuple

__all__ = ["BY_NET", "Published"]


class Published(NamedTuple):
    """A published result to compare with."""

    label: str
    """Method and year."""
    size_bytes: float
    """Size, as published."""
    error: float
    """From 0 to 1."""
    kind: str
    """What its size counts: a file, bits in a format, or a ratio that counts no positions."""


_FILE, _SHARED, _HAN, _PRUNING = "file", "file, shared randomness", "Han format", "pruning ratio"

BY_NET: dict[str, tuple[Published, ...]] = {
    "lenet-300-100": (
        Published("Deep Compression, 2015", 27_000, 0.0158, _HAN),
        Published("soft weight-sharing, 2017", 16_600, 0.0194, _HAN),
        Published("sparse variational dropout, 2017", 4 * 266_610 / 68, 0.0192, _PRUNING),
        Published("entropy-penalised, 2019", 8_560, 0.019, _FILE),
    ),
    "lenet-5-caffe": (
        Published("Deep Compression, 2015", 44_000, 0.0074, _HAN),
        Published("soft weight-sharing, 2017", 10_600, 0.0097, _HAN),
        Published("sparse variational dropout, 2017", 4 * 431_080 / 280, 0.0075, _PRUNING),
        Published("Bayesian compression, 2017", 2_300, 0.01, _HAN),
        Published("ADMM", 2_730, 0.01, _HAN),
        Published("entropy-penalised, 2019", 2_840, 0.01, _FILE),
        Published("MIRACLE, 2018", 3_030, 0.0069, _SHARED),
        Published("MIRACLE, 2018", 1_520, 0.0096, _SHARED),
        Published("MIRACLE, later code", 1_694, 0.0083, _SHARED),
        Published("MIRACLE, later code", 1_140, 0.0098, _SHARED),
    ),
}
"""By the name of the net on the command line and in the results."""
