"""The range decoder and the adaptive models of the entropy encoding, for oracle.py."""

import copy
import math
import struct
from decimal import Decimal, getcontext
from itertools import accumulate

getcontext().prec = 30
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
        """Return the next symbol; bounds: F_0, F_1, ..., 2**24."""
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
        sums = [0, *accumulate(counts[:-1])]
        return self.next([s + int(k * quotient) for s, k in enumerate(sums)] + [2**24])


class Mixer:
    def __init__(self, weights, patience):
        self.w = [round(65536 * w) for w in weights]
        self.h = [patience << 32] * len(weights)

    def mix(self, inputs):
        inputs[:] = [clip(x, 2839) for x in inputs]
        z = clip(sum(w * x for w, x in zip(self.w, inputs, strict=True)) >> 16, 2839)
        return SQUASH[z] if z >= 0 else 65536 - SQUASH[-z]

    def learn(self, block):
        """Update the weights; block: (inputs, p, b) of each decision."""
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
        """Return the next bits; decisions: (node, contexts) of each."""
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


def number(pattern):
    return struct.unpack(">f", struct.pack(">I", pattern))[0]


def product(level, unit):
    """Return the pattern of the product of two float32 patterns."""
    if not math.isfinite(number(level)):
        return level
    exact = number(level) * number(unit)
    try:
        return struct.unpack(">I", struct.pack(">f", exact))[0]
    except OverflowError:  # a level of other leaves, with the unit of this one
        return 0x7F800000 | (0x80000000 if exact < 0 else 0)


class Units:
    def __init__(self, zeros):
        self.zeros, self.unit = zeros, 0x3F800000

    def next(self, coder):
        """Return the unit of the next leaf."""
        if coder.integer(1):
            self.unit = coder.integer(31 - self.zeros) << self.zeros
        return self.unit


class Codebook:
    def __init__(self, coder, width):
        n, t = coder.integer(12), coder.integer(6)
        counts, x, self.levels = [0] * (width + 1), 0, []
        for _ in range(n):
            b = coder.symbol([1 + 10 * count for count in counts])
            counts[b] += 1
            x += (1 << (b - 1)) + coder.integer(b - 1)
            self.levels.append(x << t)
        self.count = n
        self.positive = sum(level < 1 << (width - 1) for level in self.levels)
        self.bins = 2**20 // max(self.positive, n - self.positive)
        self.units = None
        self.sign = Decider(2, [1, 1])
        self.magnitude = Decider(5, [1, 0.4, 0.4, 0.3, 0.4])

    def times(self, unit):
        """Return the codebook in a unit; it has the same deciders."""
        book = copy.copy(self)
        book.levels = [product(level, unit) for level in self.levels]
        return book

    def rank(self, level):
        return level + 1 if level < self.positive else -(level - self.positive + 1)
