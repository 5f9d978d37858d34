"""Nets of PyTorch give the same outputs here; what was written is read back; exact messages."""

import functools
import itertools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swsjax import files, interchange
from swsjax.errors import ConfigError, FormatError, SwsjaxError
from swsjax.file.safetensors import (
    TORCH_LENET_5_CAFFE,
    TORCH_LENET_300_100,
    flax_kernel,
    flax_kernel_after_flatten,
    from_safetensors,
    safetensors_metadata,
    to_safetensors,
)
from swsjax.lab.nets import LeNet5Caffe, LeNet300100

DATA = Path(__file__).parent / "data"


def bit_equal(first, second):
    first, second = np.asarray(first), np.asarray(second)
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.tobytes() == second.tobytes()
    )


@pytest.fixture(scope="module")
def logits():
    with np.load(DATA / "torch-logits.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", ["mlp", "mlp-bfloat16"])
def test_plain_dictionaries(name, logits):
    sides = [64, 48, 32, 10]
    like = {
        f"fc{i}": {"kernel": np.zeros(shape, np.float32), "bias": jnp.zeros(shape[1])}
        for i, shape in enumerate(itertools.pairwise(sides), 1)
    }
    params = from_safetensors(DATA / f"torch-{name}.safetensors", like, sources=TORCH_LENET_300_100)
    assert type(params["fc1"]["kernel"]) is np.ndarray
    assert isinstance(params["fc1"]["bias"], jax.Array)
    x = logits["images"].reshape(16, 64)
    for i in (1, 2):
        x = np.maximum(x @ params[f"fc{i}"]["kernel"] + params[f"fc{i}"]["bias"], 0)
    x = x @ params["fc3"]["kernel"] + params["fc3"]["bias"]
    np.testing.assert_allclose(x, logits[name.replace("-", "_")], atol=1e-4)


def test_flax_module_with_batch_norm(logits):
    class Net(nnx.Module):
        def __init__(self, rngs):
            norm = functools.partial(nnx.BatchNorm, use_running_average=True, rngs=rngs)
            self.conv1 = nnx.Conv(1, 6, (3, 3), padding="SAME", rngs=rngs)
            self.bn1 = norm(6)
            self.conv2 = nnx.Conv(6, 8, (3, 2), padding="VALID", use_bias=False, rngs=rngs)
            self.bn2 = norm(8)
            self.fc1 = nnx.Linear(48, 24, rngs=rngs)
            self.fc2 = nnx.Linear(24, 10, rngs=rngs)

        def __call__(self, images):
            x = nnx.relu(self.bn1(self.conv1(images[..., None])))
            x = nnx.relu(self.bn2(self.conv2(nnx.max_pool(x, (2, 2), strides=(2, 2)))))
            return self.fc2(nnx.relu(self.fc1(x.reshape(len(x), -1))))

    model = Net(nnx.Rngs(0))
    norms = {
        f"{norm}/{ours}": f"{norm}.{theirs}"
        for norm in ("bn1", "bn2")
        for ours, theirs in [
            ("scale", "weight"),
            ("bias", "bias"),
            ("mean", "running_mean"),
            ("var", "running_var"),
        ]
    }
    state = from_safetensors(
        DATA / "torch-convnet.safetensors",
        nnx.state(model),
        sources={
            "conv1/kernel": ("conv1.weight", flax_kernel),
            "conv1/bias": "conv1.bias",
            "conv2/kernel": ("conv2.weight", flax_kernel),
            "fc1/kernel": ("fc1.weight", flax_kernel_after_flatten(8)),
            "fc1/bias": "fc1.bias",
            "fc2/kernel": ("fc2.weight", flax_kernel),
            "fc2/bias": "fc2.bias",
            **norms,
        },
        unused=["bn1.num_batches_tracked", "bn2.num_batches_tracked"],
    )
    assert isinstance(state, nnx.State)
    nnx.update(model, state)
    np.testing.assert_allclose(model(logits["images"]), logits["convnet"], atol=1e-4)


def torch_lenet_300_100(torch, pixels):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(pixels[0] * pixels[1], 300)
            self.fc2 = torch.nn.Linear(300, 100)
            self.fc3 = torch.nn.Linear(100, 10)

        def forward(self, x):
            x = torch.relu(self.fc1(x.flatten(1)))
            return self.fc3(torch.relu(self.fc2(x)))

    return Net()


