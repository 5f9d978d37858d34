"""The header of a file: path, element type and shape of every leaf."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from swsjax.codec.wire import ByteReader, varint
from swsjax.errors import FormatError

__all__ = [
    "DTYPES",
    "LARGEST_PATTERNS",
    "MAX_COMPONENTS",
    "Path",
    "Shape",
    "Spec",
    "matrix_shape",
    "pattern_dtype",
    "pattern_shape",
    "read_leaves",
    "read_specs",
    "specs_bytes",
    "type_bytes",
]

DTYPES = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float64": 8,
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "complex64": 8,
    "complex128": 16,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int4": 1,
    "uint4": 1,
}
"""Bytes per element of each type; the index is the code in the file, so new types come last."""
LARGEST_PATTERNS = {"bool": 1, "int4": 15, "uint4": 15}
"""The largest bit pattern of the types that do not use all bits of a byte."""
_TYPES = tuple(DTYPES)
_CODES = {name: code for code, name in enumerate(DTYPES)}

# Path components that take one byte. Part of the format: never change or reorder them.
NAMES = (
    *("bias", "kernel", "scale", "embedding", "mean", "var", "params", "batch_stats"),
    *("value", "weight", "w", "b", "query", "key", "out", "Dense_0", "Dense_1", "Dense_2"),
    *("Conv_0", "Conv_1", "BatchNorm_0", "conv1", "conv2", "fc1", "fc2", "fc3"),
    *("layers", "linear", "linear1", "linear2", "conv", "conv3", "norm", "dense"),
)

_NEW_NAME, _INTEGER, _FIRST_NAME = 0, 1, 2
_MANY_AXES = 7
_MAX_AXES = 64  # NumPy's limit
MAX_COMPONENTS = 64
"""Maximum number of components of a path."""

Path = tuple[str | int, ...]
"""Location of a leaf in its tree: names, and non-negative list indexes."""
Shape = tuple[int, ...]
"""Shape of an array."""


class Spec(NamedTuple):
    """One leaf's path, shape and ``dtype``, the name of its element type."""

    path: Path
    dtype: str
    shape: Shape


def pattern_dtype(dtype: str) -> str:
    """Return the unsigned type of a named element type's bit patterns.

    Example:
        >>> pattern_dtype("bfloat16"), pattern_dtype("complex128")
        ('u2', 'u8')
    """
    return f"u{min(DTYPES[dtype], 8)}"


def pattern_shape(itemsize: int, shape: Shape) -> Shape:
    """Return the shape of an array's bit patterns: one more axis for 16-byte elements.

    Example:
        >>> pattern_shape(4, (3,)), pattern_shape(16, (3,))
        ((3,), (3, 2))
    """
    return (*shape, 2) if itemsize == 16 else shape


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """Return ``(rows, columns)`` of the matrix that an array is coded as.

    The last axis becomes the columns, as in the dense and convolution kernels of Flax; a vector
    is one row and a scalar a 1x1 matrix.

    Example:
        >>> matrix_shape((3, 3, 16, 32)), matrix_shape((300,)), matrix_shape(())
        ((144, 32), (1, 300), (1, 1))
    """
    if not shape:
        return 1, 1
    return math.prod(shape[:-1]), shape[-1]


def specs_bytes(specs: Sequence[Spec]) -> bytes:
    """Return the header bytes that describe ``specs``.

    Leading components shared with the previous path are not repeated. A name that occurred before,
    or that is in the table of common names, is written as its number, usually one byte.

    Example:
        >>> specs_bytes([Spec(("fc1", "kernel"), "float32", (784, 300))])
        b'\\x01\\x012\\x07\\x02\\x90\\x06\\xac\\x02'
    """
    known = {name: code for code, name in enumerate(NAMES, _FIRST_NAME)}
    out = [varint(len(specs))]
    previous: Path = ()
    for spec in specs:
        out.append(_path_bytes(spec.path, previous, known) + type_bytes(spec))
        previous = spec.path
    return b"".join(out)


def type_bytes(spec: Spec) -> bytes:
    """Return the header bytes of an element type and a shape.

    Example:
        >>> type_bytes(Spec(("w",), "bfloat16", (3, 5)))
        b'\\n\\x03\\x05'
    """
    axes = len(spec.shape)
    out = [bytes([_CODES[spec.dtype] << 3 | min(axes, _MANY_AXES)])]
    if axes >= _MANY_AXES:
        out.append(varint(axes))
    out.extend(map(varint, spec.shape))
    return b"".join(out)


def _path_bytes(path: Path, previous: Path, known: dict[str, int]) -> bytes:
    if not path:
        return varint(0)
    shared = 0
    while shared < min(len(path) - 1, len(previous)) and path[shared] == previous[shared]:
        shared += 1
    out = [varint(shared + 1)]
    for position, component in enumerate(path[shared:], shared + 1):
        last = position == len(path)
        if isinstance(component, int):
            out.append(varint(_INTEGER << 1 | last) + varint(component))
        elif component in known:
            out.append(varint(known[component] << 1 | last))
        else:
            name = component.encode()
            out.append(varint(_NEW_NAME << 1 | last) + varint(len(name)) + name)
            known[component] = len(known) + _FIRST_NAME
    return b"".join(out)


