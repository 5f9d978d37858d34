"""Probabilities in fixed point: logarithm, logistic function and the mixing of predictions.

Every number is an integer, so that a file decodes to the same bits on every machine. A logit is a
natural logarithm in units of 1/256; a probability is an integer from 1 to 65535, in units of
2**-16. The tables are made with :mod:`decimal`, whose ``ln`` and ``exp`` are correctly rounded by
specification; the platform's mathematical library is never asked.
"""

import functools
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

import numpy as np
import numpy.typing as npt

__all__ = ["LOGIT_LIMIT", "ONE", "Mixer", "ln_q16", "rate_logit", "squash_table"]

ONE = 1 << 16
"""A probability of 1."""
LOGIT_LIMIT = 2839
"""The last logit whose probability is not 0 or 1 when rounded."""
_LN_BITS = 10
_STEP = 26843546  # 1.6 * 2**24
_WEIGHT_LIMIT = 16 * ONE
_EXACT = Context(prec=25, rounding=ROUND_HALF_EVEN, traps=[])  # not the caller's settings


def _rounded(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_HALF_EVEN))


@functools.cache
def _ln_table() -> tuple[np.ndarray, int]:
    """``ln(1 + (i + 1/2) / 1024)`` in units of 2**-16, and ``ln 2``."""
    with localcontext(_EXACT):
        size = Decimal(1 << _LN_BITS)
        table = [_rounded((1 + (i + Decimal("0.5")) / size).ln() * ONE) for i in range(int(size))]
        return np.array(table, np.int64), _rounded(Decimal(2).ln() * ONE)


@functools.cache
def squash_table() -> np.ndarray:
    """Return ``round(2**16 / (1 + exp(-z / 256)))`` for z from -LOGIT_LIMIT to LOGIT_LIMIT.

    The values are integers from 1 to 65535 held in ``float64``, which the range coder wants.

    Example:
        >>> squash_table()[[0, LOGIT_LIMIT, -1]].tolist()
        [1.0, 32768.0, 65535.0]
    """
    with localcontext(_EXACT):
        upper = [_rounded(ONE / (1 + (-Decimal(z) / 256).exp())) for z in range(LOGIT_LIMIT + 1)]
    table = np.array([ONE - p for p in upper[:0:-1]] + upper, np.float64)
    table.flags.writeable = False
    return table


def ln_q16(values: npt.ArrayLike) -> np.ndarray:
    """Return the natural logarithm of positive integers below 2**53, in units of 2**-16.

    With e the position of the highest set bit and i the ten bits after it, the result is
    ``e * ln 2 + ln(1 + (i + 1/2) / 1024)``, each rounded to a multiple of 2**-16: within 0.0005.

    Example:
        >>> (ln_q16(np.array([1, 2, 1000])) / 65536).round(3).tolist()
        [0.0, 0.694, 6.908]
    """
    table, ln2 = _ln_table()
    pattern = np.asarray(values).astype(np.float64).view(np.int64)
    exponent = (pattern >> 52) - 1023
    return ln2 * exponent + table[(pattern >> (52 - _LN_BITS)) & ((1 << _LN_BITS) - 1)]


def rate_logit(
    ones: np.ndarray, trials: np.ndarray | int, prior: np.ndarray | int, strength: int
) -> np.ndarray:
    """Return the logit of ``(ones + strength * prior) / (trials + strength)``.

    Args:
        ones: integer array, how often the event happened.
        trials: integer or array, out of how many times; never less than ``ones``.
        prior: probability in units of 2**-16 (integer or array).
        strength: how many trials the prior counts as.

    Example:
        >>> int(rate_logit(np.array([3]), 10, 1 << 15, 2)[0])  # ln(4 / 8) * 256
        -178
    """
    yes = (ones << 16) + strength * prior
    no = ((trials - ones) << 16) + strength * (ONE - prior)
    return (ln_q16(yes) - ln_q16(no)) >> 8


class Mixer:
    """Logistic mixing: predictions are weighted in the logit domain, the weights learn online.

    The mixed logit is ``floor(sum_i w_i x_i / 2**16)``, weights in units of 2**-16. After a block
    of decisions each weight takes a step along its gradient, divided by the curvature seen so
    far: ``w_i += 1.6 * sum(x_i * error) / (patience + sum(x_i**2 * p * (1 - p)))``. There may be
    several sets of weights, each for its own kind of decisions.

    Args:
        weights: starting weights; rounded to multiples of 2**-16.
        patience: how much curvature the starting weights are worth.
        sets: number of sets of weights.

    Example:
        >>> mixer, inputs = Mixer([0.5, 0.5], patience=50), np.array([[512.0] * 9, [-512.0] * 9])
        >>> before = mixer.mix(inputs)
        >>> mixer.learn(inputs, before, np.ones(9))  # the first input was right
        >>> float(before[0]), float(mixer.mix(inputs)[0])
        (32768.0, 47556.0)

    References:
        Mahoney: Adaptive weighing of context models for lossless data compression. Florida Tech
        CS-2005-16 (logistic mixing, with a fixed rate).
    """

    # Inputs are integers in float64 arrays: all sums stay below 2**53, so they are exact in
    # whatever order a BLAS adds them up.

    def __init__(self, weights: Iterable[float], patience: int, sets: int = 1) -> None:
        weights = list(weights)
        self._weights = [[round(w * ONE) for w in weights] for _ in range(sets)]
        self._curvature = [[patience << 32] * len(weights) for _ in range(sets)]
        self.size = len(weights)

    def mix(self, inputs: np.ndarray, choice: np.ndarray | None = None) -> np.ndarray:
        """Return probabilities (integers in ``float64``) of decisions.

        Args:
            inputs: (size, n) logits; clipped to +-LOGIT_LIMIT in place.
            choice: (n,) which set of weights to use; the first for all by default.
        """
        np.clip(inputs, -LOGIT_LIMIT, LOGIT_LIMIT, out=inputs)
        mixed = np.array(self._weights, np.float64) @ inputs
        mixed = mixed[0] if choice is None else mixed[choice, np.arange(choice.size)]
        logit = mixed.astype(np.int64) >> 16
        np.clip(logit, -LOGIT_LIMIT, LOGIT_LIMIT, out=logit)
        logit += LOGIT_LIMIT
        return squash_table()[logit]

    def learn(
        self,
        inputs: np.ndarray,
        probabilities: np.ndarray,
        bits: np.ndarray,
        choice: np.ndarray | None = None,
    ) -> None:
        """Move the weights after at most 2**15 decisions came out as ``bits``."""
        error = bits * float(ONE) - probabilities
        variance = np.floor(probabilities * (ONE - probabilities) / ONE)
        if choice is None:
            uses = np.ones((1, error.size))
        else:
            uses = (choice == np.arange(len(self._weights))[:, None]).astype(np.float64)
        gradient = (uses * error) @ inputs.T
        curvature = (uses * variance) @ (inputs * inputs).T
        for j, weights in enumerate(self._weights):
            for i in range(self.size):
                self._curvature[j][i] += int(curvature[j, i])
                step = int(gradient[j, i]) * _STEP // self._curvature[j][i]
                weights[i] = min(max(weights[i] + step, -_WEIGHT_LIMIT), _WEIGHT_LIMIT)
