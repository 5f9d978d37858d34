"""Fixed-point probabilities: logarithm, logistic function, and logistic mixing.

All numbers are integers, so a file decodes to the same bits on every machine. A logit is a natural
logarithm in units of 1/256; a probability is an integer from 1 to 65535, in units of 2**-16. The
tables come from :mod:`decimal`, whose ``ln`` and ``exp`` are correctly rounded by specification,
and not from the platform's mathematical library.
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
"""The largest logit whose rounded probability is below 1."""
_LN_BITS = 10
_STEP = 26843546  # 1.6 * 2**24
_WEIGHT_LIMIT = 16 * ONE
_EXACT = Context(prec=25, rounding=ROUND_HALF_EVEN, traps=[])  # independent of the caller's context


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

    The values are integers from 1 to 65535 in ``float64``, the dtype that the range coder takes.

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
    ``e * ln 2 + ln(1 + (i + 1/2) / 1024)``, each rounded to a multiple of 2**-16. The error is
    below 0.0006.

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
        ones: integer array of event counts.
        trials: number of trials, an integer or array, at least ``ones``.
        prior: prior probability in units of 2**-16, an integer or array.
        strength: number of trials that the prior counts as.

    Example:
        >>> int(rate_logit(np.array([3]), 10, 1 << 15, 2)[0])  # ln(4 / 8) * 256
        -178
    """
    yes = (ones << 16) + strength * prior
    no = ((trials - ones) << 16) + strength * (ONE - prior)
    return (ln_q16(yes) - ln_q16(no)) >> 8


class Mixer:
    """Logistic mixing: a weighted sum of logits with weights learnt online.

    The mixed logit is ``floor(sum_i w_i x_i / 2**16)``, weights in units of 2**-16. After a block
    of decisions each weight takes a gradient step divided by the curvature accumulated so far:
    ``w_i += 1.6 * sum(x_i * error) / (patience + sum(x_i**2 * p * (1 - p)))``. There may be several
    sets of weights; each decision selects one.

    Args:
        weights: initial weights, rounded to multiples of 2**-16.
        patience: initial curvature; the larger, the slower the weights change at first.
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

    # Inputs are integers in float64 arrays. All sums stay below 2**53, so they are exact for any
    # order of summation in BLAS.

    def __init__(self, weights: Iterable[float], patience: int, sets: int = 1) -> None:
        weights = list(weights)
        self._weights = [[round(w * ONE) for w in weights] for _ in range(sets)]
        self._curvature = [[patience << 32] * len(weights) for _ in range(sets)]
        self.size = len(weights)

    def mix(self, inputs: np.ndarray, choice: np.ndarray | None = None) -> np.ndarray:
        """Return the probability of each decision, as integers in ``float64``.

        Args:
            inputs: (size, n) logits; clipped to +-LOGIT_LIMIT in place.
            choice: (n,) index of the set of weights of each decision; by default the first set.
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
        """Update the weights from the outcomes ``bits`` of at most 2**15 decisions."""
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
