"""Variables of Flax NNX in every form: what is trained, what is carried, and their names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.errors import ConfigError
from swsjax.training.net import named_weights, take_apart
from swsjax.training.selection import FROZEN, select

RNG = np.random.default_rng(0)
DATA = np.float32(RNG.normal(size=(20, 4)))


class Net(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(self.dense(x))


def loss(net, batch):
    return jnp.mean(net(batch) ** 2)


def step(net, loss=loss):
    """A step of SGD on the parts of a net: the net after it."""

    @jax.jit
    def after(weights, carried):
        gradient = jax.grad(net.loss(loss), has_aux=True)
        by_weights, carried = gradient(weights, carried, DATA)
        return jax.tree.map(lambda x, g: x - 0.1 * g, weights, by_weights), carried

    return net.rebuild(*after(net.weights, net.carried))[0]


NAMES = ["dense/bias", "dense/kernel", "norm/bias", "norm/scale"]
HOLDERS = {
    "a module": (lambda net: net, "", lambda found: found),
    "a module in a dictionary": (lambda net: {"a": net}, "a/", lambda found: found["a"]),
    "modules in a list": (lambda net: [net], "0/", lambda found: found[0]),
    "modules in a list of NNX": (lambda net: nnx.List([net]), "0/", lambda found: found[0]),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_parameters_are_selected_by_the_same_names_wherever_a_module_is(holder):
    hold, prefix, held = HOLDERS[holder]
    rules = [(f"{prefix}dense/kernel", "kernels"), ("*/norm/*", None)]
    rules = rules if prefix else [rules[0], ("norm/*", None)]
    whole = hold(Net())
    net = take_apart(whole, rules=rules)
    assert net.selection == select(whole, rules)
    groups = {leaf.name: leaf.group for leaf in net.selection.leaves}
    assert list(groups) == [prefix + name for name in NAMES]
    assert list(groups.values()) == ["weights", "kernels", None, None]
    assert list(net.carried[0]) == [f"{prefix}norm/mean", f"{prefix}norm/var"]
    assert list(named_weights(whole, net.selection, "kernels")) == [f"{prefix}dense/kernel"]
    after = held(step(net, lambda whole, batch: loss(held(whole), batch)))
    expected = step(take_apart(Net()))
    for ours, theirs in zip(
        jax.tree.leaves(nnx.state(after)), jax.tree.leaves(nnx.state(expected)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert np.all(after.norm.mean[...] != 0)


def test_the_state_of_a_module():
    graph, state = nnx.split(Net())
    net = take_apart(state)
    assert [leaf.name for leaf in net.selection.leaves] == NAMES
    after = step(net, lambda state, batch: loss(nnx.merge(graph, state), batch))
    assert isinstance(after, nnx.State)
    assert not np.array_equal(after["dense"]["kernel"][...], state["dense"]["kernel"][...])


class Sowing(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(4, 3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        hidden = self.dense(x)
        self.sow(nnx.Intermediate, "hidden", hidden)
        return hidden


def sown_shapes(module):
    return list(map(jnp.shape, jax.tree.leaves(nnx.state(module, nnx.Intermediate))))


@pytest.mark.filterwarnings("ignore:.*sow:DeprecationWarning")
@pytest.mark.parametrize("calls", [0, 1])
def test_what_a_module_sows_is_dropped_after_each_step(calls):
    module = Sowing()
    for _ in range(calls):
        module(DATA[:2])
    sown = sown_shapes(module)
    net = take_apart(module)
    assert [leaf.name for leaf in net.selection.leaves] == ["dense/bias", "dense/kernel"]
    assert net.carried == ({}, ())
    after = step(net)
    assert sown_shapes(after) == sown_shapes(module) == sown == [(2, 3)] * calls
    assert not np.array_equal(after.dense.kernel[...], module.dense.kernel[...])


@pytest.mark.filterwarnings("ignore:.*sow:DeprecationWarning")
def test_a_loss_of_what_a_module_sows():
    def of_sown(module, batch):
        module(batch)
        (hidden,) = jax.tree.leaves(nnx.pop(module, nnx.Intermediate))
        return jnp.mean(hidden**2)

    net, outputs = take_apart(Sowing()), take_apart(Sowing())
    ours, theirs = step(net, of_sown), step(outputs)
    np.testing.assert_array_equal(ours.dense.kernel[...], theirs.dense.kernel[...])


VALUES = {
    "a dictionary": ({"b": jnp.ones(3), "w": jnp.ones((4, 3))}, ["p/b", "p/w"]),
    "a tuple": ((jnp.ones(3), [jnp.ones((4, 3))]), ["p/0", "p/1/0"]),
}


class Tree(nnx.Module):
    """A parameter and statistics that are trees."""

    def __init__(self, value):
        self.p = nnx.Param(value)
        self.seen = nnx.BatchStat({"count": jnp.zeros(()), "sum": jnp.zeros(3)})

    def __call__(self, x):
        bias, kernel = jax.tree.leaves(self.p.get_value())
        outputs = x @ kernel + bias[None]
        seen = self.seen.get_value()
        self.seen.set_value({"count": seen["count"] + 1, "sum": seen["sum"] + outputs.sum(axis=0)})
        return outputs


@pytest.mark.parametrize("value", VALUES)
def test_a_variable_of_several_arrays(value):
    given, names = VALUES[value]
    module = Tree(given)
    net = take_apart(module, rules=[(names[0], None)])
    assert net.selection == select(module, [(names[0], None)])
    assert [leaf.name for leaf in net.selection.leaves] == names
    assert list(net.carried[0]) == ["seen/count", "seen/sum"]
    after = step(net)
    np.testing.assert_allclose(
        after.seen.get_value()["sum"], (DATA @ np.ones((4, 3)) + 1).sum(axis=0), rtol=1e-5
    )
    assert after.seen.get_value()["count"] == 1
    assert jax.tree.structure(after.p.get_value()) == jax.tree.structure(given)
    assert all(np.all(leaf != 1) for leaf in jax.tree.leaves(after.p.get_value()))


def test_aux_with_a_module_in_a_list():
    message = "aux is passed with an NNX module, which carries its own variables; store it in one"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        take_apart([Net()], {"mean": jnp.ones(2)})


def test_a_frozen_parameter_that_is_not_floating():
    class Masked(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Param(jnp.ones((4, 3)))
            self.mask = nnx.Param(jnp.array([1, 0, 1]))

        def __call__(self, x):
            return x @ self.kernel[...] * self.mask[None]

    net = take_apart(Masked())
    assert {leaf.name: leaf.group for leaf in net.selection.leaves} == {
        "kernel": "weights",
        "mask": FROZEN,
    }
    assert step(net).mask[...].tolist() == [1, 0, 1]
