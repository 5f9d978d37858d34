"""Winning tickets against their steps, one by one."""

import re
import shutil
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_tasks import small, untrained

from swsjax.baselines import density, kernels, magnitude, mask
from swsjax.baselines.finish import retrain, rewind
from swsjax.baselines.lottery import lottery_ticket
from swsjax.baselines.weights import with_kernels
from swsjax.errors import ConfigError
from swsjax.training import PretrainConfig

KEY = jax.random.key(2)
CONFIG = PretrainConfig(epochs=2, learning_rate=0.03, batch_size=32)


def task():
    return small("two layers")


def init():
    return untrained("two layers")


@cache
def ticket(keep, rounds=1):
    return lottery_ticket(task(), init(), keep, CONFIG, rounds=rounds, key=KEY)


def assert_equal(ours, expected):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


def test_rounds_train_prune_and_rewind():
    """Of 152 weights: 0.25 in two rounds is half each time, of the survivors."""
    first = retrain(task(), init(), CONFIG, key=jax.random.fold_in(KEY, 1))
    one = rewind(magnitude(first, 0.5), init())
    second = retrain(task(), one, CONFIG, key=jax.random.fold_in(KEY, 2))
    two = rewind(magnitude(second, 0.25), init())
    assert_equal(ticket(0.5), one)
    assert_equal(ticket(0.25, rounds=2), two)
    assert density(one) == 0.5
    assert density(two) == 0.25
    for name, kept in mask(two).items():
        assert not (kept & ~mask(one)[name]).any()
        np.testing.assert_array_equal(
            two.params[name[:3]]["kernel"][kept], kernels(init())[name][kept]
        )


def test_a_ticket_is_pruned_further():
    """With the share of all weights: from a half to an eighth in two rounds, by half each."""
    half = ticket(0.5)
    trained = retrain(task(), half, CONFIG, key=jax.random.fold_in(KEY, 1))
    quarter = rewind(magnitude(trained, 0.25), half)
    trained = retrain(task(), quarter, CONFIG, key=jax.random.fold_in(KEY, 2))
    eighth = rewind(magnitude(trained, 0.125), half)
    assert_equal(lottery_ticket(task(), half, 0.125, CONFIG, rounds=2, key=KEY), eighth)
    assert density(eighth) == 0.125


def test_the_key_decides():
    found = [
        lottery_ticket(task(), init(), 0.3, CONFIG, key=jax.random.key(seed)) for seed in (0, 0, 1)
    ]
    assert_equal(found[0], found[1])
    assert any((mask(found[0])[name] != kept).any() for name, kept in mask(found[2]).items())


def test_rounds_that_are_done_are_not_repeated(tmp_path):
    """The last epoch of the second round is lost."""
    whole = ticket(0.25, rounds=2)
    assert_equal(
        lottery_ticket(task(), init(), 0.25, CONFIG, rounds=2, key=KEY, resume=tmp_path), whole
    )
    done = [tmp_path / name for name in ("round-1/1", "round-1/2", "round-2/1")]
    written = [path.stat().st_mtime_ns for path in done]
    shutil.rmtree(tmp_path / "round-2/2")
    assert_equal(
        lottery_ticket(task(), init(), 0.25, CONFIG, rounds=2, key=KEY, resume=tmp_path), whole
    )
    assert [path.stat().st_mtime_ns for path in done] == written
    assert (tmp_path / "round-2/2").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds must be an integer of at least 1, got 0"),
        ({"keep": 1.5}, "keep must be a number in (0, 1], got 1.5"),
        ({"keep": 1e-3}, "keep=0.001 of 152 weights in the net is none; keep at least 0.0066"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        lottery_ticket(task(), init(), **{"keep": 0.5, "key": KEY} | settings)


def test_an_empty_net_stays_empty():
    empty = with_kernels(init(), {name: jnp.zeros_like(x) for name, x in kernels(init()).items()})
    assert density(lottery_ticket(task(), empty, 0.5, CONFIG, key=KEY)) == 0
