"""The channels of a net, found in its trace: the right axes, the right indices, or an error."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channel_nets import NETS, conv

from swsjax.baselines.channels import channel_groups, masked_channels, remove_channels
from swsjax.errors import ConfigError
from swsjax.lab import NETS as KNOWN
from swsjax.lab import Dataset, Split, Variables, classification
from swsjax.trees import named_leaves

SHAPES = {"lenet-300-100": (8, 8), "lenet-5-caffe": (16, 16)}


def groups_of(name):
    net = NETS[name]
    return channel_groups(net.apply, net.drawn(0), jnp.zeros(net.input))


def axes(group):
    return {f"{name.partition('/')[2]}:{axis}" for name, axis in group.members}


def found(name):
    return [axes(group) for group in groups_of(name)]


def test_layers_are_found_in_order():
    assert found("mlp") == [{"w1:1", "b1:0", "w2:0"}, {"w2:1", "b2:0", "w3:0"}]


def test_norms_and_their_statistics_are_cut_with_a_layer():
    norm = {"scale:0", "bias:0", "mean:0", "var:0"}
    assert found("BatchNorm") == [
        {"conv1:3", "conv2:2"} | {f"bn1/{leaf}" for leaf in norm},
        {"conv2:3", "fc:0"} | {f"bn2/{leaf}" for leaf in norm},
    ]


def test_all_branches_of_a_residual_sum_are_one_group():
    stream, *inner = groups_of("residual")
    assert axes(stream) == {"w0:1", "w1:0", "w2:1", "w3:0", "w4:1", "w5:0", "b0:0", "b2:0", "b4:0"}
    assert [name for name, _ in stream.kernels] == ["params/w0", "params/w2", "params/w4"]
    assert [axes(group) for group in inner] == [{"w1:1", "b1:0", "w2:0"}, {"w3:1", "b3:0", "w4:0"}]


def test_a_channel_that_is_flattened_has_an_index_for_each_position():
    """With the channels last, every fourth; with the channels first, all that follow."""
    first, _ = groups_of("flattened")
    indices = first.members["params/fc1", 0]
    np.testing.assert_array_equal(indices, np.arange(16).reshape(4, 4).T)
    first, second = groups_of("joined")
    positions = np.arange(9 * 36).reshape(9, 36)  # of the image, conv2 and conv1
    np.testing.assert_array_equal(second.members["params/fc", 0], positions[2:6])
    np.testing.assert_array_equal(first.members["params/fc", 0], positions[6:])
    np.testing.assert_array_equal(first.members["params/conv2", 2].ravel(), [2, 3, 4])


def test_a_depthwise_channel_has_all_of_its_outputs():
    first, second = groups_of("depthwise")
    assert axes(first) == {"conv1:3", "b1:0", "depth:3", "b2:0", "point:2"}
    np.testing.assert_array_equal(first.members["params/depth", 3], [[0, 1], [2, 3], [4, 5]])
    assert first.kernels == (("params/conv1", 3), ("params/depth", 3))
    assert axes(second) == {"point:3", "b3:0", "fc:0"}


def test_queries_and_keys_are_one_group():
    assert found("attention") == [{"q:1", "k:1"}, {"v:1", "out:0"}]


def test_heads_and_the_channels_of_each_are_groups():
    net = {"in": jnp.ones((5, 2, 3)), "bias": jnp.ones((2, 3)), "out": jnp.ones((2, 3, 5))}

    def apply(net, x):
        x = jnp.einsum("nd,dhc->nhc", x, net["in"]) + net["bias"][None]
        return jnp.einsum("nhc,hcd->nd", x, net["out"])

    heads, channels = channel_groups(apply, net, jnp.ones((1, 5)))
    assert list(heads.members) == [("bias", 0), ("in", 1), ("out", 0)]
    assert list(channels.members) == [("bias", 1), ("in", 2), ("out", 1)]


def test_an_embedding_is_cut_with_what_reads_it():
    net = {"table": jnp.ones((7, 3)), "w": jnp.ones((3, 2))}
    tokens = jnp.zeros((1, 4), int)
    (group,) = channel_groups(lambda net, x: net["table"][x] @ net["w"], net, tokens)
    assert list(group.members) == [("table", 1), ("w", 0)]


@pytest.mark.parametrize("name", KNOWN)
def test_the_channels_of_the_known_nets(name):
    """As their tables list them; a residual net has its streams besides."""
    shape = SHAPES.get(name, (8, 8, 3))
    split = Split(np.zeros((2, *shape), np.uint8), np.array([0, 1], np.uint8))
    task = classification(KNOWN[name].model, Dataset("blank", split, split, split))
    net = jax.eval_shape(lambda: task.init(0))
    groups = channel_groups(task.predict, net, split.images[:1])
    tables = [{f"{leaf}:{axis}" for leaf, axis in t.items()} for t in KNOWN[name].channels]
    assert [axes(group) for group in groups if axes(group) in tables] == tables
    assert len(groups) == len(tables) + (4 if name not in SHAPES else 0) - (name == "resnet-8")
    assert all(group.kernels for group in groups)


def test_channels_that_cannot_be_cut_are_in_no_group():
    net = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2)), "halves": jnp.ones((2, 2))}

    def count(apply):
        return len(channel_groups(apply, net, jnp.ones((1, 3))))

    assert count(lambda net, x: x @ net["w"] @ net["v"]) == 1
    assert count(lambda net, x: jnp.cumsum(x @ net["w"], 1) @ net["v"]) == 0
    assert count(lambda net, x: (x @ net["w"])[:, :2] @ net["halves"]) == 0
    assert count(lambda net, x: jnp.split(x @ net["w"], 2, 1)[0] @ net["halves"]) == 0
    assert count(lambda net, x: jnp.pad(x, ((0, 0), (0, 1))) @ net["v"]) == 0
    assert count(lambda net, x: (x @ net["w"]).reshape(1, 2, 2) @ net["halves"]) == 0
    assert count(lambda net, x: (x @ net["w"] + jnp.arange(4.0)[None]) @ net["v"]) == 0
    assert count(lambda net, x: jax.nn.one_hot(jnp.argmax(x @ net["w"], 1), 4) @ net["v"]) == 0


def test_a_convolution_in_groups_that_is_not_depthwise_is_not_cut():
    net = {"a": jnp.ones((1, 1, 2, 4)), "b": jnp.ones((1, 1, 2, 4)), "c": jnp.ones((1, 1, 4, 1))}

    def apply(net, x):
        return conv(conv(conv(x, net["a"]), net["b"], groups=2), net["c"])

    assert channel_groups(apply, net, jnp.ones((1, 2, 2, 2))) == ()


def test_an_operation_that_is_not_known():
    net = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2))}
    message = (
        "the channels of the net cannot be followed through the operation sort; write it with "
        "other operations, or pass a part of the net without it"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        channel_groups(lambda net, x: jnp.sort(x @ net["w"]) @ net["v"], net, jnp.ones((1, 3)))
    # Of the inputs alone, anything.
    assert channel_groups(lambda net, x: jnp.sort(x) @ net["w"] @ net["v"], net, jnp.ones((1, 3)))


@pytest.mark.parametrize("name", NETS)
def test_a_net_without_some_channels_runs(name):
    net = NETS[name]
    drawn, groups = net.drawn(0), groups_of(name)
    small = remove_channels(drawn, [(group, [0]) for group in groups])
    assert jax.eval_shape(net.apply, small, net.example()).shape == (
        jax.eval_shape(net.apply, drawn, net.example()).shape
    )
    sizes = [group.size for group in channel_groups(net.apply, small, net.example())]
    assert sizes == [group.size - 1 for group in groups]


def test_removal_takes_the_channels_that_are_named():
    group, _ = groups_of("mlp")
    net = NETS["mlp"].drawn(0)
    small = remove_channels(net, [(group, [3, 1])]).params
    np.testing.assert_array_equal(small["w1"], net.params["w1"][:, [0, 2]])
    np.testing.assert_array_equal(small["b1"], net.params["b1"][jnp.array([0, 2])])
    np.testing.assert_array_equal(small["w2"], net.params["w2"][jnp.array([0, 2])])
    np.testing.assert_array_equal(small["w3"], net.params["w3"])


def test_masks_set_parameters_to_zero_and_leave_statistics():
    group, _ = groups_of("BatchNorm")
    net = NETS["BatchNorm"].drawn(0)
    masked = masked_channels(net, [(group, [0, 2])])
    before, after = dict(named_leaves(net)), dict(named_leaves(masked))
    for name, leaf in after.items():
        axis = dict(group.members).get((name, leaf.ndim - 1)) is not None
        if name.startswith("params") and axis:
            np.testing.assert_array_equal(leaf[..., [0, 2]], 0)
            np.testing.assert_array_equal(leaf[..., [1, 3]], before[name][..., [1, 3]])
        elif name == "params/conv2":
            np.testing.assert_array_equal(leaf[:, :, [0, 2]], 0)
            np.testing.assert_array_equal(leaf[:, :, [1, 3]], before[name][:, :, [1, 3]])
        else:
            np.testing.assert_array_equal(leaf, before[name])


def test_numbers_of_channels_that_do_not_fit():
    group, _ = groups_of("mlp")
    net = NETS["mlp"].drawn(0)
    message = "a group of 4 channels has numbers from 0 to 3, got [1, 4]"
    for change in (remove_channels, masked_channels):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            change(net, [(group, [4, 1])])
    message = (
        "a layer needs at least one channel, got all 4 of params/b1, params/w1, params/w2 to remove"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        remove_channels(net, [(group, range(4))])
    assert not masked_channels(net, [(group, range(4))]).params["w1"].any()


def test_parameters_alone_are_a_net_too():
    net = {"w": jnp.ones((3, 2)), "v": jnp.ones((2, 1))}
    (group,) = channel_groups(lambda net, x: x @ net["w"] @ net["v"], net, jnp.ones((1, 3)))
    assert masked_channels(net, [(group, [1])])["w"].tolist() == [[1, 0]] * 3
    whole = Variables(net, {})
    (group,) = channel_groups(
        lambda net, x: x @ net.params["w"] @ net.params["v"], whole, jnp.ones((1, 3))
    )
    assert masked_channels(whole, [(group, [1])]).params["v"].tolist() == [[1], [0]]
