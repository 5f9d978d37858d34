"""Any pytree in, the same bits out; atomic writing; exact messages."""

import os
import re
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from same_bits import bit_equal

from swsjax import codec, trees
from swsjax.errors import ConfigError, FormatError
from swsjax.file import atomic, files
from swsjax.file.safetensors import from_safetensors, to_safetensors
from swsjax.measure import report


class Pair(NamedTuple):
    left: object
    right: object


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert all(map(bit_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


def quantised(shape, seed=0, density=0.05):
    rng = np.random.default_rng(seed)
    levels = np.float32([-0.3, -0.1, 0.125, 0.25])
    return np.where(rng.random(shape) < density, rng.choice(levels, shape), np.float32(0))


MIXED = {
    "params": {"kernel": quantised((40, 30)), "bias": quantised((30,), 1, 0.5)},
    "list": [np.arange(5), (np.float32(1.5), jnp.ones((2, 2), jnp.bfloat16))],
    "pair": Pair(np.zeros((0, 3), np.float16), np.array([True, False])),
    "none": None,
    "odd": np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32),
}


@pytest.mark.parametrize("encoding", ["entropy", "han", "han-huffman"])
def test_like_gives_back_the_structure(encoding):
    assert_same(files.loads(files.dumps(MIXED, encoding=encoding), like=MIXED), MIXED)


def test_nested_dictionaries_without_like():
    tree = files.loads(files.dumps(MIXED))
    assert list(tree) == ["list", "odd", "pair", "params"]
    assert bit_equal(tree["list"][1][1], MIXED["list"][1][1])
    assert bit_equal(tree["pair"]["left"], MIXED["pair"].left)


def test_a_single_array_and_an_empty_tree():
    assert bit_equal(files.loads(files.dumps(np.float64(2.5))), np.float64(2.5))
    assert files.loads(files.dumps({})) == {}


def test_nan_payloads_survive():
    odd = np.array([0x7FC00001, 0xFFC12345, 0x7F800001], np.uint32).view(np.float32)
    assert bit_equal(files.loads(files.dumps([odd]))[0], odd)


def test_nnx_state_and_module():
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    data = files.dumps(state)
    assert sorted(files.loads(data)) == ["bias", "kernel"]
    back = files.loads(data, like=state)
    assert isinstance(back, nnx.State)
    assert_same(back, state)
    nnx.update(model, back)
    assert data == files.dumps(nnx.to_pure_dict(state))


def test_linen_variables():
    model = linen.Sequential([linen.Dense(3), linen.BatchNorm(use_running_average=True)])
    variables = model.init(jax.random.key(0), jnp.ones((1, 2)))
    assert_same(files.loads(files.dumps(variables), like=variables), variables)


def test_like_may_be_abstract():
    shapes = jax.eval_shape(lambda: {"w": jnp.ones((2, 3))})
    assert files.loads(files.dumps({"w": np.ones((2, 3), np.float32)}), like=shapes)["w"].sum() == 6


class Spread:
    """As an array that is spread over several processes: its values are not at hand."""

    shape, dtype = (2, 3), np.dtype("float32")

    def __array__(self, *_, **__):
        raise RuntimeError("not all of it is here")


@pytest.fixture(params=["sws", "safetensors"])
def read(request, tmp_path):
    """Read an array of ones, (2, 3), into a structure, from either kind of file."""
    ones = {"w": np.ones((2, 3), np.float32)}
    if request.param == "sws":
        data = files.dumps(ones)
        return lambda like: files.loads(data, like=like)
    to_safetensors(ones, tmp_path / "net.safetensors")
    return lambda like: from_safetensors(tmp_path / "net.safetensors", like)


def test_like_needs_no_values(read):
    like = {"w": jnp.zeros((2, 3))}
    traced = jax.jit(lambda like: jax.tree.map(jnp.add, like, read(like)))(like)
    assert_same(traced, {"w": jnp.ones((2, 3))})
    assert jax.eval_shape(read, like) == jax.eval_shape(lambda: like)
    mesh = jax.sharding.Mesh(jax.devices()[:1], "x")
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    abstract = jax.ShapeDtypeStruct((2, 3), jnp.float32, sharding=sharding)
    for leaf in (abstract, Spread()):
        assert_same(read({"w": leaf}), {"w": np.ones((2, 3), np.float32)})


def test_an_array_that_is_not_committed_to_a_device_stays_so(read):
    for like in (jnp.zeros((2, 3)), jax.device_put(jnp.zeros((2, 3)), jax.devices()[0])):
        assert read({"w": like})["w"].committed == like.committed


TWO_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from swsjax.file import *

folder = sys.argv[1]
ones = {"w": np.ones((4, 2), np.float32)}
save(folder + "/net.sws", ones)
to_safetensors(ones, folder + "/net.safetensors")
save_checkpoint(folder + "/net", ones)
mesh = jax.sharding.Mesh(jax.devices(), ("data",))
shardings = NamedSharding(mesh, PartitionSpec("data")), SingleDeviceSharding(jax.devices()[1])
assert len(mesh.devices) == 2
for sharding in shardings:
    for dtype in ("float32", "float16"):
        like = {"w": jax.device_put(jnp.zeros((4, 2), dtype), sharding)}
        abstract = jax.ShapeDtypeStruct((4, 2), dtype, sharding=sharding)
        made = [
            from_safetensors(folder + "/net.safetensors", like),
            load_checkpoint(folder + "/net", like),
            load_checkpoint(folder + "/net", {"w": abstract}),
        ]
        if dtype == "float32":
            made.append(load(folder + "/net.sws", like=like))
        for tree in made:
            assert tree["w"].sharding == sharding, (tree["w"].sharding, sharding)
            assert tree["w"].dtype == dtype and (tree["w"] == 1).all()
"""


def test_arrays_are_on_the_devices_of_like(tmp_path):
    """In a process of its own, which has two."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-c", TWO_DEVICES, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "leaf",
    [
        jax.random.split(jax.random.key(0), (2, 3)),
        np.zeros((2, 3), np.longdouble),
        np.zeros((2, 3), "datetime64[s]"),
        np.full((2, 3), "text"),
        np.full((2, 3), None),
        "text",
        jax.nn.relu,
    ],
    ids=["keys", "longdouble", "dates", "strings", "objects", "a string", "a function"],
)
def test_a_like_of_a_type_that_no_file_has(leaf, read):
    with pytest.raises(ValueError, match=r"w is float32\[2, 3\] in the file, "):
        read({"w": leaf})


