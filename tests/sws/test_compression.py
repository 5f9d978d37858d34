"""Compression end to end on small nets, and every error."""

import gc
import importlib
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax import retrain
from swsjax.lab.task import (
    Classifier,
    compress_classifier,
    distillation_data,
    pretrain_classifier,
)
from swsjax.sws.compression import compress
from swsjax.sws.config import Config
from swsjax.lab.data import load_digits
from swsjax.errors import ConfigError, RetrainingError
from swsjax.sws.exact import assigned_means
from swsjax.file.files import load, save
from swsjax.sws.merging import merge
from swsjax.sws.prior import Beta, Gamma, HyperPriors, init_mixture, log_prob
from swsjax.sws.quantizing import codebook, non_zeros, quantize
from swsjax.sws.recipes import LENET_5_CAFFE, LENET_300_100
from swsjax.sws.step import Rates
from swsjax.sws.stages import Run
from swsjax.training.loop import PretrainConfig

RNG = np.random.default_rng(0)
TRUE = RNG.choice([0, 0, 0, -1, 1], (10, 4)).astype(np.float32)
INPUTS = RNG.normal(size=(500, 10)).astype(np.float32)
DATA = {"x": INPUTS, "y": INPUTS @ TRUE}
PARAMS = {"w": TRUE + RNG.normal(0, 0.03, TRUE.shape).astype(np.float32)}
QUICK = {
    "components": 24,
    "pi_zero": 0.9,
    "initial_std": 0.1,
    "soft_epochs": 2,
    "hard_epochs": 2,
    "batch_size": 50,
    "least_steps": 1,
}
STILL = Rates(weights=0.0, means=0.0, precisions=0.0, mixing=0.0)
MAPS = Path("/proc/self/maps")
ONE_STEP = {"components": 4, "soft_epochs": 1, "hard_epochs": 0}
ONE_STEP |= {"batch_size": 500, "least_steps": 1}


def loss_fn(params, batch):
    return ((batch["x"] @ params["w"] - batch["y"]) ** 2).mean()


def distance(params):
    return np.abs(params["w"] - TRUE).max().item()


def assert_bit_equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def run():
    """One compression, and what was given to it and reported by it."""
    given = jax.tree.map(jnp.asarray, (PARAMS, DATA))
    seen = []
    result = compress(
        given[0], loss_fn, given[1], Config(**QUICK), evaluate=distance, callback=seen.append
    )
    return given, result, seen


def test_the_net_is_quantised(run):
    _, result, _ = run
    assert_bit_equal(result.params, quantize(result.mixtures["weights"], result.retrained))
    np.testing.assert_array_equal(result.params["w"] == 0, TRUE == 0)
    assert distance(result.params) < 0.05
    assert codebook(result.params).size == 3
    assert codebook(result.retrained).size == TRUE.size


def test_an_epoch_goes_several_times_through_few_data():
    def steps(train_size, config):
        run = Run(None, None, train_size, config, 1, None, False, None, None)
        return run.passes, run.steps * run.passes

    assert steps(1_300, Config()) == (30, 300)
    assert steps(40_000, Config()) == (1, 312)
    assert steps(1_300, Config(least_steps=1)) == (1, 10)
    mnist = 50_000
    assert steps(mnist, LENET_300_100.balanced.config) == (1, 390)
    assert steps(mnist, LENET_5_CAFFE.balanced.config) == (1, 390)
    assert steps(mnist, LENET_5_CAFFE.small_loss.config) == (2, 780)


def test_history(run):
    _, result, seen = run
    assert result.history == seen
    stages = [(progress.stage, progress.epoch, progress.epochs) for progress in seen]
    assert stages == [("soft", 1, 4), ("soft", 2, 4), ("hard", 3, 4), ("hard", 4, 4)]
    last = seen[-1]
    assert all(type(leaf) is np.ndarray for leaf in last.mixtures["weights"])
    quantised = quantize(last.mixtures["weights"], result.retrained)
    assert last.levels == codebook(quantised).size
    assert last.non_zeros == non_zeros(quantised)
    assert last.error == distance(quantised)
    assert_bit_equal(
        merge(last.mixtures["weights"], Config().merge_threshold), result.mixtures["weights"]
    )


def test_mixture_is_merged_between_the_stages(run):
    _, _, seen = run
    sizes = [progress.mixtures["weights"].means.size for progress in seen]
    assert sizes[0] == sizes[1] == 24
    assert sizes[2] == sizes[3] == merge(seen[1].mixtures["weights"]).means.size < 24


