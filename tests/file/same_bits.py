"""Comparing arrays by their bits: -0.0 is not 0.0, and a NaN equals itself."""

import numpy as np


def bit_equal(first, second):
    """Whether two arrays have the same type, shape and bits."""
    first, second = np.asarray(first), np.asarray(second)
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.tobytes() == second.tobytes()
    )
