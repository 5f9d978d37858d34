"""Parts of the HTML pages: no network, no scripts, standard library only."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["MOST_PICTURE_BYTES", "Picture", "document", "figures", "table"]

MOST_PICTURE_BYTES = 1_400_000
"""Limit for all figures of a page together; in base64 the page then stays below 2 MB."""


class Picture(NamedTuple):
    """A figure of the page."""

    name: str
    """File name without the extension."""
    caption: str
    """One or two sentences that say what it shows."""
    png: bytes
    """The image file."""
    pdf: bytes = b""
    """The same figure for print, which the page does not show."""


_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1a1a1a; --faint: #5c5c5c;
  --line: #cfcfcf; --panel: #f4f5f7; --accent: #0060a0; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181c; --ink: #e8e8e8; --faint: #a9adb3; --line: #3b4048;
    --panel: #20242a; --accent: #6cb8f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.5rem 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; }
p { max-width: 44rem; }
a { color: var(--accent); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .5rem 1rem; background: var(--ground); }
.headline { display: grid; gap: .75rem; margin: 1.25rem 0; max-width: 44rem;
  grid-template-columns: repeat(2, minmax(0, 1fr)); }
.headline div { background: var(--panel); border-radius: .5rem; padding: .75rem; }
.headline dl { margin: 0; }
.headline h2 { font-size: 1rem; margin: 0 0 .25rem; }
.headline dt { color: var(--faint); font-size: .875rem; }
.headline dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
.headline p { grid-column: 1 / -1; margin: 0; font-size: 1.2rem; font-weight: 600; }
summary { cursor: pointer; }
details[open] summary { margin-bottom: .75rem; }
.scroll { overflow-x: auto; max-width: max-content; width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
th:first-child { text-align: left; }
.wraps th:first-child { white-space: normal; overflow-wrap: anywhere; max-width: 40rem; }
thead th { color: var(--faint); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; }
tfoot th, tfoot td { font-weight: 600; border-bottom: 0; }
.figures { columns: 22rem 3; column-gap: 1.25rem; }
figure { margin: 0 0 1.25rem; break-inside: avoid; background: var(--panel);
  border-radius: .5rem; padding: .75rem; }
figure img { display: block; width: 100%; height: auto; background: #fff; padding: .25rem; }
figcaption { margin-top: .5rem; font-size: .9rem; }
pre { overflow-x: auto; background: var(--panel); border-radius: .5rem; padding: 1rem; }
footer { color: var(--faint); padding-block: 2rem; font-size: .9rem; }
"""


def document(
    title: str, heading: str, top: str, sections: Mapping[str, tuple[str, str]], foot: str
) -> str:
    """Return a whole page, which refers to nothing outside it.

    Args:
        title: in the window and in lists of pages.
        heading: above all else.
        top: HTML above the sections.
        sections: heading and HTML of each, by its anchor; those without any HTML are left out.
        foot: HTML below the sections.

    >>> text = document("a & b", "Two", "", {"one": ("One", "<p>1</p>"), "two": ("Two", "")}, "")
    >>> "<title>a &amp; b</title>" in text, 'id="one"' in text, 'id="two"' in text
    (True, True, False)
    """
    shown = {key: section for key, section in sections.items() if section[1]}
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, (name, _) in shown.items())
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{name}</h2>\n{text}</section>\n'
        for key, (name, text) in shown.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>{escape(heading)}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="content" tabindex="-1">
{top}
{body}</main>
<footer>{foot}</footer>
</body>
</html>
"""


def figures(pictures: Sequence[Picture]) -> str:
    """Return pictures with their captions; those beyond ``MOST_PICTURE_BYTES`` by name only.

    >>> figures([Picture("layers", "Bytes.", b"png")]).count("<figure ")
    1
    """
    shown, left_out, room = [], [], MOST_PICTURE_BYTES
    for picture in pictures:
        if len(picture.png) > room:
            left_out.append(f"{picture.name}.png")
            continue
        room -= len(picture.png)
        shown.append(
            f'<figure id="figure-{escape(picture.name)}">'
            f'<img alt="Figure: {escape(picture.name.replace("-", " "))}" '
            f'src="data:image/png;base64,{b64encode(picture.png).decode()}">'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
        )
    text = f'<div class="figures">{"".join(shown)}</div>' if shown else ""
    if left_out:
        text += f"<p>Too large for this page: {escape(', '.join(left_out))}.</p>"
    return text


def table(
    label: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    foot: Sequence[str] = (),
    wraps: bool = False,
) -> str:
    """Return a table in a box that scrolls on a narrow screen and can take the focus.

    Args:
        label: what it is, for those who do not see it.
        header: of the columns.
        rows: of cells, the first of which names the row.
        foot: the last row.
        wraps: whether the cells of the first column may span several lines.

    >>> "<td>3</td>" in table("Sizes", ("net", "bytes"), [("a", "3")])
    True
    """

    def line(cells: Sequence[str]) -> str:
        first, *others = map(escape, cells)
        first = first.replace(".", ".<wbr>").replace("_", "_<wbr>")  # long names may break here
        text = "".join(f"<td>{cell}</td>" for cell in others)
        return f'<tr><th scope="row">{first}</th>{text}</tr>'

    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(f"{line(row)}\n" for row in rows)
    tail = f"<tfoot>{line(foot)}</tfoot>" if foot else ""
    kind = ' class="wraps"' if wraps else ""
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table{kind}>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>{tail}</table></div>\n"
    )
