"""The nets against XLA's convolution and pooling, their channels, and their maps from PyTorch."""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.errors import ConfigError
from swsjax.file.safetensors import from_safetensors, to_safetensors
from swsjax.lab.nets import NETS, LeNet5Caffe, LeNet300100, PooledConv, take_channels
from swsjax.measure.published import BY_NET
from swsjax.sws.recipes import RECIPES

RNG = np.random.default_rng(0)


def parameters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def convolution(x, layer):
    x = jax.lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return x + layer["bias"][None, None, None]


def pool(x):
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"][None]


def lenet5(params, images):
    x = pool(convolution(images[..., None], params["conv1"]))
    x = pool(convolution(x, params["conv2"]))
    x = jax.nn.relu(dense(x.reshape(len(x), -1), params["fc1"]))
    return dense(x, params["fc2"])


def lenet300(params, images):
    x = images.reshape(len(images), -1)
    for name in ("fc1", "fc2"):
        x = jax.nn.relu(dense(x, params[name]))
    return dense(x, params["fc3"])


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (LeNet300100, {"fc1": (784, 300), "fc2": (300, 100), "fc3": (100, 10)}),
        (
            LeNet5Caffe,
            {"conv1": (5, 5, 1, 20), "conv2": (5, 5, 20, 50), "fc1": (800, 500), "fc2": (500, 10)},
        ),
    ],
)
def test_shapes_are_those_of_the_papers(model, layers):
    params = parameters(nnx.eval_shape(lambda: model((28, 28), 10, rngs=nnx.Rngs(0))))
    shapes = {name: {"kernel": shape, "bias": shape[-1:]} for name, shape in layers.items()}
    assert jax.tree.map(np.shape, params) == shapes
    count = sum(x.size for x in jax.tree.leaves(params))
    assert count == {LeNet300100: 266_610, LeNet5Caffe: 431_080}[model]


