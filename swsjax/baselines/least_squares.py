"""Which channels to keep by what they contribute to outputs, and how to make up for the others."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from swsjax.checks import check_integer
from swsjax.errors import DataError

__all__ = ["Floats", "discarded_channels", "lasso_channels", "least_squares_scales"]

Floats = npt.NDArray[np.float64]
"""Numbers of 64 bits."""
_HALVINGS = 50


def discarded_channels(contributions: Floats, number: int) -> np.ndarray:
    r"""Choose channels to discard, greedily: the sum of their contributions stays small.

    .. math:: \mathrm{argmin}_T \sum_i \Big( \sum_{c \in T} x_{i,c} \Big)^2

    (Luo et al.). Each step adds the channel that makes it smallest.

    Args:
        contributions: (rows, channels).
        number: of channels to discard, fewer than there are.

    Returns:
        their numbers, in the order of the steps.

    Raises:
        ConfigError: number is out of its range.

    >>> discarded_channels(np.array([[3.0, 2.0, -2.5, 9.0]]), 2)
    array([1, 2])
    """
    channels = contributions.shape[1]
    number = check_integer("number", number, least=0, most=channels - 1)
    products = contributions.T @ contributions
    with_discarded = np.zeros(channels)
    discarded: list[int] = []
    for _ in range(number):
        rise = 2 * with_discarded + np.diag(products)
        rise[discarded] = np.inf
        discarded.append(int(rise.argmin()))
        with_discarded += products[discarded[-1]]
    return np.array(discarded, int)


def least_squares_scales(contributions: Floats, kept: np.ndarray) -> Floats:
    r"""One scale for each channel that is left, so that they make up for those discarded.

    .. math:: \mathrm{argmin}_w \sum_i \Big( \sum_c x_{i,c} - \sum_{c \in S} w_c x_{i,c} \Big)^2

    (Luo et al.), by the pseudo-inverse: a channel that is always 0 gets the scale 0.

    Args:
        contributions: (rows, channels).
        kept: numbers of the channels that are left, S.

    >>> x = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]])
    >>> least_squares_scales(x, np.array([0, 2])).round(6)
    array([3., 0.])
    """
    # Activations are of 32 bits: smaller singular values are rounding.
    inverse = np.linalg.pinv(contributions[:, kept], rcond=1e-6)
    return np.asarray(inverse @ contributions.sum(1))


def lasso_channels(contributions: Floats, targets: Floats, number: int) -> np.ndarray:
    r"""Choose the channels to keep, as those with a coefficient in a LASSO regression.

    .. math:: \min_\beta \frac{1}{2n} \sum_i \Big( y_i - \sum_c \beta_c x_{i,c} \Big)^2
              + \alpha \sum_c |\beta_c|

    (He et al.), with an intercept, by scikit-learn's ``Lasso``. The penalty is doubled from
    1e-3 until fewer than c' channels have a coefficient, then bisected until c' to 1.1 c' have. If
    it passes over all of these numbers, as when two channels are equal, the c' channels with the
    largest coefficients are kept, and of those without one the largest.

    Args:
        contributions: (n, channels).
        targets: (n,) outputs.
        number: of channels to keep, c'.

    Returns:
        their numbers, in ascending order.

    Raises:
        ConfigError: number is out of its range.
        DataError: scikit-learn is not installed.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> lasso_channels(x, x @ [2.0, 0.1, -3.0], 2)
    array([0, 2])
    """
    number = check_integer("number", number, most=contributions.shape[1])
    if number == contributions.shape[1]:
        return np.arange(number)
    coefficients = _lasso(contributions, targets)
    most = int(1.1 * number + 1e-9)
    low, high = 0.0, 1e-3
    while np.count_nonzero(coefficients(high)) >= number:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = coefficients(middle)
        survivors = np.count_nonzero(found)
        if number <= survivors <= most:
            return np.flatnonzero(found)
        low, high = (low, middle) if survivors < number else (middle, high)
    found = np.abs(coefficients(low or high))
    ranked = np.lexsort((-np.linalg.norm(contributions, axis=0), -found))
    return np.sort(ranked[:number])


def _lasso(x: Floats, y: Floats) -> Callable[[float], Floats]:
    """The coefficients for a penalty."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import Lasso
    except ImportError as error:
        raise DataError("LASSO needs scikit-learn: pip install 'swsjax[digits]'") from error

    def coefficients(alpha: float) -> Floats:
        with warnings.catch_warnings():
            # With nearly no penalty. Which channels have a coefficient is all that is used.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found: Any = Lasso(alpha, precompute=True).fit(x, y)
        return np.asarray(found.coef_)

    return coefficients