@pytest.mark.parametrize("order", ["<f4", ">f4"])
def test_the_byte_order_is_that_of_like(order):
    tree = {"w": np.arange(3, dtype=order)}
    assert_same(files.loads(files.dumps(tree), like=tree), tree)


def test_a_smaller_type_in_like_is_refused():
    data = files.dumps({"w": np.float32([7e4])})
    with pytest.raises(ValueError, match=r"w is float32\[1\] in the file, float16\[1\] expected$"):
        files.loads(data, like={"w": np.zeros(1, np.float16)})


def test_a_type_that_jax_holds_only_if_told_to():
    data = files.dumps({"w": np.ones(2)})
    with jax.enable_x64(True):
        like = {"w": jnp.ones(2, "float64")}
        assert_same(files.loads(data, like=like), like)
    with pytest.raises(ValueError, match=r"does not fit") as caught:
        files.loads(data, like=like)
    assert str(caught.value) == (
        "the file does not fit the tree given: w is float64, which JAX holds only with "
        "jax_enable_x64"
    )


def test_traced_arrays_cannot_be_saved():
    text = "leaf w is traced by JAX and has no values; save outside of jit"
    with pytest.raises(TypeError, match=f"^{text}"):  # JAX adds lines
        jax.eval_shape(files.dumps, {"w": jnp.ones(2)})


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"Notes", " is not an .sws file: it starts with b'Note', not b'sws'"),
        (b"sws", ": file has 3 bytes, expected at least 9: it is cut off"),
    ],
)
def test_the_message_about_a_file_begins_with_its_path(data, problem, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    for call in (files.load, files.read_metadata):
        with pytest.raises(FormatError, match=f"^{re.escape(str(path) + problem)}$"):
            call(path)


def test_save_checks_the_path_before_it_compresses(tmp_path, monkeypatch):
    def compress(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr(files, "dumps", compress)
    with pytest.raises(IsADirectoryError):
        files.save(tmp_path, {"w": np.ones(1)})


class Beside:
    """A container with a position beside a name."""

    def __init__(self, named, first):
        self.named, self.first = named, first


jax.tree_util.register_pytree_with_keys(
    Beside,
    lambda tree: (
        (
            (jax.tree_util.GetAttrKey("named"), tree.named),
            (jax.tree_util.SequenceKey(0), tree.first),
        ),
        None,
    ),
    lambda _, children: Beside(*children),
)


def test_a_position_beside_a_name():
    tree = Beside(np.zeros(2), {"w": np.ones(3)})
    data = files.dumps(tree)
    assert [path for path, _ in files.leaves_of(data)] == [("named",), (0, "w")]
    assert_same(files.loads(data, like=tree), tree)
    loaded = files.loads(data)
    assert_same(loaded, {"named": tree.named, "0": {"w": tree.first["w"]}})
    assert_same(files.loads(files.dumps(loaded), like=loaded), loaded)


def test_only_positions_beside_names_become_names():
    paths = [("a", 0), ("a", 1), ("b", 0, 3), ("b", "c"), (7, 0)]
    data = codec.pack([(path, np.ones(2)) for path in paths])
    loaded = files.loads(data)
    assert [path for path, _ in trees.unboxed_leaves(loaded)] == [
        ("7", 0),
        ("a", 0),
        ("a", 1),
        ("b", "0", 3),
        ("b", "c"),
    ]


def test_a_position_and_a_name_of_the_same_text():
    data = codec.pack([(("a", 0), np.ones(2)), (("a", "0"), np.zeros(2))])
    text = "the file has position 0 and name '0' in one place; pass like"
    with pytest.raises(ValueError, match=f"^{text}$"):
        files.loads(data)


def test_the_message_names_every_leaf_that_does_not_fit():
    data = files.dumps({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.int32)})
    like = {"a": np.zeros((2, 1), np.float32), "c": np.zeros(1)}
    with pytest.raises(ValueError, match="does not fit") as caught:
        files.loads(data, like=like)
    assert str(caught.value) == (
        "the file does not fit the tree given: a is float32[2] in the file, float32[2, 1] "
        "expected; c is not in the file; b is in the file but not expected"
    )


MASKED = np.ma.masked_less(np.array([1.0, -1.0]), 0)
MASK_LOST = (
    "is a masked array, whose mask would be lost; fill it, and if the mask is needed, pass it as "
    "an array of its own"
)
TYPES = (
    "float32, bfloat16, float16, float64, bool, int8, int16, int32, int64, uint8, uint16, uint32, "
    "uint64, complex64, complex128, float8_e4m3fn, float8_e5m2, int4, uint4"
)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": 1.5}, "leaf a is a float, not an array; use numpy.asarray"),
        ({"a": {-1: np.ones(1)}}, "tree key -1 is neither a string nor a non-negative integer"),
        (
            [jax.random.key(0)],
            "leaf 0 is a random key; leave it out or give jax.random.key_data(key)",
        ),
        (
            {"a": np.array(["x"])},
            f"leaf ('a',) has element type str32, expected one of {TYPES}; convert it with astype",
        ),
        ({"a": [MASKED]}, f"leaf a/0 {MASK_LOST}"),
    ],
)
def test_leaves_that_cannot_be_stored(tree, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        files.dumps(tree)


def test_a_mask_is_never_dropped(tmp_path):
    with pytest.raises(TypeError, match=f"^leaf w {MASK_LOST}$"):
        files.save(tmp_path / "net.sws", {"w": MASKED})
    with pytest.raises(TypeError, match=f"^leaf w {MASK_LOST}$"):
        to_safetensors({"w": MASKED}, tmp_path / "net.safetensors")
    with pytest.raises(TypeError, match=f"^the array {MASK_LOST}$"):
        files.to_sparse(MASKED)
    with pytest.raises(TypeError, match=f"^fc/w in baseline {MASK_LOST}$"):
        report(files.dumps({"w": np.ones(2)}), baseline={"fc": {"w": MASKED}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ([1], "be a dictionary, got a list"),
        ({np.int64(1): "a"}, "have strings as keys, got np.int64(1)"),
        ({(1, 2): "a"}, "have strings as keys, got (1, 2)"),
    ],
    ids=["a list", "numbers", "tuples"],
)
def test_metadata_are_a_dictionary_with_names(metadata, problem, tmp_path):
    for write in (
        lambda: files.dumps({}, metadata=metadata),
        lambda: to_safetensors({}, tmp_path / "net", metadata=metadata),
    ):
        with pytest.raises(TypeError, match=f"^metadata must {re.escape(problem)}$"):
            write()


@pytest.mark.parametrize("limit", [None, "8G", 1.5, -1, True])
def test_a_limit_that_is_no_number_of_bytes(limit):
    data = files.dumps({"w": np.ones(2)})
    text = f"max_bytes must be an integer of at least 0, got {limit!r}"
    for read in (files.loads, files.leaves_of, report):
        with pytest.raises(ConfigError, match=f"^{text}$"):
            read(data, max_bytes=limit)
    assert files.loads(data, max_bytes=np.int64(16))["w"].tolist() == [1, 1]


def test_save_and_load(tmp_path):
    path = tmp_path / "net.sws"
    size = files.save(path, MIXED, metadata={"model": "toy", "error": 0.02})
    assert size == path.stat().st_size
    assert_same(files.load(path, like=MIXED), MIXED)
    assert files.read_metadata(path) == {"model": "toy", "error": 0.02}
    assert files.read_metadata(path.read_bytes()) == {"model": "toy", "error": 0.02}
    assert [p.name for p in tmp_path.iterdir()] == ["net.sws"]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "disk full"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, stage, error):
    path = tmp_path / "net.sws"
    files.save(path, {"w": np.ones(1)})
    before = path.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(atomic.os, stage, fail)
    with pytest.raises(type(error)):
        files.save(path, {"w": np.zeros(1)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.sws"]


def test_the_limit_on_decoded_bytes():
    data = files.dumps({"w": np.zeros(1000, np.float32)})
    with pytest.raises(FormatError, match="4000 bytes, over the limit of 3999"):
        files.loads(data, max_bytes=3999)


def test_an_array_as_a_sparse_matrix():
    kernel = quantised((3, 3, 4, 6), density=0.2)
    matrix = files.to_sparse(kernel)
    assert matrix.shape == (36, 6)
    assert matrix.nnz == np.count_nonzero(kernel)
    np.testing.assert_array_equal(matrix.toarray(), kernel.reshape(36, 6))
    assert files.to_sparse(jnp.float32(2)).shape == (1, 1)
    assert files.to_sparse([[0, 3]]).nnz == 1


@pytest.mark.parametrize("dtype", [">f4", ">i2", ">c16"])
def test_a_sparse_matrix_in_the_byte_order_of_the_machine(dtype):
    matrix = files.to_sparse(np.array([0, 2, 3], dtype))
    assert matrix.dtype == np.dtype(dtype).newbyteorder("=")
    assert matrix.toarray().tolist() == [[0, 2, 3]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (jnp.ones(2, jnp.bfloat16), "SciPy has no sparse matrices of type bfloat16; convert it"),
        (jnp.ones(2, jnp.int4), "SciPy has no sparse matrices of type int4; convert it"),
        (np.ones(2, np.float16), "SciPy has no sparse matrices of type float16; convert it"),
        (jax.random.key(0), "the array is a random key; leave it out or give "),
    ],
    ids=["bfloat16", "int4", "float16", "key"],
)
def test_what_scipy_has_no_sparse_matrices_of(array, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        files.to_sparse(array)
