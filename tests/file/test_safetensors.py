"""A written tree is read back, with its bits and names."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from same_bits import bit_equal

from swsjax.file import files
from swsjax.file.safetensors import from_safetensors, safetensors_metadata, to_safetensors
from swsjax.trees import name_of

KINDS = ["float32", "bfloat16", "float16", "float64", "bool", "int8", "int64", "uint16", "uint32"]
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=4)


@st.composite
def arrays(draw):
    dtype = np.dtype(draw(st.sampled_from(KINDS)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    top = 1 if dtype.name == "bool" else int(np.iinfo(f"u{dtype.itemsize}").max)
    bits = draw(hnp.arrays(f"u{dtype.itemsize}", shape, elements=st.integers(0, top)))
    return bits.view(dtype)


TREES = st.recursive(
    arrays(),
    lambda inner: st.one_of(
        st.dictionaries(KEYS, inner, max_size=3),
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(tree=TREES)
def test_a_written_tree_is_read_back(tree, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    to_safetensors(tree, path)
    back = from_safetensors(path, tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert all(map(bit_equal, jax.tree.leaves(back), jax.tree.leaves(tree)))


NET = {
    "layers": [{"kernel": np.eye(2, 3, dtype=np.float32)}, {"kernel": np.ones((3, 2))}],
    "10": np.zeros(2, ml_dtypes.bfloat16),
}


def test_names_and_bits_in_the_file(tmp_path):
    to_safetensors(NET, tmp_path / "net.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    assert sorted(tensors) == ["10", "layers/0/kernel", "layers/1/kernel"]
    assert bit_equal(tensors["10"], NET["10"])
    assert bit_equal(tensors["layers/0/kernel"], NET["layers"][0]["kernel"])


def test_without_like_the_tree_is_the_one_that_load_returns(tmp_path):
    path = tmp_path / "net.safetensors"
    to_safetensors(NET, path)
    tree = from_safetensors(path)
    assert sorted(tree) == ["10", "layers"]
    assert list(tree["layers"]) == [0, 1]
    assert files.dumps(tree) == files.dumps(NET)


def test_names_without_like(tmp_path):
    path = tmp_path / "net.safetensors"
    names = ["a.0.weight", "b/0", "b/01", "c/7", "c/3"]
    safetensors.numpy.save_file({name: np.arange(2) for name in names}, path)
    assert jax.tree.map(np.shape, from_safetensors(path)) == {
        "a.0.weight": (2,),
        "b": {"0": (2,), "01": (2,)},
        "c": {3: (2,), 7: (2,)},
    }


def test_arrays_may_be_written_to(tmp_path):
    to_safetensors(NET, tmp_path / "net.safetensors")
    for like in (None, NET):
        leaves = jax.tree.leaves(from_safetensors(tmp_path / "net.safetensors", like))
        assert all(leaf.flags.writeable and leaf.flags.c_contiguous for leaf in leaves)


def test_the_order_in_memory_does_not_matter(tmp_path):
    tree = {"w": np.asfortranarray(np.arange(6).reshape(2, 3))}
    to_safetensors(tree, tmp_path / "net.safetensors")
    assert bit_equal(safetensors.numpy.load_file(tmp_path / "net.safetensors")["w"], tree["w"])


def test_like_may_be_abstract(tmp_path):
    to_safetensors(NET, tmp_path / "net.safetensors")
    like = jax.eval_shape(lambda: jax.tree.map(lambda x: jnp.zeros(x.shape), NET))
    back = from_safetensors(tmp_path / "net.safetensors", like)
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(back["layers"][1]["kernel"], np.ones((3, 2)))


@pytest.mark.parametrize("actual", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64"])
def test_floating_types_are_cast(actual, wanted, tmp_path):
    values = np.array([0.1, -3.0, np.inf])
    to_safetensors([values.astype(actual)], tmp_path / "net.safetensors")
    back = from_safetensors(tmp_path / "net.safetensors", [np.zeros(3, wanted)])
    assert bit_equal(back[0], values.astype(actual).astype(wanted))


def test_a_function_may_change_the_type(tmp_path):
    to_safetensors({"steps": np.array(7)}, tmp_path / "net.safetensors")
    back = from_safetensors(
        tmp_path / "net.safetensors",
        {"count": jnp.array(0)},
        sources={"count": ("steps", np.int32)},
    )
    assert bit_equal(back["count"], np.int32(7))


def test_two_leaves_of_one_tensor(tmp_path):
    to_safetensors({"w": np.arange(6.0).reshape(2, 3)}, tmp_path / "net.safetensors")
    like = {"in": np.zeros((2, 3)), "out": np.zeros((3, 2))}
    sources = {"in": "w", "out": ("w", np.transpose)}
    tied = from_safetensors(tmp_path / "net.safetensors", like, sources=sources)
    np.testing.assert_array_equal(tied["in"], tied["out"].T)


def test_metadata(tmp_path):
    to_safetensors({"w": np.ones(1)}, tmp_path / "net.safetensors", metadata={"seed": 3})
    assert safetensors_metadata(tmp_path / "net.safetensors") == {"seed": "3"}
    to_safetensors({"w": np.ones(1)}, tmp_path / "net.safetensors")
    assert safetensors_metadata(tmp_path / "net.safetensors") == {}


@pytest.mark.parametrize("order", ["<f4", ">f4"])
def test_the_byte_order_is_that_of_like(order, tmp_path):
    to_safetensors({"w": np.arange(3, dtype=order)}, tmp_path / "net.safetensors")
    like = {"w": np.zeros(3, order)}
    back = from_safetensors(tmp_path / "net.safetensors", like)["w"]
    assert back.dtype == np.dtype(order)
    assert back.tolist() == [0, 1, 2]


def test_values_that_a_smaller_type_holds(tmp_path):
    values = np.float32([65504, -65519, 1e-30, np.inf, -np.inf, np.nan])
    to_safetensors({"w": values}, tmp_path / "net.safetensors")
    like = {"w": jax.ShapeDtypeStruct((6,), "float16")}
    back = from_safetensors(tmp_path / "net.safetensors", like)["w"]
    np.testing.assert_array_equal(back, np.float16([65504, -65504, 0, np.inf, -np.inf, np.nan]))


def test_names_that_go_on_from_that_of_a_tensor(tmp_path):
    """The weights and, beside each, the state of an optimiser."""
    path = tmp_path / "net.safetensors"
    tree = {name: np.full(2, i) for i, name in enumerate(["x", "x/adam_m", "y/0/w", "y/0/w/m"])}
    to_safetensors(tree, path)
    for like in (None, tree):
        back = from_safetensors(path, like)
        assert list(back) == list(tree)
        assert all(bit_equal(back[name], tree[name]) for name in tree)
    files.save(tmp_path / "net.sws", from_safetensors(path))
    to_safetensors(files.load(tmp_path / "net.sws"), path)
    assert list(from_safetensors(path)) == list(tree)


def test_names_that_only_begin_like_a_tensor(tmp_path):
    to_safetensors({"x": np.ones(1), "xy/z": np.ones(1)}, tmp_path / "net.safetensors")
    back = from_safetensors(tmp_path / "net.safetensors")
    assert jax.tree.structure(back) == jax.tree.structure({"x": 0, "xy": {"z": 0}})


@pytest.mark.parametrize("names", [[""], ["", "x"], ["/", "x"], ["", "0"]])
def test_odd_names_stay_through_an_sws_file(names, tmp_path):
    to_safetensors({name: np.full(2, i) for i, name in enumerate(names)}, tmp_path / "first")
    data = files.dumps(from_safetensors(tmp_path / "first"))
    leaves = {name_of(path): leaf for path, leaf in files.leaves_of(data)}
    assert {name: leaf.tolist() for name, leaf in leaves.items()} == {
        name: [i, i] for i, name in enumerate(names)
    }
