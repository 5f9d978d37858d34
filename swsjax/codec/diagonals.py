"""Wrapped diagonals of a matrix: the order in which its weights are coded.

Diagonal d of an R x C matrix has the entries (r, (r + d) mod C), one from every row. Vector
operations code many entries of a diagonal at once, and the row and column statistics are still
updated at least once per diagonal.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

__all__ = ["places", "to_diagonals"]

_CHUNK = 1 << 20


def to_diagonals(matrix: np.ndarray) -> np.ndarray:
    """Return ``out[d, r] = matrix[r, (r + d) % C]`` for an (R, C) matrix, as a (C, R) array.

    Example:
        >>> to_diagonals(np.arange(6).reshape(3, 2)).tolist()
        [[0, 3, 4], [1, 2, 5]]
    """
    rows, columns = matrix.shape
    out = np.empty((columns, rows), matrix.dtype)
    if columns**3 < rows:  # few columns: loop over the entries of a C x C block
        for d in range(columns):
            for r in range(columns):
                out[d, r::columns] = matrix[r::columns, (r + d) % columns]
        return out
    for start in range(0, rows, columns):
        block = matrix[start : start + columns]
        # Two copies of the block side by side: row i of the skewed view starts at column i.
        twice = np.ascontiguousarray(np.concatenate([block, block], axis=1))
        step = twice.itemsize
        skewed = as_strided(twice, block.shape, (twice.strides[0] + step, step))
        out[:, start : start + columns] = skewed.T
    return out


def places(diagonals: np.ndarray, chunk: int = _CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows and columns of the non-zeros of a matrix in coding order.

    Args:
        diagonals: (C, R) array of wrapped diagonals.
        chunk: number of consecutive entries of which a pair has the non-zeros; by default 2**20.

    Yields:
        ``(row, column)`` arrays, one pair for each chunk.

    Example:
        >>> [(r.tolist(), c.tolist()) for r, c in places(to_diagonals(np.eye(3)[:, ::-1]))]
        [([1, 2, 0], [1, 0, 2])]
    """
    columns, rows = diagonals.shape
    flat = diagonals.reshape(-1)
    for start in range(0, flat.size, chunk):
        found = np.flatnonzero(flat[start : start + chunk]) + start
        diagonal, row = np.divmod(found, rows)
        yield row, (row + diagonal) % columns
