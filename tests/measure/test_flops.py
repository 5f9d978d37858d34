"""Multiply-adds of nets against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from swsjax.errors import ConfigError
from swsjax.lab import LeNet5Caffe, LeNet300100, ResidualNet, resnet_8
from swsjax.measure import Operations, multiply_adds

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def of_model(model, *shape):
    """The multiply-adds of a Flax net on one image, by its shapes alone, in evaluation."""
    module = nnx.eval_shape(lambda: model(shape, 10, rngs=nnx.Rngs(0)))
    module.eval()
    static, state = nnx.split(module)

    def apply(net, images):
        return nnx.merge(static, net)(images)

    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return multiply_adds(apply, nnx.to_pure_dict(state), image)


def of_residual_net(widths, blocks):
    """By hand: name and multiply-adds of each kernel of a residual net on 32 x 32 images."""
    counts, inputs, side = {"conv0/kernel": 32 * 32 * 9 * 3 * widths[0]}, widths[0], 32
    for group, width in enumerate(widths[1:]):
        side //= 2 if group else 1
        for block in range(blocks):
            name = f"g{group}b{block}"
            counts[f"{name}conv1/kernel"] = side * side * 9 * inputs * width
            counts[f"{name}conv2/kernel"] = side * side * 9 * width * width
            if inputs != width or (group and not block):
                counts[f"{name}short/kernel"] = side * side * inputs * width
            inputs = width
    return counts | {"fc/kernel": widths[-1] * 10}


def test_lenet_300_100():
    found = of_model(LeNet300100, 28, 28)
    by_hand = {"fc1/kernel": 784 * 300, "fc2/kernel": 300 * 100, "fc3/kernel": 1000}
    assert found == Operations(by_hand, 0)
    assert found.total == 266_200


def test_lenet_5_caffe():
    """Its convolutions are matrix products with padded kernels; the padding does not count."""
    found = of_model(LeNet5Caffe, 28, 28)
    assert found.leaves == {
        "conv1/kernel": 24 * 24 * 25 * 20,
        "conv2/kernel": 8 * 8 * 25 * 20 * 50,
        "fc1/kernel": 800 * 500,
        "fc2/kernel": 500 * 10,
    }
    assert found.total == 2_293_000


def test_resnet_8():
    assert of_model(resnet_8, 32, 32, 3) == Operations(of_residual_net((16, 16, 32, 64), 1), 0)


def test_resnet_110():
    """2.53e8 in Table 1 of Li et al., arXiv 1608.08710, without its shortcuts, which have none."""

    def model(*args, **options):
        return ResidualNet(*args, widths=(16, 16, 32, 64), blocks=18, **options)

    found = of_model(model, 32, 32, 3)
    assert found.leaves == of_residual_net((16, 16, 32, 64), 18)
    shortcuts = sum(n for name, n in found.leaves.items() if "short" in name)
    assert found.total - shortcuts == 252_887_680


@pytest.mark.parametrize("stride", [1, 2, (1, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 2), (0, 3))], ids=str)
def test_convolutions(stride, groups, padding):
    """Each output of ones convolved with ones is its number of multiply-adds."""
    settings = {"strides": stride, "feature_group_count": groups, "kernel_dilation": (1, 2)}
    layer = nnx.Conv(4, 8, (3, 2), padding=padding, use_bias=False, rngs=nnx.Rngs(0), **settings)
    static, state = nnx.split(layer)
    images = jnp.ones((2, 9, 10, 4))
    found = multiply_adds(lambda net, x: nnx.merge(static, net)(x), state, images)

    outputs = layer(images).shape[1:3]
    steps = (stride, stride) if isinstance(stride, int) else stride
    # What is read, padding included, as ones.
    sides = [
        (n - 1) * step + extent for n, step, extent in zip(outputs, steps, (3, 3), strict=True)
    ]
    layer.kernel[...] = jnp.ones_like(layer.kernel[...])
    layer.padding = "VALID"
    assert found.total == int(layer(jnp.ones((2, *sides, 4))).sum())
    assert list(found.leaves) == ["kernel"]


@pytest.mark.parametrize("transposed", [False, True])
@given(st.integers(0, 2**16), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_masked_operations_are_products_with_weights_that_are_not_zero(transposed, seed, batch):
    rng = np.random.default_rng(seed)
    net = {"w": rng.normal(size=(5, 3)) * rng.integers(0, 2, (5, 3)), "v": np.zeros((3, 2))}

    def apply(net, x):
        product = (net["w"].T @ x.T).T if transposed else x @ net["w"]
        return jnp.tanh(product) @ net["v"]

    found = multiply_adds(apply, net, jnp.ones((batch, 5)))
    assert found.leaves == {"w": batch * 15, "v": batch * 6}
    assert found.masked(net) == batch * np.count_nonzero(net["w"])


def test_masked_convolutions_have_the_density_of_their_kernels():
    shape = {"kernel": (3, 3, 2, 4), "fc": (4, 5)}
    net = {
        name: jnp.zeros(size).ravel().at[:8].set(1).reshape(size) for name, size in shape.items()
    }

    def apply(net, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, net["kernel"], (1, 1), "VALID", dimension_numbers=dimensions
        )
        return x.mean((1, 2)) @ net["fc"]

    found = multiply_adds(apply, net, jnp.ones((1, 6, 7, 2)))
    assert found.leaves == {"fc": 20, "kernel": 4 * 5 * 72}
    assert found.masked(net) == 4 * 5 * 8 + 8
    with_shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), net)
    assert multiply_adds(apply, with_shapes, jnp.ones((1, 6, 7, 2))) == found


W, V, X = normal(4, 6), normal(6, 4), normal(2, 4)


@pytest.mark.parametrize(
    ("apply", "leaves"),
    [
        (lambda net, x: x.astype(jnp.bfloat16) @ net["w"].astype(jnp.bfloat16), {"w": 48}),
        (lambda net, x: x @ net["w"].reshape(3, 8)[:2, ::2].reshape(4, 2), {"w": 16}),
        (lambda net, x: x @ jnp.pad(net["w"], ((0, 0), (2, 3))), {"w": 48}),
        (lambda net, x: x @ jnp.concatenate([net["w"], net["v"].T], 1), {"w": 48, "v": 48}),
        (lambda net, x: x @ jnp.stack([net["w"], net["v"].T]), {"w": 48, "v": 48}),
        (lambda net, x: x @ (net["w"] * net["scale"][None]), {"w": 48}),
        (lambda net, x: jnp.pad(x, ((0, 0), (1, 1))) @ net["v"], {"v": 48}),
        (lambda net, x: jax.checkpoint(lambda x: jnp.sin(x @ net["w"]))(x), {"w": 48}),
        (lambda net, x: jax.nn.silu(x @ net["w"]), {"w": 48}),
        (lambda net, x: jax.vmap(lambda row: net["w"].T @ row)(x), {"w": 48}),
        (lambda net, x: jax.lax.map(lambda row: row @ net["w"], x), {"w": 48}),
        (lambda net, x: x[:, :, None] * net["w"][None], {}),
        (lambda net, x: x @ net["w"] @ net["v"], {"w": 48, "v": 48}),
        (lambda net, x: net["w"][0], {}),
    ],
    ids=[
        "cast", "reshaped and sliced", "padded", "joined", "stacked", "scaled", "padded inputs",
        "checkpoint", "custom gradient", "vmap", "map", "no product", "two", "looked up",
    ],
)  # fmt: skip
def test_products_belong_to_the_leaf_that_feeds_them(apply, leaves):
    net = {"w": W, "v": V, "scale": jnp.ones(6)}
    assert multiply_adds(apply, net, X) == Operations(leaves, 0)


def test_products_of_activations_or_constants_are_others():
    found = multiply_adds(lambda net, x: (x @ net["w"]) @ (x @ net["w"]).T, {"w": W}, X)
    assert found == Operations({"w": 96}, 2 * 2 * 6)
    found = multiply_adds(lambda net, x: x @ jnp.ones((4, 3)), {"w": W}, X)
    assert found == Operations({}, 24)
    assert found.masked({"w": W}) == found.total == 24


def test_a_scan_counts_as_often_as_it_runs():
    """Layers in one array, the way in which deep nets of equal layers are written."""
    layers = normal(7, 4, 4) * (normal(7, 4, 4) > 0)

    def apply(net, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), x @ net["v"].T), x, net["layers"])

    net = {"layers": layers, "v": V}
    found = multiply_adds(apply, net, X)
    assert found.leaves == {"layers": 7 * 2 * 16, "v": 7 * 48}
    assert found.masked(net) == 2 * jnp.count_nonzero(layers) + 7 * 48


def test_what_a_loop_carries_may_begin_as_a_constant():
    def apply(net, x):
        def step(state, row):
            state = jnp.tanh(state @ net["w"] @ net["v"]) + row
            return state, state @ state

        return jax.lax.scan(step, jnp.zeros(4), x)

    assert multiply_adds(apply, {"w": W, "v": V}, X) == Operations({"w": 48, "v": 48}, 8)


def test_loops_and_branches():
    net = {"w": W[:, :4]}

    def loop(steps):
        return lambda net, x: jax.lax.fori_loop(0, steps(x), lambda _, x: x @ net["w"], x)

    assert multiply_adds(loop(lambda x: 5), net, X).leaves == {"w": 5 * 32}
    message = (
        "^apply computes products in a loop without a fixed number of steps, which cannot be "
        "counted; write it as jax.lax.scan, or as fori_loop with bounds that are constants$"
    )
    with pytest.raises(ConfigError, match=message):
        multiply_adds(loop(lambda x: jnp.int32(x.sum())), net, X)

    def choice(net, x):
        return jax.lax.cond(
            x.sum() > 0, lambda x: x @ net["w"], lambda x: x[:, :1] @ net["w"][:1], x
        )

    assert multiply_adds(choice, net, X).leaves == {"w": 32}


def test_a_loop_without_products_may_run_as_long_as_it_likes():
    def apply(net, x):
        x = jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: 2 * x, x**2)
        return x @ net["w"]

    assert multiply_adds(apply, {"w": W}, X).leaves == {"w": 48}


def test_empty_arrays():
    assert multiply_adds(lambda net, x: x @ net["w"], {"w": jnp.ones((4, 0))}, X).total == 0
