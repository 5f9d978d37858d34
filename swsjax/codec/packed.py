"""The header of a file of many leaves: paths without what they repeat, deflated."""

import re
import zlib
from collections.abc import Sequence

from swsjax.codec.header import MAX_COMPONENTS, Path, Spec, read_leaves, type_bytes
from swsjax.codec.wire import ByteReader, varint
from swsjax.errors import FormatError

__all__ = ["packed_specs", "read_packed_specs"]

# Bytes that UTF-8 never has.
_NAME, _INTEGER, _END = b"\xff", b"\xfe", b"\xfd"
_COMPONENT = re.compile(rb"([^\xfe\xff]*)([\xfe\xff])")
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")
_WINDOW = -15  # deflate alone, without the header and checksum of zlib
_LEVEL, _MEMORY = 9, 9
# Deflate makes a thousand bytes of one, and a leaf takes far more memory than its bytes here. So
# the limit on the size of the arrays is one on these sizes as well, unless it is smaller than this.
_LEAF_BYTES, _COMPONENT_BYTES = 64, 16
_SMALL = 1 << 20


def packed_specs(specs: Sequence[Spec]) -> bytes:
    """Return the header bytes that describe ``specs``, deflated.

    Of the text of each path only what follows the bytes shared with the previous text is written.

    Example:
        >>> specs = [Spec((f"block_{i}", "w"), "float32", (4,)) for i in range(1000)]
        >>> len(packed_specs(specs)) < 300
        True
    """
    out = [varint(len(specs))]
    previous = b""
    for spec in specs:
        text = _text(spec.path)
        kept = _common(previous, text)
        out += [varint(kept), text[kept:], _END, type_bytes(spec)]
        previous = text
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY)
    deflated = deflater.compress(b"".join(out)) + deflater.flush()
    return varint(len(deflated)) + deflated


def _common(first: bytes, second: bytes) -> int:
    """Return the number of bytes that two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _text(path: Path) -> bytes:
    return b"".join(
        b"%d" % component + _INTEGER if isinstance(component, int) else component.encode() + _NAME
        for component in path
    )


def read_packed_specs(reader: ByteReader, max_bytes: int) -> list[Spec]:
    """Read what :func:`packed_specs` wrote.

    Args:
        reader: a :class:`~swsjax.codec.wire.ByteReader`.
        max_bytes: maximum total size of the decoded leaves.

    Raises:
        FormatError: the header is damaged, or the leaves exceed ``max_bytes``.

    Example:
        >>> header = packed_specs([Spec(("w", 0), "bfloat16", (3,))])
        >>> read_packed_specs(ByteReader(header), max_bytes=6)
        [Spec(path=('w', 0), dtype='bfloat16', shape=(3,))]
    """
    deflated = reader.take(reader.varint("length of the header"), "header")
    start = reader.offset - len(deflated)
    limit = max(max_bytes, _SMALL)
    inflater = zlib.decompressobj(_WINDOW)
    try:
        header = inflater.decompress(deflated, limit)
    except zlib.error as error:
        raise FormatError(f"header at byte {start} cannot be inflated: {error}") from None
    if inflater.unconsumed_tail:
        raise FormatError(f"header at byte {start}: {_too_large(limit)}")
    if not inflater.eof or inflater.unused_data:
        raise FormatError(f"header at byte {start} does not end with its deflated data")
    inflated = ByteReader(header)
    paths = _Paths(inflated, limit)
    try:
        specs = read_leaves(inflated, max_bytes, paths.read)
    except FormatError as error:
        raise FormatError(f"header at byte {start}, inflated: {error}") from None
    if inflated.remaining:
        raise FormatError(f"header at byte {start}, inflated: {inflated.remaining} bytes are left")
    return specs


def _too_large(limit: int) -> str:
    return (
        f"its leaves take more than {limit} bytes beside their arrays; give a larger max_bytes if "
        "you trust the file"
    )


class _Paths:
    """Reads paths one after another."""

    def __init__(self, reader: ByteReader, limit: int) -> None:
        self._reader, self._limit = reader, limit
        self._text = b""
        self._size = 0
        self._known: dict[bytes, str | int] = {}

    def read(self, _: Path) -> Path:
        """Return the next path."""
        offset = self._reader.offset
        kept = self._reader.varint("path")
        if kept > len(self._text):
            raise FormatError(
                f"path at byte {offset} keeps {kept} bytes of the previous path, which has "
                f"{len(self._text)}"
            )
        self._text = self._text[:kept] + self._reader.until(_END, "path")
        components = _COMPONENT.findall(self._text)
        self._size += _LEAF_BYTES + _COMPONENT_BYTES * len(components) + len(self._text)
        if self._size > self._limit:
            raise FormatError(_too_large(self._limit))
        if sum(len(part) + 1 for part, _ in components) < len(self._text):
            raise FormatError(f"path at byte {offset} ends within a component")
        if len(components) > MAX_COMPONENTS:
            raise FormatError(f"path at byte {offset} has more than {MAX_COMPONENTS} components")
        return tuple(self._component(part, kind, offset) for part, kind in components)

    def _component(self, part: bytes, kind: bytes, offset: int) -> str | int:
        known = self._known.get(part + kind)
        if known is not None:
            return known
        if kind == _INTEGER:
            if not _NUMBER.fullmatch(part) or int(part) >= 1 << 63:
                raise FormatError(f"path at byte {offset} has {part!r} for an integer")
            component: str | int = int(part)
        else:
            try:
                component = part.decode()
            except UnicodeDecodeError as error:
                raise FormatError(f"name at byte {offset} is not UTF-8: {error}") from None
        self._known[part + kind] = component
        return component
