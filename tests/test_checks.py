"""Checks of arguments: which numbers JAX can hold."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swsjax.checks import check_aux, check_integer, check_params, for_jax
from swsjax.errors import ConfigError

WIDE = st.sampled_from(["i8", "u8", ">i8", "f8", ">f8", "c16", "i4", "u1", "f2"])


def is_lossless(array):
    """Whether JAX's conversion keeps all integers, and all finite numbers finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = np.asarray(jnp.asarray(array.astype(array.dtype.newbyteorder("="))))
    if array.dtype.kind in "iu":
        return [int(x) for x in found.ravel()] == [int(x) for x in array.ravel()]
    return bool((np.isfinite(found) == np.isfinite(array)).all())


@given(WIDE.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))))
def test_values_are_kept_or_refused(array):
    tree = {"net": [array, jnp.ones(2), "text"]}
    if is_lossless(array):
        ours = for_jax("data", tree)["net"][0]
        assert ours.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(ours, array)
    else:
        message = r"^net/0 in data holds \S+, which does not fit JAX's (u?int|float|complex)\d+; "
        with pytest.raises(ConfigError, match=message):
            for_jax("data", tree)


EDGES = {
    "the largest of 32 bits": (np.array([2**31 - 1, -(2**31)]), True),
    "one more": (np.array([0, 2**31]), False),
    "the largest without a sign": (np.uint64(2**32 - 1), True),
    "one more without a sign": (np.uint64(2**32), False),
    "the largest float, rounded down": (np.float64(3.4028235e38), True),
    "half a step over the largest float": (np.float64(3.4028236e38), False),
    "infinities and what is no number": (np.array([np.inf, -np.inf, np.nan, 1e-300]), True),
    "an imaginary part": (np.array([1e300j]), False),
    "text": (np.array(["1e300"]), True),
    "nothing": (np.array([], int), True),
}


@pytest.mark.parametrize("edge", EDGES)
def test_the_edges_of_the_range(edge):
    array, fits = EDGES[edge]
    if fits:
        assert for_jax("data", [array])[0] is array
    else:
        with pytest.raises(ConfigError, match=r"^0 in data holds .+, which does not fit JAX's "):
            for_jax("data", [array])


def test_with_64_bits_all_fit():
    arrays = [np.array([2**40]), np.array([1e300]), np.array([1e300j])]
    with jax.enable_x64(True):
        assert for_jax("data", arrays) == arrays


@pytest.mark.parametrize("number", [2**31, -(2**40), 2**63, 2**70, 1e300])
def test_numbers_of_python(number):
    """Those that become arrays; a constant of a net stays as it is."""
    assert for_jax("params", {"most": number}) == {"most": number}
    with pytest.raises(ConfigError, match=r"^most in aux holds \S+, which does not fit JAX's "):
        check_aux({"most": number})
    assert check_aux({"most": np.float32(1), "n": 3, "x": 0.5, "yes": True})["n"] == 3


def test_a_number_among_the_params():
    message = "scale in params holds 1e+300, which does not fit JAX's float32; "
    with pytest.raises(ConfigError, match=f"^{message.replace('+', '.')}"):
        check_params({"scale": 1e300})
    assert check_params({"scale": 0.1}) == {"scale": 0.1}


@given(st.integers(), st.integers(0, 100), st.integers(101, 2**32))
def test_an_integer_between_bounds(value, least, most):
    if least <= value <= most:
        assert check_integer("seed", value, least, most) == value
        return
    bounds = f" from {least} to {most}" if value > most else f" of at least {least}"
    with pytest.raises(ConfigError, match=f"^seed must be an integer{bounds}, got {value}$"):
        check_integer("seed", value, least, most)
