"""Every kind of net, taken apart and put together, and through a retraining."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from swsjax.sws.compression import compress
from swsjax.sws.config import Config
from swsjax.errors import ConfigError
from swsjax.file.files import load, save
from swsjax.training.net import take_apart
from swsjax.sws.quantizing import codebook
from swsjax.sws.step import Rates
from swsjax.training.selection import FROZEN

RNG = np.random.default_rng(0)
DATA = {"x": np.float32(RNG.normal(size=(200, 4))), "y": np.float32(RNG.normal(size=(200, 3)))}
QUICK = Config(
    components=4,
    pi_zero=0.5,
    initial_std=0.05,
    soft_epochs=1,
    hard_epochs=1,
    prune_epochs=2,
    kept=0.9,
    soft_rates=Rates(weights=1e-2),
    batch_size=50,
    least_steps=1,
)
STEPS = 4 * 4


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


def same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(x, y)


def levels_of(mixture, dtype):
    """Zero and the means in that type, rounded to the precision of bfloat16."""
    means = np.asarray(mixture.means).astype(dtype).astype(jnp.bfloat16)
    return {0.0, *means.astype(np.float32).tolist()}


def test_nnx_module_is_passed_as_it_is():
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
    # The caller's stays as it was.
    now = nnx.to_pure_dict(nnx.state(net, (nnx.Param, nnx.BatchStat)))
    same(now, before)
    assert int(net.drop.rngs.count[...]) == 0
    # Weights are few values; statistics and counters are those of the last step, as they came.
    values = codebook(nnx.to_pure_dict(nnx.state(result.params, nnx.Param)))
    assert set(values.tolist()) <= levels_of(result.mixtures["weights"], jnp.float32)
    assert np.abs(result.params.norm.mean[...]).min() > 0
    assert int(result.params.drop.rngs.count[...]) == STEPS
    same(
        nnx.to_pure_dict(nnx.state(result.retrained, nnx.BatchStat)),
        nnx.to_pure_dict(nnx.state(result.params, nnx.BatchStat)),
    )


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

    result = compress(variables["params"], loss, DATA, QUICK, aux=aux)
    assert jax.tree.map(jnp.shape, result.aux) == shapes
    means = result.aux["batch_stats"]["BatchNorm_0"]["mean"]
    assert np.abs(means).min() > 0
    key = jax.random.key(1)
    for _ in range(STEPS):
        key, _ = jax.random.split(key)
    assert result.aux["key"] == key
    assert len(codebook(result.params)) <= 5


def test_equinox_module():
    net = eqx.nn.MLP(4, 3, 8, 1, activation=jax.nn.gelu, key=jax.random.key(0))

    def loss(net, batch):
        return squared(jax.vmap(net)(batch["x"]), batch)

    result = compress(net, loss, DATA, QUICK)
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


def test_narrow_weights_keep_their_type():
    net = {"w": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float16)}
    result = compress(net, linear_loss, DATA, QUICK)
    assert result.params["w"].dtype == result.retrained["w"].dtype == jnp.float16
    assert {leaf.dtype.name for leaf in result.mixtures["weights"]} == {"float32"}
    levels = levels_of(result.mixtures["weights"], jnp.float16)
    assert set(np.unique(result.params["w"]).tolist()) <= levels
    assert not jnp.array_equal(result.retrained["w"], net["w"])


@pytest.mark.parametrize("x64", [False, True])
def test_float64_weights(x64):
    with jax.enable_x64(x64):
        result = compress({"w": RNG.normal(size=(4, 3))}, linear_loss, DATA, QUICK)
        assert result.params["w"].dtype == (jnp.float64 if x64 else jnp.float32)
        assert len(codebook(result.params)) <= 5


def test_keys_numbers_and_empty_leaves():
    net = {
        "empty": np.zeros((0, 3), np.float32),
        "factor": 0.5,
        "key": jax.random.key(3),
        "scale": jnp.float32(1.5),
        "w": np.float32(RNG.normal(size=(4, 3))),
    }

    def loss(net, batch):
        noise = jax.random.normal(net["key"], batch["x"].shape)
        outputs = (batch["x"] + net["factor"] * noise) @ net["w"] * net["scale"]
        return squared(outputs, batch) + net["empty"].sum()

    made = compress(net, loss, DATA, QUICK).params
    assert made["key"] == net["key"]
    assert made["factor"] is net["factor"]
    assert made["empty"].shape == (0, 3)
    assert made["scale"].shape == ()
    values = codebook({"scale": made["scale"], "w": made["w"]})
    assert made["scale"] in values
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
    hidden = net["relu"](batch["x"] @ net["half"].astype(jnp.float32)) * net["mask"]
    return squared(hidden @ net["scale"] + net["left"] + net["frozen"] * net["steps"], batch)


RULES = [("frozen", FROZEN), ("left", None), ("scale", "scales")]


def test_leaves_of_every_kind():
    net = mixed_net()
    result = compress(net, mixed_loss, DATA, QUICK, rules=RULES)
    for made in (result.params, result.retrained):
        assert set(made) == set(net)
        for name in ("frozen", "mask", "steps"):
            np.testing.assert_array_equal(made[name], net[name])
        assert made["name"] == "a net"
        assert made["nothing"] is None
        assert made["relu"] is jax.nn.relu
        assert made["half"].dtype == jnp.bfloat16
        assert made["scale"].dtype == jnp.float32


def test_several_mixtures_and_leaves_left_out():
    net = mixed_net()
    result = compress(net, mixed_loss, DATA, QUICK, rules=RULES)
    assert set(result.mixtures) == {"weights", "scales"}
    for leaf, name in (("half", "weights"), ("scale", "scales")):
        values = np.unique(np.asarray(result.params[leaf], np.float32)).tolist()
        assert set(values) <= levels_of(result.mixtures[name], net[leaf].dtype)
    # Left out of compression, but trained.
    np.testing.assert_array_equal(result.params["left"], result.retrained["left"])
    assert not np.isin(result.params["left"], net["left"]).any()


def test_pruning_does_not_hold_what_is_left_out():
    net = mixed_net() | {"left": jnp.zeros(3)}
    result = compress(net, mixed_loss, DATA, QUICK, rules=RULES)
    assert np.all(np.asarray(result.params["left"]) != 0)


def test_put_together_is_what_was_taken_apart():
    net = mixed_net()
    parts = take_apart(net, {"key": jnp.ones(2)}, RULES)
    whole, aux = parts.whole(parts.params, parts.carried)
    assert jax.tree.structure(whole) == jax.tree.structure(net)
    same(aux, {"key": jnp.ones(2)})
    for name, leaf in net.items():
        assert whole[name] is leaf or np.array_equal(whole[name], leaf)
    assert len(parts.labels) == len(jax.tree.leaves(parts.params)) == 3
    assert set(parts.labels) == {"weights", None, "scales"}


def test_aux_with_a_module():
    message = "aux is given with an NNX module, which carries its own variables; put it into one"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        take_apart(Module(nnx.Rngs(0)), {})
