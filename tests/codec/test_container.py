"""Rejected files and arguments, the error messages, and memory limits."""

import contextlib
import re
import subprocess
import sys
import tracemalloc
import zlib

import ml_dtypes
import numpy as np
import pytest

from swsjax import codec
from swsjax.codec.header import NAMES, Spec, specs_bytes
from swsjax.codec.wire import ByteReader, varint
from swsjax.errors import FormatError


def sealed(body, flags=0, version=1):
    data = b"sws" + bytes([version, flags]) + body
    return data + zlib.crc32(data).to_bytes(4, "big")


W = b"\x01\x01\x01w"  # no component kept; the last component, a new name; "w"


def leaf(path=W, kind=0, shape=(1,)):
    """Header of one leaf; the path is given as bytes."""
    return path + bytes([kind << 3 | len(shape)]) + b"".join(map(varint, shape))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an .sws file: it starts with b''"),
        (b"PK\x03\x04abcdef", r"not an .sws file: it starts with b'PK\\x03\\x04', not b'sws'"),
        (b"sws\x01\x00", "file has 5 bytes, expected at least 9: it is cut off"),
        (sealed(b"\x00", version=4), "format version 4 at byte 3; this package reads 1 to 3"),
        (
            sealed(b"\x00")[:-1] + b"\x00",
            "checksum at byte 6 is .*, expected .*: the file is damaged or cut off",
        ),
        (sealed(b"\x00", flags=3), "unknown flags 0x3 at byte 4"),
        (sealed(b"\x00", flags=16), "unknown flags 0x10 at byte 4"),
        (sealed(b"\x00", flags=9), "unknown flags 0x9 at byte 4"),
        (sealed(b"\x00", version=3), "unknown flags 0x0 at byte 4"),
        (sealed(b"\x00", flags=16, version=2), "unknown flags 0x10 at byte 4"),
        (sealed(b"\x00", flags=64 + 1, version=3), "unknown flags 0x41 at byte 4"),
        (sealed(b"\x00", flags=128 + 2, version=3), "unknown flags 0x82 at byte 4"),
        (sealed(b"\x05{}", flags=4), "metadata at byte 6 needs 5 bytes, 2 are left"),
        (sealed(b"\x02{]\x00", flags=4), "metadata at byte 6 is not JSON"),
        (sealed(b"\x02[]\x00", flags=4), "metadata at byte 6 is not a dictionary"),
        (sealed(varint(90000) + b"[" * 90000 + b"\x00", flags=4), "at byte 8 is not JSON"),
        (sealed(b"\x09" + leaf()), "9 leaves declared, but 6 bytes are left at byte 6"),
        (sealed(b"\x80\x00"), "number of leaves at byte 5 is not in its shortest form"),
        (sealed(b"\xff" * 12), "number of leaves at byte 5 has more than 9 bytes"),
        (
            sealed(b"\x01" + leaf(b"\x03\x01\x01w")),
            "path at byte 6 keeps 2 components of the previous path, which has 0",
        ),
        (sealed(b"\x01\x01\xfd\x01" + bytes(9)), "component at byte 7 has unknown code 126"),
        (sealed(b"\x01" + leaf(b"\x01\x01\x02\xff\xff")), "name at byte 7 is not UTF-8"),
        (sealed(b"\x02" + 2 * leaf(W)), r"path \('w',\) at byte 12 occurs twice or inside"),
        (sealed(b"\x02" + leaf(W) + leaf(b"\x02\x05")), r"path \('w', 'bias'\) at byte 12 occurs"),
        (sealed(b"\x02" + leaf(b"\x00") + leaf(W)), r"path \(\) at byte 6 occurs twice"),
        (sealed(b"\x01" + leaf(W, kind=19)), r"unknown element type 19 of leaf \('w',\)"),
        (sealed(b"\x01" + W + b"\x07\x41" + bytes(70)), "has 65 axes; at most 64 are allowed"),
        (sealed(b"\x01" + leaf(W, shape=(2**62, 2, 0))), "has an impossible shape"),
        (sealed(b"\x01" + leaf(W, shape=(2**38,))), "1099511627776 bytes, over the limit of 42949"),
        (sealed(b"\x01" + leaf(W) + b"\x70", flags=8), "coded leaves at byte 13 needs 112 bytes"),
        (sealed(b"\x01" + leaf(W), flags=1), "stream ends early: 1 more bits expected at byte 12"),
        (sealed(b"\x01" + leaf(W) + b"\x80"), "shared codebook, coded data from byte 12: codebook"),
        (sealed(b"\x01" + leaf(W) + b"\x40"), r"leaf \('w',\), coded data from byte 12: raw value"),
    ],
)
def test_error_messages_name_problem_and_offset(data, message):
    with pytest.raises(FormatError, match=message):
        codec.unpack(data)


@pytest.mark.parametrize(
    ("dtype", "code", "largest"), [("bool", 4, 1), ("int4", 17, 15), ("uint4", 18, 15)]
)
@pytest.mark.parametrize("encoding", codec.ENCODINGS)
def test_patterns_of_types_that_do_not_use_all_bits(dtype, code, largest, encoding):
    def of_type(value):
        data = codec.pack([(("on",), np.array([value], np.uint8))], encoding=encoding)
        at = data.index(bytes([9 << 3 | 1]))
        body = data[:at] + bytes([code << 3 | 1]) + data[at + 1 : -4]
        return codec.unpack(body + zlib.crc32(body).to_bytes(4, "big"))

    assert of_type(largest).bits[0].tolist() == [largest]
    text = f"leaf ('on',) is {dtype} but has the value {largest + 1}"
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        of_type(largest + 1)


