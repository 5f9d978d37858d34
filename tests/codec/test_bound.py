"""The entropy bound, compared with closed forms."""

import math

import numpy as np
import pytest

from swsjax.codec import entropy_bound


def test_hand_computed_example():
    # 8 of 16 weights are non-zero: 16 bits. Half of these are 1, a quarter 2 and a quarter 3:
    # 8 * 1.5 bits.
    first = np.float32([0] * 8 + [1, 1, 1, 1, 2, 2, 3, 3])
    second = np.float32([0, 0, 3, 4])
    bounds = entropy_bound([first, second])
    assert bounds[0] == (16, 12, 96, 0)
    assert bounds[1] == (4, 2, 32, 0)  # level 3 is charged to the first leaf
    assert bounds[0].total == 124


@pytest.mark.parametrize("density", [0.001, 0.02, 0.3])
def test_positions_are_the_binary_entropy(density):
    array = (np.random.default_rng(0).random((200, 300)) < density).astype(np.float32)
    p = array.mean(dtype=np.float64)
    expected = array.size * -(p * math.log2(p) + (1 - p) * math.log2(1 - p))
    assert entropy_bound([array])[0].positions == pytest.approx(expected, rel=1e-12)


def test_leaves_smaller_uncompressed_are_raw():
    noise = np.random.default_rng(0).normal(size=100).astype(np.float16)
    bounds = entropy_bound([noise, np.float32(1), np.zeros((0, 3)), np.zeros(5)])
    assert [bound.total for bound in bounds] == [1600, 32, 0, 0]
    assert bounds[0].raw == 1600


def test_element_widths_do_not_share_levels():
    ones = [np.tile(np.array([0, 1], dtype), 99) for dtype in (np.uint8, np.int8, np.uint16)]
    assert [bound.codebook for bound in entropy_bound(ones)] == [8, 0, 16]
