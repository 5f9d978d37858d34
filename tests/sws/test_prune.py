"""Pruning, piece by piece and as the last stage."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swsjax.sws.compression import compress
from swsjax.sws.config import Config
from swsjax.sws.prior import GaussianMixture
from swsjax.sws.prune import keep_largest, pruning, saliency, share_left
from swsjax.sws.quantizing import non_zeros
from swsjax.sws.step import Rates

RNG = np.random.default_rng(0)
TREE = {"a": jnp.float32(RNG.normal(size=(5, 4))), "b": jnp.float32(RNG.normal(size=7))}
SCORES = {"a": jnp.float32(RNG.uniform(size=(5, 4))), "b": jnp.float32(RNG.uniform(size=7))}
SIZE = 27


@given(st.integers(0, SIZE + 3))
@settings(max_examples=20, deadline=None)
def test_the_largest_are_kept_as_they_are(number):
    kept = keep_largest(TREE, SCORES, number)
    scores = np.sort(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(SCORES)]))
    least = scores[-number] if 0 < number <= SIZE else (0 if number else np.inf)
    for ours, leaf, score in zip(*map(jax.tree.leaves, (kept, TREE, SCORES)), strict=True):
        np.testing.assert_array_equal(ours, np.where(score >= least, leaf, 0))
    assert non_zeros(kept) == min(number, SIZE)


def test_of_equal_scores_none_is_singled_out():
    params, scores = [jnp.array([1.0, -1.0, 2.0, 4.0])], [jnp.array([1.0, 1.0, 2.0, 0.0])]
    assert non_zeros(keep_largest(params, scores, 2)) == 1
    assert non_zeros(keep_largest(params, scores, 3)) == 3


def test_saliency_against_its_definition():
    squares = {name: jnp.float32(RNG.uniform(0, 1e-4, leaf.shape)) for name, leaf in TREE.items()}
    scores = saliency(TREE, squares)
    for name, leaf in TREE.items():
        expected = np.sqrt(np.abs(leaf) * np.sqrt(leaf**2 * np.float64(squares[name])))
        np.testing.assert_allclose(scores[name], expected, rtol=1e-5)


def test_saliency_without_gradients_goes_by_magnitude():
    none = jax.tree.map(jnp.zeros_like, TREE)
    scores = saliency(TREE, none)
    for name, leaf in TREE.items():
        assert (np.argsort(scores[name], axis=None) == np.argsort(np.abs(leaf), axis=None)).all()
    # and what has none goes before everything else
    scores = saliency(TREE, none | {"b": jnp.full(7, 1e-12)})
    assert scores["a"].max() < scores["b"].min()


LABELS = ["weights"]  # of one leaf


def test_share_left():
    assert share_left(0.3, 0.0) == 1
    assert share_left(0.3, 1.0) == share_left(0.3, 2.0) == 0.3
    shares = [share_left(0.3, t) for t in np.linspace(0, 1, 11)]
    drops = -np.diff(shares)
    assert (np.diff(drops) < 0).all()  # ever slower
    assert (drops > 0).all()


def mixture(*means):
    number = len(means)
    return GaussianMixture(
        jnp.float32(means), jnp.zeros(number + 1), jnp.zeros(number), jnp.zeros(())
    )


def test_zeros_are_held_and_the_others_do_not_notice():
    trained = {"w": jnp.array([0.0, 1.0, -2.0])}, {"weights": mixture(-9.0, 0.0, 9.0)}
    gradients = {"w": jnp.array([0.3, 0.2, 0.1])}, {"weights": mixture(0.5, 0.5, 0.5)}
    plain, held = optax.adam(0.1), pruning(optax.adam(0.1), LABELS)
    state, theirs = held.init(trained), plain.init(trained)
    for step in range(3):
        updates, state = held.update(gradients, state, trained)
        expected, theirs = plain.update(gradients, theirs, trained)
        left = slice(2 if step else 1, None)
        np.testing.assert_allclose(updates[0]["w"][left], expected[0]["w"][left], rtol=1e-6)
        # the mixture's zeros move
        np.testing.assert_array_equal(updates[1]["weights"].means, expected[1]["weights"].means)
        assert updates[0]["w"][0] == 0
        params, mixtures = optax.apply_updates(trained, updates)
        if step == 0:  # pruned in mid-course, with momentum
            params = {"w": params["w"].at[1].set(0.0)}
        trained = params, mixtures
    assert trained[0]["w"][:2].tolist() == [0, 0]
    assert trained[0]["w"][2] != -2


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ((-0.5, 0.25, 1.0), [-0.5, -0.5, -0.2, 0.7, 1.0, 1.0]),
        ((0.5, 1.0), [-2.5, -0.9, -0.2, 0.7, 1.0, 1.0]),
        ((-0.5, -1.0), [-1.0, -0.9, -0.2, 0.7, 1.4, 3.5]),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_weight_leaves_the_range_of_the_means(means, expected, dtype):
    weights = jnp.array([-2.0, -0.4, 0.3, 0.2, 0.9, 3.0], dtype)
    steps = jnp.array([-0.5, -0.5, -0.5, 0.5, 0.5, 0.5], dtype)
    trained = {"w": weights, "free": weights}, {"weights": mixture(*means)}
    gradients = jax.tree.map(jnp.zeros_like, trained)
    gradients = {"w": -steps, "free": -steps}, gradients[1]
    optimizer = pruning(
        optax.sgd(1.0), [None, "weights"]
    )  # in the order of the leaves: "free" is first
    updates, _ = optimizer.update(gradients, optimizer.init(trained), trained)
    assert updates[0]["w"].dtype == dtype
    after = optax.apply_updates(trained[0], updates[0])
    np.testing.assert_allclose(
        np.float32(after["w"]), expected, atol=1e-6 if dtype == jnp.float32 else 0.02
    )
    np.testing.assert_array_equal(after["free"], weights + steps)


def test_the_mean_square_of_the_gradients_is_measured():
    trained = {"w": jnp.zeros(2, jnp.bfloat16)}, {"weights": mixture(1.0)}
    optimizer = pruning(optax.sgd(0.1), LABELS)
    state = optimizer.init(trained)
    expected = np.zeros(2)
    for gradient in ([1.0, 2.0], [-0.5, 0.25]):
        gradients = {"w": jnp.array(gradient, jnp.bfloat16)}, {"weights": mixture(1.0)}
        _, state = optimizer.update(gradients, state, trained)
        expected = 0.999 * expected + 0.001 * np.square(gradient)
    assert state.squares["w"].dtype == jnp.float32
    np.testing.assert_allclose(state.squares["w"], expected, rtol=1e-5)


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
    assert counts[3:] == [round(20 * share_left(0.5, t)) for t in (0, 0.25, 0.5, 0.75, 1, 1, 1, 1)]
    assert non_zeros(result.params) == non_zeros(result.retrained) == 10


def test_the_net_trains_on_while_it_is_pruned(result):
    """Least squares with the weights that are left: they make up for those that are gone."""
    before = compress(PARAMS, loss_fn, DATA, Config(**SETTINGS | {"prune_epochs": 0}))
    without = {"w": jnp.where(result.params["w"] != 0, before.params["w"], 0)}
    assert loss_fn(result.params, DATA) < loss_fn(without, DATA)


def test_the_prior_no_longer_pulls(monkeypatch):
    taus = []
    module = importlib.import_module("swsjax.stages")
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


def test_gradients_have_a_say_in_what_is_pruned():
    """Weights of inputs that hardly vary go first, although they are the larger ones."""
    small = np.arange(10)[:, None] >= 5
    true = RNG.choice([-1.0, 1.0], (10, 4)) * np.where(small, 2.0, 1.0)
    inputs = INPUTS * np.where(small.T, 0.01, 1.0)
    # An error that no weights explain, so that there are gradients.
    data = {"x": np.float32(inputs), "y": np.float32(inputs @ true + 1)}
    settings = SETTINGS | {"pi_zero": 0.5, "prune_rates": Rates(weights=0.0)}
    result = compress({"w": np.float32(true)}, loss_fn, data, Config(**settings))
    np.testing.assert_array_equal(result.params["w"] == 0, np.broadcast_to(small, (10, 4)))


def test_a_loss_of_its_own():
    """The pruning stage alone takes the other loss: the one that wants all weights of 3."""

    def other(params, batch):
        return loss_fn(params, {"x": batch["x"], "y": batch["x"] @ jnp.full((10, 4), 3.0)})

    rates = Rates(weights=0.1, means=0.1)
    config = Config(**SETTINGS | {"kept": 1.0, "prune_rates": rates})
    ordinary = compress(PARAMS, loss_fn, DATA, config)
    result = compress(PARAMS, loss_fn, DATA, config, prune_loss_fn=other)
    losses = [[progress.loss for progress in run.history] for run in (ordinary, result)]
    assert losses[0][:3] == losses[1][:3]
    assert losses[1][3] > 2 * losses[0][3]
    assert other(result.params, DATA) < other(ordinary.params, DATA)
