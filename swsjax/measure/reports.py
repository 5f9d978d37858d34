"""What a file holds and what it costs: everything here is measured on the bytes of the file.

Three sizes, never mixed: the bytes of the file, which are the headline; the bits in the format of
Han et al. (2015), in which the paper gives its rates; and the entropy bound of a code that treats
the weights of a layer as independent. Every rate is against all parameters of the original net in
float32.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from os import PathLike
from typing import Any

import jax
import numpy as np

from swsjax.codec import MAX_BYTES, entropy_bound, han_size, leaf_bits
from swsjax.codec.zeros import count_negative_zeros, positive_zeros
from swsjax.errors import ConfigError
from swsjax.file.files import bytes_of, leaves_of, named_errors, read_metadata
from swsjax.file.leaves import check_unmasked
from swsjax.trees import Params, is_array, is_integer, is_number, name_of, named_leaves

__all__ = ["Errors", "Layer", "Report", "aligned", "html_table", "percent", "report"]

Errors = Mapping[str, Mapping[str, float]]
"""Error rates from 0 to 1, by stage (``"pretrained"``, ``"decoded"``) and split (``"test"``)."""


@dataclass(frozen=True)
class Layer:
    """One array of the file, its shape and what it costs."""

    name: str
    """Path in the tree, ``fc1/kernel``."""
    shape: tuple[int, ...]
    size: int
    """Number of parameters."""
    non_zeros: int
    """Number of parameters that are not zero; -0.0 is zero."""
    levels: int
    """Distinct values, zero included."""
    coded_bits: float
    """Bits in an entropy-coded file, the default encoding; the file adds its header and a fraction
    of a byte. A shared codebook is charged to the first layer."""
    han_bits: int
    """Bits in the format of Han et al., codebook included."""
    entropy_bits: float
    """Entropy bound of its positions, values and codebook."""
    negative_zeros: int
    """Number of -0.0, which ``weights * mask`` makes of negative weights."""
    negative_zero_bits: float
    """What they add to ``coded_bits``."""


@dataclass(frozen=True, repr=False)
class Report:
    """Error and size of a compressed net, from its file; ``str`` gives the table."""

    layers: tuple[Layer, ...]
    """The arrays, in the order of the file."""
    file_bytes: int
    """Size of the file, header and checksum included."""
    baseline_parameters: int
    """Number of parameters of the original net: those of the file, unless a baseline is given."""
    errors: Errors = field(default_factory=dict)
    """Error rates by stage and split."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The metadata of the file."""
    operations: Mapping[str, int] = field(default_factory=dict)
    """Multiply-adds for one example, by what is counted; those of the original net first."""

    @property
    def parameters(self) -> int:
        """Number of parameters, biases included."""
        return sum(layer.size for layer in self.layers)

    @property
    def float32_bytes(self) -> int:
        """The one baseline of every rate: all parameters of the original net in float32."""
        return 4 * self.baseline_parameters

    @property
    def non_zeros(self) -> int:
        """Number of parameters that are not zero."""
        return sum(layer.non_zeros for layer in self.layers)

    @property
    def coded_bits(self) -> float:
        """Bits of the layers in an entropy-coded file, without header and checksum."""
        return sum(layer.coded_bits for layer in self.layers)

    @property
    def han_bits(self) -> int:
        """Bits in the format of Han et al."""
        return sum(layer.han_bits for layer in self.layers)

    @property
    def entropy_bits(self) -> float:
        """Entropy bound in bits."""
        return sum(layer.entropy_bits for layer in self.layers)

    @property
    def rates(self) -> dict[str, float | None]:
        """Compression rates by kind, against ``float32_bytes``; None where the size is zero."""
        bits = {
            "file": 8 * self.file_bytes,
            "han": self.han_bits,
            "entropy_bound": self.entropy_bits,
        }
        return {
            kind: 8 * self.float32_bytes / size if size else None for kind, size in bits.items()
        }

    @property
    def counts(self) -> list[tuple[str, int, str]]:
        """Parameters and multiply-adds: name, number and share of the first number of its kind.

        Parameters only if channels were removed, or with multiply-adds.
        """
        parameters = {"original": self.baseline_parameters, "in the file": self.parameters}
        is_smaller = self.parameters != self.baseline_parameters
        kinds = {"parameters": parameters if self.operations or is_smaller else {}}
        kinds["multiply-adds"] = dict(self.operations)
        return [
            (f"{kind}, {name}", number, percent(number, next(iter(numbers.values()))))
            for kind, numbers in kinds.items()
            for name, number in numbers.items()
        ]

    @property
    def named_errors(self) -> list[tuple[str, float]]:
        """Error rates with their names for people, ``decoded (test)``."""
        return [
            (f"{stage} ({split})", error)
            for stage, by_split in self.errors.items()
            for split, error in by_split.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; negative zeros only where there are any."""
        return {
            "errors": {stage: dict(by_split) for stage, by_split in self.errors.items()},
            "parameters": self.parameters,
            "baseline_parameters": self.baseline_parameters,
            "operations": dict(self.operations),
            "float32_bytes": self.float32_bytes,
            "non_zeros": self.non_zeros,
            "density": self.non_zeros / self.parameters if self.parameters else 0.0,
            "file_bytes": self.file_bytes,
            "han_bits": self.han_bits,
            "entropy_bits": self.entropy_bits,
            "rates": self.rates,
            "layers": list(map(_plain, self.layers)),
            "metadata": dict(self.metadata),
        }

    def __repr__(self) -> str:
        """Return a summary of a few lines."""
        return "\n  ".join(self._summary())

    def _repr_html_(self) -> str:
        """Return the summary and the layers as a table; for notebooks."""
        summary = "<br>".join(map(escape, self._summary()))
        return f"<p>{summary}</p>{html_table(_COLUMNS, map(_row, self.layers))}"

    def _summary(self) -> list[str]:
        rate = self.rates["file"]
        smaller = f", {rate:,.1f}x smaller than float32" if rate else ""
        lines = [
            f"Report of a file of {self.file_bytes:,} bytes{smaller}",
            f"{self.non_zeros:,} of {self.parameters:,} weights are not zero, in "
            f"{len(self.layers)} array{'' if len(self.layers) == 1 else 's'}",
        ]
        errors = ", ".join(f"{name} {100 * error:.2f} %" for name, error in self.named_errors)
        return [*lines, f"error: {errors}"] if errors else lines

    def __str__(self) -> str:
        rows = [_row(layer) for layer in self.layers]
        total: tuple[str, ...] = ("total", "", f"{self.parameters:,}", f"{self.non_zeros:,}")
        total += (percent(self.non_zeros, self.parameters), "")
        total += tuple(
            f"{bits / 8:,.0f}" for bits in (self.coded_bits, self.entropy_bits, self.han_bits)
        )
        rates = {kind: f"{rate:.1f}x" if rate else "-" for kind, rate in self.rates.items()}
        lines = [aligned([_COLUMNS, *rows, total], left=2), ""]
        lines += [
            f"negative zeros: {layer.negative_zeros:,} in {layer.name}, about "
            f"{layer.negative_zero_bits / 8:,.0f} bytes that 0.0 would not take"
            for layer in self.layers
            if layer.negative_zeros
        ]
        lines += [f"{name:<28}{number:16,} {share:>9}" for name, number, share in self.counts]
        lines += [f"error {name:<24}{100 * error:8.2f} %" for name, error in self.named_errors]
        lines += [
            f"file                    {self.file_bytes:12,} bytes {rates['file']:>9}",
            f"Han format              {self.han_bits / 8:12,.0f} bytes {rates['han']:>9}",
            f"entropy bound           {self.entropy_bits / 8:12,.0f} bytes "
            f"{rates['entropy_bound']:>9}",
            f"float32, uncompressed   {self.float32_bytes:12,} bytes      1.0x",
        ]
        return "\n".join(lines)


def report(
    source: str | PathLike[str] | bytes,
    *,
    baseline: Params | None = None,
    errors: Errors | None = None,
    operations: Mapping[str, int] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Report:
    """Measure a compressed net from its file.

    Args:
        source: path of an ``.sws`` file, or its bytes.
        baseline: the original net, if it has more parameters than the file, as after removing
            channels; a pytree of arrays.
        errors: error rates (0 to 1) to show with it, by stage and split, as
            ``{"decoded": {"test": 0.02}}``.
        operations: multiply-adds to show with it, by what is counted, those of the original net
            first; see ``multiply_adds``.
        max_bytes: refuse a file whose arrays take more than this in total.

    Returns:
        The report: ``print`` it, or take its ``to_dict()``.

    Raises:
        FormatError: the file is damaged or not an ``.sws`` file, or larger than allowed.
        ConfigError: errors or operations are not such a dictionary, the baseline holds no arrays,
            or ``max_bytes`` is not a number of bytes.
        TypeError: an array of the baseline has a mask.

    >>> from swsjax.file import dumps
    >>> measured = report(dumps({"w": np.eye(64, dtype=np.float32)}))
    >>> measured.non_zeros, measured.layers[0].levels, measured.float32_bytes
    (64, 2, 16384)
    >>> smaller = dumps({"w": np.eye(32, dtype=np.float32)})
    >>> report(smaller, baseline={"w": np.eye(64)}).float32_bytes
    16384
    >>> report(smaller, operations={"dense": 4096, "zeros skipped": 32}).counts[-1]
    ('multiply-adds, zeros skipped', 32, '0.78 %')
    """
    errors = {} if errors is None else errors
    if not _are_errors(errors):
        raise ConfigError(
            "errors must be a dictionary of error rates by stage and split, as "
            f"{{'decoded': {{'test': 0.02}}}}, got {errors!r}"
        )
    operations = {} if operations is None else operations
    if not _are_counts(operations):
        raise ConfigError(
            "operations must be a dictionary of numbers of multiply-adds, as {'dense': 266200}, "
            f"got {operations!r}"
        )
    data = bytes_of(source)
    with named_errors(source):
        leaves = leaves_of(data, max_bytes)
        metadata = read_metadata(data)
    layers = _measured([name_of(path) for path, _ in leaves], [leaf for _, leaf in leaves])
    parameters = sum(layer.size for layer in layers)
    if baseline is not None:
        for name, leaf in named_leaves(baseline):
            check_unmasked(f"{name} in baseline", leaf)
        originals = jax.tree.leaves(baseline)
        parameters = sum(leaf.size for leaf in originals if is_array(leaf))
        if not parameters:
            kinds = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in originals))
            raise ConfigError(
                "baseline must be the original net, a pytree of arrays, got "
                f"{f'leaves of type {kinds}' if originals else 'no leaves'}"
            )
    measured = {
        stage: {split: _plain_number(error) for split, error in by_split.items()}
        for stage, by_split in errors.items()
    }
    counted = {name: int(number) for name, number in operations.items()}
    return Report(tuple(layers), len(data), parameters, measured, metadata, counted)


def _measured(names: list[str], arrays: list[np.ndarray]) -> list[Layer]:
    coded = leaf_bits(arrays)
    signs = [count_negative_zeros(array) for array in arrays]
    positive = leaf_bits(map(positive_zeros, arrays)) if any(signs) else coded
    return [
        Layer(
            name=name,
            shape=array.shape,
            size=array.size,
            non_zeros=int(np.count_nonzero(array)),
            levels=len(np.unique(array)),
            coded_bits=bits,
            han_bits=han.total,
            entropy_bits=bound.total,
            negative_zeros=count,
            negative_zero_bits=max(0.0, bits - without) if count else 0.0,
        )
        for name, array, bits, han, bound, count, without in zip(
            names,
            arrays,
            coded,
            han_size(arrays),
            entropy_bound(arrays),
            signs,
            positive,
            strict=True,
        )
    ]


def _are_errors(errors: Any) -> bool:
    return isinstance(errors, Mapping) and all(
        isinstance(by_split, Mapping) and all(map(is_number, by_split.values()))
        for by_split in errors.values()
    )


def _are_counts(operations: Any) -> bool:
    return isinstance(operations, Mapping) and all(
        is_integer(number) and number >= 0 for number in operations.values()
    )


def _plain_number(number: Any) -> float:
    """As its type shows it: 0.0194 in float32 is not 0.01939999870955944."""
    return float(str(np.asarray(number)) if hasattr(number, "dtype") else number)


def _plain(layer: Layer) -> dict[str, Any]:
    values = asdict(layer) | {"shape": list(layer.shape)}
    of_zeros = ("negative_zeros", "negative_zero_bits")
    return {key: value for key, value in values.items() if value or key not in of_zeros}


_COLUMNS = ("layer", "shape", "weights", "non-zero", "", "levels", "bytes", "bound", "Han")


def _row(layer: Layer) -> tuple[str, ...]:
    return (
        layer.name,
        "x".join(map(str, layer.shape)),
        f"{layer.size:,}",
        f"{layer.non_zeros:,}",
        percent(layer.non_zeros, layer.size),
        f"{layer.levels}",
        *(f"{b / 8:,.0f}" for b in (layer.coded_bits, layer.entropy_bits, layer.han_bits)),
    )


def percent(part: int, whole: int) -> str:
    """Return a share in percent; nothing of nothing is nothing.

    >>> percent(1, 3), percent(0, 0)
    ('33.33 %', '')
    """
    return f"{100 * part / whole:.2f} %" if whole else ""


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Return a table with columns as wide as their widest entry.

    Args:
        rows: of cells, header included.
        left: number of columns, the first, that are aligned left; the others are aligned right.

    >>> print(aligned([("net", "bytes"), ("a", "9")], left=1))
    net  bytes
    a        9
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a plain table, for notebooks.

    >>> html_table(["net"], [["a<b"]])
    '<table><tr><th>net</th></tr><tr><td>a&lt;b</td></tr></table>'
    """

    def line(cells: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
