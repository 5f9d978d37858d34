"""The common style of all figures: the width of a paper column, legible text, safe colours."""

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from swsjax.errors import MissingExtraError
from swsjax.measure.html import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "column_picture", "light"]

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
    "pdf.fonttype": 42,  # text stays text, as publishers ask for
}


def light(color: str, opacity: float = 0.2) -> str:
    """Return the opaque colour that looks like a translucent one on white.

    >>> light("#000000")
    '#cccccc'
    """
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - opacity * (255 - part)):02x}" for part in parts)


def column_picture(
    name: str,
    caption: str,
    draw: Callable[[Any], None],
    layout: "Callable[[Figure], Any]",
    height: float,
) -> Picture:
    """Draw a figure as wide as a paper column, as PNG and as PDF.

    Args:
        name: of the figure.
        caption: of the figure.
        draw: draws on what ``layout`` returns.
        layout: creates the axes of the figure, one or several.
        height: of the figure, in inches.

    Raises:
        MissingExtraError: matplotlib is not installed; the message names the extra that brings it.

    >>> picture = column_picture(
    ...     "empty", "Nothing.", lambda axes: None, lambda figure: figure.subplots(), height=2)
    >>> picture.png[1:4], picture.pdf[1:4]
    (b'PNG', b'PDF')
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("figures need matplotlib: pip install 'swsjax[plot]'") from error
    with rc_context(_STYLE):
        # No pyplot: it has global state and selects a backend, which a library should not do.
        figure = Figure(figsize=(_COLUMN, height), layout="compressed", dpi=220)
        FigureCanvasAgg(figure)
        draw(layout(figure))
        # Without its time, the same figure is the same file.
        return Picture(
            name, caption, _saved(figure, "png"), _saved(figure, "pdf", {"CreationDate": None})
        )


def _saved(figure: "Figure", form: str, metadata: dict[str, Any] | None = None) -> bytes:
    file = BytesIO()
    figure.savefig(file, format=form, metadata=metadata, bbox_inches="tight", pad_inches=0.03)
    return file.getvalue()
