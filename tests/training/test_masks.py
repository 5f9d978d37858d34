"""Zeros as masks: which weights are kept, that zeros stay zero, and the schedule of pruning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swsjax.training import cubic_keep, hold_zeros, keep_top, masks, train
from swsjax.training.masks import held

RNG = np.random.default_rng(0)
SHAPES = {"a": (5, 4), "b": (7,), "none": (0, 3), "scalar": ()}
SIZE = 28
# No weight is zero, so that a zero in the result is one that was not kept.
PARAMS = {name: jnp.float32(RNG.uniform(1, 2, shape)) for name, shape in SHAPES.items()}


def tree_of(values):
    """A tree of the shapes of ``PARAMS``, filled in the order of ``jax.tree.leaves``."""
    parts = np.split(np.float32(values), np.cumsum([20, 7, 0]))
    return {name: part.reshape(SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def kept(scores, k):
    """Ranks of the weights that are kept, which are checked to be unchanged."""
    ours, before = flat(keep_top(PARAMS, tree_of(scores), k)), flat(PARAMS)
    mask = ours != 0
    np.testing.assert_array_equal(ours, np.where(mask, before, 0))
    return np.flatnonzero(mask).tolist()


def expected(scores, k):
    """The first k of a stable sort by falling scores, NaN last."""
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    return sorted(order[:k].tolist())


def test_rank_is_the_position_among_all_leaves():
    """Of the leaves in ``jax.tree.leaves``, which ``tree_of`` fills from first to last."""
    np.testing.assert_array_equal(flat(tree_of(np.arange(SIZE))), np.arange(SIZE))


@pytest.mark.parametrize("k", range(SIZE + 3))
def test_exactly_k_weights_are_kept(k):
    scores = RNG.permutation(SIZE)
    assert kept(scores, k) == sorted(np.flatnonzero(scores >= SIZE - k).tolist())
    assert kept(scores % 3, k) == expected(scores % 3, k)
    assert len(kept(scores % 3, k)) == min(k, SIZE)


FEW = st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.0, np.nan, np.inf, -np.inf])
# XLA takes subnormal numbers for zeros on processors.
SCORES = hnp.arrays(np.float32, SIZE, elements=FEW | st.floats(width=32, allow_subnormal=False))


@example(np.zeros(SIZE, np.float32), 5)
@example(np.full(SIZE, np.nan, np.float32), 5)
@example(np.full(SIZE, -np.inf, np.float32), 5)
@example(np.full(SIZE, np.inf, np.float32), 5)
@given(SCORES, st.integers(0, SIZE + 3))
@settings(max_examples=200, deadline=None)
def test_the_highest_scores_are_kept_as_a_stable_sort_orders_them(scores, k):
    assert kept(scores, k) == expected(scores, k)


@pytest.mark.parametrize("score", [0.0, 1.0, -3.0, np.nan, -np.inf])
def test_of_equal_scores_the_first_are_kept(score):
    for k in (0, 1, 20, 21, SIZE - 1, SIZE, SIZE + 1):
        assert kept(np.full(SIZE, score), k) == list(range(min(k, SIZE)))


def test_ties_are_broken_across_leaves():
    params = [jnp.array([1.0, -1.0]), jnp.array([2.0, 4.0])]
    scores = [jnp.array([1.0, 1.0]), jnp.array([2.0, 1.0])]
    for k, values in ((1, [0, 0, 2, 0]), (2, [1, 0, 2, 0]), (3, [1, -1, 2, 0])):
        np.testing.assert_array_equal(flat(keep_top(params, scores, k)), values)


def test_nan_ranks_below_every_number():
    scores = np.full(SIZE, np.nan)
    scores[[3, 25]] = -1e30, 0.0
    assert kept(scores, 1) == [25]
    assert kept(scores, 2) == [3, 25]
    assert kept(scores, 4) == [0, 1, 3, 25]


def test_zeros_among_the_weights_are_ranked_like_others():
    """k counts weights, whether or not they are zero."""
    params, scores = jnp.array([0.0, 1.0, 2.0]), jnp.array([3.0, 1.0, 2.0])
    np.testing.assert_array_equal(keep_top(params, scores, 2), [0, 0, 2])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtype_and_structure_are_kept(dtype):
    params = [jnp.ones((2, 2), dtype), (jnp.ones(3, dtype), None)]
    ours = keep_top(params, jax.tree.map(jnp.float32, params), 5)
    assert jax.tree.structure(ours) == jax.tree.structure(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
    np.testing.assert_array_equal(np.float32(flat(ours)), [1, 1, 1, 1, 1, 0, 0])


def test_a_different_k_does_not_compile_again():
    scores = tree_of(np.arange(SIZE))
    keep_top(PARAMS, scores, 1)
    before = masks._keep_top._cache_size()
    for k in range(2, 6):
        keep_top(PARAMS, scores, k)
    assert masks._keep_top._cache_size() == before


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.adam(0.1),
        optax.adamw(0.1, weight_decay=0.5),
        optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1, momentum=0.9, nesterov=True)),
    ],
)
def test_zeros_stay_zero_and_other_weights_move_as_without(optimizer):
    """Weights are pruned in the middle, when momentum still moves them."""
    params = {"w": jnp.array([0.0, 1.0, -2.0]), "b": jnp.array([3.0])}
    gradients = {"w": jnp.array([0.3, 0.2, 0.1]), "b": jnp.array([-0.4])}
    ours = theirs = params
    chained = optax.chain(optimizer, hold_zeros())
    our_state, their_state = chained.init(ours), optimizer.init(theirs)
    for step in range(6):
        if step == 3:
            ours = {"w": ours["w"].at[1].set(0.0), "b": ours["b"]}
        updates, our_state = chained.update(gradients, our_state, ours)
        ours = optax.apply_updates(ours, updates)
        updates, their_state = optimizer.update(gradients, their_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        assert ours["w"][0] == 0
        assert (ours["w"][1] == 0) == (step >= 3)
        moving = slice(2 if step >= 3 else 1, None)
        np.testing.assert_array_equal(ours["w"][moving], theirs["w"][moving])
        np.testing.assert_array_equal(ours["b"], theirs["b"])
    assert not jnp.array_equal(ours["w"][2:], params["w"][2:])
    assert theirs["w"][0] != 0


def test_held_is_zero_where_the_weight_is_zero_of_either_sign():
    weights, updates = jnp.array([0.0, -0.0, 1e-37, 2.0]), jnp.array([1.0, 1.0, 1.0, -3.0])
    np.testing.assert_array_equal(held(weights, updates), [0, 0, 1, -3])


def test_pruning_while_training_leaves_the_share_asked_for():
    """``train`` with ``keep_top`` before its epochs and ``hold_zeros`` in its optimiser."""
    true = jnp.float32(RNG.normal(size=(20, 5)))
    inputs = jnp.float32(RNG.normal(size=(256, 20)))
    data = {"x": inputs, "y": inputs @ true}
    counts = []

    def prune(params, number):
        counts.append(jnp.count_nonzero(params).item())
        return keep_top(params, jnp.abs(params), round(100 * cubic_keep(0.3, number / 3)))

    trained = train(
        true + 0.1,
        lambda params, batch: jnp.mean((batch["x"] @ params - batch["y"]) ** 2),
        data,
        optax.chain(optax.adamw(1e-2, weight_decay=1e-2), hold_zeros()),
        epochs=5,
        batch_size=64,
        before_epoch=prune,
    )
    # Before an epoch as many are left as the pruning before the last epoch kept.
    assert counts[1:] == [round(100 * cubic_keep(0.3, number / 3)) for number in range(4)]
    assert jnp.count_nonzero(trained.params) == 30


def test_cubic_keep():
    assert cubic_keep(0.3, 0.0) == 1
    assert cubic_keep(0.3, 1.0) == cubic_keep(0.3, 2.0) == 0.3
    assert cubic_keep(1.0, 0.4) == 1
    for t in (0.1, 0.25, 0.5, 0.9):
        assert cubic_keep(0.3, t) == pytest.approx(0.3 + 0.7 * (1 - t) ** 3, rel=1e-12)
    drops = -np.diff([cubic_keep(0.3, t) for t in np.linspace(0, 1, 11)])
    assert (drops > 0).all()
    assert (np.diff(drops) < 0).all()  # slower and slower


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_the_order_is_that_of_a_sort(kind):
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, np.inf, -np.inf, 1e-30, -1e-30, 65504.0, 1.0, 1.0, -1.0]
    scores = jnp.concatenate([jnp.array(special), jnp.array(rng.normal(size=90))]).astype(kind)
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    for k in range(1, 101):
        ours = keep_top(jnp.ones(100), scores, k)
        np.testing.assert_array_equal(np.flatnonzero(ours), np.sort(order[:k]))
