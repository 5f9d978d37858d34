"""Files and maps that do not fit, and damaged files: exact messages."""

import json
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from swsjax.errors import ConfigError, FormatError, SwsjaxError
from swsjax.file import files
from swsjax.file.safetensors import (
    flax_kernel,
    flax_kernel_after_flatten,
    from_safetensors,
    to_safetensors,
)

STATE = {
    "fc1.weight": np.ones((4, 3), np.float32),
    "fc1.bias": np.ones(4, np.float32),
    "conv.weight": np.ones((6, 2, 5, 5), np.float32),
    "steps": np.array(7),
}
LIKE = {
    "conv/kernel": np.zeros((5, 5, 2, 6), np.float32),
    "fc1": {"kernel": np.zeros((3, 4), np.float32), "bias": np.zeros(4, np.float32)},
}
SOURCES = {
    "conv/kernel": ("conv.weight", flax_kernel),
    "fc1/kernel": ("fc1.weight", flax_kernel),
    "fc1/bias": "fc1.bias",
}


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "state.safetensors"
    safetensors.numpy.save_file(STATE, path)
    return path


def message(path, like=LIKE, sources=SOURCES, unused=("steps",)):
    with pytest.raises(ConfigError) as caught:
        from_safetensors(path, like, sources=sources, unused=unused)
    start = f"{path} does not fit the tree given: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def test_the_state_and_its_sources_fit(state):
    from_safetensors(state, LIKE, sources=SOURCES, unused=["steps"])


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"fc1/bias": "fc1.bais"},
            "fc1/bias, from fc1.bais, is not in the file (did you mean fc1.bias?); "
            "fc1.bias is in the file but not expected (to leave it out, name it in unused)",
        ),
        (
            {"fc1/bias": "fc1.bias", "fc1/biases": "fc1.bias", "xyz": "steps"},
            "fc1/biases is in sources but is not a leaf of the tree (did you mean fc1/bias?); "
            "xyz is in sources but is not a leaf of the tree",
        ),
        (
            {"fc1/kernel": "fc1.weight"},
            "fc1/kernel, from fc1.weight, is float32[4, 3] in the file, expected float32[3, 4] "
            '(try ("fc1.weight", flax_kernel))',
        ),
        (
            {"conv/kernel": "conv.weight"},
            "conv/kernel, from conv.weight, is float32[6, 2, 5, 5] in the file, "
            'expected float32[5, 5, 2, 6] (try ("conv.weight", flax_kernel))',
        ),
        (
            {"conv/kernel": ("conv.weight", lambda w: w.transpose(3, 2, 0, 1))},
            "conv/kernel, from conv.weight, is float32[6, 2, 5, 5] in the file, "
            "float32[5, 5, 6, 2] after its function, expected float32[5, 5, 2, 6] "
            '(try ("conv.weight", flax_kernel))',
        ),
        (
            {"fc1/kernel": ("conv.weight", flax_kernel)},
            "fc1/kernel, from conv.weight, is float32[6, 2, 5, 5] in the file, "
            "float32[5, 5, 2, 6] after its function, expected float32[3, 4]; "
            "fc1.weight is in the file but not expected (to leave it out, name it in unused)",
        ),
        (
            {"fc1/kernel": ("fc1.weight", flax_kernel_after_flatten(2))},
            "fc1/kernel, from fc1.weight, is float32[4, 3] in the file, which its function "
            "rejects: cannot reshape array of size 12 into shape (4,2,newaxis)",
        ),
        (
            {"fc1/bias": "steps"},
            "fc1/bias, from steps, is int64[] in the file, expected float32[4]; "
            "fc1.bias is in the file but not expected (to leave it out, name it in unused)",
        ),
    ],
)
def test_sources_that_do_not_fit(state, changed, problem):
    assert message(state, sources=SOURCES | changed) == problem


def test_unexpected_tensors(state):
    assert message(state, unused=()) == (
        "steps is in the file but not expected (to leave it out, name it in unused)"
    )


