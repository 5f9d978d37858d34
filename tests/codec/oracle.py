"""A second decoder, in plain Python, written from docs/format.md.

Slow, and it trusts its input: its only use is to show that the page says everything.
"""

import json
import math
import zlib
from decimal import Decimal, getcontext

getcontext().prec = 30
NAMES = """
    bias kernel scale embedding mean var params batch_stats value weight w b query key out
    Dense_0 Dense_1 Dense_2 Conv_0 Conv_1 BatchNorm_0 conv1 conv2 fc1 fc2 fc3
    layers linear linear1 linear2 conv conv3 norm dense"""
WIDTHS = [4, 2, 2, 8, 1, 1, 2, 4, 8, 1, 2, 4, 8, 8, 16, 1, 1]  # bytes of type 0, 1, ...
LN2 = 45426
LN = [round((1 + (i + Decimal("0.5")) / 1024).ln() * 65536) for i in range(1024)]
SQUASH = [round(65536 / (1 + (-Decimal(z) / 256).exp())) for z in range(2840)]


def ln(n):
    e = n.bit_length() - 1
    return e * LN2 + LN[(n << 10 >> e) - 1024]


def logit(k, n, p, s):
    return (ln(65536 * k + s * p) - ln(65536 * (n - k) + s * (65536 - p))) >> 8


def clip(x, limit):
    return max(-limit, min(limit, x))


def sign(x):
    return (x > 0) - (x < 0)


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


class RangeDecoder:
    def __init__(self, data):
        self.data, self.at = data, 0
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self):
        part = self.data[self.at : self.at + 4]
        self.at += 4
        return int.from_bytes(part + bytes(4 - len(part)), "big")

    def next(self, bounds):
        """bounds: F_0, F_1, ... and 2**24 at the end."""
        scale = self.range >> 24
        q = ((self.point - self.lower) % 2**64) // scale
        s = next(s for s in range(len(bounds) - 1) if q < bounds[s + 1])
        self.lower = (self.lower + scale * bounds[s]) % 2**64
        self.range = scale * (bounds[s + 1] - bounds[s])
        if self.range < 2**32:
            self.lower = self.lower * 2**32 % 2**64
            self.range *= 2**32
            self.point = (self.point * 2**32 + self.word()) % 2**64
        return s

    def decision(self, p):
        return self.next([0, ((65536 - p) * (2**24 - 2) >> 16) + 1, 2**24])

    def integer(self, width):
        value = 0
        for _ in range(width):
            value = 2 * value + self.decision(32768)
        return value

    def symbol(self, counts):
        quotient = float(2**24 - len(counts)) / float(sum(counts))
        sums = [sum(counts[:s]) for s in range(len(counts))]
        return self.next([s + int(sums[s] * quotient) for s in range(len(counts))] + [2**24])


class Mixer:
    def __init__(self, weights, patience):
        self.w = [round(65536 * w) for w in weights]
        self.h = [patience << 32] * len(weights)

    def mix(self, inputs):
        inputs[:] = [clip(x, 2839) for x in inputs]
        z = clip(sum(w * x for w, x in zip(self.w, inputs, strict=True)) >> 16, 2839)
        return SQUASH[z] if z >= 0 else 65536 - SQUASH[-z]

    def learn(self, block):
        """block: (inputs, p, b) of each decision."""
        for i in range(len(self.w)):
            self.h[i] += sum(x[i] ** 2 * (p * (65536 - p) >> 16) for x, p, _ in block)
            step = sum(x[i] * (65536 * b - p) for x, p, b in block) * 26843546 // self.h[i]
            self.w[i] = clip(self.w[i] + step, 2**20)


class Neighbours:
    def __init__(self, step, line):
        near = [step, line] if line else [step]
        middle = [2 * step, 2 * line, line - step, line + step] if line else [2 * step]
        self.near = [s * o for o in near for s in (1, -1)]
        self.middle = [s * o for o in middle for s in (1, -1)]


