"""One array under two names: an error, unless it is an initial value or a variable of NNX."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from swsjax.errors import ConfigError
from swsjax.training.loop import train
from swsjax.training.net import take_apart
from swsjax.training.pretraining import PretrainConfig, pretrain
from swsjax.training.selection import FROZEN

RNG = np.random.default_rng(0)
DATA = np.float32(RNG.normal(size=(40, 3)))
TABLE = np.float32(RNG.normal(size=(3, 3)))
SAME = (
    "embed and head/w are one array, which training would make two; keep it under one name and "
    "use it twice in the net, or pass copies if they are not tied"
)
SPLIT = "split the module by nnx.split(module, nnx.Param, ...), and pass the"


def loss(params, batch):
    return jnp.mean((batch @ params["embed"] @ params["head"]["w"].T - batch) ** 2)


def net_of(embed, head):
    return {"embed": embed, "head": {"w": head}}


def trained(params, loss=loss):
    return train(params, loss, DATA, optax.sgd(0.1), epochs=1, batch_size=20).params


WAYS = {
    "compress": take_apart,
    "train": trained,
    "pretrain": lambda params: (
        pretrain(params, loss, DATA, PretrainConfig(epochs=1, batch_size=20)).params
    ),
}
ON_DEVICE = jnp.asarray(TABLE)
TIED = {
    "one array of JAX": (ON_DEVICE, ON_DEVICE),
    "one array of NumPy": (TABLE, TABLE),
    "two views of one memory, as of tied tensors of PyTorch": (TABLE, TABLE[:]),
    "an array and its transpose": (TABLE, TABLE.T),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pair", TIED)
def test_a_tie_is_an_error(way, pair):
    with pytest.raises(ConfigError, match=f"^{re.escape(SAME)}$"):
        WAYS[way](net_of(*TIED[pair]))


ZEROS = jnp.zeros((3, 3))
BUFFER = np.arange(18, dtype=np.float32)
NOT_TIED = {
    "equal arrays": (ON_DEVICE, jnp.array(ON_DEVICE, copy=True)),
    "initial zeros": (ZEROS, ZEROS),
    "an initial scale": (np.full((3, 3), 0.5, np.float32),) * 2,
    "parts of one memory": (BUFFER[:9].reshape(3, 3), BUFFER[9:].reshape(3, 3)),
    "nothing at all": (np.zeros((0, 3), np.float32),) * 2,
}


@pytest.mark.parametrize("pair", NOT_TIED)
def test_not_a_tie(pair):
    params = net_of(*NOT_TIED[pair]) | {"w": TABLE}
    assert [leaf.name for leaf in take_apart(params).selection.leaves] == ["embed", "head/w", "w"]
    result = trained(params, lambda params, batch: jnp.mean((batch @ params["w"]) ** 2))
    assert jax.tree.map(jnp.shape, result) == jax.tree.map(jnp.shape, params)


def test_leaves_that_are_not_trained_may_be_one_array():
    net = net_of(TABLE, TABLE) | {"again": TABLE}
    take_apart(
        net | {"w": 2 * TABLE}, rules=[(name, FROZEN) for name in ("embed", "head/w", "again")]
    )
    assert train(
        {"w": TABLE},
        lambda params, aux, batch: (jnp.mean((batch @ params["w"]) ** 2), aux),
        DATA,
        optax.sgd(0.1),
        epochs=1,
        batch_size=20,
        aux={"first": TABLE, "second": TABLE},
    ).aux.keys() == {"first", "second"}


@pytest.mark.parametrize("pair", TIED)
@pytest.mark.parametrize("frozen", ["embed", "head/w"])
def test_a_tie_of_which_one_name_is_frozen(pair, frozen):
    names = ["embed", "head/w"] if frozen == "head/w" else ["head/w", "embed"]
    message = SAME.replace("embed and head/w", " and ".join(names))
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        take_apart(net_of(*TIED[pair]), rules=[(frozen, FROZEN)])


@pytest.mark.parametrize("pair", NOT_TIED)
def test_not_a_tie_with_a_frozen_array(pair):
    take_apart(net_of(*NOT_TIED[pair]) | {"w": TABLE}, rules=[("head/w", FROZEN)])


class Tied(nnx.Module):
    def __init__(self, share):
        self.left = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
        self.right = nnx.Linear(3, 3, rngs=nnx.Rngs(1))
        self.right.kernel = share(self.left.kernel)

    def __call__(self, x):
        return self.left(x) + 2 * self.right(x)


def of_module(module, batch):
    return jnp.mean((module(batch) - batch) ** 2)


def test_a_shared_variable_of_nnx_is_one_leaf_and_stays_shared():
    net = take_apart(Tied(lambda variable: variable))
    assert [leaf.name for leaf in net.selection.leaves] == [
        "left/bias",
        "left/kernel",
        "right/bias",
    ]
    doubled, _ = net.rebuild(jax.tree.map(lambda x: 2 * x, net.weights), net.carried)
    assert doubled.right.kernel is doubled.left.kernel
    # Its gradient is that of both uses.
    gradient = jax.grad(lambda weights: net.loss(of_module)(weights, net.carried, DATA)[0])
    of_kernel = gradient(net.weights).groups["weights"][1]
    whole, bias = net.weights.groups["weights"][1], net.weights.groups["weights"][0]
    expected = jax.grad(lambda w: jnp.mean((3 * DATA @ w + 3 * bias[None] - DATA) ** 2))(whole)
    np.testing.assert_allclose(of_kernel, expected, rtol=1e-5)


def test_two_variables_of_nnx_with_one_array():
    message = SAME.replace("embed", "left/kernel").replace("head/w", "right/kernel")
    module = Tied(lambda variable: nnx.Param(variable.get_value()))
    for way in (take_apart, lambda net: trained(net, of_module)):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            way(module)


def test_a_module_trained_as_a_tree_would_lose_its_ties():
    message = (
        "left/kernel and right/kernel are one variable of Flax NNX, which training would make two; "
        f"{SPLIT} parameters"
    )
    module = Tied(lambda variable: variable)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        trained(module, of_module)
    # What it says to do.
    graph, params = nnx.split(module, nnx.Param)
    result = nnx.merge(
        graph, trained(params, lambda params, batch: of_module(nnx.merge(graph, params), batch))
    )
    assert result.left.kernel is result.right.kernel
    assert not jnp.array_equal(result.left.kernel[...], module.left.kernel[...])


def test_statistics_of_a_module_are_not_trained():
    message = (
        f"params hold mean, a BatchStat of Flax NNX, which would be trained; {SPLIT} other state "
        "as aux"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        trained(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), of_module)


class Shared(eqx.Module):
    pair: eqx.nn.Shared

    def __init__(self):
        pair = [eqx.nn.Linear(3, 3, key=jax.random.key(number)) for number in (0, 1)]
        self.pair = eqx.nn.Shared(pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

    def __call__(self, x):
        first, second = self.pair()
        return first(x) + 2 * second(x)


def test_shared_layers_of_equinox_stay_shared():
    net = take_apart(Shared())
    trained = [leaf.name for leaf in net.selection.leaves if leaf.group is not FROZEN]
    assert trained == ["pair/pytree/0/weight", "pair/pytree/0/bias", "pair/pytree/1/bias"]
    doubled, _ = net.rebuild(jax.tree.map(lambda x: 2 * x, net.weights), net.carried)
    first, second = doubled.pair()
    assert first.weight is second.weight
