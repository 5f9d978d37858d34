"""The networks against XLA's convolution and pooling."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.errors import ConfigError
from swsjax.lab.nets import LeNet5Caffe, LeNet300100, PooledConv

RNG = np.random.default_rng(0)


def parameters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def convolution(x, layer):
    x = jax.lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return x + layer["bias"]


def pool(x):
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


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
def test_parameters_are_the_papers(model, layers):
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
    # Biases start at zero: move them, or leaving them out would not show.
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


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(6, 9), (7, 6), (8, 8), (9, 7)])
def test_pooled_convolution_of_a_rectangle(size, shape):
    layer = PooledConv(3, 4, size, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(4.0)
    x = jnp.asarray(RNG.normal(size=(2, *shape, 3)) - 1, jnp.float32)
    expected = pool(convolution(x, parameters(layer)))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_even_convolution():
    with pytest.raises(ConfigError, match=r"^size of the convolution must be odd, got 4$"):
        PooledConv(1, 1, 4, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(15, 16), (16, 15), (8, 8)])
def test_too_small_images(shape):
    message = f"LeNet-5 needs images of at least 16 x 16 pixels, got {shape}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        LeNet5Caffe(shape, 10, rngs=nnx.Rngs(0))