def torch_lenet_5_caffe(torch, pixels):
    height, width = ((side - 12) // 4 for side in pixels)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(1, 20, 5)
            self.conv2 = torch.nn.Conv2d(20, 50, 5)
            self.fc1 = torch.nn.Linear(50 * height * width, 500)
            self.fc2 = torch.nn.Linear(500, 10)

        def forward(self, x):
            pool = torch.nn.functional.max_pool2d
            x = pool(self.conv2(pool(self.conv1(x[:, None]), 2)), 2)
            return self.fc2(torch.relu(self.fc1(x.flatten(1))))

    return Net()


@pytest.mark.parametrize("pixels", [(28, 28), (20, 24)])
@pytest.mark.parametrize(
    ("theirs", "ours", "sources"),
    [
        (torch_lenet_300_100, LeNet300100, TORCH_LENET_300_100),
        (torch_lenet_5_caffe, LeNet5Caffe, TORCH_LENET_5_CAFFE),
    ],
)
def test_ready_maps_of_the_lenets(theirs, ours, sources, pixels, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = theirs(torch, pixels)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    images = torch.rand(5, *pixels)
    with torch.no_grad():
        expected = net(images).numpy()
    model = ours(pixels, 10, rngs=nnx.Rngs(0))
    nnx.update(
        model,
        from_safetensors(tmp_path / "net.safetensors", nnx.state(model), sources=sources),
    )
    np.testing.assert_allclose(model(images.numpy()), expected, atol=1e-4)


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
def test_what_was_written_is_read_back(tree, tmp_path_factory):
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


def test_without_like_it_is_what_load_gives(tmp_path):
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


def test_order_of_the_axes_in_memory_is_none_of_the_files(tmp_path):
    tree = {"w": np.asfortranarray(np.arange(6).reshape(2, 3))}
    to_safetensors(tree, tmp_path / "net.safetensors")
    assert bit_equal(safetensors.numpy.load_file(tmp_path / "net.safetensors")["w"], tree["w"])


def test_like_may_be_abstract(tmp_path):
    to_safetensors(NET, tmp_path / "net.safetensors")
    like = jax.eval_shape(lambda: jax.tree.map(lambda x: jnp.zeros(x.shape), NET))
    back = from_safetensors(tmp_path / "net.safetensors", like)
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(back["layers"][1]["kernel"], np.ones((3, 2)))


@pytest.mark.parametrize("came", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64"])
def test_floating_types_are_cast(came, wanted, tmp_path):
    values = np.array([0.1, -3.0, np.inf])
    to_safetensors([values.astype(came)], tmp_path / "net.safetensors")
    back = from_safetensors(tmp_path / "net.safetensors", [np.zeros(3, wanted)])
    assert bit_equal(back[0], values.astype(came).astype(wanted))


def test_function_may_change_the_type(tmp_path):
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


def test_the_state_itself_fits(state):
    from_safetensors(state, LIKE, sources=SOURCES, unused=["steps"])


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"fc1/bias": "fc1.bais"},
            "fc1/bias, from fc1.bais, is not in the file (near it: fc1.bias); "
            "fc1.bias is in the file but not expected (to leave it out, name it in unused)",
        ),
        (
            {"fc1/bias": "fc1.bias", "fc1/biases": "fc1.bias", "xyz": "steps"},
            "fc1/biases is in sources but is no leaf of the tree (near it: fc1/bias); "
            "xyz is in sources but is no leaf of the tree",
        ),
        (
            {"fc1/kernel": "fc1.weight"},
            "fc1/kernel, from fc1.weight, is float32[4, 3] in the file, float32[3, 4] expected "
            '(try ("fc1.weight", flax_kernel))',
        ),
        (
            {"conv/kernel": "conv.weight"},
            "conv/kernel, from conv.weight, is float32[6, 2, 5, 5] in the file, "
            'float32[5, 5, 2, 6] expected (try ("conv.weight", flax_kernel))',
        ),
        (
            {"conv/kernel": ("conv.weight", lambda w: w.transpose(3, 2, 0, 1))},
            "conv/kernel, from conv.weight, is float32[6, 2, 5, 5] in the file, "
            "float32[5, 5, 6, 2] after its function, float32[5, 5, 2, 6] expected "
            '(try ("conv.weight", flax_kernel))',
        ),
        (
            {"fc1/kernel": ("conv.weight", flax_kernel)},
            "fc1/kernel, from conv.weight, is float32[6, 2, 5, 5] in the file, "
            "float32[5, 5, 2, 6] after its function, float32[3, 4] expected; "
            "fc1.weight is in the file but not expected (to leave it out, name it in unused)",
        ),
        (
            {"fc1/kernel": ("fc1.weight", flax_kernel_after_flatten(2))},
            "fc1/kernel, from fc1.weight, is float32[4, 3] in the file, which its function "
            "refuses: cannot reshape array of size 12 into shape (4,2,newaxis)",
        ),
        (
            {"fc1/bias": "steps"},
            "fc1/bias, from steps, is int64[] in the file, float32[4] expected; "
            "fc1.bias is in the file but not expected (to leave it out, name it in unused)",
        ),
    ],
)
def test_what_does_not_fit(state, changed, problem):
    assert message(state, sources=SOURCES | changed) == problem


def test_tensors_that_nobody_asked_for(state):
    assert message(state, unused=()) == (
        "steps is in the file but not expected (to leave it out, name it in unused)"
    )


