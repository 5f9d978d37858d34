"""Several nets side by side as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from html import escape

from swsjax.measure.comparison import COLUMNS, Comparison
from swsjax.measure.html import Picture, document, figures, table

__all__ = ["comparison_page"]

_NOTES = """\
<p>The bytes of the file are the headline, and the rate is theirs. The bound is that of a code that
treats the weights of a layer as independent; the Han bytes are those of the sparse format of Han et
al. (2015), in which papers state their rates.</p>
"""


def comparison_page(
    comparison: Comparison,
    *,
    data: str = "",
    pictures: Sequence[Picture] = (),
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return a comparison as an HTML page.

    Args:
        comparison: of several nets.
        data: what the errors were measured on, if they were.
        pictures: shown in this order.
        versions: versions of programs, by name.

    Returns:
        The text of the page, which refers to nothing outside it.

    >>> from swsjax.measure import compare
    >>> text = comparison_page(compare({"a<b": {"w": np.eye(9)}, "c": {"w": np.ones(9)}}))
    >>> "a&lt;b" in text, "2 nets compared" in text
    (True, True)
    """
    count = len(comparison.reports)
    title = f"{count} net{'' if count == 1 else 's'} compared"
    shown = table("Nets", COLUMNS, comparison.rows) + _NOTES
    if comparison.errors:
        front = ", ".join(f"<code>{name}</code>" for name in map(escape, comparison.front))
        on = f" on {escape(data)}" if data else ""
        shown += f"<p>Errors are measured{on}. On the front of error against bytes: {front}.</p>\n"
    rows = [(f"version of {name}", text) for name, text in (versions or {}).items()]
    sections = {
        "nets": ("Net by net", shown),
        "figures": ("Figures", figures(pictures)),
        "versions": ("Versions", table("Versions", ("name", "value"), rows) if rows else ""),
    }
    return document(title, title, "", sections, _foot(comparison))


def _foot(comparison: Comparison) -> str:
    counts = {measured.baseline_parameters for measured in comparison.reports.values()}
    if len(counts) > 1:
        return "Every rate is against all parameters of the net itself in float32, biases included."
    (count,) = counts
    return (
        f"Every rate is against all {count:,} parameters of the original net in float32, biases "
        f"included: {4 * count:,} bytes."
    )