def test_inputs_are_neither_donated_nor_changed(run):
    given, _, _ = run
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert_bit_equal(given, (PARAMS, DATA))


def test_same_seed_same_bits_other_seed_other_weights(run):
    _, result, _ = run
    # NumPy arrays, and nobody to evaluate or to call back: the same numbers.
    again = compress(PARAMS, loss_fn, DATA, Config(**QUICK))
    assert_bit_equal(again[:3], result[:3])
    assert [progress.loss for progress in again.history] == [p.loss for p in result.history]
    assert {progress.error for progress in again.history} == {None}
    other = compress(PARAMS, loss_fn, DATA, Config(**QUICK, seed=1))
    assert not jnp.array_equal(other.retrained["w"], result.retrained["w"])


def test_without_a_hard_stage():
    config = Config(**(QUICK | {"hard_epochs": 0}), merge_threshold=0.0)
    result = compress(PARAMS, loss_fn, DATA, config)
    assert [progress.stage for progress in result.history] == ["soft", "soft"]
    last = result.history[-1]
    order = np.argsort(last.mixtures["weights"].means)
    np.testing.assert_array_equal(
        result.mixtures["weights"].means, last.mixtures["weights"].means[order]
    )
    assert_bit_equal(result.params, quantize(last.mixtures["weights"], result.retrained))


def test_settings_reach_the_mixture():
    settings = {"components": 3, "pi_zero": 0.5, "initial_std": 0.5, "soft_rates": STILL}
    (progress,) = compress(PARAMS, loss_fn, DATA, Config(**(ONE_STEP | settings))).history
    low, high = PARAMS["w"].min(), PARAMS["w"].max()
    np.testing.assert_allclose(
        progress.mixtures["weights"].means, np.linspace(low, high, 3), rtol=1e-6
    )
    np.testing.assert_allclose(
        progress.mixtures["weights"].log_precisions, np.full(4, np.log(4)), rtol=1e-6
    )
    assert progress.mixtures["weights"].zero_logit == 0


@pytest.mark.parametrize("method", ["tabulated", "exact"])
def test_error_of_the_prior_is_reported_and_small(method):
    history = compress(PARAMS, loss_fn, DATA, Config(**QUICK, method=method)).history
    errors = [progress.prior_error for progress in history]
    assert all(0 < e < 1e-4 for e in errors) if method == "tabulated" else not any(errors)


def nodes_used(monkeypatch, **settings):
    """Nodes of the grids of a soft stage of four epochs, in order."""
    used = []

    def make_step(*arguments, nodes, **settings):
        used.append(nodes["weights"])
        return retrain.make_step(*arguments, nodes=nodes, **settings)

    # The package has a function of the name of the module.
    monkeypatch.setattr(importlib.import_module("swsjax.stages"), "make_step", make_step)
    settings = QUICK | {"soft_epochs": 4, "hard_epochs": 0} | settings
    result = compress(PARAMS, loss_fn, DATA, Config(**settings))
    assert len(result.history) == 4
    return used


def test_grid_becomes_finer_when_components_become_narrow(monkeypatch):
    narrow = Gamma(1e6, 1.0)  # a standard deviation of 0.001, by which no grid is chosen
    hyper_priors, rates = HyperPriors(zero_precision=narrow), Rates(precisions=0.2)
    used = nodes_used(monkeypatch, hyper_priors=hyper_priors, soft_rates=rates)
    assert len(used) > 1
    assert all(after % before == 0 for before, after in pairwise(used))
    assert nodes_used(monkeypatch) == used[:1]  # and within the tolerance nothing compiles again


def test_a_tolerance_out_of_reach_is_no_reason_to_stop(monkeypatch):
    used = nodes_used(monkeypatch, tolerance=1e-12)
    assert used == sorted(used)
    assert used[-1] < 100 * used[0]


def test_what_each_stage_computes_with():
    settings = QUICK | {"soft_rates": STILL, "hard_rates": STILL, "soft_epochs": 1}
    result = compress(PARAMS, loss_fn, DATA, Config(**settings))
    assert_bit_equal(result.retrained, PARAMS)
    assign = partial(assigned_means, result.mixtures["weights"])
    quantised = jax.tree.map(assign, result.retrained)
    assert result.history[0].loss == pytest.approx(loss_fn(PARAMS, DATA), rel=1e-5)
    assert result.history[1].loss == pytest.approx(loss_fn(quantised, DATA).item(), rel=1e-5)


