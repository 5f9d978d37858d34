"""Settings: which are out of range, and that they survive JSON."""

import json
from dataclasses import fields, is_dataclass, replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swsjax.errors import ConfigError
from swsjax.sws import Beta, Config, Gamma, HyperPriors, LearningRates

POSITIVE = st.floats(1e-6, 1e6)
NOT_NEGATIVE = st.just(0.0) | POSITIVE
SHARE = st.floats(1e-6, 1 - 1e-6)
EPOCHS = st.integers(0, 100)
GAMMAS = st.builds(Gamma, POSITIVE, POSITIVE)
HYPER_PRIORS = st.builds(
    HyperPriors, GAMMAS, GAMMAS, st.none() | st.builds(Beta, POSITIVE, POSITIVE)
)
RATES = st.builds(
    LearningRates,
    weights=NOT_NEGATIVE,
    means=NOT_NEGATIVE,
    precisions=NOT_NEGATIVE,
    mixing=NOT_NEGATIVE,
    warmup_epochs=NOT_NEGATIVE,
    final=NOT_NEGATIVE,
    epsilon=POSITIVE,
)
LATER_RATES = st.builds(replace, RATES, dampening=NOT_NEGATIVE)
CONFIGS = st.builds(
    Config,
    tau=st.none() | POSITIVE,
    components=st.integers(1, 100),
    pi_zero=SHARE,
    initial_std=POSITIVE,
    hyper_priors=HYPER_PRIORS,
    soft_epochs=EPOCHS,
    soft_learning_rates=RATES,
    hard_epochs=st.integers(1, 100),
    hard_learning_rates=LATER_RATES,
    prune_epochs=EPOCHS,
    prune_learning_rates=LATER_RATES,
    keep=st.floats(1e-6, 1.0),
    merge_threshold=NOT_NEGATIVE,
    batch_size=st.integers(1, 10_000),
    prior=st.sampled_from(["tabulated", "exact"]),
    tolerance=POSITIVE,
    least_steps=st.integers(1, 10_000),
    seed=st.integers(-(2**31), 2**31 - 1),
)


def through_json(settings):
    return json.loads(json.dumps(settings))


@given(CONFIGS)
@settings(max_examples=100, deadline=None)
def test_every_config_survives_json(config):
    written = config.to_dict()
    assert list(written) == [field.name for field in fields(Config)]
    assert Config.from_dict(through_json(written)) == config
    assert Config.from_dict(through_json(written)).to_dict() == written


@given(CONFIGS, st.data())
@settings(max_examples=50, deadline=None)
def test_settings_left_out_have_their_defaults(config, data):
    written = config.to_dict()
    chosen = data.draw(st.sets(st.sampled_from(sorted(set(written) - {"hard_epochs"}))))
    made = Config.from_dict({name: written[name] for name in chosen})
    for field in fields(Config):
        expected = config if field.name in chosen else Config()
        assert getattr(made, field.name) == getattr(expected, field.name)


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(
            tau=jnp.float32(0.1),
            keep=np.float64(0.3),
            components=np.int64(3),
            hard_learning_rates=LearningRates(weights=1e-5),
        ),
        Config(hyper_priors=HyperPriors(pi_zero=Beta(3.0, 2.0)), prior="exact"),
    ],
)
def test_config_survives_json(config):
    """Numbers of NumPy and JAX too, which JSON does not have."""
    assert Config.from_dict(through_json(config.to_dict())) == config


def dataclasses_of(config, path=()):
    """Path and class of every dataclass in a config, itself included."""
    yield path, type(config)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from dataclasses_of(value, (*path, field.name))


FULL = Config(hyper_priors=HyperPriors(pi_zero=Beta(3.0, 2.0)))


@pytest.mark.parametrize(("path", "kind"), list(dataclasses_of(FULL)))
def test_unknown_settings_are_named(path, kind):
    written = at = FULL.to_dict()
    for name in path:
        at = at[name]
    known = ", ".join(repr(field.name) for field in fields(kind))
    at["unknown"] = 1
    with pytest.raises(ConfigError) as raised:
        Config.from_dict(written)
    assert str(raised.value) == f"{kind.__name__} has no setting 'unknown'; it has {known}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([1], "settings of Config must be a dictionary, got [1]"),
        ({"soft_learning_rates": 3}, "settings of LearningRates must be a dictionary, got 3"),
        (
            {"hard_learning_rates": {"weight": 1e-3}},
            "LearningRates has no setting 'weight'; it has 'weights', 'means', 'precisions', "
            "'mixing', 'warmup_epochs', 'final', 'epsilon', 'free', 'dampening'",
        ),
        (
            {"hyper_priors": {"precision": {"shape": 1.0}}},
            "Gamma needs 'shape' and 'rate', got {'shape': 1.0}",
        ),
        (
            {"hyper_priors": {"pi_zero": {"a": 1.0, "b": 0}}},
            "Beta.b must be positive and finite, got 0",
        ),
        ({"keep": 2}, "keep must be over 0 and at most 1, got 2"),
        ({1: 2}, "Config has no setting 1; it has " + ", ".join(map(repr, Config().to_dict()))),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(ConfigError) as raised:
        Config.from_dict(settings)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (Config(tau=optax.constant_schedule(0.1)), "tau"),
        (
            Config(hard_learning_rates=LearningRates(weights=optax.sgd(0.1))),
            "hard_learning_rates.weights",
        ),
    ],
)
def test_functions_cannot_be_written_as_json(config, name):
    with pytest.raises(ConfigError) as raised:
        config.to_dict()
    assert str(raised.value).startswith(f"{name} must be a number to be written as JSON, got ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0.0}, "tau must be positive, got 0.0"),
        ({"tau": float("nan")}, "tau must be positive, got nan"),
        (
            {"hard_epochs": -1},
            "soft_epochs, hard_epochs and prune_epochs must be at least 0 and not all 0, "
            "got 30, -1 and 24",
        ),
        ({"keep": 0.0}, "keep must be over 0 and at most 1, got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (
            {"components": 10**12},
            "components must be at most 65,536, got 1,000,000,000,000; 16 are enough for most nets",
        ),
        ({"prior": "table"}, "prior must be 'tabulated' or 'exact', got 'table'"),
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"merge_threshold": -0.1}, "merge_threshold must not be negative, got -0.1"),
        (
            {"hyper_priors": Gamma(1.0, 2.0)},
            "hyper_priors must be a HyperPriors, got Gamma(shape=1.0, rate=2.0)",
        ),
        ({"soft_learning_rates": 1e-3}, "soft_learning_rates must be a LearningRates, got 0.001"),
        (
            {"soft_learning_rates": LearningRates(dampening=0.1)},
            "soft_learning_rates.dampening must be 0, as the soft stage assigns no means, got 0.1",
        ),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError) as raised:
        Config(**settings)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dampening": -1.0}, "LearningRates.dampening must be finite and not negative, got -1.0"),
        ({"free": np.inf}, "LearningRates.free must be finite and not negative, got inf"),
        ({"epsilon": 0.0}, "LearningRates.epsilon must be positive and finite, got 0.0"),
    ],
)
def test_learning_rates_out_of_range(settings, message):
    with pytest.raises(ConfigError) as raised:
        LearningRates(**settings)
    assert str(raised.value) == message


def test_dampening_takes_a_learning_rate():
    with pytest.raises(ConfigError, match="in units of the learning rate, so weights must be a"):
        LearningRates(optax.sgd(0.1), dampening=0.1)