def test_everything_that_does_not_fit_is_in_one_message(state):
    like = {"fc1": {"weight": np.zeros((4, 4), np.float32)}, "steps": np.zeros((), np.int32)}
    assert message(state, like, {"fc": "x"}, ["conv.weight", "none"]) == (
        "fc is in sources but is no leaf of the tree; "
        "fc1/weight is not in the file (near it: fc1.weight, conv.weight); "
        "steps is int64[] in the file, int32[] expected; "
        "fc1.bias is in the file but not expected (to leave it out, name it in unused); "
        "fc1.weight is in the file but not expected (to leave it out, name it in unused)"
    )


def test_other_order_of_the_axes(tmp_path):
    path = tmp_path / "net.safetensors"
    to_safetensors({"w": np.zeros((2, 3, 4))}, path)
    assert message(path, {"w": np.zeros((3, 4, 2))}, {}) == (
        "w is float64[2, 3, 4] in the file, float64[3, 4, 2] expected "
        '(try ("w", lambda x: x.transpose(1, 2, 0)))'
    )


@pytest.mark.parametrize(
    "source", [3, ("fc1.weight", (1, 0)), ("fc1.weight",), (flax_kernel, "fc1.weight")]
)
def test_entry_that_is_no_source(state, source):
    text = (
        f"sources has {source!r} for fc1/kernel; expected the name of a tensor, or a pair of it "
        "and a function"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        from_safetensors(state, LIKE, sources=SOURCES | {"fc1/kernel": source})


def test_sources_without_a_tree(state):
    text = "sources and unused need like, the tree whose leaves they are about"
    for arguments in ({"sources": SOURCES}, {"unused": ["steps"]}):
        with pytest.raises(ConfigError, match=f"^{text}$"):
            from_safetensors(state, **arguments)


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"a": 1.5}, "leaf a is a float, not an array; use numpy.asarray"),
        ({"a": jax.random.key(0)}, "leaf a is a random key"),
        (
            [np.ones(1, np.complex128)],
            "leaf 0 is of type complex128; safetensors files know float64, float32, float16, ",
        ),
    ],
)
def test_what_cannot_be_written(tree, problem, tmp_path):
    with pytest.raises(TypeError, match=problem):
        to_safetensors(tree, tmp_path / "net.safetensors")


def test_reserved_name(tmp_path):
    text = "safetensors files keep the name __metadata__ for themselves"
    with pytest.raises(ValueError, match=f"^{text}$"):
        to_safetensors({"__metadata__": np.ones(1)}, tmp_path / "net.safetensors")


def test_two_leaves_of_one_name(tmp_path):
    tree = {"a": {"b": np.ones(1)}, "a/b": np.zeros(1)}
    with pytest.raises(ValueError, match=r"^two leaves of the tree have the same name$"):
        to_safetensors(tree, tmp_path / "net.safetensors")


def test_metadata(tmp_path):
    to_safetensors({"w": np.ones(1)}, tmp_path / "net.safetensors", metadata={"seed": 3})
    assert safetensors_metadata(tmp_path / "net.safetensors") == {"seed": "3"}
    to_safetensors({"w": np.ones(1)}, tmp_path / "net.safetensors")
    assert safetensors_metadata(tmp_path / "net.safetensors") == {}


def file_of(tensors, data=b""):
    """The bytes of a safetensors file with any header at all."""
    header = json.dumps(tensors).encode()
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", " is not an undamaged safetensors file: Error while deserializing: "),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), " is not an undamaged safetensors file: Error "),
        (files.dumps(NET), " is not an undamaged safetensors file: Error "),
        (
            file_of({"w": {"dtype": "U8", "shape": [1] * 70, "data_offsets": [0, 1]}}, b"1"),
            ": w has a shape that NumPy cannot hold: ",
        ),
        (
            file_of({"w": {"dtype": "U8", "shape": [0, 2**63], "data_offsets": [0, 0]}}),
            ": w has a shape that NumPy cannot hold: ",
        ),
        (
            file_of(
                {
                    "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                    "a/b": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]},
                },
                b"12",
            ),
            ": a/b is under another tensor",
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


def test_element_type_that_is_not_known(state, monkeypatch):
    # Which types safetensors has beyond the known ones depends on its version.
    monkeypatch.setattr(interchange, "_DTYPES", {"F32": "float32", "F64": "float64"})
    text = f"{state}: steps is of type I64; known are F32, F64"
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        from_safetensors(state)


def test_every_cut_is_found(state):
    data = state.read_bytes()
    for size in range(len(data)):
        state.write_bytes(data[:size])
        with pytest.raises(FormatError, match="is not an undamaged safetensors file"):
            from_safetensors(state)


def test_damaged_header_gives_an_error_of_this_package_or_a_tree(state):
    data = state.read_bytes()
    rng = np.random.default_rng(0)
    end = 8 + int.from_bytes(data[:8], "little")
    found = 0
    for _ in range(1500):
        damaged = bytearray(data)
        for place in rng.integers(end, size=rng.integers(1, 3)):
            damaged[place] = rng.integers(256) if rng.random() < 0.5 else data[rng.integers(8, end)]
        state.write_bytes(damaged)
        for like in (None, LIKE):
            try:
                from_safetensors(state, like)
            except SwsjaxError:
                found += 1
    assert found > 1500
