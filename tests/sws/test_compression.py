"""Compression end to end on small nets, and its errors."""

import gc
import re
import warnings
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from linear_net import (
    DATA,
    INPUTS,
    ONE_STEP,
    PARAMS,
    QUICK,
    STILL,
    TRUE,
    assert_bit_equal,
    distance,
    loss_fn,
)

from swsjax.errors import ConfigError, RetrainingError, SwsjaxWarning
from swsjax.file import load, save
from swsjax.sws.compression import compress
from swsjax.sws.config import LEARNED, Config
from swsjax.sws.merging import merge
from swsjax.sws.prior import Beta, GaussianMixture, HyperPriors, init_mixture, log_prob
from swsjax.sws.quantizing import codebook, non_zeros, quantize
from swsjax.sws.rates import LearningRates
from swsjax.training import FROZEN, select

MAPS = Path("/proc/self/maps")
PRUNED = QUICK | {"prune_epochs": 2, "keep": 0.5}


@pytest.fixture(scope="module")
def run():
    """One compression: what was passed to it, its result and what it reported."""
    given = jax.tree.map(jnp.asarray, (PARAMS, DATA))
    seen = []
    result = compress(
        given[0],
        loss_fn,
        given[1],
        replace(LEARNED, **QUICK),
        evaluate=distance,
        callback=seen.append,
    )
    return given, result, seen


@cache
def pruned():
    return compress(PARAMS, loss_fn, DATA, replace(LEARNED, **PRUNED))


@cache
def one_step():
    return compress(PARAMS, loss_fn, DATA, replace(LEARNED, **ONE_STEP))


def test_net_is_quantised(run):
    _, result, _ = run
    assert_bit_equal(result.params, quantize(result.mixtures["weights"], result.retrained))
    np.testing.assert_array_equal(result.params["w"] == 0, TRUE == 0)
    assert distance(result.params) < 0.05
    assert codebook(result.params).size == 3
    assert codebook(result.retrained).size == TRUE.size


def test_history(run):
    _, result, seen = run
    assert result.history == seen
    stages = [(epoch.stage, epoch.epoch, epoch.epochs) for epoch in seen]
    assert stages == [("soft", 1, 4), ("soft", 2, 4), ("hard", 3, 4), ("hard", 4, 4)]
    last = seen[-1]
    mixture = last.details.mixtures["weights"]
    assert all(type(leaf) is np.ndarray for leaf in mixture)
    quantised = quantize(mixture, result.retrained)
    assert last.details.levels == codebook(quantised).size
    assert last.details.components == np.count_nonzero(codebook(quantised))
    assert last.non_zeros == non_zeros(quantised)
    assert last.error == distance(quantised)
    assert_bit_equal(merge(mixture, Config().merge_threshold), result.mixtures["weights"])


def test_inputs_are_neither_donated_nor_changed(run):
    given, _, _ = run
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert_bit_equal(given, (PARAMS, DATA))


def test_same_seed_same_bits_other_seed_other_weights(run):
    _, result, _ = run
    # NumPy arrays, and neither evaluate nor callback: the same numbers.
    again = compress(PARAMS, loss_fn, DATA, replace(LEARNED, **QUICK))
    assert_bit_equal(again[:3], result[:3])
    assert [epoch.loss for epoch in again.history] == [epoch.loss for epoch in result.history]
    assert {epoch.error for epoch in again.history} == {None}
    other = compress(PARAMS, loss_fn, DATA, replace(LEARNED, **QUICK, seed=1))
    assert not jnp.array_equal(other.retrained["w"], result.retrained["w"])


def test_every_batch_of_every_stage_is_augmented():
    doubled = {"x": DATA["x"], "y": 2 * DATA["y"]}

    def halved(key, batch):
        del key
        return batch | {"y": batch["y"] / 2}

    config = replace(LEARNED, **PRUNED)
    augmented = compress(PARAMS, loss_fn, doubled, config, augment=halved)
    assert_bit_equal(augmented[:3], pruned()[:3])


