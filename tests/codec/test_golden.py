"""Golden files that must never change: encoder, decoder, and the second decoder.

A change to any of them is a breaking change of the format and requires a new version number.
``python tests/codec/test_golden.py`` rewrites them.
"""

import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from oracle import Bytes, decode

from swsjax import codec

FOLDER = Path(__file__).parent / "golden"
UNEVEN = (0.05, 0.3, 1.0, 2.65)


class Numbers:
    """A linear congruential generator, which unlike NumPy's will never change."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n

    def sparse(self, shape, density, levels):
        """Rows and columns of unequal density, so that their statistics matter."""
        matrix = np.zeros((int(np.prod(shape[:-1])), shape[-1]), np.float32)
        for r in range(matrix.shape[0]):
            for c in range(matrix.shape[1]):
                if self.below(10000) < 10000 * density * UNEVEN[r % 4] * UNEVEN[c % 4]:
                    matrix[r, c] = levels[min(self.below(len(levels)), self.below(len(levels)))]
        return matrix.reshape(shape)

    def raw(self, shape, dtype):
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return (
            np.array([self.below(256) for _ in range(count)], np.uint8).view(dtype).reshape(shape)
        )


def dense():
    """A small dense network with full-precision float32 levels and a shared codebook."""
    numbers = Numbers(1)
    levels = (np.arange(-7, 8)[np.arange(15) != 7] / 9).astype(np.float32)
    return {
        ("fc1", "bias"): numbers.sparse((40,), 0.15, levels),
        ("fc1", "kernel"): numbers.sparse((96, 40), 0.1, levels),
        ("fc2", "bias"): np.zeros(12, np.float32),
        ("fc2", "kernel"): numbers.sparse((40, 12), 0.3, levels),
        ("out", "kernel"): numbers.sparse((12, 4), 0.5, levels),
    }


def spatial():
    """Rows that are pixels, with neighbours to be found, and convolution taps."""
    numbers = Numbers(2)
    levels = np.float32([-0.5, -0.25, 0.25, 0.5])
    kernel = numbers.sparse((16 * 12, 20), 0.02, levels)
    for _ in range(60):  # blobs
        c, centre = numbers.below(20), numbers.below(14) * 12 + numbers.below(10)
        for offset in (0, 1, 12, 13, 25):
            kernel[centre + offset, c] = levels[c % 4]
    first = np.repeat(numbers.sparse((1, 8, 12), 0.3, levels), 9, 0).reshape(3, 3, 8, 12)
    second = np.repeat(numbers.sparse((1, 12, 16), 0.3, levels), 9, 0).reshape(3, 3, 12, 16)
    return {
        ("params", "Dense_0", "kernel"): kernel,
        ("params", "Conv_0", "kernel"): first,
        ("params", "Conv_1", "kernel"): second,
        ("params", "even"): (np.arange(900) * 7 % 30 < 4).reshape(30, 30) * levels[3],
    }


def mixed():
    """Dense raw leaves, sparse raw leaves, and every element type of 8 bits or more."""
    numbers = Numbers(3)
    table = numbers.raw((30, 20), np.float64)
    table[numbers.sparse((30, 20), 0.2, np.float32([1])) == 0] = 0
    leaves = {("layers", 0, "weight"): numbers.raw((9, 5), np.float32), ("table",): table}
    bfloat16 = np.asarray([0x3F80, 0, 0x8000, 0x7FC1], np.uint16)
    for name in codec.DTYPES:
        if name.endswith("int4"):
            continue
        if name == "bfloat16" or name.startswith("float8"):
            dtype = pytest.importorskip("ml_dtypes")
            dtype = np.dtype(getattr(dtype, name))
            values = bfloat16.view(dtype) if name == "bfloat16" else numbers.raw((4,), np.uint8)
            leaves["types", name] = values.view(dtype)
        else:
            leaves["types", name] = np.arange(4).astype(name)
    leaves["scalar",] = np.float32(-0.0)
    leaves["empty",] = np.zeros((0, 7), np.int8)
    return leaves


def units():
    """Leaves in units of their own, two in the same unit, and two that take no part."""
    numbers = Numbers(4)
    levels = np.float32([-1.75, -1.0, -0.59375, -0.25, 0.375, 0.8125, 1.5])
    of_leaf = np.float32([40000, 33333, 50001, 64123, 2**15 + 1]) * np.float32(2) ** -18
    return {
        ("fc1", "bias"): numbers.sparse((40,), 0.3, levels) * of_leaf[0],
        ("fc1", "kernel"): numbers.sparse((96, 40), 0.1, levels) * of_leaf[1],
        ("fc2", "bias"): numbers.sparse((12,), 0.9, levels[2:3]) * of_leaf[2],
        ("fc2", "kernel"): numbers.sparse((40, 12), 0.3, levels) * of_leaf[3],
        ("fc3", "kernel"): numbers.sparse((12, 12), 0.5, levels) * of_leaf[3],
        ("out", "kernel"): numbers.sparse((12, 4), 0.5, levels) * of_leaf[4],
        ("out", "bias"): numbers.raw((4,), np.float32),
        ("step",): np.int32(1_000_003),
    }


def many():
    """Stacks of two sizes, one of them with negative zeros, and leaves between them."""
    numbers = Numbers(5)
    levels = np.float32([-0.75, -0.5, 0.125, 0.5])
    leaves = {}
    for i in range(300):
        leaf = numbers.sparse((4, 3), 0.4, levels)
        leaves["blocks", i, "kernel"] = leaf * np.float32([-1, 1, -1, 1] * 3).reshape(4, 3)
        leaves["blocks", i, "bias é"] = numbers.sparse((3,), 0.8, levels).astype(np.float64)
        if i == 7:
            leaves["blocks", i, "large/kernel"] = numbers.sparse((30, 20), 0.1, levels)
    return leaves


def zeros():
    """Negative zeros by row in either orientation, at random, and nothing else."""
    numbers = Numbers(6)
    levels = np.float32([-0.75, -0.5, 0.125, 0.5])
    by_row, random = numbers.sparse((90, 60), 0.1, levels), numbers.sparse((900,), 0.1, levels)
    by_row[::3] *= np.float32(-1)
    random[[numbers.below(900) for _ in range(400)]] *= np.float32(-1)
    unquantised = numbers.raw((40, 30), np.float32)
    unquantised[numbers.sparse((40, 30), 0.2, levels) == 0] = 0
    unquantised[:, ::2] *= np.float32(-1)
    return {
        ("by row",): by_row,
        ("by column",): by_row.T.copy(),
        ("random",): random,
        ("unquantised",): unquantised,
        ("all",): np.full((7, 7), -0.0, np.float32),
        ("none",): np.zeros((7, 7), np.float32),
        ("empty",): np.zeros((0, 7), np.float16),
    }


def nibbles():
    """Integers of 4 bits: a sparse kernel with a codebook, every pattern, and another type."""
    numbers, dtypes = Numbers(7), pytest.importorskip("ml_dtypes")
    kernel = numbers.sparse((60, 40), 0.2, np.float32([1, 3, 7, 8, 13, 15])).astype(np.uint8)
    return {
        ("fc1", "kernel"): kernel.view(dtypes.int4),
        ("fc2", "kernel"): kernel[:12].view(dtypes.uint4),
        ("every",): np.arange(16, dtype=np.uint8).view(dtypes.int4),
        ("scale",): np.float32([0.5, 0.25]),
    }


NETS = {
    "dense": dense,
    "spatial": spatial,
    "mixed": mixed,
    "units": units,
    "many": many,
    "zeros": zeros,
    "nibbles": nibbles,
}
CASES = [(name, encoding) for name in NETS for encoding in codec.ENCODINGS]


@cache
def packed(name, encoding):
    metadata = {"model": name, "error": 0.0186} if name == "dense" else None
    return codec.pack(list(NETS[name]().items()), metadata, encoding)


def inflated(data):
    """A file without its checksum and with its header inflated: zlib is not always the same."""
    if data[3] < 3 or not data[4] & 16:
        return data
    reader = Bytes(data[5:])
    return data[:5], zlib.decompress(reader.take(reader.varint()), -15), reader.data[reader.at : -4]


@pytest.mark.parametrize(("name", "encoding"), CASES)
def test_encoder_writes_the_golden_file(name, encoding):
    golden = (FOLDER / f"{name}-{encoding}.sws").read_bytes()
    assert inflated(packed(name, encoding)) == inflated(golden)


@pytest.mark.parametrize(("name", "encoding"), CASES)
def test_decoder_reads_the_golden_file(name, encoding):
    contents = codec.unpack((FOLDER / f"{name}-{encoding}.sws").read_bytes())
    leaves = NETS[name]()
    assert [spec.path for spec in contents.specs] == list(leaves)
    for spec, bits, array in zip(contents.specs, contents.bits, leaves.values(), strict=True):
        assert (spec.dtype, spec.shape) == (array.dtype.name, array.shape)
        assert bits.tobytes() == array.tobytes()


@pytest.mark.parametrize(("name", "encoding"), CASES)
def test_second_decoder_reads_the_golden_file(name, encoding):
    data = (FOLDER / f"{name}-{encoding}.sws").read_bytes()
    leaves, metadata = decode(data)
    contents = codec.unpack(data)
    assert metadata == contents.metadata
    for (path, _, shape, patterns), spec, bits in zip(
        leaves, contents.specs, contents.bits, strict=True
    ):
        assert (path, shape) == (spec.path, spec.shape)
        assert patterns == bits.tolist()


@pytest.mark.parametrize(("name", "encoding"), CASES)
def test_a_file_has_the_lowest_version_that_can_hold_it(name, encoding):
    version, flags = packed(name, encoding)[3:5]
    new_flags = {"many": 16 + (64 + 128) * (encoding == "entropy")}
    new_flags["zeros"] = 128 * (encoding == "entropy")
    expected = 2 if name == "units" else 3 if new_flags.get(name) else 1
    assert (version, flags & 0xF0) == (expected, new_flags.get(name, 0))


if __name__ == "__main__":
    for case in CASES:
        (FOLDER / "{}-{}.sws".format(*case)).write_bytes(packed(*case))
