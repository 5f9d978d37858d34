"""What tells a run in a folder from another one."""

import re
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swsjax.errors import CheckpointError, ConfigError
from swsjax.sws.config import Config
from swsjax.training.loop import train
from swsjax.training.resume import identity_of, opened, with_settings
from swsjax.training.stream import Stream

RNG = np.random.default_rng(0)
DATA = {
    "x": np.float32(RNG.normal(size=(16, 4))),
    "y": np.float32(RNG.normal(size=(16, 3))),
}
PARAMS = {"w": np.float32(RNG.normal(size=(4, 3))), "b": np.zeros(3, np.float32)}


def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"] + params["b"][None] - batch["y"]) ** 2)


def run(folder, loss=loss, data=DATA, optimizer=None, **options):
    optimizer = optax.sgd(0.1) if optimizer is None else optimizer
    options = {"epochs": 1, "batch_size": 8} | options
    return train(PARAMS, loss, data, optimizer, resume=folder, **options)


def batches_of(data, shift=0):
    def batches(number):
        for part in (slice(8), slice(8, 16)):
            yield jax.tree.map(lambda x, part=part: x[part] + shift, data)

    return Stream(16, batches)


def scaled(factor):
    return lambda params, batch: factor * loss(params, batch)


def halved(params, *number):
    return jax.tree.map(lambda x: x / 2, params)


STEP = "optimizer, project or before_epoch"
PAIRS = {
    "a different rate": ({}, {"optimizer": optax.sgd(5.0)}, STEP),
    "a slightly different rate": (
        {"optimizer": optax.sgd(1e-7)},
        {"optimizer": optax.sgd(1.1e-7)},
        STEP,
    ),
    "the opposite direction": ({}, {"optimizer": optax.sgd(-0.1)}, STEP),
    "a rate that rises from zero": (
        {"optimizer": optax.sgd(optax.linear_schedule(0.0, 0.1, 10))},
        {"optimizer": optax.sgd(optax.linear_schedule(0.0, 0.2, 10))},
        STEP,
    ),
    "momentum": ({"optimizer": optax.adam(0.1)}, {"optimizer": optax.adam(0.1, b1=0.5)}, STEP),
    "a projection": ({}, {"project": halved}, STEP),
    "no projection": ({"project": halved}, {}, STEP),
    "before_epoch": ({}, {"before_epoch": halved}, STEP),
    "an augmentation": ({}, {"augment": lambda key, batch: batch | {"x": 2 * batch["x"]}}, "loss"),
    "a different loss": ({}, {"loss": scaled(2)}, "loss"),
    "a different loss, of small values": ({"loss": scaled(1e-5)}, {"loss": scaled(2e-5)}, "loss"),
    "seeds that are one float": ({"seed": 2**53}, {"seed": 2**53 + 1}, "settings"),
    "a stream, a different loss": (
        {"data": batches_of(DATA)},
        {"data": batches_of(DATA), "loss": scaled(2)},
        "loss",
    ),
    "a different stream": ({"data": batches_of(DATA)}, {"data": batches_of(DATA, 1)}, "data"),
    "a stream in place of arrays": ({}, {"data": batches_of(DATA)}, "data"),
    "data and optimizer": ({}, {"data": batches_of(DATA), "optimizer": optax.sgd(5.0)}, "data"),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_different_run(pair, tmp_path):
    one, other, what = PAIRS[pair]
    run(tmp_path, **one)
    message = (
        f"{tmp_path} holds a run with other {what}; choose a different folder, or delete this one "
        "to start again"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        run(tmp_path, **other)


SAME = {
    "everything as it was": ({}, {}),
    "a stream made again": ({"data": batches_of(DATA)}, {"data": batches_of(DATA)}),
    "numbers of other types": ({"seed": 3}, {"seed": np.uint8(3)}),
    "functions made again": (
        {"project": halved, "optimizer": optax.adam(0.1)},
        {"project": lambda params: halved(params), "optimizer": optax.adam(0.1)},
    ),
    "another measure": ({}, {"evaluate": lambda params: 0.5}),
}


@pytest.mark.parametrize("pair", SAME)
def test_the_same_run(pair, tmp_path):
    one, other = SAME[pair]
    expected = run(tmp_path, **one)
    resumed = run(tmp_path, **other, callback=lambda epoch: pytest.fail("an epoch was repeated"))
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in expected.history]
    np.testing.assert_array_equal(resumed.params["w"], expected.params["w"])


def test_a_stream_without_batches(tmp_path):
    message = "the stream produced no batches; batches(number) must start afresh in every pass"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        run(tmp_path, data=Stream(16, lambda number: iter(())))


def settings_digest(settings):
    return identity_of(settings=settings, weights=(), data=())["settings"]


@given(st.integers(), st.integers())
def test_integers_are_the_same_settings_only_if_they_are_equal(one, other):
    assert (settings_digest(one) == settings_digest(other)) == (one == other)


@given(st.integers(-(2**53), 2**53))
def test_an_integer_is_the_float_of_its_value(number):
    assert settings_digest(number) == settings_digest(float(number))


@given(st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_floats_are_the_same_settings_only_if_they_are_equal(one, other):
    is_same = one == other or (one != one and other != other)
    assert (settings_digest(one) == settings_digest(other)) == is_same


def test_schedules_are_told_by_their_values():
    def identity(tau):
        return with_settings(identity_of(settings=(), weights=(), data=()), Config(tau=tau))

    one = identity(lambda step: 1e-6)
    assert (
        one == identity(optax.constant_schedule(1e-6)) == identity(lambda step: jnp.float32(1e-6))
    )
    for other in (lambda step: 1e-1, optax.linear_schedule(1e-6, 2e-6, 1000), 1e-6):
        assert one != identity(other)
    ramp = optax.linear_schedule
    assert identity(ramp(0, 1e-6, 100)) == identity(ramp(0, 1e-6, 100))
    assert identity(ramp(0, 1e-6, 100)) != identity(ramp(0, 1e-6, 200))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ([1e-9, 2.5], [1.0009e-9, 2.4981], True),
        ([1e9, float("nan")], [1.0009e9, float("nan")], True),
        ([0.0, float("inf")], [0.0, float("inf")], True),
        ([1e-9, 2.5], [1.0011e-9, 2.5], False),
        ([1e-9, 2.5], [1e-9, -2.5], False),
        ([0.0], [1e-30], False),
        ([1.0], [float("nan")], False),
        ([float("inf")], [float("-inf")], False),
        ([1.0], [1.0, 1.0], False),
    ],
)
def test_losses_may_differ_by_a_thousandth_of_their_size(tmp_path, one, other, is_same):
    one, other = (
        identity_of(settings=(), weights=(), data=(), losses=losses) for losses in (one, other)
    )
    with opened(tmp_path, one) as resume:
        resume.save(1, {"w": np.ones(2)}, [])
    refused = pytest.raises(CheckpointError, match="with other loss;")
    with nullcontext() if is_same else refused, opened(tmp_path, other) as resume:
        assert resume.written == []