class Decider:
    def __init__(self, tables, weights):
        self.mixer = Mixer(weights, 50)
        self.counts = [{} for _ in range(tables)]

    def fade(self):
        for table in self.counts:
            for key, (ones, trials) in table.items():
                d = max(1, (trials + 3) // 4)
                table[key] = (ones // d, trials // d)

    def code(self, coder, decisions):
        """decisions: (node, contexts) each; return the bits."""
        block = []
        for node, contexts in decisions:
            ones, trials = self.counts[0].get((0, node), (0, 0))
            q = max(1, min(65535, (2 * ones + 1) * 65536 // (2 * trials + 2)))
            plain = logit(ones, trials, 32768, 1)
            inputs = [plain]
            for table, c in zip(self.counts[1:], contexts, strict=True):
                known = table.get((c, node), (0, 0))
                inputs.append(0 if c is None else logit(*known, q, 2) - plain)
            p = self.mixer.mix(inputs)
            block.append((inputs, p, coder.decision(p)))
        self.mixer.learn(block)
        for (node, contexts), (_, _, bit) in zip(decisions, block, strict=True):
            for table, c in zip(self.counts, [0, *contexts], strict=True):
                if c is not None:
                    ones, trials = table.get((c, node), (0, 0))
                    table[c, node] = (ones + bit, trials + 1)
        return [bit for _, _, bit in block]


class Codebook:
    def __init__(self, coder, width):
        n, t = coder.integer(12), coder.integer(6)
        before, x, self.levels = [0] * (width + 1), 0, []
        for _ in range(n):
            b = coder.symbol([1 + 10 * count for count in before])
            before[b] += 1
            x += (1 << (b - 1)) + coder.integer(b - 1)
            self.levels.append(x << t)
        self.count = n
        self.positive = sum(level < 1 << (width - 1) for level in self.levels)
        self.bins = 2**20 // max(self.positive, n - self.positive)
        self.sign = Decider(2, [1, 1])
        self.magnitude = Decider(5, [1, 0.4, 0.4, 0.3, 0.4])

    def rank(self, level):
        return level + 1 if level < self.positive else -(level - self.positive + 1)


def decode(data):
    """Return ``(path, type, shape, patterns)`` of every leaf, and the metadata."""
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "big")
    reader = Bytes(data[:-4])
    assert reader.take(4) == b"sws\x01"
    flags = reader.take(1)[0]
    metadata = json.loads(reader.take(reader.varint())) if flags & 4 else {}
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
        kind, axes = divmod(reader.take(1)[0], 8)
        axes = reader.varint() if axes == 7 else axes
        shape = tuple(reader.varint() for _ in range(axes))
        specs.append((tuple(path), kind, shape))
    if flags & 3:
        return han_leaves(Bits(reader.data[reader.at :]), specs, flags & 3 == 2), metadata
    size = reader.varint() if flags & 8 else len(reader.data) - reader.at
    coder = RangeDecoder(reader.take(size))
    raw = Bytes(reader.data[reader.at :])
    return decode_leaves(coder, raw, specs), metadata


class Bits:
    def __init__(self, data):
        self.bits, self.at = "".join(f"{byte:08b}" for byte in data), 0

    def field(self, width):
        self.at += width
        return int("0" + self.bits[self.at - width : self.at], 2)

    def huffman(self, count):
        present = [s for s, bit in enumerate([self.field(1) for _ in range(self.field(17))]) if bit]
        lengths = {s: self.field(4) + 1 for s in present}
        code, before, codes = 0, 0, {}
        for s in sorted(present, key=lambda s: (lengths[s], s)):
            code <<= lengths[s] - before
            before = lengths[s]
            codes[f"{code:0{before}b}"] = s
            code += 1
        out = []
        while len(out) < count:
            width = next(w for w in range(1, 17) if self.bits[self.at : self.at + w] in codes)
            out.append(codes[self.bits[self.at : self.at + width]])
            self.at += width
        return out


def han_leaves(bits, specs, huffman):
    widths = [min(WIDTHS[kind], 8) for _, kind, _ in specs]
    shared = {}
    for width in widths:
        if width not in shared:
            shared[width] = han_codebook(bits, width) if bits.field(1) else None
    out = []
    for (path, kind, shape), width in zip(specs, widths, strict=True):
        pattern_shape = (*shape, 2) if WIDTHS[kind] == 16 else shape
        mode = bits.field(2)
        if mode == 0:
            patterns = [bits.field(8 * width) for _ in range(math.prod(pattern_shape))]
        else:
            book = shared[width] if shared[width] is not None else han_codebook(bits, width)
            patterns = han_matrix(bits, pattern_shape, book, mode == 2, huffman)
        out.append((path, kind, shape, patterns))
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


def decode_leaves(coder, raw, specs):
    leaves = []
    for path, kind, shape in specs:
        width = min(WIDTHS[kind], 8)
        pattern_shape = (*shape, 2) if WIDTHS[kind] == 16 else shape
        leaves.append([path, kind, shape, pattern_shape, width])
    order = sorted(range(len(leaves)), key=lambda i: len(leaves[i][3]) < 2)
    shared = {}
    for i in order:
        shared.setdefault(leaves[i][4], None)
    for width in shared:
        if coder.integer(1):
            shared[width] = Codebook(coder, 8 * width)
    patterns, profiles = [None] * len(leaves), []
    for i in order:
        _, _, _, shape, width = leaves[i]
        patterns[i] = decode_leaf(coder, raw, shape, width, shared[width], profiles)
    return [(*leaf[:3], bits) for leaf, bits in zip(leaves, patterns, strict=True)]


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
                    near, middle = neighbours.near, neighbours.middle
                    a = sum(k_row[r + o] for o in near if 0 <= r + o < rows)
                    inputs.append(logit(a, len(near) * (d + 1), layer, t) - y)
                    near, middle = (
                        sum((d - o) % columns < d and (r + o, c) in mask for o in offsets)
                        for offsets in (near, middle)
                    )
                    s = 8 * min(near, 4) + min(middle, 7)
                    states.append(s)
                    inputs.append(logit(k_state[s], n_state[s], layer, 2) - y)
                    choice = min(near, 2)
                if link:
                    profile, profile_rows = link
                    q = 65536 * sum(profile) // (len(profile) * profile_rows)
                    q = max(1, min(65535, q))
                    g = profile[r % len(profile)]
                    inputs.append(logit(g, profile_rows, q, 2) - logit(0, 0, q, 2))
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
        ranges = [(0, book.count)] * len(block)
        if 0 < book.positive < book.count:
            decisions = []
            for _, r, c in block:
                signs = None
                if neighbours:
                    signs = sum(2 * sign(rank.get((r + o, c), 0)) for o in neighbours.near)
                    signs += sum(sign(rank.get((r + o, c), 0)) for o in neighbours.middle)
                    signs = clip(signs, 6) + 6
                decisions.append((book.positive, [signs]))
            bits = book.sign.code(coder, decisions)
            ranges = [(book.positive, book.count) if bit else (0, book.positive) for bit in bits]
        contexts = []
        mean = 65536 * sum(row_sum) // len(out) if out else 196608
        for _, r, c in block:
            of_row, in_row, nearby = None, None, None
            if columns > 1:
                of_row = row_size[r].bit_length()
                in_row = (65536 * row_sum[r] + mean) // (row_count[r] + 1)
                in_row = min(16, in_row * book.bins // 2**32)
            if neighbours:
                ranks = [abs(rank.get((r + o, c), 0)) for o in neighbours.near]
                known = sum(x > 0 for x in ranks)
                nearby = 0
                if known:
                    nearby = 1 + min(16, sum(ranks) * book.bins // (65536 * known))
            contexts.append([of_row, column_size[c].bit_length(), in_row, nearby])
        while True:
            open_ = [i for i, (low, high) in enumerate(ranges) if high - low > 1]
            if not open_:
                break
            nodes = []
            for i in open_:
                low, high = ranges[i]
                nodes.append(book.positive if low < book.positive < high else (low + high) // 2)
            decisions = [(m, contexts[i]) for i, m in zip(open_, nodes, strict=True)]
            bits = book.magnitude.code(coder, decisions)
            for i, m, bit in zip(open_, nodes, bits, strict=True):
                low, high = ranges[i]
                ranges[i] = (m, high) if bit else (low, m)
        for (_, r, c), (level, _) in zip(block, ranges, strict=True):
            rank[r, c] = book.rank(level)
            row_sum[r] += abs(rank[r, c])
            row_count[r] += 1
            out.append(book.levels[level])
        start = stop
    return out
