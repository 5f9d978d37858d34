"""Pruning, piece by piece and as the last stage."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swsjax.compress import Config, compress
from swsjax.prune import hold_zeros, keep_largest, share_left
from swsjax.quantize import non_zeros
from swsjax.retrain import Rates

RNG = np.random.default_rng(0)
TREE = {"a": jnp.float32(RNG.normal(size=(5, 4))), "b": jnp.float32(RNG.normal(size=7))}
SIZE = 27


@given(st.integers(0, SIZE + 3))
@settings(max_examples=20, deadline=None)
def test_the_largest_are_kept_as_they_are(number):
    kept = keep_largest(TREE, number)
    magnitudes = np.sort(np.concatenate([np.abs(leaf).ravel() for leaf in jax.tree.leaves(TREE)]))
    least = magnitudes[-number] if 0 < number <= SIZE else (0 if number else np.inf)
    for ours, leaf in zip(jax.tree.leaves(kept), jax.tree.leaves(TREE), strict=True):
        np.testing.assert_array_equal(ours, np.where(np.abs(leaf) >= least, leaf, 0))
    assert non_zeros(kept) == min(number, SIZE)


def test_of_equal_magnitudes_none_is_singled_out():
    params = [jnp.array([1.0, -1.0, 2.0, 0.0])]
    assert non_zeros(keep_largest(params, 2)) == 1
    assert non_zeros(keep_largest(params, 3)) == 3


def test_share_left():
    assert share_left(0.3, 0.0) == 1
    assert share_left(0.3, 1.0) == share_left(0.3, 2.0) == 0.3
    shares = [share_left(0.3, t) for t in np.linspace(0, 1, 11)]
    drops = -np.diff(shares)
    assert (np.diff(drops) < 0).all()  # ever slower
    assert (drops > 0).all()


def test_zeros_are_held_and_the_others_do_not_notice():
    params = {"w": jnp.array([0.0, 1.0, -2.0])}, jnp.array([0.0, 3.0])
    gradients = {"w": jnp.array([0.3, 0.2, 0.1])}, jnp.array([0.5, 0.5])
    plain, held = optax.adam(0.1), hold_zeros(optax.adam(0.1))
    state, theirs = held.init(params), plain.init(params)
    for step in range(3):
        updates, state = held.update(gradients, state, params)
        expected, theirs = plain.update(gradients, theirs, params)
        np.testing.assert_array_equal(
            updates[0]["w"][2 if step else 1 :], expected[0]["w"][2 if step else 1 :]
        )
        np.testing.assert_array_equal(updates[1], expected[1])  # the mixture's zeros move
        assert updates[0]["w"][0] == 0
        params = optax.apply_updates(params, updates)
        if step == 0:  # pruned in mid-course, with momentum
            params = {"w": params[0]["w"].at[1].set(0.0)}, params[1]
    assert params[0]["w"][:2].tolist() == [0, 0]
    assert params[0]["w"][2] != -2


TRUE = RNG.choice([-1.0, 1.0], (10, 4)) * (np.arange(40).reshape(10, 4) % 2)
INPUTS = RNG.normal(size=(500, 10)).astype(np.float32)
DATA = {"x": INPUTS, "y": np.float32(INPUTS @ TRUE)}
PARAMS = {"w": np.float32(TRUE * RNG.uniform(0.9, 1.1, TRUE.shape) + 0.01)}
SETTINGS = {
    "components": 8,
    "pi_zero": 0.9,
    "initial_std": 0.1,
    "soft_epochs": 2,
    "hard_epochs": 1,
    "prune_epochs": 8,
    "kept": 0.5,
    "batch_size": 50,
}


def loss_fn(params, batch):
    return ((batch["x"] @ params["w"] - batch["y"]) ** 2).mean()


@pytest.fixture(scope="module")
def result():
    return compress(PARAMS, loss_fn, DATA, Config(**SETTINGS))


def test_the_pruning_stage(result):
    stages = [progress.stage for progress in result.history]
    assert stages == ["soft"] * 2 + ["hard"] + ["prune"] * 8
    counts = [progress.non_zeros for progress in result.history]
    assert counts[2] == 20
    assert counts[3:] == [round(20 * share_left(0.5, t)) for t in (0.25, 0.5, 0.75, 1, 1, 1, 1, 1)]
    assert non_zeros(result.params) == non_zeros(result.retrained) == 10


def test_the_net_trains_on_while_it_is_pruned(result):
    """Least squares with the weights that are left: they make up for those that are gone."""
    chosen = np.asarray(result.params["w"] != 0)
    without = {"w": jnp.where(chosen, PARAMS["w"], 0)}
    assert loss_fn(result.params, DATA) < loss_fn(without, DATA)


def test_the_prior_no_longer_pulls(monkeypatch):
    taus = []
    module = importlib.import_module("swsjax.compress")
    make_step = module.make_step

    def spy(*arguments, tau, **settings):
        taus.append(tau)
        return make_step(*arguments, tau=tau, **settings)

    monkeypatch.setattr(module, "make_step", spy)
    still = Rates(weights=0.0, means=0.0, precisions=0.0, mixing=0.0)
    settings = SETTINGS | {"kept": 1.0, "prune_epochs": 1, "prune_rates": still}
    result = compress(PARAMS, loss_fn, DATA, Config(**settings, tau=0.07))
    assert taus == [0.07, 0.07, 0.0]
    assert result.history[-1].non_zeros == 20
