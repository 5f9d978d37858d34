"""The Han encoding, for the decoder in oracle.py."""

import math

from oracle_models import product


class Bits:
    def __init__(self, data):
        self.bits, self.at = "".join(f"{byte:08b}" for byte in data), 0

    def field(self, width):
        self.at += width
        return int("0" + self.bits[self.at - width : self.at], 2)

    def huffman(self, count):
        present = [s for s, bit in enumerate([self.field(1) for _ in range(self.field(17))]) if bit]
        lengths = {s: self.field(4) + 1 for s in present}
        code, length, codes = 0, 0, {}
        for s in sorted(present, key=lambda s: (lengths[s], s)):
            code <<= lengths[s] - length
            length = lengths[s]
            codes[f"{code:0{length}b}"] = s
            code += 1
        out = []
        while len(out) < count:
            width = next(w for w in range(1, 17) if self.bits[self.at : self.at + w] in codes)
            out.append(codes[self.bits[self.at : self.at + width]])
            self.at += width
        return out


def han_leaves(bits, forms, huffman, has_units):
    """Return the patterns of every leaf; forms: its pattern shape and pattern width in bytes."""
    shared = {}
    for _, width in forms:
        if width not in shared:
            shared[width] = han_codebook(bits, width) if bits.field(1) else None
    out = []
    for shape, width in forms:
        mode = bits.field(2)
        if mode == 0:
            out.append([bits.field(8 * width) for _ in range(math.prod(shape))])
        else:
            book = shared[width] if shared[width] is not None else han_codebook(bits, width)
            if has_units and width == 4 and shared[width] is not None:
                unit = bits.field(32)
                book = [product(level, unit) for level in book]
            out.append(han_matrix(bits, shape, book, mode == 2, huffman))
    return out


def han_codebook(bits, width):
    return [bits.field(8 * width) for _ in range(bits.field(16))]


def han_matrix(bits, shape, book, transposed, huffman):
    rows, columns = (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)
    p, fillers, w = bits.field(4), bits.field(1), bits.field(6)
    ends = [bits.field(w) for _ in range(columns if transposed else rows)]
    count = ends[-1]
    if huffman:
        differences, values = bits.huffman(count), bits.huffman(count)
    else:
        differences = [bits.field(p) for _ in range(count)]
        width = (len(book) + fillers - 1).bit_length() if len(book) + fillers else 0
        values = [bits.field(width) for _ in range(count)]
    out = [0] * (rows * columns)
    entry = 0
    for row, end in enumerate(ends):
        column = -1
        while entry < end:
            column += differences[entry] + 1
            if values[entry] >= fillers:
                r, c = (column, row) if transposed else (row, column)
                out[r * columns + c] = book[values[entry] - fillers]
            entry += 1
    return out
