"""The unit of a loss."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swsjax.sws.reference import loss_unit


@given(st.floats(1e-30, 1e30))
def test_of_a_loss_in_its_unit_training_gained_about_what_it_does_in_nats(gain):
    unit = loss_unit(gain)
    assert 0.5 <= gain / unit <= 1000
    assert unit == 1 or 2 <= gain / unit < 4  # cross-entropy of ten classes: 2.3
    assert math.frexp(unit)[0] == 0.5  # a power of two


@given(st.floats(1e-20, 0.49), st.integers(1, 20))
def test_a_small_loss_has_the_same_gain_in_its_unit_whatever_it_was_multiplied_by(gain, power):
    smaller = gain * 2.0**-power
    assert smaller / loss_unit(smaller) == gain / loss_unit(gain)


@pytest.mark.parametrize("gain", [0.5, 0.7, 2.3, 1000.0, 0.0, -1.0, math.nan, math.inf])
def test_a_usual_loss_or_one_that_tells_nothing_is_taken_as_it_is(gain):
    assert loss_unit(gain) == 1
