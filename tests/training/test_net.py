"""Every kind of net, taken apart, rebuilt, and through a retraining."""

import re
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from swsjax.errors import ConfigError
from swsjax.file.files import load, save
from swsjax.sws.compression import compress
from swsjax.sws.config import LEARNED
from swsjax.sws.quantizing import codebook
from swsjax.sws.rates import LearningRates
from swsjax.training.net import Weights, named_weights, take_apart
from swsjax.training.selection import FROZEN, select

RNG = np.random.default_rng(0)
DATA = {"x": np.float32(RNG.normal(size=(200, 4))), "y": np.float32(RNG.normal(size=(200, 3)))}
QUICK = replace(
    LEARNED,
    components=4,
    pi_zero=0.5,
    initial_std=0.05,
    soft_epochs=1,
    hard_epochs=1,
    prune_epochs=2,
    keep=0.9,
    soft_learning_rates=LearningRates(weights=1e-2),
    batch_size=50,
    least_steps=1,
)
WITHOUT_PRUNING = replace(QUICK, prune_epochs=0)


class Module(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.norm(self.dense(x)))


class LinenModule(linen.Module):
    @linen.compact
    def __call__(self, x, *, train):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(3)(x))
        return linen.Dropout(0.2, deterministic=not train)(x)


def squared(outputs, batch):
    return jnp.mean((outputs - batch["y"]) ** 2)


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(x, y)


def levels_of(mixture, dtype):
    """Zero and the means in that type, rounded to the precision of bfloat16."""
    means = np.asarray(mixture.means).astype(dtype).astype(jnp.bfloat16)
    return {0.0, *means.astype(np.float32).tolist()}


