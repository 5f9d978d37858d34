"""The ``.sws`` container: magic, header, coded leaves, checksum; see ``docs/format.md``."""

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from swsjax.codec.bits import bits_of
from swsjax.codec.entropy import LEAST_GAIN, Features, decode_entropy, encode_entropy
from swsjax.codec.han import decode_han, encode_han
from swsjax.codec.header import (
    DTYPES,
    LARGEST_PATTERNS,
    MAX_COMPONENTS,
    Path,
    Spec,
    pattern_dtype,
    pattern_shape,
    read_specs,
    specs_bytes,
)
from swsjax.codec.packed import packed_specs, read_packed_specs
from swsjax.codec.wire import ByteReader, varint
from swsjax.errors import ConfigError, FormatError, WrongTypeError

__all__ = ["ENCODINGS", "MAX_BYTES", "Contents", "leaf_bits", "pack", "read_metadata", "unpack"]

MAGIC = b"sws"
# The version of a file is the lowest that can hold it. Version 2 has units, version 3 has flags.
_PLAIN, _WITH_UNITS, _FLAGGED = 1, 2, 3
MAX_BYTES = 2**32
"""Default limit on the total size in bytes of the arrays of a file."""
ENCODINGS = ("entropy", "han", "han-huffman")
"""Names of the encodings; the index is the code in the file."""
_ENCODING, _HAS_METADATA, _HAS_RAW = 3, 4, 8  # flags of all versions
_PACKED_HEADER, _UNITS, _STACKS, _ZERO_SIGNS = 16, 32, 64, 128  # and those of version 3
_CHECKSUM_BYTES = 4


class Contents(NamedTuple):
    """A decoded file."""

    specs: list[Spec]
    """Path, element type and shape of each leaf."""
    bits: list[np.ndarray]
    """The bit patterns of each leaf, flat, in the same order."""
    metadata: dict[str, Any]
    """The dictionary that was passed with the leaves; empty without one."""


def pack(
    leaves: Iterable[tuple[Path, np.ndarray]],
    metadata: Mapping[str, Any] | None = None,
    encoding: str = "entropy",
) -> bytes:
    """Return the bytes of a file.

    Args:
        leaves: ``(path, array)`` pairs; a path is a tuple of strings and non-negative integers.
        metadata: a dictionary of what JSON has, and of NumPy's numbers; an empty one takes no
            bytes.
        encoding: one of :data:`ENCODINGS`.

    Raises:
        WrongTypeError: the element type of an array, or a value of the metadata, is not supported.
        ConfigError: unknown encoding, path too deep, or NaN or infinity in the metadata.

    Example:
        >>> data = pack([(("w",), np.zeros((2, 3), np.float32))])
        >>> unpack(data).specs[0]
        Spec(path=('w',), dtype='float32', shape=(2, 3))
    """
    if encoding not in ENCODINGS:
        raise ConfigError(f"encoding {encoding!r} is not one of {', '.join(ENCODINGS)}")
    leaves = list(leaves)
    specs = [Spec(tuple(path), array.dtype.name, array.shape) for path, array in leaves]
    for spec in specs:
        if len(spec.path) > MAX_COMPONENTS:
            raise ConfigError(
                f"path {spec.path} has {len(spec.path)} components; at most {MAX_COMPONENTS} are "
                "allowed"
            )
        if spec.dtype not in DTYPES:
            raise WrongTypeError(
                f"leaf {spec.path} has element type {spec.dtype}, expected one of "
                f"{', '.join(DTYPES)}; convert it with astype"
            )
    head, flags = b"", ENCODINGS.index(encoding)
    if metadata:
        text = _json(metadata)
        flags |= _HAS_METADATA
        head = varint(len(text)) + text
    header, packed = specs_bytes(specs), packed_specs(specs)
    if len(packed) + LEAST_GAIN <= len(header):
        header = packed
        flags |= _PACKED_HEADER
    head += header
    bits = [bits_of(array) for _, array in leaves]
    shapes = [pattern_shape(DTYPES[spec.dtype], spec.shape) for spec in specs]
    raw = b""
    if encoding == "entropy":
        body, raw, _, features = encode_entropy(shapes, bits)
        if raw:
            flags |= _HAS_RAW
            head += varint(len(body))
    else:
        body, has_units = encode_han(shapes, bits, huffman=encoding == "han-huffman")
        features = Features(has_units)
    flags |= _STACKS * features.stacks | _ZERO_SIGNS * features.zero_signs
    return _sealed(flags, features.units, head + body + raw)


def _json(metadata: Mapping[str, Any]) -> bytes:
    try:
        plain = _plain(metadata)
        return json.dumps(
            plain, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        ).encode()
    except TypeError as error:
        raise WrongTypeError(f"the metadata is not JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the metadata is not JSON: {error}") from None


def _plain(value: Any) -> Any:
    """A value with Python's numbers in place of NumPy's."""
    match value:
        case Mapping():
            for key in value:
                if not isinstance(key, str):
                    raise WrongTypeError(f"keys must be strings, got {key!r}")
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return list(map(_plain, value))
        case np.bool_() | np.integer() | np.floating():
            return value.item()
    return value


def _sealed(flags: int, has_units: bool, body: bytes) -> bytes:
    """Return a file of the lowest version that can hold it."""
    version = _WITH_UNITS if has_units else _PLAIN
    if flags >= _PACKED_HEADER:
        version, flags = _FLAGGED, flags | _UNITS * has_units
    data = MAGIC + bytes([version, flags]) + body
    return data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