@pytest.mark.parametrize(
    ("model", "reference", "shape"),
    [
        (LeNet300100, lenet300, (8, 9)),
        (LeNet5Caffe, lenet5, (28, 28)),
        (LeNet5Caffe, lenet5, (16, 23)),
    ],
)
def test_logits_and_gradients(model, reference, shape):
    graph, state = nnx.split(model(shape, 7, rngs=nnx.Rngs(1)), nnx.Param)
    images = jnp.asarray(RNG.random((3, *shape)), jnp.float32)
    # Biases start at zero; moved, they show if the net leaves them out.
    params = jax.tree.map(lambda x: x + 0.01, nnx.to_pure_dict(state))
    cotangent = jnp.asarray(RNG.normal(size=(3, 7)), jnp.float32)

    @jax.jit
    def both(params):
        logits, backward = jax.vjp(lambda p, x: nnx.merge(graph, p)(x), params, images)
        expected, reference_backward = jax.vjp(reference, params, images)
        return (logits, backward(cotangent)), (expected, reference_backward(cotangent))

    ours, theirs = both(params)
    assert ours[0].shape == (3, 7)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "shape"), [(1, (6, 9)), (3, (6, 9)), (3, (9, 7)), (5, (7, 6)), (5, (8, 8))]
)
def test_a_pooled_convolution_of_rectangles(size, shape):
    layer = PooledConv(3, 4, size, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(4.0)
    x = jnp.asarray(RNG.normal(size=(2, *shape, 3)) - 1, jnp.float32)
    expected = jax.jit(lambda x: pool(convolution(x, parameters(layer))))(x)
    np.testing.assert_allclose(jax.jit(layer)(x), expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_of_an_even_size():
    with pytest.raises(ConfigError, match=r"^size of the convolution must be odd, got 4$"):
        PooledConv(1, 1, 4, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(15, 16), (16, 15), (8, 8)])
def test_images_that_are_too_small(shape):
    message = f"LeNet-5 needs images of at least 16 x 16 pixels, got {shape}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        LeNet5Caffe(shape, 10, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1)])
def test_images_with_channels(shape):
    message = f"LeNet-5 needs grey images (height, width), got {shape}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        LeNet5Caffe(shape, 10, rngs=nnx.Rngs(0))


def test_the_nets_of_the_papers_have_recipes_and_published_results():
    assert list(NETS) == ["lenet-300-100", "lenet-5-caffe", "resnet-8", "wrn-16-4"]
    assert set(RECIPES) <= set(NETS)
    assert set(BY_NET) <= set(NETS)


def merged(params, statistics):
    return {name: leaves | statistics.get(name, {}) for name, leaves in params.items()}


@cache
def random_net(name, image_shape):
    """A net in evaluation, and the tree of its parameters and statistics, no two channels alike."""
    module = NETS[name].model(image_shape, 10, rngs=nnx.Rngs(0))
    module.eval()
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
    params, statistics = (
        jax.tree.map(
            lambda leaf: leaf if leaf.ndim > 1 else leaf + RNG.uniform(-0.5, 0.5, leaf.shape),
            nnx.to_pure_dict(state),
        )
        for state in states
    )

    def part(tree, like):
        return {name: {key: tree[name][key] for key in leaves} for name, leaves in like.items()}

    def apply(tree, images):
        return nnx.merge(graph, part(tree, params), part(tree, statistics))(images)

    return jax.jit(apply), merged(params, statistics)


def number_of(channels, tree):
    """How many channels a hidden layer has: the outputs of its first leaf."""
    path, axis = next(iter(channels.items()))
    layer, kind = path.split("/")
    return tree[layer][kind].shape[axis]


SHAPES = {
    "lenet-300-100": [(28, 28), (20, 24)],
    "lenet-5-caffe": [(28, 28), (20, 24)],
    "resnet-8": [(16, 16, 3), (12, 9)],
    "wrn-16-4": [(8, 8, 3)],
}
LAYERS = [
    (name, layer, shape)
    for name, net in NETS.items()
    for layer in range(len(net.channels))
    for shape in SHAPES[name]
]


@pytest.mark.parametrize(("name", "layer", "image_shape"), LAYERS)
def test_reordered_channels_compute_the_same(name, layer, image_shape):
    apply, tree = random_net(name, image_shape)
    images = jnp.float32(RNG.random((2, *image_shape)))
    channels = NETS[name].channels[layer]
    order = RNG.permutation(number_of(channels, tree))
    moved = jax.jit(lambda tree: take_channels(tree, channels, order))(tree)
    logits = apply(tree, images)
    np.testing.assert_allclose(
        apply(moved, images), logits, rtol=1e-4, atol=1e-4 * abs(logits).max()
    )
    for path, axis in channels.items():
        layer_name, kind = path.split("/")
        before = tree[layer_name][kind]
        if before.shape[axis] == len(order):  # not flattened into a dense layer
            np.testing.assert_array_equal(
                moved[layer_name][kind], np.take(np.asarray(before), order, axis), strict=True
            )
        # Every array of the layer must move along.
        mixed = moved | {layer_name: moved[layer_name] | {kind: before}}
        assert abs(apply(mixed, images) - logits).max() > 0.01 * abs(logits).max()


@pytest.mark.parametrize("name", NETS)
def test_removing_channels_is_setting_them_to_zero(name):
    """Of all hidden layers at once."""
    image_shape = SHAPES[name][0]
    apply, tree = random_net(name, image_shape)
    images = jnp.float32(RNG.random((2, *image_shape)))
    zeroed = small = tree
    for channels in NETS[name].channels:
        size = number_of(channels, tree)
        kept = np.sort(RNG.choice(size, size // 3, replace=False))
        removed = np.setdiff1d(np.arange(size), kept)
        path, axis = list(channels.items())[-1]
        following, _ = path.split("/")
        kernel = np.array(zeroed[following]["kernel"])
        # Channels are the faster index where a convolution is flattened.
        where = [slice(None)] * kernel.ndim
        positions = np.arange(kernel.shape[axis]) % size
        where[axis] = np.isin(positions, removed)
        kernel[tuple(where)] = 0
        zeroed = zeroed | {following: zeroed[following] | {"kernel": kernel}}
        before = small[following]["kernel"].size
        small = take_channels(small, channels, kept)
        assert small[following]["kernel"].size == before // size * len(kept)
    logits = apply(zeroed, images)
    assert jnp.ptp(logits) > 0.1
    np.testing.assert_allclose(
        apply(small, images), logits, rtol=1e-4, atol=1e-4 * abs(logits).max()
    )


def torch_convolution(x, state, name):
    """As PyTorch has it, images and kernels with the channels first."""
    x = jax.lax.conv(x, state[f"{name}.weight"], (1, 1), "VALID")
    x = x + state[f"{name}.bias"][None, :, None, None]
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def torch_dense(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"][None]


def torch_lenet_300_100(state, images):
    x = jax.nn.relu(torch_dense(images.reshape(len(images), -1), state, "fc1"))
    return torch_dense(jax.nn.relu(torch_dense(x, state, "fc2")), state, "fc3")


def torch_lenet_5_caffe(state, images):
    x = torch_convolution(images[:, None], state, "conv1")
    x = torch_convolution(x, state, "conv2")
    x = jax.nn.relu(torch_dense(x.reshape(len(x), -1), state, "fc1"))
    return torch_dense(x, state, "fc2")


@pytest.mark.parametrize(
    ("name", "reference", "shapes"),
    [
        (
            "lenet-300-100",
            torch_lenet_300_100,
            {"fc1": (300, 480), "fc2": (100, 300), "fc3": (10, 100)},
        ),
        (
            "lenet-5-caffe",
            torch_lenet_5_caffe,
            {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 300), "fc2": (10, 500)},
        ),
    ],
)
def test_maps_from_pytorch(name, reference, shapes, tmp_path):
    """On images of 20 x 24 pixels: the last convolution gives 2 x 3, no two axes are alike."""
    state = {}
    for layer, shape in shapes.items():
        scale = np.prod(shape[1:]) ** -0.5
        state[f"{layer}.weight"] = np.float32(RNG.normal(0, scale, shape))
        state[f"{layer}.bias"] = np.float32(RNG.normal(0, 0.1, shape[0]))
    to_safetensors(state, tmp_path / "net.safetensors")
    graph, like = nnx.split(NETS[name].model((20, 24), 10, rngs=nnx.Rngs(0)), nnx.Param)
    params = from_safetensors(
        tmp_path / "net.safetensors", nnx.to_pure_dict(like), sources=NETS[name].torch
    )
    images = jnp.float32(RNG.random((4, 20, 24)))
    logits = jax.jit(lambda params, images: nnx.merge(graph, params)(images))(params, images)
    expected = jax.jit(reference)(state, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
