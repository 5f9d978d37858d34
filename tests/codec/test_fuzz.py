"""Damaged files raise FormatError or decode to valid leaves, in bounded time and memory.

``SWSJAX_FUZZ_CASES=20000 pytest tests/codec/test_fuzz.py`` runs the full test.
"""

import math
import os
import zlib
from pathlib import Path

import ml_dtypes  # noqa: F401  registers int4 with NumPy
import numpy as np
import pytest

from swsjax import codec
from swsjax.errors import FormatError

CASES = int(os.environ.get("SWSJAX_FUZZ_CASES", "600"))
PARTS = 6
LIMIT = 1 << 20
LARGEST = {"bool": 1, "int4": 15, "uint4": 15}
GOLDEN = Path(__file__).parent / "golden"
RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*/*.sws"))


def corpus():
    """Small files with every kind of leaf, in every encoding."""
    rng = np.random.default_rng(0)
    book = np.float32([-0.5, -0.25, -0.125, 0.125, 0.25, 0.5])

    def sparse(*shape, density=0.15):
        return np.where(rng.random(shape) < density, rng.choice(book, shape), np.float32(0))

    nets = [
        {
            ("fc1", "kernel"): sparse(40, 12),
            ("fc1", "bias"): sparse(12, density=0.5),
            ("fc2", "kernel"): sparse(12, 5, density=0.7),
            ("fc2", "bias"): rng.normal(size=5).astype(np.float32),
        },
        {
            ("conv", "kernel"): sparse(3, 3, 4, 6, density=0.4),
            ("step",): np.int32(7),
            ("on",): rng.random(50) < 0.3,
            ("table", 0): (rng.random((9, 8)) < 0.2) * rng.normal(size=(9, 8)),
            ("table", 1): np.arange(40, dtype=np.uint16),
        },
        {
            ("a deep", "path", 3, "kernel"): np.repeat(sparse(1, 30, density=0.3), 30, 0),
            ("empty",): np.zeros((0, 4), np.float16),
            ("z",): np.zeros((30, 30), np.float16),
            ("c",): np.ones(9, np.complex128),
            ("n",): rng.integers(16, size=(9, 7), dtype=np.uint8).view(np.dtype("int4")),
        },
        {
            ("fc1", "kernel"): sparse(40, 12) * np.float32(1.2351074),
            ("fc1", "bias"): sparse(12, density=0.5) * np.float32(0.071289062),
            ("fc2", "kernel"): sparse(12, 9, density=0.7) * np.float32(1.2351074),
            ("fc3", "kernel"): sparse(9, 5, density=0.7) * np.float32(2.4001465),
        },
    ]
    of_version_3 = ["many-entropy", "many-han", "zeros-entropy"]
    return [
        *(
            codec.pack(list(net.items()), metadata, encoding)
            for net, metadata in zip(nets, [{"model": "toy"}, {}, {}, {}], strict=True)
            for encoding in codec.ENCODINGS
        ),
        *((GOLDEN / f"{name}.sws").read_bytes() for name in of_version_3),
    ]


def mutated(files, rng):
    """A damaged file, most of the time with a valid checksum."""
    data = bytearray(files[rng.integers(len(files))])
    kind = rng.integers(6)
    body = len(data) - 4
    if kind == 0:
        for at in rng.integers(4, body, size=rng.integers(1, 4)):
            data[at] ^= 1 << rng.integers(8)
    elif kind == 1:
        for at in rng.integers(0, min(body, 60), size=rng.integers(1, 4)):
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
    elif kind == 2:
        del data[rng.integers(body) : body]
    elif kind == 3:
        other = files[rng.integers(len(files))]
        data[rng.integers(5, body) : body] = other[rng.integers(5, len(other) - 4) : -4]
    elif kind == 4:
        at, size = rng.integers(4, body), rng.integers(1, 9)
        data[at:at] = rng.bytes(size) if rng.random() < 0.5 else bytes([0xFF] * size)
    else:
        at, size = rng.integers(4, body), rng.integers(1, 9)
        del data[at : min(at + size, body)]
    if rng.random() < 0.9:
        data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files(part):
    files = corpus()
    rng = np.random.default_rng(part)
    rejected = 0
    for _ in range(CASES // PARTS):
        data = mutated(files, rng)
        try:
            contents = codec.unpack(data, max_bytes=LIMIT)
        except FormatError:
            rejected += 1
        else:
            assert sum(leaf.nbytes for leaf in contents.bits) <= LIMIT
            sizes = [math.prod(spec.shape) * codec.DTYPES[spec.dtype] for spec in contents.specs]
            assert [leaf.nbytes for leaf in contents.bits] == sizes
            for spec, leaf in zip(contents.specs, contents.bits, strict=True):
                assert leaf.max(initial=0) <= LARGEST.get(spec.dtype, np.inf)
    assert rejected > CASES // PARTS // 3


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_damaged_lenets(path):
    """Real files, with 1/150 of the cases, as each takes 100 times as long."""
    rng = np.random.default_rng(RESULTS.index(path))
    whole = path.read_bytes()
    for _ in range(CASES // 150):
        data = mutated([whole], rng)
        try:
            contents = codec.unpack(data, max_bytes=8 * LIMIT)
        except FormatError:
            continue
        if data == whole:
            assert all(map(np.array_equal, contents.bits, codec.unpack(whole).bits))
        assert sum(leaf.nbytes for leaf in contents.bits) <= 8 * LIMIT


def test_the_corpus_has_all_versions_and_flags():
    assert {data[3] for data in corpus()} == {1, 2, 3}
    assert {data[4] for data in corpus() if data[3] == 3} == {16 + 64 + 128, 16 + 1, 128 + 8}


def test_every_truncation_is_rejected():
    for data in corpus():
        for size in range(0, len(data), 7):
            with pytest.raises(FormatError):
                codec.unpack(data[:size])


def test_every_flipped_bit_is_rejected():
    for data in (corpus()[0], corpus()[-3]):
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(FormatError):
                codec.unpack(bytes(damaged))
