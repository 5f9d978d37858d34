"""A run whose net no longer learns ends early, and says why."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.errors import RetrainingError
from swsjax.sws import LEARNED, LearningRates, compress
from swsjax.sws.plateau import check_learning
from swsjax.training import Epoch

RNG = np.random.default_rng(0)
INPUTS = np.float32(RNG.normal(size=(400, 8)))
TRUE = RNG.normal(size=(8, 6)), RNG.normal(size=(6, 4))
DATA = {"x": INPUTS, "y": np.argmax(np.maximum(INPUTS @ TRUE[0], 0) @ TRUE[1], axis=1)}
PARAMS = {"hidden": np.float32(2 * TRUE[0]), "out": np.float32(2 * TRUE[1])}


def loss_fn(params, batch):
    logits = jax.nn.relu(batch["x"] @ params["hidden"]) @ params["out"]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(logits)), batch["y"]])


def epochs(losses, stages=None):
    stages = stages or ["hard"] * len(losses)
    return [
        Epoch(stage, number, 40, loss, non_zeros=1360)
        for number, (stage, loss) in enumerate(zip(stages, losses, strict=True), 1)
    ]


def check(history, first=0.05, lost=()):
    check_learning(history, lambda: first, lambda: list(lost))


@pytest.mark.parametrize(
    "history",
    [
        epochs([2.3] * 4),  # too early to say
        epochs([2.3, 2.3, 2.3, 2.3, 2.2]),  # it moves
        epochs([2.3] * 8, ["soft"] * 4 + ["hard"] * 4),  # a stage has only begun
        epochs([0.9, 0.3] + [0.1] * 5),  # it has learned, and the learning rate is small
    ],
)
def test_a_run_that_may_still_learn_goes_on(history):
    check(history)


@pytest.mark.parametrize("first", [2.0, 1.2, -1.0])
def test_a_loss_that_stands_still_near_its_start_is_fine(first):
    check(epochs([2.3] * 9), first)


def test_the_message_names_what_is_left():
    message = (
        "the net no longer learns: its loss has been 2.3 for 5 epochs (hard stage, epoch 6 of 40), "
        "while that of the given net is 0.05. 1,360 weights are left, too few to learn with; "
        "lower tau or pi_zero, or raise soft_epochs"
    )
    with pytest.raises(RetrainingError, match=f"^{re.escape(message)}$"):
        check(epochs([2.4] + [2.3] * 5))


def test_a_kernel_of_zeros_ends_a_run_though_its_loss_has_fallen():
    with pytest.raises(RetrainingError, match="Every weight of out is zero"):
        check(epochs([4.9] + [2.3] * 5), lost=["out"])


def test_a_loss_that_fell_in_another_stage_only_ends_a_run():
    with pytest.raises(RetrainingError, match="too few to learn with"):
        check(epochs([4.9] + [2.3] * 5, ["soft"] + ["hard"] * 5))


def test_a_net_with_a_dead_layer_ends_early():
    """The zero component is wider than the weights of a layer, which gets no gradient."""
    config = replace(
        LEARNED,
        components=4,
        pi_zero=0.9999,
        initial_std=0.2,
        soft_epochs=0,
        hard_epochs=40,
        hard_learning_rates=LearningRates(weights=1e-4, precisions=0.0, means=0.0),
        batch_size=50,
        least_steps=1,
        tau=2.5e-9,
    )
    params = PARAMS | {"hidden": PARAMS["hidden"] / 100}

    def scaled(params, batch):
        return loss_fn(params | {"hidden": 100 * params["hidden"]}, batch)

    message = r"\. Every weight of hidden is zero, so no gradient passes; lower tau"
    with pytest.raises(RetrainingError, match=message) as raised:
        compress(params, scaled, DATA, config)
    assert "epoch 5 of 40" in str(raised.value)