def test_the_upper_half_of_a_byte_has_no_meaning():
    values = np.arange(-8, 8)
    clean = values.astype(ml_dtypes.int4)
    odd = (clean.view(np.uint8) | 0xF0).view(ml_dtypes.int4)
    assert odd.tobytes() != clean.tobytes()
    assert codec.pack([(("w",), odd)]) == codec.pack([(("w",), clean)])
    (bits,) = codec.unpack(codec.pack([(("w",), odd)])).bits
    assert bits.tolist() == [value % 16 for value in values]


def test_a_sparse_matrix_of_4_bits_has_a_codebook():
    rng = np.random.default_rng(0)
    values = np.where(rng.random((200, 100)) < 0.05, rng.choice([-3, 1, 5], (200, 100)), 0)
    size = len(codec.pack([(("w",), values.astype(ml_dtypes.int4))]))
    assert size == len(codec.pack([(("w",), (values % 16).astype(np.uint8))]))
    assert size < values.size / 8


def test_numbers_of_numpy_in_metadata():
    metadata = {
        "seed": np.int64(3),
        "errors": (np.float32(0.5), {"test": np.float64(0.25)}),
        "quantised": np.True_,
    }
    plain = {"seed": 3, "errors": [0.5, {"test": 0.25}], "quantised": True}
    data = codec.pack([], metadata)
    assert data == codec.pack([], plain)
    assert codec.read_metadata(data) == plain


def _circular():
    metadata = {}
    metadata["self"] = metadata
    return metadata


@pytest.mark.parametrize(
    ("metadata", "error", "problem"),
    [
        ({"a": {1: 2, "b": 3}}, TypeError, "keys must be strings, got 1"),
        ({"a": [{np.int64(1): 2}]}, TypeError, "keys must be strings, got np.int64(1)"),
        ({"a": np.ones(2)}, TypeError, "Object of type ndarray is not JSON serializable"),
        ({"a": np.float32("nan")}, ValueError, "Out of range float values are not JSON compliant"),
        (_circular(), ValueError, "maximum recursion depth exceeded"),
    ],
    ids=["numbers", "numbers of NumPy", "arrays", "nan", "circles"],
)
def test_metadata_that_are_not_json(metadata, error, problem):
    with pytest.raises(error, match=f"^the metadata is not JSON: {re.escape(problem)}"):
        codec.pack([], metadata)


def test_a_terabyte_is_rejected_before_allocation():
    header = specs_bytes([Spec(("w",), "float32", (2**19, 2**19))])
    data = sealed(header + bytes(80))
    assert len(data) < 110
    tracemalloc.start()
    with pytest.raises(FormatError, match="over the limit"):
        codec.unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("flags", [0, 1, 2, 128])
@pytest.mark.parametrize("shape", [(2**20,), (2**19, 2), (2, 2**19), (2**10, 2**10)])
def test_memory_is_bounded_on_random_bytes(shape, flags):
    rng = np.random.default_rng(0)
    header = specs_bytes([Spec(("w",), "uint8", shape)])
    tracemalloc.start()
    version = 3 if flags == 128 else 1
    # The last is zero with signs, the others are as they come.
    for body in [*(rng.bytes(60) for _ in range(6)), bytes([0b01111000]) + rng.bytes(60)]:
        data = sealed(header + body, flags, version)
        with contextlib.suppress(FormatError):
            codec.unpack(data, max_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20 + 2**23


def test_header_is_small():
    specs = [
        Spec((layer, leaf), "float32", shape)
        for layer, *shapes in [
            ("fc1", (300,), (784, 300)),
            ("fc2", (100,), (300, 100)),
            ("fc3", (10,), (100, 10)),
        ]
        for leaf, shape in zip(("bias", "kernel"), shapes, strict=True)
    ]
    assert len(specs_bytes(specs)) == 1 + 3 * 3 + 3 * 2 + 6 + 13


def test_common_names_are_part_of_the_format():
    assert zlib.crc32(" ".join(NAMES).encode()) == 1960489005


def test_absent_metadata_takes_no_bytes():
    leaves = [(("w",), np.ones(3, np.float32))]
    assert codec.pack(leaves, {}) == codec.pack(leaves)
    data = codec.pack(leaves, {"b": [1, 2.5, None], "a": "ü"})
    assert (
        codec.unpack(data).metadata == codec.read_metadata(data) == {"b": [1, 2.5, None], "a": "ü"}
    )
    assert len(data) == len(codec.pack(leaves)) + 1 + len('{"a":"ü","b":[1,2.5,null]}'.encode())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: codec.pack(x, encoding="zip"),
            ValueError,
            "encoding 'zip' is not one of entropy",
        ),
        (lambda x: codec.pack(x, {"a": float("nan")}), ValueError, "not JSON compliant"),
        (lambda x: codec.pack(x, {"a": object()}), TypeError, "not JSON serializable"),
        (
            lambda x: codec.pack([((0,) * 65, x[0][1])]),
            ValueError,
            "has 65 components; at most 64 are allowed",
        ),
    ],
)
def test_pack_rejects_invalid_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call([(("w",), np.ones(3, np.float32))])


def test_varint_round_trip():
    for value in (0, 1, 127, 128, 300, 2**63 - 1):
        assert ByteReader(varint(value)).varint("x") == value
    with pytest.raises(FormatError, match="x at byte 0 needs 1 bytes, 0 are left"):
        ByteReader(b"").varint("x")


def test_codec_imports_no_jax():
    code = (
        "import sys, types, importlib.util as u;"
        "p = u.find_spec('swsjax').submodule_search_locations[0];"
        "m = types.ModuleType('swsjax'); m.__path__ = [p]; sys.modules['swsjax'] = m;"
        "import swsjax.codec;"
        "bad = {'jax', 'flax', 'scipy', 'ml_dtypes'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
