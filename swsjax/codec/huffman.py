"""Canonical Huffman codes of at most 16 bits, for the Han format."""

import heapq

import numpy as np
import numpy.typing as npt

from swsjax.codec.bits import BitReader, BitWriter
from swsjax.errors import FormatError

__all__ = ["code_lengths", "huffman_bits", "read_huffman", "write_huffman"]

_LONGEST = 16
_SYMBOL_COUNT_BITS = 17


def code_lengths(counts: npt.ArrayLike) -> np.ndarray:
    """Return the code length of every symbol, and 0 for symbols that do not occur.

    Codes longer than 16 bits are avoided by halving the counts until they fit. In practice this
    costs nothing.

    Args:
        counts: (symbols,) number of occurrences of each symbol.

    Example:
        >>> code_lengths(np.array([5, 0, 1, 1])).tolist()
        [1, 0, 2, 2]
    """
    counts = np.asarray(counts, np.int64)
    used = np.flatnonzero(counts)
    lengths = np.zeros(counts.size, np.int64)
    if used.size < 2:
        lengths[used] = 1
        return lengths
    weights = counts[used]
    while True:
        depths = _tree_depths(weights.tolist())
        if max(depths) <= _LONGEST:
            lengths[used] = depths
            return lengths
        weights = (weights + 1) // 2


def _tree_depths(weights: list[int]) -> list[int]:
    """Depth of every leaf of a Huffman tree; of equal weights, the older node is merged first."""
    heap = [(weight, node) for node, weight in enumerate(weights)]
    heapq.heapify(heap)
    parent = {}
    node = len(weights)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        parent[first[1]] = parent[second[1]] = node
        heapq.heappush(heap, (first[0] + second[0], node))
        node += 1
    depth = {node - 1: 0}
    for child in range(node - 2, -1, -1):
        depth[child] = depth[parent[child]] + 1
    return [depth[leaf] for leaf in range(len(weights))]


def _codes(lengths: np.ndarray) -> np.ndarray:
    """Canonical codes, ordered by length, then by symbol."""
    codes = np.zeros(lengths.size, np.int64)
    code, previous = 0, 0
    for symbol in sorted(np.flatnonzero(lengths).tolist(), key=lambda s: (lengths[s], s)):
        code <<= int(lengths[symbol]) - previous
        previous = int(lengths[symbol])
        codes[symbol] = code
        code += 1
    return codes


def huffman_bits(counts: np.ndarray) -> tuple[int, int]:
    """Return ``(table_bits, code_bits)`` of a Huffman-coded sequence with these symbol counts.

    Example:
        >>> huffman_bits(np.array([5, 0, 1, 1]))
        (33, 9)
    """
    lengths = code_lengths(counts)
    used = np.flatnonzero(lengths)
    alphabet = int(used[-1]) + 1 if used.size else 0
    return _SYMBOL_COUNT_BITS + alphabet + 4 * used.size, int((lengths * counts).sum())


def write_huffman(writer: BitWriter, symbols: np.ndarray, alphabet: int) -> None:
    """Append the code table and the codes of ``symbols`` (integers below ``alphabet``).

    Example:
        >>> writer, symbols = BitWriter(), np.array([2, 0, 2, 2, 3])
        >>> write_huffman(writer, symbols, alphabet=4)
        >>> writer.bit_count == sum(huffman_bits(np.bincount(symbols)))
        True
    """
    lengths = code_lengths(np.bincount(symbols, minlength=alphabet))
    used = np.flatnonzero(lengths)
    size = int(used[-1]) + 1 if used.size else 0
    writer.write(size, _SYMBOL_COUNT_BITS)
    writer.write(lengths[:size] > 0, 1)
    writer.write(lengths[used] - 1, 4)
    codes = _codes(lengths)
    for start in range(0, symbols.size, 1 << 18):
        part = symbols[start : start + (1 << 18)]
        widths = lengths[part]
        # Bit k of a code of length w is (code >> (w - 1 - k)) & 1, for all codes at once.
        first = np.cumsum(widths) - widths
        within = np.arange(int(widths.sum())) - np.repeat(first, widths)
        shift = np.repeat(widths, widths) - 1 - within
        writer.write_bits(((np.repeat(codes[part], widths) >> shift) & 1).astype(np.uint8))


def read_huffman(reader: BitReader, count: int, alphabet: int) -> np.ndarray:
    """Read what :func:`write_huffman` wrote: ``count`` symbols below ``alphabet``.

    Raises:
        FormatError: the table is not a prefix code, or the stream is damaged or ends early.

    Example:
        >>> writer = BitWriter()
        >>> write_huffman(writer, np.array([2, 0, 2, 2, 3]), alphabet=4)
        >>> read_huffman(BitReader(writer.getvalue()), 5, alphabet=4).tolist()
        [2, 0, 2, 2, 3]
    """
    start = reader.offset
    size = reader.read_int(_SYMBOL_COUNT_BITS)
    if size > alphabet:
        raise FormatError(
            f"Huffman table at byte {start} has {size} symbols, expected at most {alphabet}"
        )
    used = np.flatnonzero(reader.read_bits(size))
    lengths = np.zeros(size, np.int64)
    lengths[used] = reader.read(used.size, 4).astype(np.int64) + 1
    if (2.0 ** -lengths[used]).sum() > 1:  # sums of powers of two: exact
        raise FormatError(f"Huffman table at byte {start} is not a prefix code")
    table_length = np.zeros(1 << _LONGEST, np.uint8)
    table_symbol = np.zeros(1 << _LONGEST, np.int32)
    codes = _codes(lengths)
    for symbol in used.tolist():
        spare = _LONGEST - int(lengths[symbol])
        low = int(codes[symbol]) << spare
        table_length[low : low + (1 << spare)] = lengths[symbol]
        table_symbol[low : low + (1 << spare)] = symbol
    out = np.empty(count, np.int32)
    done = 0
    while done < count:
        done += _read_block(reader, out[done : done + (1 << 16)], table_length, table_symbol)
    return out


def _read_block(
    reader: BitReader, out: np.ndarray, table_length: np.ndarray, table_symbol: np.ndarray
) -> int:
    """Fill ``out`` with decoded symbols; return its size."""
    start = reader.position
    available = min(reader.remaining, out.size * _LONGEST)
    bits = np.concatenate([reader.read_bits(available), np.zeros(_LONGEST, np.uint8)])
    window = np.zeros(available + 1, np.uint16)
    for k in range(_LONGEST):
        window |= bits[k : k + window.size].astype(np.uint16) << np.uint16(_LONGEST - 1 - k)
    steps = table_length[window].tobytes()
    at, places = 0, []
    for _ in range(out.size):
        step = steps[at]
        if step == 0 or at + step > available:
            reader.position = start + at
            raise FormatError(f"invalid Huffman code at byte {reader.offset}")
        places.append(at)
        at += step
    reader.position = start + at
    out[:] = table_symbol[window[places]]
    return out.size
