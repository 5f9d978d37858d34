"""The report as one self-contained HTML page: no network, no scripts, standard library only."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from swsjax.measure.reports import Layer, Report

__all__ = ["MOST_PICTURE_BYTES", "Picture", "page"]

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


_SIZES = {
    "file": "File: the bytes on disk, with header and checksum; every weight can be decoded.",
    "han": "Han format: the sparse format of Han et al. (2015), in which papers state their rates.",
    "entropy_bound": "Entropy bound: the minimum for a code that treats the weights of a layer as "
    "independent; the code of the file does not, and may be smaller.",
}

_STAGES = {
    "pretrained": "the given net",
    "pruned": "the net that was pruned and trained on, before its weights shared values",
    "retrained": "the weights before they were quantised; the last stages train the quantised net, "
    "so these may be worse",
    "decoded": "the net that was read back from the file",
}

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


def page(
    report: Report,
    file_name: str,
    *,
    pictures: Sequence[Picture] = (),
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return the report of a file as an HTML page.

    Args:
        report: of the file.
        file_name: name of the file, for the title and for how to load it.
        pictures: shown in this order; if they exceed ``MOST_PICTURE_BYTES`` together, the ones
            beyond the limit are listed by name instead.
        settings: settings of the run, by name; nested mappings are flattened.
        versions: versions of programs, by name.

    Returns:
        The text of the page, which refers to nothing outside it.

    >>> from swsjax.file import dumps
    >>> from swsjax.measure import report
    >>> text = page(report(dumps({"w": np.eye(64, dtype=np.float32)})), "eye.sws")
    >>> "<h1>eye.sws" in text, "16,384 bytes" in text
    (True, True)
    """
    name = escape(file_name)
    sections = {
        "sizes": ("Three sizes", _sizes(report)),
        "errors": ("Errors", _errors(report)),
        "layers": ("Layer by layer", _layers(report)),
        "figures": ("Figures", _figures(pictures)),
        "settings": ("Settings and versions", _settings(report, settings or {}, versions or {})),
        "load": ("How to load it", _load(file_name)),
    }
    sections = {key: section for key, section in sections.items() if section[1]}
    links = "".join(
        f'<li><a href="#{key}">{title}</a></li>' for key, (title, _) in sections.items()
    )
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{title}</h2>\n{text}</section>\n'
        for key, (title, text) in sections.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{name}: compressed network</title>
<style>{_STYLE}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>{name}: a compressed network</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="content" tabindex="-1">
{_headline(report)}
{body}</main>
<footer>Every rate is against all {report.baseline_parameters:,} parameters of the original net in
float32, biases included: {report.float32_bytes:,} bytes.</footer>
</body>
</html>
"""


def _headline(report: Report) -> str:
    """The net before, beside the net after, in large type; and the rate."""
    before = {
        "size": f"{report.float32_bytes:,} bytes",
        "parameters": f"{report.baseline_parameters:,}",
    }
    after = {
        "size": f"{report.file_bytes:,} bytes",
        "not zero": f"{report.non_zeros:,}",
    }
    errors = {stage: by_split for stage, by_split in report.errors.items() if by_split}
    for items, stage in ((before, "pretrained"), (after, "decoded")):
        if stage in errors:
            split, error = list(errors[stage].items())[-1]
            items[f"{split} error"] = _error(error)
    rate = report.rates["file"]
    smaller = f"<p>{rate:,.0f}× smaller</p>" if rate else ""
    cards = _card("Before", before) + _card("After", after)
    return f'<div class="headline">{cards}{smaller}</div>'


def _card(title: str, items: Mapping[str, str]) -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>" for name, text in items.items())
    return f"<div><h2>{title}</h2><dl>{lines}</dl></div>"


def _sizes(report: Report) -> str:
    sizes = {
        "file": report.file_bytes,
        "han": report.han_bits / 8,
        "entropy_bound": report.entropy_bits / 8,
    }
    rows = [
        (_SIZES[kind], f"{size:,.0f}", _rate(report.rates[kind])) for kind, size in sizes.items()
    ]
    baseline = "Baseline: every parameter of the original net in float32, uncompressed."
    rows.append((baseline, f"{report.float32_bytes:,}", "1.0×"))
    return _table("Sizes", ("what it is", "bytes", "rate"), rows, wraps=True)


def _errors(report: Report) -> str:
    """A row for each stage, and a column for each split."""
    splits = list(dict.fromkeys(split for found in report.errors.values() for split in found))
    rows = [
        (stage, *(_error(found[split]) if split in found else "-" for split in splits))
        for stage, found in report.errors.items()
        if found
    ]
    if not rows:
        return ""
    notes = [f"{stage}: {_STAGES[stage]}." for stage in report.errors if stage in _STAGES]
    return _table("Errors", ("error", *splits), rows) + (
        f"<p>{'<br>'.join(notes)}</p>" if notes else ""
    )


def _layers(report: Report) -> str:
    names = "layer, shape, weights, not zero, density, levels, bytes in the file, entropy bound, "
    header = (names + "Han format").split(", ")
    total = (
        "total",
        "",
        f"{report.parameters:,}",
        f"{report.non_zeros:,}",
        _percent(report.non_zeros, report.parameters),
        "",
        *map(_bytes, (report.coded_bits, report.entropy_bits, report.han_bits)),
    )
    note = "<p>Bytes of the layers are without the file's header and checksum.</p>"
    return _table("Layers", header, map(_layer_row, report.layers), foot=total) + note


def _layer_row(layer: Layer) -> tuple[str, ...]:
    return (
        layer.name,
        " × ".join(map(str, layer.shape)),
        f"{layer.size:,}",
        f"{layer.non_zeros:,}",
        _percent(layer.non_zeros, layer.size),
        f"{layer.levels:,}",
        *map(_bytes, (layer.coded_bits, layer.entropy_bits, layer.han_bits)),
    )


def _figures(pictures: Sequence[Picture]) -> str:
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


def _settings(report: Report, settings: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    rows = [(f"{name} (in the file)", value) for name, value in _flat(report.metadata)]
    rows += [(f"version of {name}", text) for name, text in versions.items()]
    rows += _flat(settings)
    if not rows:
        return ""
    table = _table("Settings and versions", ("name", "value"), rows, wraps=True)
    return f"<details><summary>Show all {len(rows)}</summary>\n{table}</details>\n"


def _load(file_name: str) -> str:
    code = f"""\
import swsjax

params = swsjax.load({file_name!r})  # nested dictionaries of arrays
print(swsjax.report({file_name!r}))
"""
    shell = f"""\
swsjax inspect {file_name}
swsjax decode {file_name} --out weights.safetensors
"""
    return (
        "<p>In Python, with <code>swsjax</code> installed; <code>load(..., like=params)</code> "
        "returns the arrays in the structure of <code>params</code>:</p>\n"
        f'<pre tabindex="0"><code>{escape(code)}</code></pre>\n'
        "<p>On the command line:</p>\n"
        f'<pre tabindex="0"><code>{escape(shell)}</code></pre>\n'
    )


def _table(
    label: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    foot: Sequence[str] = (),
    wraps: bool = False,
) -> str:
    """A table in a box that scrolls on a narrow screen and can take the focus.

    With ``wraps`` the cells of the first column may span several lines.
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


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names with dots and values as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)


def _bytes(bits: float) -> str:
    return f"{bits / 8:,.0f}"


def _error(error: float) -> str:
    return f"{100 * error:.2f} %"


def _rate(rate: float | None) -> str:
    return f"{rate:.1f}×" if rate else "-"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"
