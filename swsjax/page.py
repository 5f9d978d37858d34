"""The report page."""

from typing import NamedTuple

__all__ = ["Picture"]


class Picture(NamedTuple):
    """A figure of the page."""

    name: str
    """Of its file, without the ending."""
    caption: str
    """A sentence or two that says what it shows."""
    png: bytes
    """The picture."""