def read_specs(reader: ByteReader, max_bytes: int) -> list[Spec]:
    """Read what :func:`specs_bytes` wrote.

    Args:
        reader: a :class:`~swsjax.codec.wire.ByteReader`.
        max_bytes: maximum total size of the decoded leaves.

    Raises:
        FormatError: the header is damaged, or the leaves exceed ``max_bytes``.

    Example:
        >>> header = specs_bytes([Spec(("w", 0), "bfloat16", (3,))])
        >>> read_specs(ByteReader(header), max_bytes=6)
        [Spec(path=('w', 0), dtype='bfloat16', shape=(3,))]
    """
    names = list(NAMES)
    return read_leaves(reader, max_bytes, lambda previous: _read_path(reader, previous, names))


def read_leaves(
    reader: ByteReader, max_bytes: int, next_path: Callable[[Path], Path]
) -> list[Spec]:
    """Read the number of leaves, then the path, type and shape of each.

    Args:
        reader: a :class:`~swsjax.codec.wire.ByteReader`.
        max_bytes: maximum total size of the decoded leaves.
        next_path: reads a path, given the previous one.

    Raises:
        FormatError: the header is damaged, or the leaves exceed ``max_bytes``.

    Example:
        >>> reader = ByteReader(bytes([1, 1, 3]))  # one leaf, of type 0 and shape (3,)
        >>> read_leaves(reader, 12, lambda previous: ("w",))
        [Spec(path=('w',), dtype='float32', shape=(3,))]
    """
    count = reader.varint("number of leaves")
    if 2 * count > reader.remaining:  # a leaf takes at least two bytes
        raise FormatError(
            f"{count} leaves declared, but {reader.remaining} bytes are left at byte "
            f"{reader.offset}"
        )
    specs: list[Spec] = []
    tree: dict[str | int, Any] = {}
    previous: Path = ()
    total = 0
    for _ in range(count):
        start = reader.offset
        path = next_path(previous)
        if not (_enter(tree, path) if path else count == 1):
            raise FormatError(f"path {path} at byte {start} occurs twice or inside another leaf")
        spec = _read_type(reader, path)
        total += math.prod(spec.shape) * DTYPES[spec.dtype]
        if total > max_bytes:
            raise FormatError(
                f"leaf {path} at byte {start} brings the arrays to {total} bytes, over the limit "
                f"of {max_bytes}; give a larger max_bytes if you trust the file"
            )
        specs.append(spec)
        previous = path
    return specs


def _enter(tree: dict[str | int, Any], path: Path) -> bool:
    """Insert a leaf into nested dictionaries; return whether its path was free."""
    for component in path[:-1]:
        tree = tree.setdefault(component, {})
        if tree is None:  # a leaf
            return False
    if path[-1] in tree:
        return False
    tree[path[-1]] = None
    return True


def _read_path(reader: ByteReader, previous: Path, names: list[str]) -> Path:
    kept = reader.varint("path")
    if kept == 0:
        return ()
    if kept - 1 > len(previous):
        raise FormatError(
            f"path at byte {reader.offset - 1} keeps {kept - 1} components of the previous path, "
            f"which has {len(previous)}"
        )
    path = list(previous[: kept - 1])
    while True:
        start = reader.offset
        token = reader.varint("path component")
        code, last = token >> 1, token & 1
        if code == _INTEGER:
            path.append(reader.varint("path component"))
        elif code == _NEW_NAME:
            raw = reader.take(reader.varint("length of a name"), "name")
            try:
                names.append(raw.decode())
            except UnicodeDecodeError as error:
                raise FormatError(f"name at byte {start} is not UTF-8: {error}") from None
            path.append(names[-1])
        elif code - _FIRST_NAME < len(names):
            path.append(names[code - _FIRST_NAME])
        else:
            raise FormatError(f"path component at byte {start} has unknown code {code}")
        if last:
            return tuple(path)
        if len(path) >= MAX_COMPONENTS:
            raise FormatError(f"path at byte {start} has more than {MAX_COMPONENTS} components")


def _read_type(reader: ByteReader, path: Path) -> Spec:
    start = reader.offset
    code, axes = divmod(reader.take(1, "element type")[0], 8)
    if code >= len(DTYPES):
        raise FormatError(f"unknown element type {code} of leaf {path} at byte {start}")
    if axes == _MANY_AXES:
        axes = reader.varint("number of axes")
    if axes > _MAX_AXES:
        raise FormatError(
            f"leaf {path} at byte {start} has {axes} axes; at most {_MAX_AXES} are allowed"
        )
    dtype = _TYPES[code]
    shape = tuple(reader.varint("axis length") for _ in range(axes))
    if math.prod(n for n in shape if n) * DTYPES[dtype] >= 2**63:
        raise FormatError(f"leaf {path} at byte {start} has an impossible shape {shape}")
    return Spec(path, dtype, shape)
