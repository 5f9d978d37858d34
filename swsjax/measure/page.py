"""The report as one self-contained HTML page: no network, no scripts, standard library only."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from swsjax.measure.html import Picture, document, figures, table
from swsjax.measure.reports import Layer, Report

__all__ = ["page"]

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
    sections = {
        "sizes": ("Three sizes", _sizes(report)),
        "counts": ("Parameters and multiply-adds", _counts(report)),
        "errors": ("Errors", _errors(report)),
        "layers": ("Layer by layer", _layers(report)),
        "figures": ("Figures", figures(pictures)),
        "settings": ("Settings and versions", _settings(report, settings or {}, versions or {})),
        "load": ("How to load it", _load(file_name)),
    }
    foot = (
        f"Every rate is against all {report.baseline_parameters:,} parameters of the original net "
        f"in\nfloat32, biases included: {report.float32_bytes:,} bytes."
    )
    return document(
        f"{file_name}: compressed network",
        f"{file_name}: a compressed network",
        _headline(report),
        sections,
        foot,
    )


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
    return table("Sizes", ("what it is", "bytes", "rate"), rows, wraps=True)


def _counts(report: Report) -> str:
    rows = [(name, f"{number:,}", share) for name, number, share in report.counts]
    if not rows:
        return ""
    note = "<p>Multiply-adds are those of matrix products and convolutions, for one example.</p>"
    shown = table("Parameters and multiply-adds", ("what is counted", "number", "share"), rows)
    return shown + (note if report.operations else "")


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
    return table("Errors", ("error", *splits), rows) + (
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
    return table("Layers", header, map(_layer_row, report.layers), foot=total) + note


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


def _settings(report: Report, settings: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    rows = [(f"{name} (in the file)", value) for name, value in _flat(report.metadata)]
    rows += [(f"version of {name}", text) for name, text in versions.items()]
    rows += _flat(settings)
    if not rows:
        return ""
    shown = table("Settings and versions", ("name", "value"), rows, wraps=True)
    return f"<details><summary>Show all {len(rows)}</summary>\n{shown}</details>\n"


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