@pytest.mark.parametrize("tau", [5.0, lambda step: 5.0 + step])
def test_tau_is_over_the_number_of_examples(tau):
    """With a large epsilon Adam's first step is the gradient, here that of the prior alone."""
    settings = ONE_STEP | {"pi_zero": 0.5, "soft_rates": Rates(weights=1e3, epsilon=1e3)}
    result = compress(PARAMS, lambda *_: 0.0, DATA, Config(tau=tau, **settings))
    low, high = PARAMS["w"].min().item(), PARAMS["w"].max().item()
    mixture = init_mixture(low, high, components=4, pi_zero=0.5)
    gradient = jax.grad(lambda w: log_prob(mixture, w).sum())(PARAMS["w"])
    moved = result.retrained["w"] - PARAMS["w"]
    np.testing.assert_allclose(moved, 5 / 500 * gradient, rtol=0.01, atol=1e-4)


def test_pi_zero_moves_under_a_hyper_prior():
    hyper = HyperPriors(pi_zero=Beta(100.0, 10.0))
    config = Config(**ONE_STEP, pi_zero=0.5, hyper_priors=hyper)
    assert compress(PARAMS, loss_fn, DATA, config).mixtures["weights"].zero_logit > 0


class Odd(NamedTuple):
    kernel: object
    rest: list


def test_any_pytree():
    def loss(params, batch):
        w = params.kernel.astype(jnp.float32)
        return ((batch[0] @ w - batch[1] + params.rest[0]) ** 2).mean()

    params = Odd(jnp.bfloat16(PARAMS["w"]), [0.01, np.zeros((0, 3), np.float32), None])
    result = compress(params, loss, (INPUTS, DATA["y"]), Config(**QUICK))
    assert jax.tree.structure(result.params) == jax.tree.structure(params)
    assert result.params.kernel.dtype == jnp.bfloat16
    assert result.params.rest[1].shape == (0, 3)
    assert distance({"w": np.float32(result.params.kernel)}) < 0.05


def fails(error, message, *arguments, **settings):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        compress(*arguments, Config(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0.0}, "tau must be positive, got 0.0"),
        ({"tau": float("nan")}, "tau must be positive, got nan"),
        (
            {"hard_epochs": -1},
            "soft_epochs, hard_epochs and prune_epochs must be at least 0 and not all 0, "
            "got 30, -1 and 0",
        ),
        ({"kept": 0.0}, "kept must be over 0 and at most 1, got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"method": "table"}, "method must be 'tabulated' or 'exact', got 'table'"),
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"merge_threshold": -0.1}, "merge_threshold must not be negative, got -0.1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Config(**settings)


def never(params, batch):
    raise AssertionError("training began")


def test_last_update_that_is_not_finite():
    def loss(params, batch):
        """Finite itself, without a finite gradient."""
        return loss_fn(params, batch) + jnp.sqrt(jnp.sum(0 * params["w"]))

    message = (
        "weights or mixture are not finite after epoch 1 of 1 (soft stage); "
        "lower the learning rates of that stage, Config.soft_rates"
    )
    fails(RetrainingError, message, PARAMS, loss, DATA, **ONE_STEP)


NEAR_ZERO = {"w": np.float32([-0.01, 0.0, 0.01])}


@pytest.mark.parametrize(
    ("hard_epochs", "where"),
    [(0, "after quantisation"), (3, "after epoch 2 of 4 (hard stage)")],
)
def test_every_weight_is_zero(hard_epochs, where):
    message = (
        f"every weight is zero {where}: the zero component is still 0.25 wide, where hyper_priors "
        "ask for 0.02, and holds them all; raise soft_epochs, or precisions in Config.soft_rates, "
        "or lower tau"
    )
    settings = ONE_STEP | {"hard_epochs": hard_epochs}
    fails(RetrainingError, message, NEAR_ZERO, lambda p, _: (p["w"] ** 2).sum(), DATA, **settings)


def test_nothing_is_traced_again_within_a_stage():
    traces, traced = [], []

    def loss(params, batch):
        traces.append(batch["x"].shape)
        return loss_fn(params, batch)

    settings = QUICK | {"soft_epochs": 3, "prune_epochs": 2}
    compress(
        PARAMS, loss, DATA, Config(**settings), callback=lambda progress: traced.append(len(traces))
    )
    assert traced == [2, 2, 2, 3, 3, 4, 4]  # once to try it