def test_an_augmentation_may_add_to_the_batch(run):
    def loss(params, batch):
        return loss_fn(params, batch) + 0 * batch["noise"].sum()

    def noisy(key, batch):
        return batch | {"noise": jax.random.normal(key, (3,))}

    result = compress(PARAMS, loss, DATA, replace(LEARNED, **QUICK), augment=noisy)
    assert_bit_equal(result[:3], run[1][:3])


def test_an_augmentation_that_is_not_a_function():
    message = "augment must be a function of a key and a batch, got a str; crop_and_flip is one"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        compress(PARAMS, loss_fn, DATA, Config(tau=1e-4), augment="flip")


class Linear(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.asarray(PARAMS["w"]))
        self.offset = nnx.Param(jnp.full(4, 0.01))
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))


def test_selection_is_that_of_select(run):
    assert run[1].selection == select(PARAMS)
    tree = {"kept": {"w": PARAMS["w"]}, "bias": np.zeros(4, np.float32), "frozen": np.ones(2)}
    tree_rules = [("bias", None), ("frozen", FROZEN), ("kept/*", "kernels")]

    def tree_loss(params, batch):
        return loss_fn(params["kept"], batch) + jnp.sum(params["bias"] ** 2)

    def module_loss(module, batch):
        module.calls[...] += 1
        return loss_fn({"w": module.w[...] + module.offset[None]}, batch)

    for net, loss, rules in (
        (tree, tree_loss, tree_rules),
        (Linear(), module_loss, [("offset", None)]),
    ):
        config = replace(LEARNED, **ONE_STEP, pi_zero=0.5)
        result = compress(net, loss, DATA, config, rules=rules)
        assert result.selection == select(net, rules)
        again = compress(net, loss, DATA, config, rules=rules, start=result)
        assert again.selection == result.selection
        assert set(result.mixtures) == {
            leaf.group for leaf in result.selection.leaves if isinstance(leaf.group, str)
        }


def test_settings_reach_the_mixture():
    settings = {"components": 3, "pi_zero": 0.5, "initial_std": 0.5, "soft_learning_rates": STILL}
    (epoch,) = compress(PARAMS, loss_fn, DATA, replace(LEARNED, **(ONE_STEP | settings))).history
    low, high = PARAMS["w"].min(), PARAMS["w"].max()
    mixture = epoch.details.mixtures["weights"]
    np.testing.assert_allclose(mixture.means, np.linspace(low, high, 3), rtol=1e-6)
    np.testing.assert_allclose(mixture.log_precisions, np.full(4, np.log(4)), rtol=1e-6)
    assert mixture.zero_logit == 0


def test_error_of_the_prior_is_reported_and_small(run):
    config = replace(LEARNED, **ONE_STEP, prior="exact")
    exact = compress(PARAMS, loss_fn, DATA, config).history
    for history, is_exact in [(run[1].history, False), (exact, True)]:
        errors = [epoch.details.prior_error for epoch in history]
        assert not any(errors) if is_exact else all(0 < error < 1e-4 for error in errors)
        assert {epoch.details.nodes is None for epoch in history} == {is_exact}


@pytest.mark.parametrize("tau", [0.01, lambda step: 0.01 + step])
def test_the_prior_is_weighed_by_tau(tau):
    """With a large epsilon Adam's first step is the gradient, here that of the prior alone."""
    rates = LearningRates(weights=1e3, epsilon=1e3)
    settings = ONE_STEP | {"pi_zero": 0.5, "soft_learning_rates": rates}
    result = compress(PARAMS, lambda *_: 0.0, DATA, replace(LEARNED, tau=tau, **settings))
    low, high = PARAMS["w"].min().item(), PARAMS["w"].max().item()
    mixture = init_mixture(low, high, components=4, pi_zero=0.5)
    gradient = jax.grad(lambda w: log_prob(mixture, w).sum())(PARAMS["w"])
    moved = result.retrained["w"] - PARAMS["w"]
    np.testing.assert_allclose(moved, 0.01 * gradient, rtol=0.01, atol=1e-4)


