"""The Pareto front of error and size."""

from collections.abc import Sequence

__all__ = ["pareto"]


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indexes of the points that none other beats in both size and error, smallest first.

    >>> pareto([(300, 0.01), (100, 0.03), (200, 0.04)])
    [1, 0]
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if not front or points[i][1] < points[front[-1]][1]:
            front.append(i)
    return front