@pytest.mark.skipif(not MAPS.exists(), reason="no /proc/self/maps")
@pytest.mark.parametrize("settings", [{"prune_epochs": 1}, {"soft_rates": Rates(weights=1e30)}])
def test_loops_of_a_run_are_let_go_with_it(settings):
    # Linux grants a process 65,530 maps, of which a loop takes a thousand where it is optimised.
    numbers = []
    for _ in range(3):
        with suppress(RetrainingError):
            compress(PARAMS, loss_fn, DATA, Config(**QUICK, **settings))
        gc.collect()
        numbers.append(len(MAPS.read_text().splitlines()))
    assert numbers[2] - numbers[1] < 20, numbers


def test_going_on_from_a_result_ends_as_one_run_does():
    config = Config(**QUICK, prune_epochs=2, kept=0.5)
    whole = compress(PARAMS, loss_fn, DATA, config)
    first = compress(PARAMS, loss_fn, DATA, replace(config, prune_epochs=0))
    kept = jax.tree.map(np.array, (first.retrained, first.mixtures["weights"]))
    rest = replace(config, soft_epochs=0, hard_epochs=0)
    second = compress(PARAMS, loss_fn, DATA, rest, start=first)
    assert_bit_equal(second.params, whole.params)
    assert_bit_equal(second.retrained, whole.retrained)
    assert_bit_equal(second.mixtures["weights"], whole.mixtures["weights"])
    assert [progress.stage for progress in second.history] == ["prune", "prune"]
    assert_bit_equal(
        (first.retrained, first.mixtures["weights"]), kept
    )  # and can be gone on from again


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"w": jnp.ones((3, 2))},
            f"['w'] is float32{list(PARAMS['w'].shape)} there and float32[3, 2]",
        ),
        ({"v": PARAMS["w"]}, f"['v'] is missing there and float32{list(PARAMS['w'].shape)}"),
    ],
)
def test_start_of_another_net(params, message):
    result = compress(PARAMS, loss_fn, DATA, Config(**ONE_STEP))
    message = f"start is the result of another net: {message} in params"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        compress(params, never, DATA, Config(**ONE_STEP), start=result)


def test_bfloat16_weights_stay_bfloat16_and_their_mixture_float32(tmp_path):
    def loss(params, batch):
        return loss_fn({"w": params["w"].astype(jnp.float32)}, batch)

    params = {"w": jnp.asarray(PARAMS["w"], jnp.bfloat16)}
    # A step that is seen in eight bits.
    rates = Rates(weights=1e-2)
    config = Config(**QUICK, soft_rates=rates, hard_rates=rates)
    result = compress(params, loss, DATA, config)
    assert not jnp.array_equal(result.retrained["w"], params["w"])
    assert result.retrained["w"].dtype == result.params["w"].dtype == jnp.bfloat16
    mixtures = [
        result.mixtures["weights"],
        *(progress.mixtures["weights"] for progress in result.history),
    ]
    assert {leaf.dtype.name for mixture in mixtures for leaf in mixture} == {"float32"}
    assert set(codebook(result.params)) <= {
        0,
        *jnp.bfloat16(result.mixtures["weights"].means).tolist(),
    }
    assert 1 < codebook(result.params).size < codebook(result.retrained).size
    save(tmp_path / "net.sws", result.params)
    loaded = load(tmp_path / "net.sws")
    assert loaded["w"].dtype == jnp.bfloat16
    assert_bit_equal(loaded, result.params)


def test_several_teachers_are_the_mean_of_their_logits():
    def net(scale):
        return Classifier(np.float32(scale), lambda params, x: x.reshape(len(x), -1) * params)

    split = load_digits().test
    one, others = net(1.0), [net(3.0), net(-1.0)]
    data = distillation_data(one, split, others)
    np.testing.assert_allclose(data["teacher"], split.images.reshape(300, 64), rtol=1e-6)
    np.testing.assert_array_equal(data["labels"], split.labels)


def test_teachers_are_learned_from():
    digits = load_digits()

    def apply(params, images):
        return images.reshape(len(images), -1) / 255.0 @ params

    untrained = Classifier(jnp.zeros((64, 10)), apply)
    good = pretrain_classifier(untrained, digits, PretrainConfig(epochs=20, learning_rate=0.1))
    wrong = good._replace(params=-3 * good.params)  # together they say the opposite
    config = Config(components=8, pi_zero=0.5, soft_epochs=0, hard_epochs=1, method="exact")
    alone = compress_classifier(good, digits, config, share=1.0)
    taught = compress_classifier(good, digits, config, share=1.0, teachers=[wrong])
    assert taught.history[0].loss > 10 * alone.history[0].loss