def test_one_message_names_everything_that_does_not_fit(state):
    like = {"fc1": {"weight": np.zeros((4, 4), np.float32)}, "steps": np.zeros((), np.int32)}
    assert message(state, like, {"fc": "x"}, ["conv.weight", "none"]) == (
        "fc is in sources but is not a leaf of the tree; "
        "fc1/weight is not in the file (did you mean fc1.weight, conv.weight?); "
        "steps is int64[] in the file, expected int32[]; "
        "fc1.bias is in the file but not expected (to leave it out, name it in unused); "
        "fc1.weight is in the file but not expected (to leave it out, name it in unused)"
    )


def test_axes_in_a_different_order(tmp_path):
    path = tmp_path / "net.safetensors"
    to_safetensors({"w": np.zeros((2, 3, 4))}, path)
    assert message(path, {"w": np.zeros((3, 4, 2))}, {}) == (
        "w is float64[2, 3, 4] in the file, expected float64[3, 4, 2] "
        '(try ("w", lambda x: x.transpose(1, 2, 0)))'
    )


@pytest.mark.parametrize(
    "source", [3, ("fc1.weight", (1, 0)), ("fc1.weight",), (flax_kernel, "fc1.weight")]
)
def test_an_entry_of_the_wrong_type(state, source):
    text = (
        f"sources has {source!r} for fc1/kernel; expected the name of a tensor, or a pair of it "
        "and a function"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        from_safetensors(state, LIKE, sources=SOURCES | {"fc1/kernel": source})


def test_sources_without_like(state):
    text = "sources and unused refer to leaves of like; pass like too"
    for arguments in ({"sources": SOURCES}, {"unused": ["steps"]}):
        with pytest.raises(ConfigError, match=f"^{text}$"):
            from_safetensors(state, **arguments)


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"a": 1.5}, "leaf a is a float, not an array; use numpy.asarray"),
        (
            {"a": jax.random.key(0)},
            "leaf a is a random key; leave it out or give jax.random.key_data(key)",
        ),
        (
            [np.ones(1, np.complex128)],
            "leaf 0 is of type complex128; safetensors supports float64, float32, float16, "
            "bfloat16, float8_e4m3fn, float8_e5m2, complex64, bool, int8, int16, int32, int64, "
            "uint8, uint16, uint32, uint64",
        ),
    ],
)
def test_leaves_that_cannot_be_written(tree, problem, tmp_path):
    with pytest.raises(TypeError, match=f"^{re.escape(problem)}$"):
        to_safetensors(tree, tmp_path / "net.safetensors")


def test_the_reserved_name(tmp_path):
    text = "the name __metadata__ is reserved in safetensors files; rename the leaf"
    with pytest.raises(ValueError, match=f"^{text}$"):
        to_safetensors({"__metadata__": np.ones(1)}, tmp_path / "net.safetensors")


def test_two_leaves_with_the_same_name(tmp_path):
    tree = {"a": {"b": np.ones(1)}, "a/b": np.zeros(1)}
    with pytest.raises(ValueError, match=r"^two leaves of the tree have the same name, a/b$"):
        to_safetensors(tree, tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("dtype", "like", "values", "lost"),
    [
        ("float32", "float16", [1.0, 65504.0, -65536.0], "-65536.0"),
        ("float64", "float32", [1e38, 1e39], "1e+39"),
        ("float32", "float8_e4m3fn", [1.0, 500.0], "500.0"),
        ("float32", "float8_e4m3fn", [np.inf], "inf"),
    ],
)
def test_values_beyond_the_range_of_the_type(dtype, like, values, lost, tmp_path):
    path = tmp_path / "net.safetensors"
    to_safetensors({"fc": {"w": np.array(values, dtype)}}, path)
    assert message(path, {"fc": {"w": jax.ShapeDtypeStruct((len(values),), like)}}, {}, ()) == (
        f"fc/w is {dtype}[{len(values)}] in the file and has {lost}, which {like} does not hold"
    )


def test_a_type_of_numpy_that_no_file_has(tmp_path):
    path = tmp_path / "net.safetensors"
    to_safetensors({"w": np.ones(2)}, path)
    wide = np.dtype(np.longdouble)
    assert message(path, {"w": np.ones(2, wide)}, {}, ()) == (
        f"w is float64[2] in the file, expected {wide}[2]"
    )


