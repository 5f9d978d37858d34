"""A second decoder, in plain Python, written from docs/format.md.

It is slow and does not check its input. Its only purpose is to show that the page is complete.
"""

import json
import math
import zlib

from oracle_han import Bits, han_leaves
from oracle_models import (
    Codebook,
    Decider,
    Mixer,
    Neighbours,
    RangeDecoder,
    Units,
    clip,
    logit,
    sign,
)

NAMES = """
    bias kernel scale embedding mean var params batch_stats value weight w b query key out
    Dense_0 Dense_1 Dense_2 Conv_0 Conv_1 BatchNorm_0 conv1 conv2 fc1 fc2 fc3
    layers linear linear1 linear2 conv conv3 norm dense"""
WIDTHS = [4, 2, 2, 8, 1, 1, 2, 4, 8, 1, 2, 4, 8, 8, 16, 1, 1, 1, 1]  # bytes of type 0, 1, ...


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value


def decode(data):
    """Return ``(path, type, shape, patterns)`` of every leaf, and the metadata of the file."""
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "big")
    reader = Bytes(data[:-4])
    assert reader.take(3) == b"sws"
    version = reader.take(1)[0]
    assert version in (1, 2, 3)
    flags = reader.take(1)[0] | (32 if version == 2 else 0)
    metadata = json.loads(reader.take(reader.varint())) if flags & 4 else {}
    if flags & 16:
        specs = packed_specs(Bytes(zlib.decompress(reader.take(reader.varint()), -15)))
    else:
        specs = plain_specs(reader)
    forms = [
        ((*shape, 2) if WIDTHS[t] == 16 else shape, min(WIDTHS[t], 8)) for _, t, shape in specs
    ]
    if flags & 3:
        patterns = han_leaves(Bits(reader.data[reader.at :]), forms, flags & 3 == 2, flags & 32)
    else:
        size = reader.varint() if flags & 8 else len(reader.data) - reader.at
        coder = RangeDecoder(reader.take(size))
        patterns = entropy_leaves(coder, Bytes(reader.data[reader.at :]), forms, flags)
    return [(*spec, bits) for spec, bits in zip(specs, patterns, strict=True)], metadata


def plain_specs(reader):
    names, specs, path = NAMES.split(), [], []
    for _ in range(reader.varint()):
        path = path[: max(reader.varint() - 1, 0)]
        last = reader.data[reader.at - 1] == 0
        while not last:
            token = reader.varint()
            last = token & 1
            if token >> 1 == 0:
                names.append(reader.take(reader.varint()).decode())
                path = [*path, names[-1]]
            elif token >> 1 == 1:
                path = [*path, reader.varint()]
            else:
                path = [*path, names[(token >> 1) - 2]]
        specs.append((tuple(path), *type_and_shape(reader)))
    return specs


def packed_specs(reader):
    specs, text = [], b""
    for _ in range(reader.varint()):
        text = text[: reader.varint()]
        while (byte := reader.take(1)) != b"\xfd":
            text += byte
        path, part = [], b""
        for byte in text:
            if byte == 0xFF:
                path.append(part.decode())
            elif byte == 0xFE:
                path.append(int(part))
            part = part + bytes([byte]) if byte < 0xFE else b""
        specs.append((tuple(path), *type_and_shape(reader)))
    return specs


def type_and_shape(reader):
    kind, axes = divmod(reader.take(1)[0], 8)
    axes = reader.varint() if axes == 7 else axes
    return kind, tuple(reader.varint() for _ in range(axes))


def entropy_leaves(coder, raw, forms, flags):
    """Return the patterns of every leaf; forms: its pattern shape and pattern width in bytes."""
    groups = stacks(coder, forms) if flags & 64 else [[i] for i in range(len(forms))]
    as_one = {}
    for group in groups:
        shape, width = forms[group[0]]
        as_one[group[0]] = ((len(group), math.prod(shape)) if len(group) > 1 else shape, width)
    order = sorted(as_one, key=lambda i: len(as_one[i][0]) < 2)
    shared = dict.fromkeys(as_one[i][1] for i in order)
    for width in shared:
        if coder.integer(1):
            shared[width] = Codebook(coder, 8 * width)
            if flags & 32 and width == 4:
                shared[width].units = Units(coder.integer(5))
    coded, profiles = {}, []
    for i in order:
        shape, width = as_one[i]
        coded[i] = decode_leaf(coder, raw, shape, width, shared[width], profiles)
        if flags & 128 and coded[i]:
            zero_signs(coder, coded[i], shape, width)
    patterns = [None] * len(forms)
    for group in groups:
        size = len(coded[group[0]]) // len(group)
        for k, i in enumerate(group):
            patterns[i] = coded[group[0]][k * size : (k + 1) * size]
    return patterns