def test_an_nnx_module_is_passed_as_it_is():
    net = Module(nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(net, (nnx.Param, nnx.BatchStat))))
    seen = []

    def evaluate(net):
        seen.append(net)
        return float(
            squared(nnx.view(net, use_running_average=True, deterministic=True)(DATA["x"]), DATA)
        )

    result = compress(
        net, lambda net, batch: squared(net(batch["x"]), batch), DATA, QUICK, evaluate=evaluate
    )
    assert isinstance(result.params, Module)
    assert isinstance(seen[-1], Module)
    # The caller's module is not changed.
    now = nnx.to_pure_dict(nnx.state(net, (nnx.Param, nnx.BatchStat)))
    assert_same(now, before)
    assert int(net.drop.rngs.count[...]) == 0
    # Weights share few values; counters are those of the last step.
    values = codebook(nnx.to_pure_dict(nnx.state(result.params, nnx.Param)))
    assert set(values.tolist()) <= levels_of(result.mixtures["weights"], jnp.float32)
    assert int(result.params.drop.rngs.count[...]) == 4 * 4
    # Statistics are those of the quantised net.
    hidden = DATA["x"] @ result.params.dense.kernel[...] + result.params.dense.bias[None]
    np.testing.assert_allclose(result.params.norm.mean[...], hidden.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(result.params.norm.var[...], hidden.var(axis=0), rtol=0.1)


def test_linen_variables_with_statistics_and_a_key():
    module = LinenModule()
    variables = module.init(jax.random.key(0), DATA["x"], train=False)
    aux = {"batch_stats": variables["batch_stats"], "key": jax.random.key(1)}
    shapes = jax.tree.map(jnp.shape, aux)

    def loss(params, aux, batch):
        key, drop = jax.random.split(aux["key"])
        given = {"params": params, "batch_stats": aux["batch_stats"]}
        outputs, changed = module.apply(
            given, batch["x"], train=True, rngs={"dropout": drop}, mutable=["batch_stats"]
        )
        return squared(outputs, batch), {"key": key, **changed}

    result = compress(variables["params"], loss, DATA, WITHOUT_PRUNING, aux=aux)
    assert jax.tree.map(jnp.shape, result.aux) == shapes
    means = result.aux["batch_stats"]["BatchNorm_0"]["mean"]
    assert np.abs(means).min() > 0
    key = jax.random.key(1)
    for _ in range(2 * 4):
        key, _ = jax.random.split(key)
    assert result.aux["key"] == key
    assert len(codebook(result.params)) <= 5


def test_equinox_module():
    net = eqx.nn.MLP(4, 3, 8, 1, activation=jax.nn.gelu, key=jax.random.key(0))

    def loss(net, batch):
        return squared(jax.vmap(net)(batch["x"]), batch)

    result = compress(net, loss, DATA, WITHOUT_PRUNING)
    assert isinstance(result.params, eqx.nn.MLP)
    assert result.params.activation is net.activation
    assert len(codebook(eqx.filter(result.params, eqx.is_array))) <= 5
    assert jax.vmap(result.params)(DATA["x"]).shape == (200, 3)


def test_equinox_module_in_a_file(tmp_path):
    net = eqx.nn.MLP(4, 3, 8, 1, activation=jax.nn.gelu, key=jax.random.key(0))
    arrays, code = eqx.partition(net, eqx.is_array)
    save(tmp_path / "net.sws", arrays)
    decoded = eqx.combine(load(tmp_path / "net.sws", like=arrays), code)
    np.testing.assert_array_equal(jax.vmap(decoded)(DATA["x"]), jax.vmap(net)(DATA["x"]))


def linear_loss(net, batch):
    return squared(batch["x"] @ net["w"].astype(jnp.float32), batch)


def test_float64_weights():
    """With x64; without it, see the scale of the next test."""
    with jax.enable_x64(True):
        result = compress({"w": RNG.normal(size=(4, 3))}, linear_loss, DATA, QUICK)
        assert result.params["w"].dtype == jnp.float64
        assert len(codebook(result.params)) <= 5


def test_keys_numbers_empty_and_narrow_leaves():
    net = {
        "empty": np.zeros((0, 3), np.float32),
        "factor": 0.5,
        "key": jax.random.key(3),
        "scale": np.float64(1.5),
        "w": np.float16(RNG.normal(size=(4, 3))),
    }

    def loss(net, batch):
        noise = jax.random.normal(net["key"], batch["x"].shape)
        outputs = (batch["x"] + net["factor"] * noise) @ net["w"].astype(jnp.float32) * net["scale"]
        return squared(outputs, batch) + net["empty"].sum()

    result = compress(net, loss, DATA, WITHOUT_PRUNING)
    params, mixture = result.params, result.mixtures["weights"]
    assert params["key"] == net["key"]
    assert params["factor"] is net["factor"]
    assert params["empty"].shape == (0, 3)
    assert params["scale"].shape == ()
    assert params["scale"].dtype == jnp.float32
    assert params["w"].dtype == result.retrained["w"].dtype == jnp.float16
    assert {leaf.dtype.name for leaf in mixture} == {"float32"}
    for name in ("scale", "w"):
        values = set(np.unique(params[name]).tolist())
        assert values <= levels_of(mixture, params[name].dtype)
    assert not jnp.array_equal(result.retrained["w"], net["w"])
    values = codebook({"scale": params["scale"], "w": params["w"]})
    assert params["scale"] in values
    assert len(values) <= 5


def mixed_net():
    return {
        "frozen": jnp.float32(RNG.normal(size=3)),
        "half": jnp.asarray(RNG.normal(size=(4, 3)), jnp.bfloat16),
        "left": jnp.float32(RNG.normal(size=3)),
        "mask": np.array([True, False, True]),
        "name": "a net",
        "nothing": None,
        "steps": jnp.array(7),
        "scale": jnp.float32(RNG.normal(size=(3, 3))),
        "relu": jax.nn.relu,
    }


def mixed_loss(net, batch):
    assert net["name"] == "a net"
    hidden = net["relu"](batch["x"] @ net["half"].astype(jnp.float32)) * net["mask"][None]
    shift = net["left"] + net["frozen"] * net["steps"]
    return squared(hidden @ net["scale"] + shift[None], batch)


RULES = [("frozen", FROZEN), ("left", None), ("scale", "scales")]


@pytest.fixture(scope="module")
def mixed():
    """A net whose leaf left out of compression starts at zero, and what ``compress`` returns."""
    net = mixed_net() | {"left": jnp.zeros(3)}
    return net, compress(net, mixed_loss, DATA, QUICK, rules=RULES)


def test_leaves_of_every_kind(mixed):
    net, result = mixed
    for made in (result.params, result.retrained):
        assert set(made) == set(net)
        for name in ("frozen", "mask", "steps"):
            np.testing.assert_array_equal(made[name], net[name])
        assert made["name"] == "a net"
        assert made["nothing"] is None
        assert made["relu"] is jax.nn.relu
        assert made["left"].dtype == jnp.float32


def test_several_groups_keep_their_types(mixed):
    net, result = mixed
    assert set(result.mixtures) == {"weights", "scales"}
    for leaf, name in (("half", "weights"), ("scale", "scales")):
        assert result.params[leaf].dtype == result.retrained[leaf].dtype == net[leaf].dtype
        assert {array.dtype.name for array in result.mixtures[name]} == {"float32"}
        values = np.unique(np.asarray(result.params[leaf], np.float32)).tolist()
        assert set(values) <= levels_of(result.mixtures[name], net[leaf].dtype)
        assert not jnp.array_equal(result.retrained[leaf], net[leaf])


def test_leaves_left_out_are_trained_and_neither_compressed_nor_held_at_zero(mixed):
    _, result = mixed
    np.testing.assert_array_equal(result.params["left"], result.retrained["left"])
    assert np.all(np.asarray(result.params["left"]) != 0)


def test_groups_are_in_the_order_of_the_leaves():
    net = {"a": np.ones(1), "b": np.ones(2), "c": np.ones(3), "d": np.ones(4)}
    weights = take_apart(net, rules=[("b", None), ("c", "c"), ("?", "others")]).weights
    assert list(weights.groups) == ["others", "c"]
    sizes = {name: [leaf.size for leaf in leaves] for name, leaves in weights.groups.items()}
    assert sizes == {"others": [1, 4], "c": [3]}
    assert [leaf.size for leaf in weights.free] == [2]


def test_a_rebuilt_net_is_the_one_taken_apart():
    net = mixed_net()
    parts = take_apart(net, {"key": jnp.ones(2)}, RULES)
    rebuilt, aux = parts.rebuild(parts.weights, parts.carried)
    assert jax.tree.structure(rebuilt) == jax.tree.structure(net)
    assert_same(aux, {"key": jnp.ones(2)})
    for name, leaf in net.items():
        assert rebuilt[name] is leaf or np.array_equal(rebuilt[name], leaf)
    assert parts.selection == select(net, RULES)
    expected = Weights({"weights": [net["half"]], "scales": [net["scale"]]}, [net["left"]])
    assert_same(parts.weights, expected)


def test_a_net_is_rebuilt_of_other_weights():
    net = mixed_net()
    parts = take_apart(net, rules=RULES)
    rebuilt, _ = parts.rebuild(jax.tree.map(lambda x: 2 * x, parts.weights), parts.carried)
    for name in ("half", "scale", "left"):
        np.testing.assert_array_equal(rebuilt[name], 2 * net[name])
    np.testing.assert_array_equal(rebuilt["frozen"], net["frozen"])


def test_the_loss_of_the_parts_is_that_of_the_net():
    net = mixed_net()
    parts = take_apart(net, rules=RULES)
    value, carried = parts.loss(mixed_loss)(parts.weights, parts.carried, DATA)
    assert value == mixed_loss(net, DATA)
    assert carried is parts.carried


def test_arrays_by_name():
    net = mixed_net()
    trained = named_weights(net, select(net, RULES))
    assert list(trained) == ["half", "left", "scale"]
    assert named_weights(net, select(net, RULES), "scales") == {"scale": net["scale"]}
    module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    of_module = named_weights(module, select(module, [("bias", None)]), "weights")
    assert_same(of_module, {"kernel": module.kernel[...]})


def test_aux_with_a_module():
    message = "aux is passed with an NNX module, which carries its own variables; store it in one"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        take_apart(Module(nnx.Rngs(0)), {})