def leaf_bits(arrays: Iterable[np.ndarray]) -> list[float]:
    """Return the bits that each array takes when all are coded together in the default encoding.

    The rest of a file is its header, metadata and checksum.

    Args:
        arrays: NumPy arrays, one per leaf, in the order of the file.

    Example:
        >>> kernel = np.zeros((4, 8), np.float32)
        >>> kernel[0, 3] = kernel[3, 7] = 0.5
        >>> [round(bits) for bits in leaf_bits([kernel, np.zeros(8, np.float32)])]
        [47, 2]
    """
    arrays = list(arrays)
    shapes = [pattern_shape(array.dtype.itemsize, array.shape) for array in arrays]
    return encode_entropy(shapes, [bits_of(array) for array in arrays]).leaf_bits


def unpack(data: bytes, max_bytes: int = MAX_BYTES) -> Contents:
    """Return the :class:`Contents` of a file's bytes.

    Args:
        data: the bytes of a file.
        max_bytes: maximum total size of the decoded arrays, checked before they are allocated.

    Raises:
        FormatError: ``data`` is not a valid ``.sws`` file, or its arrays exceed ``max_bytes``.

    Example:
        >>> contents = unpack(pack([(("w",), np.array([0.0, 1.0], np.float32))]))
        >>> contents.bits[0].view(contents.specs[0].dtype)
        array([0., 1.], dtype=float32)
    """
    opened = _open(data)
    reader, flags = opened.reader, opened.flags
    specs = (read_packed_specs if flags & _PACKED_HEADER else read_specs)(reader, max_bytes)
    shapes = [pattern_shape(DTYPES[spec.dtype], spec.shape) for spec in specs]
    dtypes = [pattern_dtype(spec.dtype) for spec in specs]
    features = Features(bool(flags & _UNITS), bool(flags & _STACKS), bool(flags & _ZERO_SIGNS))
    has_raw = flags & _HAS_RAW
    size = reader.varint("length of the coded leaves") if has_raw else reader.remaining
    start = reader.offset
    body = reader.take(size, "coded leaves")
    encoding = ENCODINGS[flags & _ENCODING]
    if encoding == "entropy":
        raw = reader.take(reader.remaining, "raw values")
        names = [spec.path for spec in specs]
        bits = decode_entropy(body, raw, shapes, dtypes, names, start, features)
    else:
        bits = decode_han(body, shapes, dtypes, encoding == "han-huffman", start, features.units)
    for spec, leaf in zip(specs, bits, strict=True):
        largest = LARGEST_PATTERNS.get(spec.dtype)
        if largest is not None and leaf.max(initial=0) > largest:
            raise FormatError(f"leaf {spec.path} is {spec.dtype} but has the value {leaf.max()}")
    return Contents(specs, bits, opened.metadata)


def read_metadata(data: bytes) -> dict[str, Any]:
    """Return the metadata of a file's bytes without decoding its leaves.

    Raises:
        FormatError: ``data`` is not a valid ``.sws`` file.

    Example:
        >>> read_metadata(pack([], {"seed": 3}))
        {'seed': 3}
    """
    return _open(data).metadata


class _Opened(NamedTuple):
    """What comes before the header of a file, in terms of version 3."""

    flags: int
    metadata: dict[str, Any]
    reader: ByteReader


def _open(data: bytes) -> _Opened:
    """Check magic, version and checksum; return a reader past the metadata."""
    smallest = len(MAGIC) + 2 + _CHECKSUM_BYTES
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError(f"not an .sws file: it starts with {bytes(data[:4])!r}, not {MAGIC!r}")
    if len(data) < smallest:
        raise FormatError(
            f"file has {len(data)} bytes, expected at least {smallest}: it is cut off"
        )
    version = data[len(MAGIC)]
    if version not in (_PLAIN, _WITH_UNITS, _FLAGGED):
        raise FormatError(
            f"format version {version} at byte {len(MAGIC)}; this package reads {_PLAIN} to "
            f"{_FLAGGED}"
        )
    stop = len(data) - _CHECKSUM_BYTES
    stored, computed = int.from_bytes(data[stop:], "big"), zlib.crc32(data[:stop])
    if stored != computed:
        raise FormatError(
            f"checksum at byte {stop} is {stored:08x}, expected {computed:08x}: "
            "the file is damaged or cut off"
        )
    reader = ByteReader(data, stop)
    reader.take(len(MAGIC) + 1, "magic")
    flags = reader.take(1, "flags")[0]
    code = flags & _ENCODING
    of_entropy = _HAS_RAW | _STACKS | _ZERO_SIGNS
    is_new = flags >= _PACKED_HEADER
    if code >= len(ENCODINGS) or (code and flags & of_entropy) or is_new != (version == _FLAGGED):
        raise FormatError(f"unknown flags {flags:#x} at byte {reader.offset - 1}")
    metadata = _read_metadata(reader) if flags & _HAS_METADATA else {}
    return _Opened(flags | _UNITS * (version == _WITH_UNITS), metadata, reader)


def _read_metadata(reader: ByteReader) -> dict[str, Any]:
    text = reader.take(reader.varint("length of the metadata"), "metadata")
    start = reader.offset - len(text)
    try:
        metadata = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"metadata at byte {start} is not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise FormatError(f"metadata at byte {start} is not a dictionary")
    return metadata
