"""The ``.sws`` container: magic, header, coded leaves, checksum. See ``docs/format.md``."""

import json
import zlib
from typing import NamedTuple

from swsjax.codec.bits import bits_of
from swsjax.codec.csr import decode_han, encode_han
from swsjax.codec.header import DTYPES, Spec, pattern_dtype, pattern_shape, read_specs, specs_bytes
from swsjax.codec.wire import ByteReader, varint
from swsjax.errors import FormatError

__all__ = ["ENCODINGS", "MAX_BYTES", "Contents", "pack", "read_metadata", "unpack"]

MAGIC = b"sws"
VERSION = 1
MAX_BYTES = 2**32
ENCODINGS = ("entropy", "han", "han-huffman")  # the position is the code in the file
_HAS_METADATA = 4
_CHECKSUM_BYTES = 4


class Contents(NamedTuple):
    """A decoded file: leaf specs, their flat bit patterns in the same order, the metadata."""

    specs: list
    bits: list
    metadata: dict


def pack(leaves, metadata=None, encoding="han"):
    """Return the bytes of a file.

    Args:
        leaves: ``(path, array)`` pairs; a path is a tuple of strings and non-negative integers.
        metadata: a JSON-serialisable dictionary; costs nothing when empty.
        encoding: one of :data:`ENCODINGS`.

    Raises:
        TypeError: an array has an element type the format does not know.
        ValueError: unknown encoding, or metadata that is not JSON.

    Example:
        >>> import numpy as np
        >>> data = pack([(("w",), np.zeros((2, 3), np.float32))])
        >>> unpack(data).specs[0]
        Spec(path=('w',), dtype='float32', shape=(2, 3))
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding {encoding!r} is not one of {', '.join(ENCODINGS)}")
    specs = [Spec(tuple(path), array.dtype.name, array.shape) for path, array in leaves]
    for spec in specs:
        if spec.dtype not in DTYPES:
            raise TypeError(
                f"leaf {spec.path} is of type {spec.dtype}; the format knows {', '.join(DTYPES)}"
            )
    flags = ENCODINGS.index(encoding)
    head = b""
    if metadata:
        text = json.dumps(
            metadata, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        ).encode()
        flags |= _HAS_METADATA
        head = varint(len(text)) + text
    head = MAGIC + bytes([VERSION, flags]) + head + specs_bytes(specs)
    bits = [bits_of(array) for _, array in leaves]
    shapes = [pattern_shape(spec) for spec in specs]
    body = encode_han(shapes, bits, huffman=encoding == "han-huffman")
    data = head + body
    return data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


def unpack(data, max_bytes=MAX_BYTES):
    """Return the :class:`Contents` of a file's bytes.

    Args:
        data: the bytes of a file.
        max_bytes: the largest total size of the decoded arrays; checked before any is allocated.

    Raises:
        FormatError: ``data`` is no undamaged file of this format, or is larger than allowed.
    """
    reader, encoding, metadata = _open(data)
    specs = read_specs(reader, max_bytes)
    start = reader.offset
    body = reader.take(reader.remaining, "coded leaves")
    shapes = [pattern_shape(spec) for spec in specs]
    dtypes = [pattern_dtype(spec.dtype) for spec in specs]
    bits = decode_han(body, shapes, dtypes, encoding == "han-huffman", start)
    for spec, leaf in zip(specs, bits, strict=True):
        if spec.dtype == "bool" and leaf.max(initial=0) > 1:
            raise FormatError(f"leaf {spec.path} is bool but has a value of {leaf.max()}")
    return Contents(specs, bits, metadata)


def read_metadata(data):
    """Return the metadata of a file's bytes without decoding its leaves.

    Raises:
        FormatError: ``data`` is no undamaged file of this format.
    """
    return _open(data)[2]


def _open(data):
    """Check magic, version and checksum; return a reader past the metadata."""
    smallest = len(MAGIC) + 2 + _CHECKSUM_BYTES
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError(f"not an .sws file: it starts with {bytes(data[:4])!r}, not {MAGIC!r}")
    if len(data) < smallest:
        raise FormatError(f"file ends at byte {len(data)}, before its header does")
    if data[len(MAGIC)] != VERSION:
        raise FormatError(
            f"format version {data[len(MAGIC)]} at byte {len(MAGIC)}; this package reads {VERSION}"
        )
    stop = len(data) - _CHECKSUM_BYTES
    stored, computed = int.from_bytes(data[stop:], "big"), zlib.crc32(data[:stop])
    if stored != computed:
        raise FormatError(
            f"checksum at byte {stop} is {stored:08x}, the data's is {computed:08x}: "
            "the file is damaged or cut off"
        )
    reader = ByteReader(data, stop)
    reader.take(len(MAGIC) + 1, "magic")
    flags = reader.take(1, "flags")[0]
    code = flags & ~_HAS_METADATA
    if code >= len(ENCODINGS):
        raise FormatError(f"unknown flags {flags:#x} at byte {reader.offset - 1}")
    metadata = _read_metadata(reader) if flags & _HAS_METADATA else {}
    return reader, ENCODINGS[code], metadata


def _read_metadata(reader):
    text = reader.take(reader.varint("length of the metadata"), "metadata")
    start = reader.offset - len(text)
    try:
        metadata = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"metadata at byte {start} is not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise FormatError(f"metadata at byte {start} is not a dictionary")
    return metadata
