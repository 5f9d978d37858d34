"""The common style of all figures: the width of a paper column, legible text, safe colours."""

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "column_png", "light"]

# The palette of Okabe and Ito, distinguishable in every common form of colour blindness.
BLUE = "#0072B2"
"""Measured values."""
ORANGE = "#D55E00"
"""What they are compared with."""
GREEN = "#009E73"
"""A third series."""
PURPLE = "#CC79A7"
"""A fourth series."""
GREY = "#767676"
"""Context."""

_COLUMN = 3.4  # inches
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def light(color: str, opacity: float = 0.2) -> str:
    """Return the opaque colour that looks like a translucent one on white.

    >>> light("#000000")
    '#cccccc'
    """
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - opacity * (255 - part)):02x}" for part in parts)


def column_png(
    draw: Callable[[Any], None], layout: "Callable[[Figure], Any]", height: float
) -> bytes:
    """Draw a figure as wide as a paper column and return it as PNG.

    Args:
        draw: draws on what ``layout`` returns.
        layout: creates the axes of the figure, one or several.
        height: of the figure, in inches.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> png = column_png(lambda axes: None, lambda figure: figure.subplots(), height=2)
    >>> png[1:4]
    b'PNG'
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError("figures need matplotlib: pip install 'swsjax[plot]'") from error
    with rc_context(_STYLE):
        # No pyplot: it has global state and selects a backend, which a library should not do.
        figure = Figure(figsize=(_COLUMN, height), layout="compressed", dpi=220)
        FigureCanvasAgg(figure)
        draw(layout(figure))
        png = BytesIO()
        figure.savefig(png, bbox_inches="tight", pad_inches=0.03)
    return png.getvalue()
