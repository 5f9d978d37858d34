"""The packed header: any paths come back, regular names cost little, damage is named."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swsjax import codec
from swsjax.codec.header import MAX_COMPONENTS, Spec, read_specs, specs_bytes
from swsjax.codec.packed import packed_specs, read_packed_specs
from swsjax.codec.wire import ByteReader, varint
from swsjax.errors import FormatError

COMPONENTS = st.one_of(
    st.text(max_size=4), st.integers(0, 2**63 - 1), st.sampled_from(["a", "ab", "0", 0, 1, 10, 12])
)
PATHS = st.lists(st.lists(COMPONENTS, min_size=1, max_size=4).map(tuple), unique=True, max_size=9)


def specs_of(paths, shape=(4,)):
    return [Spec(path, "float32", shape) for path in paths]


def read(header, max_bytes=2**32):
    return read_packed_specs(ByteReader(header), max_bytes)


def read_or_error(reader, header):
    try:
        return reader(ByteReader(header), 2**32)
    except FormatError:
        return None


@settings(max_examples=200, deadline=None)
@given(paths=PATHS, shape=st.sampled_from([(), (3,), (2, 0), (1,) * 9]))
def test_paths_come_back_as_in_a_plain_header(paths, shape):
    """Both refuse a path inside another leaf."""
    specs = specs_of(paths, shape)
    plain = read_or_error(read_specs, specs_bytes(specs))
    assert read_or_error(read_packed_specs, packed_specs(specs)) == plain
    inside = any(a != b[: len(a)] for a in paths for b in paths)
    assert plain == specs or inside


@pytest.mark.parametrize("paths", [[()], [("x" * 5000,)], [tuple("ab" * 32)], [("/",), ("é", 0)]])
def test_unusual_paths(paths):
    assert read(packed_specs(specs_of(paths))) == specs_of(paths)


BLOCKS = [divmod(i, 10) for i in range(10_000)]


@pytest.mark.parametrize(
    "paths",
    [
        [(f"block_{b:04}", f"layer_{i}", "kernel") for b, i in BLOCKS],
        [(f"block_{b:04}/layer_{i}/kernel",) for b, i in BLOCKS],
        [("layers", 10 * b + i, "kernel") for b, i in BLOCKS],
    ],
    ids=["nested", "flat", "list"],
)
def test_regular_names_take_a_bit_per_leaf(paths):
    assert 60_000 < len(specs_bytes(specs_of(paths))) < 310_000
    assert len(packed_specs(specs_of(paths))) < 10_000 / 8
    assert read(packed_specs(specs_of(paths))) == specs_of(paths)


def test_a_header_is_packed_only_where_that_saves_a_hundred_bytes():
    for count, version in ((2, 1), (40, 3)):
        leaves = [((f"layer_{i}", "kernel"), np.zeros(4, np.float32)) for i in range(count)]
        data = codec.pack(leaves)
        assert data[3] == version
        assert [spec.path for spec in codec.unpack(data).specs] == [path for path, _ in leaves]


def deflated(header):
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflater.compress(header) + deflater.flush()
    return varint(len(data)) + data


W = b"\x00w\xff\xfd\x01\x01"  # keeps no bytes; the name w; float32 of one axis of length 1


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (varint(9) + b"abc", "header at byte 1 needs 9 bytes, 3 are left"),
        (varint(3) + b"\xff\xff\xff", "header at byte 1 cannot be inflated: Error -3"),
        (varint(1) + b"\x00", "header at byte 1 does not end with its deflated data"),
        (deflated(b"\x00"), None),
        (deflated(b"\x01" + W + b"rest"), "header at byte 1, inflated: 4 bytes are left"),
        (deflated(b"\x02" + W + W), r"path \('w',\) at byte 7 occurs twice or inside another leaf"),
        (deflated(b"\x01" + W[:-2] + b"\xff"), r"unknown element type 31 of leaf \('w',\)"),
        (deflated(b"\x01\x01w\xff\xfd\x01\x01"), "keeps 1 bytes of the previous path, which has 0"),
        (deflated(b"\x01\x00w\xfd\x01\x01"), "path at byte 1 ends within a component"),
        (deflated(b"\x01\x00w\xff"), "inflated: path at byte 2 has no end"),
        (deflated(b"\x01\x00\xc3\xff\xfd\x01\x01"), "name at byte 1 is not UTF-8"),
        (deflated(b"\x01\x0007\xfe\xfd\x01\x01"), "path at byte 1 has b'07' for an integer"),
        (deflated(b"\x01\x00\xfe\xfd\x01\x01"), "path at byte 1 has b'' for an integer"),
        (
            deflated(b"\x01\x009223372036854775808\xfe\xfd\x01\x01"),
            "path at byte 1 has b'9223372036854775808' for an integer",
        ),
        (
            deflated(b"\x01\x00" + b"w\xff" * (MAX_COMPONENTS + 1) + b"\xfd\x01\x01"),
            "path at byte 1 has more than 64 components",
        ),
    ],
)
def test_damage_is_named(header, message):
    if message is None:
        assert read(header) == []
        return
    with pytest.raises(FormatError, match=message):
        read(header)


def test_a_small_file_of_millions_of_leaves_is_refused():
    bomb = deflated(varint(2**22) + b"\x00a\xff\xfd\x01\x01" * 2**22)
    assert len(bomb) < 2**22 * 6 / 500
    with pytest.raises(FormatError, match=r"^header at byte 3: its leaves take more than 1048576 "):
        read(bomb, max_bytes=2**10)


def test_long_paths_are_counted_even_if_they_are_repeated():
    specs = specs_of([("x" * 4000, i) for i in range(500)])
    header = packed_specs(specs)
    assert len(header) < 2000
    with pytest.raises(FormatError) as caught:
        read(header, max_bytes=2**20)
    assert str(caught.value) == (
        "header at byte 2, inflated: its leaves take more than 1048576 bytes beside their arrays; "
        "give a larger max_bytes if you trust the file"
    )
    assert read(header, max_bytes=2**22) == specs
