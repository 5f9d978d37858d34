"""Weights divided between table points: all of them, and a sample in turn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.sws import Config, init_mixture
from swsjax.sws.grid import cells_on, grid_over
from swsjax.sws.histogram import Sample, histogram
from swsjax.sws.table import sum_log_prob

RNG = np.random.default_rng(0)
LEAVES = [
    jnp.asarray(RNG.normal(size=shape).astype(np.float32)) for shape in [(50, 21), (7,), (0, 3)]
]
GRID = jax.jit(grid_over, static_argnums=1)(LEAVES, 64)
find_cells = jax.jit(cells_on)
POINTS = 32 * 63 + 1


def by_hand(cells):
    """In float64, weight by weight."""
    counts = np.zeros(POINTS)
    for number, fraction in cells:
        np.add.at(counts, np.ravel(number), 1 - np.float64(fraction).ravel())
        np.add.at(counts, np.ravel(number) + 1, np.float64(fraction).ravel())
    return counts


def test_every_weight_is_counted():
    cells = find_cells(LEAVES, GRID)
    counts = jax.jit(lambda: histogram(cells, POINTS))()
    np.testing.assert_allclose(counts, by_hand(cells), atol=1e-5)


@pytest.mark.parametrize("size", [100, 64, 1])
def test_turns_count_each_weight_once(size):
    """1,050 weights in strides of 11, 17 and 1,050; what is left over counts in each turn."""
    cells = find_cells(LEAVES, GRID)
    stride = -(-1050 // size)
    once = jax.jit(lambda turn: histogram(cells, POINTS, Sample(size, turn)))
    counts = np.mean([once(jnp.int32(turn)) for turn in range(3, 3 + stride)], axis=0)
    np.testing.assert_allclose(counts, by_hand(cells), atol=2e-4)


def test_few_weights_are_all_counted():
    cells = find_cells(LEAVES, GRID)
    sample = Sample(1050, jnp.int32(5))
    np.testing.assert_array_equal(histogram(cells, POINTS, sample), histogram(cells, POINTS))


def test_a_sample_estimates_the_gradient_of_the_mixture_alone():
    mixture = init_mixture(-2.0, 2.0, components=3)

    @partial(jax.jit, static_argnums=0)
    def gradients(size, turn):
        sample = size and Sample(size, turn)
        total = jax.grad(lambda m, w: sum_log_prob(m, w, GRID, None, sample), argnums=(0, 1))
        return total(mixture, LEAVES)

    whole, to_weights = gradients(None, None)
    turns = [gradients(600, jnp.int32(turn)) for turn in range(2)]
    for _, of_turn in turns:
        jax.tree.map(np.testing.assert_array_equal, of_turn, to_weights)
    assert float(jnp.abs(turns[0][0].means - whole.means).max()) > 0.1
    jax.tree.map(
        lambda mean, one, other: np.testing.assert_allclose(
            mean, (one + other) / 2, rtol=1e-3, atol=2e-3
        ),
        whole,
        turns[0][0],
        turns[1][0],
    )


def test_settings_name_a_sample_that_cannot_be():
    with pytest.raises(ValueError, match=r"^sample must be an integer of at least 1, got 0$"):
        Config(sample=0)
    assert Config(sample=None).sample is None
