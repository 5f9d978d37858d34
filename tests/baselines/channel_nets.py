"""Tiny nets of every kind of layer, as plain functions, whose channels are found and removed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.lab import Variables

IMAGES = (1, 6, 6, 2)
VECTORS = (1, 5)
CHANNELS = (None, None, None)  # index that puts a vector along the channels of images


class Net(NamedTuple):
    """A function of a net and a batch, and the shapes of both."""

    apply: Any
    params: dict
    aux: dict | None = None
    input: tuple = IMAGES
    stays: tuple = ()  # leaves whose channels shrink does not remove

    def drawn(self, seed):
        """A net of random arrays; variances are positive."""
        rng = np.random.default_rng(seed)

        def draw(path, shape):
            values = rng.normal(size=shape)
            positive = "var" in str(path) or "scale" in str(path)
            return jnp.asarray(np.abs(values) + 0.5 if positive else values, jnp.float32)

        shaped = {"is_leaf": lambda leaf: isinstance(leaf, tuple)}
        return Variables(
            *(
                jax.tree.map_with_path(draw, tree, **shaped)
                for tree in (self.params, self.aux or {})
            )
        )

    def example(self, seed=0, batch=3):
        shape = (batch, *self.input[1:])
        return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def conv(x, kernel, padding="SAME", strides=(1, 1), groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def max_pool(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def avg_pool(x):
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


def norm(x, params, aux):
    scale = jax.lax.rsqrt(aux["var"] + 1e-5) * params["scale"]
    return (x - aux["mean"][CHANNELS]) * scale[CHANNELS] + params["bias"][CHANNELS]


def norm_in_training(x, params):
    mean, var = x.mean((0, 1, 2))[CHANNELS], x.var((0, 1, 2))[CHANNELS]
    scale, bias = params["scale"][CHANNELS], params["bias"][CHANNELS]
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * scale + bias


def layer_norm(x, params):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * params["scale"][None]


def instance_norm(x, params):
    """GroupNorm of single channels."""
    shape = x.shape
    x = x.reshape(*shape[:-1], -1, 1)
    axes = (1, 2, 4)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return ((x - mean) * jax.lax.rsqrt(var + 1e-5)).reshape(shape) * params["scale"][CHANNELS]


def mlp(net, x):
    p = net.params
    x = jax.nn.relu(x @ p["w1"] + p["b1"][None])
    x = jax.nn.gelu(x @ p["w2"] + p["b2"][None])
    return x @ p["w3"] + p["b3"][None]


def flattened(net, x):
    p = net.params
    x = max_pool(jax.nn.relu(conv(x, p["conv1"], "VALID") + p["b1"][CHANNELS]))
    x = jax.nn.leaky_relu(x.reshape(len(x), -1) @ p["fc1"] + p["b2"][None])
    return x @ p["fc2"] + p["b3"][None]


def padded(net, x):
    p = net.params
    x = jax.nn.relu(conv(x, p["conv1"]) + p["b1"][CHANNELS])
    x = avg_pool(jax.nn.relu(conv(x, p["conv2"], strides=(2, 1)) + p["b2"][CHANNELS]))
    return x.mean((1, 2)) @ p["fc"] + p["b3"][None]


def with_norms(net, x):
    p, a = net
    x = jax.nn.relu(norm(conv(x, p["conv1"]), p["bn1"], a["bn1"]))
    x = jax.nn.relu(norm(conv(x, p["conv2"], "VALID"), p["bn2"], a["bn2"]))
    return x.mean((1, 2)) @ p["fc"] + p["b3"][None]


def in_training(net, x):
    p = net.params
    x = jax.nn.relu(norm_in_training(conv(x, p["conv1"], "VALID"), p["bn1"]))
    return x.mean((1, 2)) @ p["fc"] + p["b3"][None]


def residual(net, x):
    p = net.params
    x = x @ p["w0"] + p["b0"][None]
    x = x + jax.nn.relu(x @ p["w1"] + p["b1"][None]) @ p["w2"] + p["b2"][None]
    x = x + jax.nn.relu(x @ p["w3"] + p["b3"][None]) @ p["w4"]
    return jax.nn.relu(x + p["b4"][None]) @ p["w5"] + p["b5"][None]


def under_layer_norm(net, x):
    p = net.params
    x = jax.nn.relu(layer_norm(x @ p["w1"] + p["b1"][None], p["ln"]))
    return jax.nn.relu(x @ p["w2"] + p["b2"][None]) @ p["w3"] + p["b3"][None]


def under_instance_norm(net, x):
    p = net.params
    x = jax.nn.relu(instance_norm(conv(x, p["conv1"]), p["in"]))
    return x.mean((1, 2)) @ p["fc"] + p["b3"][None]


def depthwise(net, x):
    p = net.params
    x = jax.nn.relu(conv(x, p["conv1"]) + p["b1"][CHANNELS])
    x = jax.nn.relu(conv(x, p["depth"], groups=x.shape[-1]) + p["b2"][CHANNELS])
    x = jax.nn.silu(conv(x, p["point"]) + p["b3"][CHANNELS])
    return x.mean((1, 2)) @ p["fc"] + p["b4"][None]


def joined(net, x):
    p = net.params
    first = jax.nn.relu(conv(x, p["conv1"]) + p["b1"][CHANNELS])
    second = jax.nn.relu(conv(jnp.concatenate([x, first], -1), p["conv2"]) + p["b2"][CHANNELS])
    x = jnp.concatenate([x, second, first], -1)
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ p["fc"] + p["b3"][None]


def attention(net, x):
    p = net.params
    q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    return (weights @ v) @ p["out"]


_NORM = {"scale": (4,), "bias": (4,)}
_STATISTICS = {"mean": (4,), "var": (4,)}

NETS = {
    "mlp": Net(
        mlp,
        {"w1": (5, 4), "b1": (4,), "w2": (4, 4), "b2": (4,), "w3": (4, 2), "b3": (2,)},
        input=VECTORS,
    ),
    "flattened": Net(
        flattened,
        {
            "conv1": (3, 3, 2, 4),
            "b1": (4,),
            "fc1": (16, 4),
            "b2": (4,),
            "fc2": (4, 2),
            "b3": (2,),
        },
    ),
    "padded": Net(
        padded,
        {
            "conv1": (3, 3, 2, 4),
            "b1": (4,),
            "conv2": (3, 3, 4, 4),
            "b2": (4,),
            "fc": (4, 2),
            "b3": (2,),
        },
    ),
    "BatchNorm": Net(
        with_norms,
        {
            "conv1": (3, 3, 2, 4),
            "bn1": _NORM,
            "conv2": (3, 3, 4, 4),
            "bn2": _NORM,
            "fc": (4, 2),
            "b3": (2,),
        },
        {"bn1": _STATISTICS, "bn2": _STATISTICS},
    ),
    "BatchNorm in training": Net(
        in_training, {"conv1": (3, 3, 2, 4), "bn1": _NORM, "fc": (4, 2), "b3": (2,)}
    ),
    "residual": Net(
        residual,
        {"w0": (5, 4), "w1": (4, 3), "w2": (3, 4), "w3": (4, 3), "w4": (3, 4), "w5": (4, 2)}
        | {"b0": (4,), "b1": (3,), "b2": (4,), "b3": (3,), "b4": (4,), "b5": (2,)},
        input=VECTORS,
    ),
    "LayerNorm": Net(
        under_layer_norm,
        {"w1": (5, 4), "b1": (4,), "ln": {"scale": (4,)}}
        | {"w2": (4, 3), "b2": (3,), "w3": (3, 2), "b3": (2,)},
        input=VECTORS,
        stays=("params/w1",),
    ),
    "InstanceNorm": Net(
        under_instance_norm,
        {"conv1": (3, 3, 2, 4), "in": {"scale": (4,)}, "fc": (4, 2), "b3": (2,)},
    ),
    "depthwise": Net(
        depthwise,
        {"conv1": (3, 3, 2, 3), "b1": (3,), "depth": (3, 3, 1, 6), "b2": (6,)}
        | {"point": (1, 1, 6, 4), "b3": (4,), "fc": (4, 2), "b4": (2,)},
    ),
    "joined": Net(
        joined,
        {"conv1": (3, 3, 2, 3), "b1": (3,), "conv2": (3, 3, 5, 4), "b2": (4,)}
        | {"fc": (324, 2), "b3": (2,)},
    ),
    "attention": Net(
        attention,
        {"q": (5, 4), "k": (5, 4), "v": (5, 3), "out": (3, 2)},
        input=(1, 4, 5),
        stays=("params/q",),
    ),
}
