"""Bad settings of soft weight-sharing."""

import optax

from bad_input.case import Case
from swsjax.errors import ConfigError
from swsjax.sws import Beta, Config, Gamma, HyperPriors, LearningRates

CASES = [
    Case(
        "text as tau",
        lambda: Config(tau="0.06"),
        ConfigError,
        "tau must be a number or an optax schedule, got '0.06'",
    ),
    Case(
        "a negative tau",
        lambda: Config(tau=-1.0),
        ConfigError,
        "tau must be positive, got -1.0",
    ),
    Case(
        "half an epoch",
        lambda: Config(soft_epochs=0.5),
        ConfigError,
        "soft_epochs must be an integer, got 0.5",
    ),
    Case(
        "no epoch",
        lambda: Config(soft_epochs=0, hard_epochs=0, prune_epochs=0),
        ConfigError,
        "soft_epochs, hard_epochs and prune_epochs must be at least 0 and not all 0, got 0, 0 "
        "and 0",
    ),
    Case(
        "no component",
        lambda: Config(components=0),
        ConfigError,
        "components must be at least 1, got 0",
    ),
    Case(
        "a single learning rate",
        lambda: Config(hard_learning_rates=1e-3),
        ConfigError,
        "hard_learning_rates must be a LearningRates, got 0.001",
    ),
    Case(
        "a negative learning rate of the means",
        lambda: LearningRates(means=-1e-4),
        ConfigError,
        "LearningRates.means must be finite and not negative, got -0.0001",
    ),
    Case(
        "text as learning rate of the weights",
        lambda: LearningRates(weights="cosine"),
        ConfigError,
        "LearningRates.weights must be a learning rate or an optax optimiser, got 'cosine'",
    ),
    Case(
        "a shape of zero",
        lambda: Gamma(0, 2.0),
        ConfigError,
        "Gamma.shape must be positive and finite, got 0",
    ),
    Case(
        "an infinite rate",
        lambda: Gamma(5000.0, float("inf")),
        ConfigError,
        "Gamma.rate must be positive and finite, got inf",
    ),
    Case(
        "text as shape",
        lambda: Gamma("5000", 2.0),
        ConfigError,
        "Gamma.shape must be positive and finite, got '5000'",
    ),
    Case(
        "a negative parameter of a Beta",
        lambda: Beta(-1.0, 2.0),
        ConfigError,
        "Beta.a must be positive and finite, got -1.0",
    ),
    Case(
        "None as parameter of a Beta",
        lambda: Beta(1.0, None),
        ConfigError,
        "Beta.b must be positive and finite, got None",
    ),
    Case(
        "a pair in place of a Gamma",
        lambda: HyperPriors(zero_precision=(5000.0, 2.0)),
        ConfigError,
        "HyperPriors.zero_precision must be a Gamma, got (5000.0, 2.0)",
    ),
    Case(
        "None in place of a Gamma",
        lambda: HyperPriors(precision=None),
        ConfigError,
        "HyperPriors.precision must be a Gamma, got None",
    ),
    Case(
        "a proportion in place of a Beta",
        lambda: HyperPriors(pi_zero=0.999),
        ConfigError,
        "HyperPriors.pi_zero must be a Beta or None, got 0.999",
    ),
    Case(
        "a Gamma in place of hyper-priors",
        lambda: Config(hyper_priors=Gamma(250.0, 0.1)),
        ConfigError,
        "hyper_priors must be a HyperPriors, got Gamma(shape=250.0, rate=0.1)",
    ),
    Case(
        "a Gamma in JSON without its rate",
        lambda: Config.from_dict({"hyper_priors": {"precision": {"shape": 250.0}}}),
        ConfigError,
        "Gamma needs 'shape' and 'rate', got {'shape': 250.0}",
    ),
    Case(
        "a schedule to be written as JSON",
        lambda: Config(tau=optax.constant_schedule(0.1)).to_dict(),
        ConfigError,
        "tau must be a number to be written as JSON, got a function",
    ),
]