def stacks(coder, forms):
    """Return the indexes of the leaves that are coded as one, in the order of the first of each."""
    sets = {}
    for i, (shape, width) in enumerate(forms):
        if 0 < math.prod(shape) <= 256:
            sets.setdefault((math.prod(shape), width), []).append(i)
    chosen = [group for group in sets.values() if len(group) >= 256 and coder.integer(1)]
    stacked = {i for group in chosen for i in group}
    return sorted([*chosen, *([i] for i in range(len(forms)) if i not in stacked)])


def zero_signs(coder, patterns, shape, width):
    """Decode which zeros are negative."""
    if not coder.integer(1):
        return
    top = 1 << (8 * width - 1)
    is_mixed = coder.integer(1)
    rows, columns = (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)
    transposed = rows < columns
    r_count, c_count = (columns, rows) if transposed else (rows, columns)
    places = []
    for d in range(c_count):
        for r in range(r_count):
            c = (r + d) % c_count
            at = c * columns + r if transposed else r * columns + c
            if patterns[at] == 0:
                places.append((d * r_count + r, r if c_count > 1 else None, c, at))
    decider, start = Decider(3, [1, 0.4, 0.4]), 0
    while start < len(places):
        stop = min(start + min(max(8, start // 8), 2**15), len(places))
        while places[stop - 1][0] >> 17 != places[start][0] >> 17:
            stop -= 1
        block = places[start:stop]
        signs = [1] * len(block)
        if is_mixed:
            signs = decider.code(coder, [(0, [r, c]) for _, r, c, _ in block])
        for (*_, at), negative in zip(block, signs, strict=True):
            patterns[at] = top if negative else 0
        start = stop


def decode_leaf(coder, raw, shape, width, shared, profiles):
    size = math.prod(shape)
    kind = coder.integer(2)
    if kind == 3:
        return [0] * size
    if kind == 2:
        return planes(coder, raw, size, width)
    book = shared
    if kind == 0 and not (shared and coder.integer(1)):
        book = Codebook(coder, 8 * width)
    elif kind == 0 and book.units:
        book = book.times(book.units.next(coder))
    rows, columns = (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)
    transposed, neighbours = rows < columns, None
    if min(rows, columns) > 1:
        transposed = coder.integer(1)
        form = coder.integer(2)
        if form == 1:
            neighbours = Neighbours(shape[-2], shape[-3] * shape[-2] if len(shape) > 3 else 0)
        elif form == 2:
            neighbours = Neighbours(coder.integer(12), coder.integer(12))
    r_count, c_count = (columns, rows) if transposed else (rows, columns)
    fits = [entry for entry in profiles[::-1][:64] if r_count % len(entry[0]) == 0][:8]
    link = coder.integer(len(fits).bit_length())
    even = c_count > 1 and not neighbours and not link and coder.integer(1)
    mask = positions(coder, r_count, c_count, even, neighbours, fits[link - 1] if link else None)
    places = []
    for d in range(c_count):
        for r in range(r_count):
            if (r, (r + d) % c_count) in mask:
                places.append((d * r_count + r, r, (r + d) % c_count))
    if kind == 0:
        values = levels(coder, book, places, r_count, c_count, neighbours)
    else:
        values = planes(coder, raw, len(places), width)
    out = [0] * size
    profile = [0] * columns
    for (_, r, c), value in zip(places, values, strict=True):
        row, column = (c, r) if transposed else (r, c)
        out[row * columns + column] = value
        profile[column] += 1
    if columns > 1:
        profiles.append((profile, rows))
    return out


def planes(coder, raw, size, width):
    out = [0] * size
    for k in range(width):
        if not coder.integer(1):
            plane = list(raw.take(size))
        else:
            plane, counts = [], [1] * 256
            while len(plane) < size:
                n = min(max(256, len(plane) // 2), 2**16, size - len(plane))
                block = [coder.symbol(counts) for _ in range(n)]
                for byte in block:
                    counts[byte] += 16
                plane += block
        out = [value | byte << 8 * k for value, byte in zip(out, plane, strict=True)]
    return out


def positions(coder, rows, columns, even, neighbours, link):
    weights = {
        (False, False): [1, 0.3, 0.3] if even else [0.85, 0.75, 0.6],
        (False, True): [0.85, 0.5, 0.65, 0.25],
        (True, False): [0.87, 0.1, 0.52, 0.45, 0.55],
        (True, True): [0.87, 0.1, 0.52, 0.35, 0.55, 0.1],
    }[neighbours is not None, link is not None]
    mixers = [Mixer(weights, 100) for _ in range(3)]
    mask, total, done = set(), 0, 0
    k_row, k_column, n_column = [0] * rows, [0] * columns, [0] * columns
    k_state, n_state = [0] * 40, [0] * 40
    for d in range(columns):
        start = 0
        while start < rows:
            stop = min(rows, start + min(max(8, done // 2), 2**15))
            layer = max(1, min(65535, (16 * total + 2) * 65536 // (16 * done + 32)))
            t = 3 + (131072 if even else 6554) // layer
            block, states = [], []
            for r in range(start, stop):
                c = (r + d) % columns
                y = logit(total, done, layer, 2)
                by_column = logit(k_column[c], n_column[c], layer, t)
                inputs = [y, logit(k_row[r], d, layer, t) - y, by_column - y]
                choice = 0
                if neighbours:
                    a = sum(k_row[r + o] for o in neighbours.near if 0 <= r + o < rows)
                    inputs.append(logit(a, len(neighbours.near) * (d + 1), layer, t) - y)
                    near, s = position_state(mask, r, c, d, columns, neighbours)
                    states.append(s)
                    inputs.append(logit(k_state[s], n_state[s], layer, 2) - y)
                    choice = min(near, 2)
                if link:
                    inputs.append(link_logit(r, *link))
                p = mixers[choice].mix(inputs)
                block.append((inputs, p, coder.decision(p), choice))
            for choice, mixer in enumerate(mixers):
                mixer.learn([decision[:3] for decision in block if decision[3] == choice])
            for r, (_, _, bit, _) in zip(range(start, stop), block, strict=True):
                c = (r + d) % columns
                n_column[c] += 1
                if neighbours:
                    n_state[states[r - start]] += 1
                if bit:
                    mask.add((r, c))
                    k_row[r] += 1
                    k_column[c] += 1
                    total += 1
                    if neighbours:
                        k_state[states[r - start]] += 1
            done += stop - start
            start = stop
    return mask


def position_state(mask, r, c, d, columns, neighbours):
    """Return the number of near non-zeros, and the state s."""
    near, middle = (
        sum((d - o) % columns < d and (r + o, c) in mask for o in offsets)
        for offsets in (neighbours.near, neighbours.middle)
    )
    return near, 8 * min(near, 4) + min(middle, 7)


def link_logit(r, profile, profile_rows):
    q = max(1, min(65535, 65536 * sum(profile) // (len(profile) * profile_rows)))
    return logit(profile[r % len(profile)], profile_rows, q, 2) - logit(0, 0, q, 2)


def levels(coder, book, places, rows, columns, neighbours):
    book.sign.fade()
    book.magnitude.fade()
    row_size, column_size = [0] * rows, [0] * columns
    for _, r, c in places:
        row_size[r] += 1
        column_size[c] += 1
    row_sum, row_count, rank, out = [0] * rows, [0] * rows, {}, []
    start = 0
    while start < len(places):
        n = max(8, start // 8, len(places) // 400 if start else 0)
        stop = min(start + min(n, 2**15), len(places))
        chunk = places[start][0] >> 20
        while places[stop - 1][0] >> 20 != chunk:
            stop -= 1
        block = places[start:stop]
        mean = 65536 * sum(row_sum) // len(out) if out else 196608
        signs, contexts = [], []
        for _, r, c in block:
            row = None, None
            if columns > 1:
                row_mean = (65536 * row_sum[r] + mean) // (row_count[r] + 1)
                row = row_size[r].bit_length(), min(16, row_mean * book.bins // 2**32)
            sign_context, nearby = None, None
            if neighbours:
                sign_context, nearby = neighbour_contexts(rank, r, c, neighbours, book.bins)
            signs.append([sign_context])
            contexts.append([row[0], column_size[c].bit_length(), row[1], nearby])
        for (_, r, c), level in zip(block, block_levels(coder, book, signs, contexts), strict=True):
            rank[r, c] = book.rank(level)
            row_sum[r] += abs(rank[r, c])
            row_count[r] += 1
            out.append(book.levels[level])
        start = stop
    return out


def neighbour_contexts(rank, r, c, neighbours, bins):
    """Return the contexts "signs" and "nearby"."""
    near, middle = (
        [rank.get((r + o, c), 0) for o in offsets]
        for offsets in (neighbours.near, neighbours.middle)
    )
    signs = clip(sum(2 * sign(x) for x in near) + sum(sign(x) for x in middle), 6) + 6
    n = sum(x != 0 for x in near)
    s = sum(abs(x) for x in near)
    return signs, 1 + min(16, s * bins // (65536 * n)) if n else 0


def block_levels(coder, book, signs, contexts):
    """Return the levels of a block of non-zeros."""
    ranges = [(0, book.count)] * len(contexts)
    if 0 < book.positive < book.count:
        bits = book.sign.code(coder, [(book.positive, context) for context in signs])
        ranges = [(book.positive, book.count) if bit else (0, book.positive) for bit in bits]
    while True:
        undecided = [i for i, (low, high) in enumerate(ranges) if high - low > 1]
        if not undecided:
            return [low for low, _ in ranges]
        nodes = []
        for i in undecided:
            low, high = ranges[i]
            nodes.append(book.positive if low < book.positive < high else (low + high) // 2)
        decisions = [(m, contexts[i]) for i, m in zip(undecided, nodes, strict=True)]
        bits = book.magnitude.code(coder, decisions)
        for i, m, bit in zip(undecided, nodes, bits, strict=True):
            low, high = ranges[i]
            ranges[i] = (m, high) if bit else (low, m)
