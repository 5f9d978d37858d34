"""Bad input to the parts of soft weight-sharing, in a training loop of one's own."""

import jax
import jax.numpy as jnp

from bad_input.case import DATA, KEY, LOSS, PARAMS, ROUND, Case, per_example
from swsjax.errors import ConfigError
from swsjax.sws import (
    HyperPriors,
    LearningRates,
    init,
    init_mixture,
    make_step,
    merge,
    quantize,
    soft,
)
from swsjax.training import take_apart

MIXTURE = init_mixture(-1.0, 1.0)
NET = take_apart(ROUND)
OPTIMIZER = LearningRates().optimizer(1, 1)
MIXTURES = "mixtures must be a dictionary with one mixture per group of weights, ['weights'], got "


def take_step(loss=LOSS, forward=soft):
    """A step of a loop of one's own."""
    state = init(NET, {"weights": MIXTURE}, OPTIMIZER, KEY)
    settings = {"tau": 5e-5, "hyper": HyperPriors()}
    step = make_step(NET.loss(loss), OPTIMIZER, forward=forward, **settings)
    return jax.eval_shape(step, state, DATA)


CASES = [
    Case(
        "weights in place of a net",
        lambda: init(ROUND, {"weights": MIXTURE}, OPTIMIZER, KEY),
        ConfigError,
        "net must be what take_apart returns, got a dict",
    ),
    Case(
        "a mixture without a name",
        lambda: init(NET, MIXTURE, OPTIMIZER, KEY),
        ConfigError,
        MIXTURES + "GaussianMixture",
    ),
    Case(
        "the mixture of a different group",
        lambda: init(NET, {"kernels": MIXTURE}, OPTIMIZER, KEY),
        ConfigError,
        MIXTURES + "['kernels']",
    ),
    Case(
        "a mixture too many",
        lambda: init(NET, {"weights": MIXTURE, "biases": MIXTURE}, OPTIMIZER, KEY),
        ConfigError,
        MIXTURES + "['biases', 'weights']",
    ),
    Case(
        "components in place of a mixture",
        lambda: init(NET, {"weights": 16}, OPTIMIZER, KEY),
        ConfigError,
        "mixtures['weights'] must be a GaussianMixture, got a value of type int; init_mixture "
        "makes one",
    ),
    Case(
        "learning rates in place of their optimiser",
        lambda: init(NET, {"weights": MIXTURE}, LearningRates(), KEY),
        ConfigError,
        "optimizer must be an optax optimiser, got a LearningRates; "
        "LearningRates().optimizer(epochs, steps_per_epoch) makes one over weights and mixtures",
    ),
    Case(
        "the name of a stage as forward",
        lambda: take_step(forward="soft"),
        ConfigError,
        "forward must be soft or hard, the functions, or what hand_over makes, got 'soft'",
    ),
    Case(
        "a loss of each example in a step",
        lambda: take_step(loss=per_example),
        ConfigError,
        "loss_fn must return a scalar, got an array of shape (200,); take the mean over the batch",
    ),
    Case(
        "equal bounds of a mixture",
        lambda: init_mixture(1.0, 1.0),
        ConfigError,
        "the range of the weights must be finite with low < high, got low=1.0, high=1.0; a net "
        "whose weights are all equal or not finite has nothing to share",
    ),
    Case(
        "a counter among the weights to quantise",
        lambda: quantize(MIXTURE, {"steps": jnp.array(3)}),
        ConfigError,
        "weights to quantise must be floating arrays, got steps of type int32; leave it out",
    ),
    Case(
        "a result in place of a mixture",
        lambda: quantize({"weights": MIXTURE}, PARAMS),
        ConfigError,
        "quantize takes one GaussianMixture, got a dict; a result has it as "
        "result.mixtures['weights']",
    ),
    Case(
        "the mixtures of a result, merged all at once",
        lambda: merge({"weights": MIXTURE}),
        ConfigError,
        "merge takes one GaussianMixture, got a dict; the mixtures of a result are a dictionary, "
        "by group",
    ),
]
