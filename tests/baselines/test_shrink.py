"""Removal of dead channels: the arrays are smaller, the outputs the same."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channel_nets import NETS, conv
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swsjax.baselines.channels import channel_groups, masked_channels, remove_channels
from swsjax.baselines.in_training import seed_of
from swsjax.baselines.removal import narrowed, narrowed_module, shrink
from swsjax.errors import ConfigError
from swsjax.file import dumps, loads
from swsjax.lab import NETS as KNOWN
from swsjax.lab import Dataset, ResidualNet, Split, classification
from swsjax.trees import named_leaves

NARROW = partial(ResidualNet, widths=(4, 3, 4, 5), blocks=2)


def zeroed(net, chosen):
    """Set channels to zero where they are made only, biases left as they are."""
    leaves, structure = jax.tree.flatten(net)
    names = [name for name, _ in named_leaves(net)]
    for group, numbers in chosen:
        for name, axis in group.kernels:
            place = (slice(None),) * axis + (group.members[name, axis][numbers].ravel(),)
            leaf = names.index(name)
            leaves[leaf] = np.array(leaves[leaf])
            leaves[leaf][place] = 0
    return jax.tree.unflatten(structure, map(jnp.asarray, leaves))


def assert_same(apply, net, small, inputs):
    run = jax.jit(apply)
    expected = run(net, inputs)
    np.testing.assert_allclose(
        run(small, inputs), expected, rtol=1e-4, atol=1e-5 * (1 + float(jnp.abs(expected).max()))
    )


def sizes(net):
    return {name: leaf.shape for name, leaf in named_leaves(net)}


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=2, deadline=None)
@example(0, 3)  # of "depthwise", all channels of a group
@given(st.integers(0, 2**16), st.integers(1, 3))
def test_outputs_are_the_same(name, seed, number):
    """Whatever channels are zero, in all of their leaves or only where they are made."""
    net = NETS[name]
    drawn, rng = net.drawn(seed), np.random.default_rng(seed)
    groups = channel_groups(net.apply, drawn, net.example())
    chosen = [
        (g, rng.choice(g.size, min(int(rng.integers(number + 1)), g.size), replace=False))
        for g in groups
    ]
    masked = masked_channels(drawn, chosen)
    small = shrink(net.apply, masked, net.example())
    assert_same(net.apply, masked, small, net.example(seed))
    removed = [
        (g, numbers[: g.size - 1])
        for g, numbers in chosen
        if not any((leaf, 1) in g.members for leaf in net.stays)
    ]
    ours, expected = sizes(small), sizes(remove_channels(drawn, removed))
    if any(numbers.size == g.size for g, numbers in chosen):
        # What reads only zeros is constant, so more may go.
        assert all(np.prod(shape) <= np.prod(expected[leaf]) for leaf, shape in ours.items())
    else:
        assert ours == expected
    filters = zeroed(drawn, chosen)
    assert_same(net.apply, filters, shrink(net.apply, filters, net.example()), net.example(seed))


def shrunk_to(name, numbers, change=zeroed, biases=None):
    """Shapes of a net after some channels of its first group were set to zero."""
    net = NETS[name]
    drawn = net.drawn(0)
    first = channel_groups(net.apply, drawn, net.example())[0]
    if biases is not None:
        drawn = drawn._replace(params=drawn.params | biases(drawn.params))
    changed = change(drawn, [(first, numbers)])
    small = shrink(net.apply, changed, net.example())
    assert_same(net.apply, changed, small, net.example(1))
    return small


def test_a_constant_moves_into_the_next_bias():
    net = NETS["mlp"].drawn(0)
    small = shrunk_to("mlp", [1, 2])
    emitted = jax.nn.relu(net.params["b1"][1:3]) @ net.params["w2"][1:3]
    np.testing.assert_allclose(small.params["b2"], net.params["b2"] + emitted, rtol=1e-5)
    assert small.params["w2"].shape == (2, 4)
    assert small.params["b3"] is not net.params["b3"]
    np.testing.assert_array_equal(small.params["b3"], net.params["b3"])


def test_a_constant_moves_into_the_mean_of_the_next_norm():
    small = shrunk_to("BatchNorm", [1])
    net = NETS["BatchNorm"].drawn(0)
    scale, bias = (net.params["bn1"][leaf][1] for leaf in ("scale", "bias"))
    mean, var = (net.aux["bn1"][leaf][1] for leaf in ("mean", "var"))
    emitted = jax.nn.relu(-mean * scale / jnp.sqrt(var + 1e-5) + bias)
    moved = emitted * net.params["conv2"][:, :, 1].sum((0, 1))
    assert jnp.abs(moved).max() > 0
    np.testing.assert_allclose(small.aux["bn2"]["mean"], net.aux["bn2"]["mean"] - moved, rtol=1e-4)
    assert small.aux["bn1"]["mean"].shape == (3,)


def test_before_padding_only_a_constant_of_zero_is_removed():
    """Another is not the same at the borders."""

    def biases(params):
        return {"b1": jnp.array([0.5, -0.5, 0.5, 0.0])}

    small = shrunk_to("padded", [0, 1, 3], biases=biases)
    np.testing.assert_array_equal(small.params["b1"], [0.5, 0.5])


def test_a_constant_moves_through_pools_and_maxima():
    """After the convolution that pads; with its bias, the mean of the pool moves into the next."""
    net = NETS["padded"]
    drawn = net.drawn(0)
    _, second = channel_groups(net.apply, drawn, net.example())
    filters = zeroed(drawn, [(second, [0, 3])])
    small = shrink(net.apply, filters, net.example())
    assert small.params["fc"].shape == (2, 2)
    assert_same(NETS["padded"].apply, filters, small, net.example(1))


def test_a_constant_through_a_maximum_over_shifted_kernels():
    """PooledConv: the bias that takes it comes after the maximum."""
    task, net, images = known("lenet-5-caffe")
    biases = {"bias": jnp.linspace(-1, 1, 20), "kernel": net.params["conv1"]["kernel"]}
    net = net._replace(params=net.params | {"conv1": biases})
    first = channel_groups(task.predict, net, images)[0]
    filters = zeroed(net, [(first, [0, 5, 19])])
    small = shrink(task.predict, filters, images)
    assert small.params["conv2"]["kernel"].shape == (5, 5, 17, 50)
    assert jnp.abs(small.params["conv2"]["bias"]).max() > 0
    assert_same(task.predict, filters, small, images)


def test_a_constant_of_a_residual_stream_moves_into_all_that_reads_it():
    """The biases of the branch that follows, and of the sum after that."""
    net = NETS["residual"].drawn(0).params | {"b1": jnp.ones(3)}

    def apply(net, x):
        x = x @ net["w0"]
        x = x + jax.nn.relu(x @ net["w1"] + net["b1"][None]) @ net["w2"]
        x = x + jax.nn.relu(x @ net["w3"] + net["b3"][None]) @ net["w4"]
        return jax.nn.relu(x + net["b4"][None]) @ net["w5"]

    x = NETS["residual"].example()
    net = zeroed(net, [(channel_groups(apply, net, x)[1], [0])])
    small = shrink(apply, net, x)
    moved = net["w2"][0]
    np.testing.assert_allclose(small["b4"], net["b4"] + moved, rtol=1e-4)
    np.testing.assert_allclose(small["b3"], net["b3"] + moved @ net["w3"], rtol=1e-4)
    assert small["w1"].shape == (4, 2)
    assert_same(apply, net, small, x)


def test_a_channel_of_a_residual_sum_goes_only_if_all_branches_are_dead():
    net = NETS["residual"]
    drawn = net.drawn(0)
    stream = channel_groups(net.apply, drawn, net.example())[0]
    one = drawn._replace(params=drawn.params | {"w2": drawn.params["w2"].at[:, 0].set(0)})
    assert sizes(shrink(net.apply, one, net.example())) == sizes(drawn)
    masked = masked_channels(drawn, [(stream, [0])])
    assert shrink(net.apply, masked, net.example()).params["w0"].shape == (5, 3)


def test_a_layer_without_a_bias_before_it_keeps_its_constants():
    net = {"a": jnp.zeros((3, 2)), "bias": jnp.array([1.0, 0.0]), "b": jnp.ones((2, 1))}
    net["a"] = net["a"].at[0, 1].set(1)

    def apply(net, x):
        return jax.nn.relu(x @ net["a"] + net["bias"][None]) @ net["b"]

    small = shrink(apply, net, jnp.ones((1, 3)))
    assert sizes(small) == sizes(net)


def test_a_bias_that_is_used_twice_takes_no_constant():
    net = {"a": jnp.eye(3), "b": jnp.array([-1.0, 2.0, 3.0]), "c": jnp.ones((3, 3))}
    net["a"] = net["a"].at[1].set(0)

    def apply(net, x):
        x = jax.nn.relu(x @ net["a"] + net["b"][None])
        x = jax.nn.relu(x @ net["c"] + net["b"][None])
        return x @ net["c"]

    small = shrink(apply, net, jnp.ones((1, 3)))
    assert_same(apply, net, small, jnp.ones((2, 3)))


def test_channels_that_nothing_reads_go():
    net = NETS["mlp"].drawn(0)
    net = net._replace(params=net.params | {"w3": net.params["w3"].at[1].set(0)})
    small = shrink(NETS["mlp"].apply, net, NETS["mlp"].example())
    assert small.params["w2"].shape == (4, 3)
    assert_same(NETS["mlp"].apply, net, small, NETS["mlp"].example())


def test_zero_divided_by_an_activation_is_zero():
    net = {"a": jnp.ones((3, 4)).at[:, 2].set(0), "b": jnp.ones((4, 2))}

    def apply(net, x):
        x = x @ net["a"]
        return (x / jnp.square(x[:, :1] + 1)) @ net["b"]

    def divided(net, x):
        return (x @ net["a"] / jnp.square(x).sum(1, keepdims=True)) @ net["b"]

    x = jax.random.normal(jax.random.key(0), (2, 3))
    assert sizes(shrink(apply, net, x)) == sizes(net)  # a part of the channels is taken by number
    small = shrink(divided, net, x)
    assert small["a"].shape == (3, 3)
    assert_same(divided, net, small, x)


def test_a_layer_keeps_one_channel():
    small = shrunk_to("mlp", [0, 1, 2, 3], change=masked_channels)
    assert small.params["w1"].shape == (5, 1)


def test_a_net_without_dead_channels_stays():
    net = NETS["BatchNorm"].drawn(0)
    small = shrink(NETS["BatchNorm"].apply, net, NETS["BatchNorm"].example())
    jax.tree.map(np.testing.assert_array_equal, small, net)


def test_element_types_stay():
    net = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), NETS["mlp"].drawn(0))
    groups = channel_groups(NETS["mlp"].apply, net, NETS["mlp"].example())
    small = shrink(NETS["mlp"].apply, zeroed(net, [(groups[0], [1])]), NETS["mlp"].example())
    assert {leaf.dtype for leaf in jax.tree.leaves(small)} == {jnp.dtype(jnp.bfloat16)}
    assert small.params["w1"].shape == (5, 3)


def test_a_function_with_a_number_of_channels_of_its_own():
    net = {"w": jnp.ones((3, 4)).at[:, 0].set(0), "v": jnp.ones((4, 2))}
    advice = "it must read the number of channels from its arrays, and compute nothing from it"

    def fixed(net, x):
        return (x @ net["w"]).reshape(-1, 4) @ net["v"]

    with pytest.raises(ConfigError, match=f"^apply does not run on the shrunk net; {advice}: .+"):
        shrink(fixed, net, jnp.ones((1, 3)))

    def scaled(net, x):
        return x @ net["w"] @ net["v"] / net["v"].shape[0]

    message = f"apply computes something else with the shrunk net; {advice}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        shrink(scaled, net, jnp.ones((1, 3)))


@cache
def known(name):
    """A task of the lab on images as small as it takes, its net and its images."""
    shape = {"lenet-300-100": (8, 8), "lenet-5-caffe": (16, 16)}.get(name, (8, 8, 3))
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 255, (3, *shape), np.uint8), np.arange(3, dtype=np.uint8))
    model = NARROW if name == "narrow" else KNOWN[name].model
    task = classification(model, Dataset("random", split, split, split))
    return task, jax.jit(partial(task.init, 0))(), jnp.asarray(split.images)


@pytest.mark.parametrize(
    "name",
    ["narrow"]
    + [pytest.param(n, marks=[pytest.mark.slow] * (not n.startswith("lenet"))) for n in KNOWN],
)
def test_known_nets_with_channels_of_zeros(name):
    """Half of the channels of all groups, of random nets with random biases and statistics."""
    task, net, images = known(name)
    rng = np.random.default_rng(1)
    net = jax.tree.map(lambda x: x + np.float32(abs(rng.normal(0, 0.1, x.shape))), net)
    groups = channel_groups(task.predict, net, images[:1])
    chosen = [(g, rng.choice(g.size, g.size // 2, replace=False)) for g in groups]
    masked = masked_channels(net, chosen)
    small = shrink(task.predict, masked, images[:1])
    assert sizes(small) == sizes(remove_channels(net, chosen))
    assert_same(task.predict, masked, small, images)
    filters = zeroed(net, chosen)
    assert_same(task.predict, filters, shrink(task.predict, filters, images[:1]), images)


def test_training_takes_a_shrunk_net():
    """BatchNorm then has the statistics of the batch, and updates smaller ones."""
    task, net, images = known("narrow")
    chosen = [(g, [0]) for g in channel_groups(task.predict, net, images[:1])]
    masked = masked_channels(net, chosen)
    small = shrink(task.predict, masked, images[:1])
    run = jax.jit(task.apply)
    (expected, _), (found, aux) = run(*masked, images), run(*small, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert sizes(aux) == sizes(small.aux)


def test_an_untrained_net_of_the_shapes_of_a_shrunk_one():
    task, net, images = known("lenet-300-100")
    first, second = channel_groups(task.predict, net, images)
    small = remove_channels(net, [(first, range(200)), (second, range(30))])
    fresh = narrowed(task, small)
    drawn = fresh.init(seed_of(jax.random.key(1)))
    assert sizes(drawn) == sizes(small)
    assert fresh.logits(drawn, images).shape == (3, 3)
    # LeCun's initialiser: a variance of one over the number of inputs.
    kernel = drawn.params["fc2"]["kernel"]
    assert kernel.shape == (100, 70)
    assert float(kernel.std()) == pytest.approx(100**-0.5, rel=0.05)
    assert not drawn.params["fc2"]["bias"].any()


def test_a_net_that_is_no_part_of_a_task():
    task, net, _ = known("lenet-300-100")
    other = net._replace(params=net.params | {"fc3": {"bias": jnp.ones(4), "kernel": jnp.ones(3)}})
    with pytest.raises(
        ConfigError, match=r"^expected a net whose arrays are parts of \{.+\}, got "
    ):
        narrowed(task, other)


def test_a_module_of_the_widths_of_a_shrunk_net():
    """An ordinary module: a file gives its arrays, and its features are theirs."""
    task, net, images = known("narrow")
    chosen = [(g, [0]) for g in channel_groups(task.predict, net, images[:1])]
    small = remove_channels(net, chosen)
    loaded = task.parts(loads(dumps(task.whole(small))))
    full = nnx.eval_shape(lambda: NARROW((8, 8, 3), 3, rngs=nnx.Rngs(0)))
    full.eval()
    module = narrowed_module(full, loaded)
    assert (module.conv0.out_features, module.g0b0conv1.in_features) == (3, 3)
    assert module.g0b0conv1.kernel_shape == module.g0b0conv1.kernel.shape == (3, 3, 3, 2)
    assert (module.bn.num_features, module.fc.in_features, module.fc.out_features) == (4, 4, 3)
    arrays = (nnx.to_pure_dict(nnx.state(module, kind)) for kind in (nnx.Param, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, tuple(arrays), tuple(small))
    assert nnx.eval_shape(module, images / 255.0).shape == (3, 3)
    assert full.bn.num_features == full.bn.scale.size == 5
    other = loaded._replace(params=loaded.params | {"fc": {"bias": jnp.ones(3)}})
    with pytest.raises(ConfigError, match=r"pass the shrunk net of this module$"):
        narrowed_module(full, other)


def test_pooling_by_strides_and_transposes_is_followed():
    net = {"a": jnp.ones((2, 2, 1, 3)).at[..., 1].set(0), "b": jnp.ones((3, 2))}

    def apply(net, x):
        x = conv(x, net["a"], "VALID", (2, 2)).transpose(3, 0, 1, 2)
        return jnp.einsum("cnhw,co->no", jnp.tanh(x), net["b"])

    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 1))
    small = shrink(apply, net, x)
    assert small["a"].shape == (2, 2, 1, 2)
    assert_same(apply, net, small, x)