def test_pi_zero_moves_under_a_hyper_prior():
    hyper = HyperPriors(pi_zero=Beta(100.0, 10.0))
    config = replace(LEARNED, **ONE_STEP, pi_zero=0.5, hyper_priors=hyper)
    assert compress(PARAMS, loss_fn, DATA, config).mixtures["weights"].zero_logit > 0


class Odd(NamedTuple):
    kernel: object
    rest: list


def test_any_pytree():
    def loss(params, batch):
        w = params.kernel.astype(jnp.float32)
        return ((batch[0] @ w - batch[1] + params.rest[0]) ** 2).mean()

    params = Odd(jnp.bfloat16(PARAMS["w"]), [0.01, np.zeros((0, 3), np.float32), None])
    result = compress(params, loss, (INPUTS, DATA["y"]), replace(LEARNED, **QUICK))
    assert jax.tree.structure(result.params) == jax.tree.structure(params)
    assert result.params.kernel.dtype == jnp.bfloat16
    assert result.params.rest[1].shape == (0, 3)
    assert distance({"w": np.float32(result.params.kernel)}) < 0.05


def fails(error, message, *arguments, **settings):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        compress(*arguments, replace(LEARNED, **settings))


def never(params, batch):
    raise AssertionError("training began")


def test_last_update_that_is_not_finite():
    def loss(params, batch):
        """Finite itself, without a finite gradient."""
        return loss_fn(params, batch) + jnp.sqrt(jnp.sum(0 * params["w"]))

    message = (
        "weights or mixture are not finite after epoch 1 of 1 (soft stage); "
        "lower the learning rates of that stage, Config.soft_learning_rates"
    )
    fails(RetrainingError, message, PARAMS, loss, DATA, **ONE_STEP)


NEAR_ZERO = {"w": np.float32([-0.01, 0.0, 0.01])}


@pytest.mark.parametrize(
    ("hard_epochs", "where"),
    [(0, "after quantisation"), (3, "after epoch 2 of 4 (hard stage)")],
)
def test_every_weight_is_zero(hard_epochs, where):
    message = (
        f"every weight is zero {where}: the zero component still has a standard deviation of 0.25, "
        "while hyper_priors ask for 0.02, and holds them all; raise soft_epochs, or precisions in "
        "Config.soft_learning_rates, or lower tau"
    )
    settings = ONE_STEP | {"hard_epochs": hard_epochs}
    fails(RetrainingError, message, NEAR_ZERO, lambda p, _: (p["w"] ** 2).sum(), DATA, **settings)


@pytest.mark.skipif(not MAPS.exists(), reason="no /proc/self/maps")
@pytest.mark.parametrize(
    "settings",
    [{"hard_epochs": 1}, {"soft_learning_rates": LearningRates(weights=1e30), "batch_size": 50}],
)
def test_compiled_programs_of_a_run_are_cleared(settings):
    # Linux grants a process 65,530 maps; a compiled loop takes a thousand if it is optimised.
    numbers, config = [], replace(LEARNED, **ONE_STEP | {"pi_zero": 0.5} | settings)
    for _ in range(3):
        with suppress(RetrainingError):
            compress(PARAMS, loss_fn, DATA, config)
        gc.collect()
        numbers.append(len(MAPS.read_text().splitlines()))
    assert numbers[2] - numbers[1] < 20, numbers


def test_starting_from_a_result_ends_as_one_run_does(run):
    whole, (_, first, _) = pruned(), run
    kept = jax.tree.map(np.array, (first.retrained, first.mixtures["weights"]))
    rest = replace(LEARNED, **PRUNED | {"soft_epochs": 0, "hard_epochs": 0})
    second = compress(PARAMS, loss_fn, DATA, rest, start=first)
    assert_bit_equal(second.params, whole.params)
    assert_bit_equal(second.retrained, whole.retrained)
    assert_bit_equal(second.mixtures["weights"], whole.mixtures["weights"])
    assert [epoch.stage for epoch in second.history] == ["prune", "prune"]
    # The first result can be used again.
    assert_bit_equal((first.retrained, first.mixtures["weights"]), kept)


