"""Saliency, what the pruning stage holds, and pruning as the last stage of ``compress``."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swsjax.sws.compression import compress
from swsjax.sws.config import LEARNED
from swsjax.sws.prior import GaussianMixture
from swsjax.sws.prune import prune_epoch, pruning, saliency
from swsjax.sws.quantizing import non_zeros
from swsjax.sws.rates import LearningRates
from swsjax.sws.step import Joint, init
from swsjax.training import Weights, cubic_keep, take_apart

RNG = np.random.default_rng(0)
TREE = {"a": jnp.float32(RNG.normal(size=(5, 4))), "b": jnp.float32(RNG.normal(size=7))}


def test_saliency_against_its_definition():
    squares = {name: jnp.float32(RNG.uniform(0, 1e-4, leaf.shape)) for name, leaf in TREE.items()}
    scores = saliency(TREE, squares)
    for name, leaf in TREE.items():
        expected = np.sqrt(np.abs(leaf) * np.sqrt(leaf**2 * np.float64(squares[name])))
        np.testing.assert_allclose(scores[name], expected, rtol=1e-5)


def test_saliency_without_gradients_is_magnitude():
    none = jax.tree.map(jnp.zeros_like, TREE)
    scores = saliency(TREE, none)
    for name, leaf in TREE.items():
        assert (np.argsort(scores[name], axis=None) == np.argsort(np.abs(leaf), axis=None)).all()
    # Weights without a gradient are pruned before all others.
    scores = saliency(TREE, none | {"b": jnp.full(7, 1e-12)})
    assert scores["a"].max() < scores["b"].min()


def mixture(*means):
    number = len(means)
    return GaussianMixture(
        jnp.float32(means), jnp.zeros(number + 1), jnp.zeros(number), jnp.zeros(())
    )


def joint(weights, *means, free=()):
    return Joint(Weights({"weights": [weights]}, list(free)), {"weights": mixture(*means)})


def compressed(trained):
    return trained.weights.groups["weights"][0]


def test_zeros_are_held_and_other_weights_move_as_without():
    trained = joint(jnp.array([0.0, 1.0, -2.0]), -9.0, 0.0, 9.0)
    gradients = joint(jnp.array([0.3, 0.2, 0.1]), 0.5, 0.5, 0.5)
    plain, held = optax.adam(0.1), pruning(optax.adam(0.1))
    state, theirs = held.init(trained), plain.init(trained)
    for step in range(3):
        updates, state = held.update(gradients, state, trained)
        expected, theirs = plain.update(gradients, theirs, trained)
        left = slice(2 if step else 1, None)
        np.testing.assert_allclose(compressed(updates)[left], compressed(expected)[left], rtol=1e-6)
        # A mean that is zero moves.
        np.testing.assert_array_equal(
            updates.mixtures["weights"].means, expected.mixtures["weights"].means
        )
        assert compressed(updates)[0] == 0
        trained = optax.apply_updates(trained, updates)
        if step == 0:  # pruned in the middle, with momentum
            pruned = compressed(trained).at[1].set(0.0)
            trained = trained._replace(weights=Weights({"weights": [pruned]}, []))
    assert compressed(trained)[:2].tolist() == [0, 0]
    assert compressed(trained)[2] != -2


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
    trained = joint(weights, *means, free=[weights])
    gradients = joint(-steps, *np.zeros(len(means)), free=[-steps])
    optimizer = pruning(optax.sgd(1.0))
    updates, _ = optimizer.update(gradients, optimizer.init(trained), trained)
    assert compressed(updates).dtype == dtype
    after = optax.apply_updates(trained, updates)
    np.testing.assert_allclose(
        np.float32(compressed(after)), expected, atol=1e-6 if dtype == jnp.float32 else 0.02
    )
    np.testing.assert_array_equal(after.weights.free[0], weights + steps)


def test_hold_is_of_each_array_its_update_and_the_mixture_of_its_group():
    seen = []

    def hold(leaf, update, mixture):
        seen.append((leaf.shape, update.tolist(), mixture.means.tolist()))
        return 2 * update

    groups = {"one": [jnp.ones(1), jnp.ones(2)], "two": [jnp.ones(3)]}
    mixtures = {"one": mixture(1.0), "two": mixture(2.0)}
    trained = Joint(Weights(groups, [jnp.ones(4)]), mixtures)
    optimizer = pruning(optax.sgd(1.0), hold)
    gradients = jax.tree.map(jnp.ones_like, trained)
    updates, _ = optimizer.update(gradients, optimizer.init(trained), trained)
    assert seen == [
        ((1,), [-1], [1]),
        ((2,), [-1, -1], [1]),
        ((3,), [-1, -1, -1], [2]),
    ]
    held = jax.tree.leaves(updates.weights.groups)
    assert {value for leaf in held for value in leaf.tolist()} == {-2}
    assert updates.weights.free[0].tolist() == [-1] * 4
    assert updates.mixtures["two"].means.tolist() == [-1]


def test_mean_square_of_the_gradients_is_measured():
    trained = joint(jnp.zeros(2, jnp.bfloat16), 1.0)
    optimizer = pruning(optax.sgd(0.1))
    state = optimizer.init(trained)
    expected = np.zeros(2)
    for gradient in ([1.0, 2.0], [-0.5, 0.25]):
        gradients = joint(jnp.array(gradient, jnp.bfloat16), 1.0)
        _, state = optimizer.update(gradients, state, trained)
        expected = 0.999 * expected + 0.001 * np.square(gradient)
    (squares,) = state.squares["weights"]
    assert squares.dtype == jnp.float32
    np.testing.assert_allclose(squares, expected, rtol=1e-5)


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
    "keep": 0.5,
    "batch_size": 50,
    "least_steps": 20,
    "prune_learning_rates": LearningRates(weights=0.01, means=0.01),
}
QUICK = SETTINGS | {"least_steps": 1}


def loss_fn(params, batch):
    return ((batch["x"] @ params["w"] - batch["y"]) ** 2).mean()


@pytest.fixture(scope="module")
def result():
    return compress(PARAMS, loss_fn, DATA, replace(LEARNED, **SETTINGS))


def test_pruning_stage_follows_its_schedule(result):
    stages = [epoch.stage for epoch in result.history]
    assert stages == ["soft"] * 2 + ["hard"] + ["prune"] * 8
    counts = [epoch.non_zeros for epoch in result.history]
    assert counts[2] == 20
    assert counts[3:] == [round(20 * cubic_keep(0.5, t)) for t in (0, 0.25, 0.5, 0.75, 1, 1, 1, 1)]
    assert non_zeros(result.params) == non_zeros(result.retrained) == 10


def test_net_is_trained_while_it_is_pruned(result):
    """Least squares: the remaining weights make up for those that were pruned."""
    before = compress(PARAMS, loss_fn, DATA, replace(LEARNED, **SETTINGS | {"prune_epochs": 0}))
    without = {"w": jnp.where(result.params["w"] != 0, before.params["w"], 0)}
    assert loss_fn(result.params, DATA) < loss_fn(without, DATA)


def test_weights_with_small_gradients_are_pruned_first():
    """The weights of inputs that vary little, although they are the larger weights."""
    small = np.arange(10)[:, None] >= 5
    true = RNG.choice([-1.0, 1.0], (10, 4)) * np.where(small, 2.0, 1.0)
    inputs = INPUTS * np.where(small.T, 0.01, 1.0)
    # No weights explain the constant 1, so there are gradients.
    data = {"x": np.float32(inputs), "y": np.float32(inputs @ true + 1)}
    settings = QUICK | {"pi_zero": 0.5, "prune_learning_rates": LearningRates(weights=0.0)}
    result = compress({"w": np.float32(true)}, loss_fn, data, replace(LEARNED, **settings))
    np.testing.assert_array_equal(result.params["w"] == 0, np.broadcast_to(small, (10, 4)))


def test_pruning_stage_has_its_own_loss(result):
    """Only the pruning stage minimises the other loss, which is smallest if all weights are 3."""

    def other(params, batch):
        return loss_fn(params, {"x": batch["x"], "y": batch["x"] @ jnp.full((10, 4), 3.0)})

    moved = compress(PARAMS, loss_fn, DATA, replace(LEARNED, **SETTINGS), prune_loss_fn=other)
    losses = [[epoch.loss for epoch in run.history] for run in (result, moved)]
    assert losses[0][:3] == losses[1][:3]
    assert losses[1][3] > 2 * losses[0][3]
    assert other(moved.params, DATA) < other(result.params, DATA)


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_pruned_weights_rank_last_however_they_score(keep):
    """A score may be highest for zeros; the weights to keep are still those that are not zero."""
    optimizer = pruning(optax.sgd(0.1))
    weights = jnp.arange(20.0) % 2 * jnp.arange(1.0, 21.0)
    net = take_apart([weights, -weights[:5]])
    state = init(net, {"weights": mixture(1.0)}, optimizer, jax.random.key(0))
    for number, share in enumerate([1.0, cubic_keep(keep, 0.5), keep, keep]):
        state = prune_epoch(
            state,
            number,
            epochs=4,
            keep=keep,
            score=lambda groups, _: jax.tree.map(jnp.exp2, groups),
        )
        left = np.concatenate(state.params.weights.groups["weights"])
        before = np.concatenate([weights, -weights[:5]])
        highest = np.sort(before[before != 0])[12 - round(12 * share) :]
        np.testing.assert_array_equal(left, np.where(np.isin(before, highest), before, 0))
