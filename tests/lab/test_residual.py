"""Residual nets against a forward pass in lax, and a trained net on images of CIFAR-10."""

import io
import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.errors import ConfigError
from swsjax.lab.data import data_folder
from swsjax.lab.residual import (
    ResidualNet,
    group_norm,
    instance_norm,
    resnet_8,
    wide_resnet_16_4,
)
from swsjax.trees import named_leaves

TRAINED = data_folder() / "wrn-16-4" / "seed0.npz"
IMAGES = data_folder() / "cifar10" / "part2.zip"
MEAN, STD = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
MOMENTUM, EPSILON = 0.9, 1e-5


def parts(module):
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
    return graph, *map(nnx.to_pure_dict, states)


def convolution(x, kernel, stride=1):
    """Padded by hand as SAME is, for even sides: less before than after."""
    size = kernel.shape[0]
    total = size - stride if size > 1 else 0
    pads = [(total // 2, total - total // 2)] * 2
    return np.asarray(
        jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )


def forward(params, stats, images, blocks, normalised_by=None):
    """Logits by the names of the layers; the statistics are those given, or those of the batch."""
    params, stats = jax.tree.map(np.asarray, (params, stats))
    seen = {}

    def normed_relu(name, x):
        layer = params[name]
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        seen[name] = {"mean": mean, "var": variance}
        if normalised_by != "batch":
            mean, variance = stats[name]["mean"], stats[name]["var"]
        x = (x - mean) / np.sqrt(variance + EPSILON)
        return np.maximum(x * layer["scale"] + layer["bias"], 0)

    x = convolution(np.float32((images - MEAN) / STD), params["conv0"]["kernel"])
    for group, first_stride in enumerate((1, 2, 2)):
        for block in range(blocks):
            name, stride = f"g{group}b{block}", 1 if block else first_stride
            o = normed_relu(f"{name}bn1", x)
            y = convolution(o, params[f"{name}conv1"]["kernel"], stride)
            y = convolution(normed_relu(f"{name}bn2", y), params[f"{name}conv2"]["kernel"])
            short = params.get(f"{name}short")
            x = y + (x if short is None else convolution(o, short["kernel"], stride))
    pooled = normed_relu("bn", x).mean(axis=(1, 2))
    return pooled @ params["fc"]["kernel"] + params["fc"]["bias"], seen


@pytest.fixture(scope="module")
def trained():
    """Parameters and statistics of a WRN-16-4 that was trained elsewhere."""
    if not TRAINED.exists():
        pytest.skip(f"needs {TRAINED}: set SWSJAX_DATA to the folder that has it")
    trees = {"params": {}, "stats": {}}
    with np.load(TRAINED) as arrays:
        for path, array in arrays.items():
            tree, layer, name = path.split("/")
            trees[tree].setdefault(layer, {})[name] = array
    return trees["params"], trees["stats"]


@pytest.fixture(scope="module")
def first_images():
    """The first 200 test images of CIFAR-10 in [0, 1], and their labels."""
    image = pytest.importorskip("PIL.Image")
    if not IMAGES.exists():
        pytest.skip(f"needs {IMAGES}: set SWSJAX_DATA to the folder that has it")
    with zipfile.ZipFile(IMAGES) as archive:
        names = [name for name in archive.namelist() if name.startswith("test_batch/")]
        columns = sorted(name for name in names if name.endswith(".webp"))[:2]  # of 100 images each
        read = [image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in columns]
        labels = np.frombuffer(archive.read("test_batch/labels.u8"), np.uint8)
    images = np.concatenate([np.asarray(column).reshape(-1, 32, 32, 3) for column in read])
    assert images.shape == (200, 32, 32, 3)
    return np.float32(images / 255), labels[:200]


@pytest.fixture(scope="module")
def wide():
    """The graph of a WRN-16-4 in evaluation, and what its state looks like."""

    def made():
        module = wide_resnet_16_4((32, 32, 3), 10, rngs=nnx.Rngs(0))
        module.eval()
        return module

    return parts(nnx.eval_shape(made))


def test_names_and_shapes_are_those_of_the_trained_net(wide, trained):
    for ours, theirs in zip(wide[1:], trained, strict=True):
        shapes = {name: leaf.shape for name, leaf in named_leaves(ours)}
        assert shapes == {name: leaf.shape for name, leaf in named_leaves(theirs)}


@pytest.mark.parametrize(
    ("model", "layers", "expected"), [(wide_resnet_16_4, 12, 2_748_890), (resnet_8, 6, 77_850)]
)
def test_number_of_parameters(model, layers, expected):
    module = nnx.eval_shape(lambda: model((32, 32, 3), 10, rngs=nnx.Rngs(0)))
    _, params, _ = parts(module)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    assert len([name for name in params if re.fullmatch(r"g\db\dconv\d", name)]) == layers


def test_a_trained_net_on_the_first_test_images(wide, trained, first_images):
    images, labels = first_images
    logits = jax.jit(lambda net, x: nnx.merge(wide[0], *net)(x))(trained, images)
    assert np.mean(logits.argmax(axis=-1) != labels) < 0.1
    expected, _ = forward(*trained, images[:4], blocks=2)
    np.testing.assert_allclose(logits[:4], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_training_normalises_by_the_batch_and_moves_the_statistics(blocks):
    rng = np.random.default_rng(blocks)
    images = np.float32(rng.random((6, 8, 8, 3)))
    module = ResidualNet((8, 8, 3), 7, widths=(4, 4, 6, 8), blocks=blocks, rngs=nnx.Rngs(0))
    graph, params, stats = parts(module)
    params = jax.tree.map(lambda x: x + np.float32(0.2 * rng.random(x.shape)), params)
    logits, after = jax.jit(
        lambda *net: (lambda module: (module(images), parts(module)[2]))(nnx.merge(graph, *net))
    )(params, stats)
    expected, seen = forward(params, stats, images, blocks, normalised_by="batch")
    assert logits.shape == (6, 7)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert sorted(after) == sorted(seen)
    for layer, figures in seen.items():
        for name, figure in figures.items():
            moved = MOMENTUM * stats[layer][name] + (1 - MOMENTUM) * figure
            np.testing.assert_allclose(after[layer][name], moved, rtol=1e-3, atol=1e-4)


def test_convolutions_are_initialised_as_by_he():
    _, params, _ = parts(resnet_8((8, 8, 3), 10, rngs=nnx.Rngs(0)))
    for name, layer in params.items():
        if "conv" in name or "short" in name:
            assert list(layer) == ["kernel"]
            fan_in = np.prod(layer["kernel"].shape[:3])
            expected = np.sqrt(2 / fan_in)
            np.testing.assert_allclose(layer["kernel"].std(), expected, rtol=0.15)


def test_grey_images_are_colour_images():
    grey = jnp.asarray(np.random.default_rng(0).random((3, 8, 8)))
    module = ResidualNet((8, 8), 10, widths=(4, 4, 8, 8), blocks=1, rngs=nnx.Rngs(0))
    module.eval()
    np.testing.assert_array_equal(module(grey), module(jnp.stack([grey] * 3, axis=-1)))


@pytest.mark.parametrize(
    ("shape", "widths", "blocks", "message"),
    [
        (
            (32, 32, 4),
            (4, 4, 8, 8),
            1,
            "a residual net needs images of shape (height, width) or (height, width, 3), got "
            "(32, 32, 4)",
        ),
        (
            (64,),
            (4, 4, 8, 8),
            1,
            "a residual net needs images of shape (height, width) or (height, width, 3), got (64,)",
        ),
        (
            (32, 32, 3),
            (4, 4, 8),
            1,
            "a residual net needs 4 widths and at least 1 block, got (4, 4, 8) and 1",
        ),
        (
            (32, 32, 3),
            (4, 4, 8, 8),
            0,
            "a residual net needs 4 widths and at least 1 block, got (4, 4, 8, 8) and 0",
        ),
    ],
)
def test_nets_that_cannot_be_made(shape, widths, blocks, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ResidualNet(shape, 10, widths=widths, blocks=blocks, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("norm", "groups"), [(instance_norm, 6), (group_norm(3), 3), (group_norm(32), 6)]
)
def test_other_norms(norm, groups):
    """Each image and each group of channels by itself; of 32 groups, each channel of six."""
    x = np.random.default_rng(0).normal(2, 3, (2, 4, 5, 6)).astype(np.float32)
    layer = norm(6, rngs=nnx.Rngs(0))
    layer.scale[...], layer.bias[...] = jnp.arange(1.0, 7), jnp.arange(6.0)
    parts = x.reshape(2, 20, groups, 6 // groups)
    centred = parts - parts.mean(axis=(1, 3), keepdims=True)
    expected = centred / np.sqrt(parts.var(axis=(1, 3), keepdims=True) + EPSILON)
    expected = expected.reshape(x.shape) * np.arange(1, 7) + np.arange(6)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-3, atol=1e-4)


def test_a_net_with_another_norm_has_the_same_layers_and_no_statistics():
    def made(**norm):
        options = {"widths": (4, 4, 8, 8), "blocks": 1, **norm}
        return parts(
            nnx.eval_shape(lambda: ResidualNet((8, 8, 3), 10, rngs=nnx.Rngs(0), **options))
        )

    _, params, stats = made()
    for norm in (instance_norm, group_norm(2)):
        _, others, none = made(norm=norm)
        assert dict(named_leaves(others)).keys() == dict(named_leaves(params)).keys()
        assert named_leaves(stats)
        assert not none