def test_a_type_that_jax_holds_only_if_told_to(tmp_path):
    path = tmp_path / "net.safetensors"
    to_safetensors({"w": np.ones(2)}, path)
    with jax.enable_x64(True):
        like = {"w": jax.numpy.ones(2, "float64")}
        assert from_safetensors(path, like)["w"].dtype == "float64"
    assert message(path, like, {}, ()) == "w is float64, which JAX holds only with jax_enable_x64"


def file_of(tensors, data=b""):
    """The bytes of a safetensors file with this header."""
    header = json.dumps(tensors).encode()
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", " is not a valid safetensors file: Error while deserializing: "),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), " is not a valid safetensors file: Error "),
        (files.dumps(LIKE), " is not a valid safetensors file: Error "),
        (
            file_of({"w": {"dtype": "U8", "shape": [1] * 70, "data_offsets": [0, 1]}}, b"1"),
            ": w has a shape that NumPy cannot hold: ",
        ),
        (
            file_of({"w": {"dtype": "U8", "shape": [0, 2**63], "data_offsets": [0, 0]}}),
            ": w has a shape that NumPy cannot hold: ",
        ),
        (
            file_of({"/" * 64: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1"),
            f": {'/' * 64} has over 64 components",
        ),
    ],
)
def test_damaged_and_hostile_files(data, problem, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"^{re.escape(str(path) + problem)}"):
        from_safetensors(path)


def test_an_unknown_element_type(state, monkeypatch):
    # Which further types safetensors has depends on its version.
    monkeypatch.setattr("swsjax.file.safetensors._DTYPES", {"F32": "float32", "F64": "float64"})
    text = f"{state}: steps is of type I64; supported are F32, F64"
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        from_safetensors(state)


def test_every_truncated_file_is_refused(state):
    data = state.read_bytes()
    for size in range(len(data)):
        state.write_bytes(data[:size])
        with pytest.raises(FormatError, match="is not a valid safetensors file"):
            from_safetensors(state)


def test_a_damaged_header_gives_a_tree_or_an_error_of_this_package(state):
    data = state.read_bytes()
    rng = np.random.default_rng(0)
    end = 8 + int.from_bytes(data[:8], "little")
    outcomes = set()
    for _ in range(1500):
        damaged = bytearray(data)
        for place in rng.integers(end, size=rng.integers(1, 3)):
            damaged[place] = rng.integers(256) if rng.random() < 0.5 else data[rng.integers(8, end)]
        state.write_bytes(damaged)
        for like in (None, LIKE):
            try:
                outcomes.add(type(from_safetensors(state, like)))
            except SwsjaxError as error:
                outcomes.add(type(error))
    assert outcomes == {dict, FormatError, ConfigError}


def test_tensors_are_left_out_by_patterns(state):
    tensors = from_safetensors(state, LIKE, sources=SOURCES, unused=["st?ps", "*running*"])
    expected = from_safetensors(state, LIKE, sources=SOURCES, unused=["steps"])
    jax.tree.map(np.testing.assert_array_equal, tensors, expected)


def test_a_name_with_brackets_is_a_name(tmp_path):
    path = tmp_path / "brackets.safetensors"
    to_safetensors({"layers[1]": np.ones(2), "w": np.ones(3)}, path)
    found = from_safetensors(path, {"w": np.ones(3)}, unused=["layers[1]"])
    np.testing.assert_array_equal(found["w"], np.ones(3))


@pytest.mark.parametrize("unused", ["steps", b"steps", None, 3, [1], ["steps", None]])
def test_unused_that_is_no_list_of_names(unused, state):
    text = f"unused must be a list of names, got {unused!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        from_safetensors(state, LIKE, sources=SOURCES, unused=unused)


@pytest.mark.parametrize("kind", [tuple, set, iter])
def test_unused_may_be_any_collection_of_names(kind, state):
    from_safetensors(state, LIKE, sources=SOURCES, unused=kind(["steps"]))
