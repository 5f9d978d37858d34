"""The grid of the tabulated prior: what it covers, and how many nodes it has."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swsjax.sws.grid import grid_over, node_count


def inside(grid, leaves):
    scaled = np.concatenate([(np.float64(x).ravel() - grid.low) / grid.step for x in leaves])
    return scaled.min() >= 0 and scaled.max() <= grid.nodes.size - 1


@example(np.zeros(3, np.float32))
@example(np.full(3, 1e6, np.float32))
@example(np.full(3, -1e-30, np.float32))
@example(np.float32([1.0, np.nextafter(np.float32(1), np.float32(2)), 1.0]))
@given(hnp.arrays(np.float32, 3, elements=st.floats(-(2**40), 2**40, width=32)))
@settings(max_examples=100, deadline=None)
def test_no_weight_is_outside(weights):
    grid = grid_over([jnp.asarray(weights)], 8)
    assert inside(grid, [weights])
    assert np.frexp(grid.step)[0] == 0.5  # a power of two, and the least above what is needed
    needed = max(np.ptp(np.float64(weights)), 1e-6 * max(np.abs(weights).max(), 1e-3)) / 6
    assert grid.step / 2 < needed * (1 + 1e-6)
    assert needed < grid.step * (1 + 1e-6)


def test_grid_is_over_all_leaves():
    leaves = [jnp.ones((2, 2)), jnp.asarray(-3.0), jnp.zeros((0, 4)), jnp.bfloat16([5, 7])]
    grid = grid_over(leaves, 11)
    assert inside(grid, [x for x in leaves if x.size])
    # 10 / 9 is the least step with which 9 intervals would do: the next power of two
    np.testing.assert_array_equal(grid.nodes, np.arange(-4, 18, 2))
    assert grid.step == 2
    assert all(x.dtype == jnp.float32 for x in grid)


def test_grid_passes_no_gradient():
    gradient = jax.grad(lambda w: sum(x.sum() for x in grid_over([w], 8)))(
        jnp.linspace(-1.5, 1.5, 300)
    )
    np.testing.assert_array_equal(gradient, 0)


def test_node_count():
    assert node_count(-1.0, 1.0, 0.25) == 64  # the least
    for high in np.geomspace(0.1, 10, 200):
        enough = 1.25 * high * 1024 + 2
        nodes = node_count(0.0, high, 4 / 1024)
        assert nodes == node_count(0.0, high, 7.9 / 1024)
        assert enough <= nodes < 1.5 * enough + 2
        assert any(nodes == odd * 2**power for odd in (1, 3) for power in range(16))
    assert node_count(-1e6, 1e6, 1e-3) == 2**16  # the most