def test_float64_weights_are_the_same_net_as_the_float32_ones_of_a_result():
    params = {"w": np.float64(PARAMS["w"])}
    config = replace(LEARNED, **ONE_STEP, pi_zero=0.5)
    first = compress(params, loss_fn, DATA, config)
    assert first.retrained["w"].dtype == jnp.float32
    again = compress(params, loss_fn, DATA, config, start=first)
    expected = compress(PARAMS, loss_fn, DATA, config, start=first)
    assert_bit_equal(again.retrained, expected.retrained)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"w": jnp.ones((3, 2))},
            f"w is float32{list(PARAMS['w'].shape)} there and float32[3, 2]",
        ),
        ({"v": PARAMS["w"]}, f"v is missing there and float32{list(PARAMS['w'].shape)}"),
    ],
)
def test_start_of_a_different_net(params, message):
    message = f"start is the result of a different net: {message} in params"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        compress(params, never, DATA, replace(LEARNED, **ONE_STEP), start=one_step())


def test_bfloat16_weights_stay_bfloat16_and_their_mixture_float32(tmp_path):
    def loss(params, batch):
        return loss_fn({"w": params["w"].astype(jnp.float32)}, batch)

    params = {"w": jnp.asarray(PARAMS["w"], jnp.bfloat16)}
    # Large enough for eight significant bits to change.
    rates = LearningRates(weights=1e-2)
    config = replace(LEARNED, **QUICK, soft_learning_rates=rates, hard_learning_rates=rates)
    result = compress(params, loss, DATA, config)
    assert not jnp.array_equal(result.retrained["w"], params["w"])
    assert result.retrained["w"].dtype == result.params["w"].dtype == jnp.bfloat16
    mixture = result.mixtures["weights"]
    mixtures = [mixture, *(epoch.details.mixtures["weights"] for epoch in result.history)]
    assert {leaf.dtype.name for mixture in mixtures for leaf in mixture} == {"float32"}
    assert set(codebook(result.params)) <= {0, *jnp.bfloat16(mixture.means).tolist()}
    assert 1 < codebook(result.params).size < codebook(result.retrained).size
    save(tmp_path / "net.sws", result.params)
    loaded = load(tmp_path / "net.sws")
    assert loaded["w"].dtype == jnp.bfloat16
    assert_bit_equal(loaded, result.params)


@pytest.mark.parametrize("settings", [{"tau": 1e-4}, {"prune_epochs": 2}, {"learned": True}])
def test_a_pruned_net_is_shared_further_and_its_zeros_stay(settings, run):
    """Even those that training would not have taken."""
    mask = np.random.default_rng(1).random(TRUE.shape) < 0.5
    pruned = {"w": np.where(mask, PARAMS["w"], 0)}
    base = Config(prune_epochs=0, tolerance=1.0)
    if settings.pop("learned", False):
        base = replace(LEARNED, tau=1e-4)
    config = replace(base, **QUICK, **settings)
    with warnings.catch_warnings():  # too few steps for a good net
        warnings.simplefilter("ignore", SwsjaxWarning)
        result = compress(pruned, loss_fn, DATA, config)
    for net in (result.params, result.retrained):
        assert not np.any(np.asarray(net["w"])[~mask])
    assert np.any(np.asarray(result.params["w"])[mask])
    assert np.any(np.asarray(run[1].params["w"])[~mask])


def test_a_zero_is_quantised_to_zero_whatever_mean_is_near():
    mixture = GaussianMixture(
        jnp.array([1e-3]), jnp.array([0.0, 12.0]), jnp.zeros(1), jnp.zeros(())
    )
    levels = quantize(mixture, {"w": jnp.array([0.0, 2e-3])})["w"]
    assert levels[0] == 0
    assert levels[1] != 0
