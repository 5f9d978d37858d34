"""Which weights may be pruned, and the exact rank of their scores."""

import re
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import untrained

from swsjax.baselines.weights import (
    density,
    kept,
    kernels,
    mask,
    masked,
    number_kept,
    sparsity_patterns,
    with_kernels,
)
from swsjax.errors import ConfigError
from swsjax.lab import Variables

NUMBERS = st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 2.0])


def test_only_kernels_may_be_pruned():
    net = untrained("normalised")
    assert {name.rpartition("/")[2] for name in kernels(net)} == {"kernel"}
    assert all(kernel.ndim in (2, 4) for kernel in kernels(net).values())
    leaves = {"counts": jnp.ones((2, 2), int), "vector": jnp.ones(3), "matrix": jnp.ones((2, 2))}
    assert list(kernels(Variables(leaves, {"mean": jnp.ones((2, 2))}))) == ["matrix"]


def test_kernels_are_replaced_by_name():
    net = untrained("normalised")
    numbered = {
        name: jnp.full(k.shape, float(n)) for n, (name, k) in enumerate(kernels(net).items())
    }
    replaced = with_kernels(net, numbered)
    assert replaced.aux is net.aux
    assert kernels(replaced).keys() == numbered.keys()
    assert all(kernels(replaced)[name] is kernel for name, kernel in numbered.items())
    assert replaced.params["bn"]["scale"] is net.params["bn"]["scale"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS | st.just(np.nan)), min_size=8, max_size=8),
    st.integers(1, 8),
)
def test_the_rank_is_exact(pairs, k):
    """Zeros rank last, then NaN; of equal scores the first weight is kept."""
    weights, scores = np.float32(pairs).T
    net = Variables({"a": jnp.ones(4), "b": weights[:6].reshape(2, 3), "c": weights[6:, None]}, ())
    net = net._replace(params={name: jnp.asarray(leaf) for name, leaf in net.params.items()})
    found = kept(net, {"b": scores[:6].reshape(2, 3), "c": scores[6:, None]}, k)
    order = sorted(
        range(8), key=lambda i: (weights[i] == 0, np.isnan(scores[i]), -np.nan_to_num(scores[i]), i)
    )
    expected = np.zeros(8, np.float32)
    expected[order[:k]] = weights[order[:k]]
    ours = np.concatenate([np.ravel(found.params[name]) for name in ("b", "c")])
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(found.params["a"], 1)
    assert density(found) == min(k, np.count_nonzero(weights)) / 8


def test_a_mask_put_on_another_net():
    pruned = Variables({"bias": jnp.zeros(2), "kernel": jnp.array([[0.0, 2.0], [-0.0, -1.0]])}, {})
    other = Variables({"bias": jnp.ones(2), "kernel": jnp.array([[5.0, 6.0], [7.0, 8.0]])}, {})
    found = masked(other, mask(pruned))
    np.testing.assert_array_equal(found.params["kernel"], [[0, 6], [0, 8]])
    np.testing.assert_array_equal(found.params["bias"], 1)


@given(st.integers(1, 10**7), st.floats(0, 1, exclude_min=True))
def test_a_share_is_rounded(size, keep):
    if round(size * keep):
        assert number_kept(size, keep) == round(size * keep)
        return
    expected = rf"keep={keep} of {size} weights in the net is none; keep at least "
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}") as error:
        number_kept(size, keep)
    assert number_kept(size, float(str(error.value).rpartition(" ")[2])) == 1


def test_an_empty_kernel_keeps_nothing():
    assert number_kept(0, 0.5) == 0


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_patterns_of_slices_against_text(seed):
    """Each slice as nine digits, the last weight first, counted one by one."""
    rng = np.random.default_rng(seed)
    shapes = {"one": (3, 3, 4, 5), "two": (3, 3, 1, 2), "five": (5, 5, 2, 2), "fc": (3, 3)}
    params = {
        name: np.float32(rng.normal(size=shape) * (rng.random(shape) < rng.random()))
        for name, shape in shapes.items()
    }
    params["one"][0, 0, 0, 0] = 1.0
    found = sparsity_patterns(Variables(params, {}))
    assert sorted(found) == ["one", "two"]
    for name, counts in found.items():
        height, width, inputs, outputs = shapes[name]
        expected = Counter(
            "".join(
                str(int(params[name][row, column, i, o] != 0))
                for row in reversed(range(height))
                for column in reversed(range(width))
            )
            for i in range(inputs)
            for o in range(outputs)
        )
        assert counts.shape == (512,)
        assert {f"{p:09b}": counts[p] for p in np.flatnonzero(counts)} == expected


def test_a_net_without_slices():
    expected = (
        "the net has no kernel of 3 x 3; expected one of (3, 3, inputs, outputs) in params, got "
        "{'fc': 'float32[3, 3]'}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        sparsity_patterns(Variables({"fc": jnp.ones((3, 3))}, {}))
