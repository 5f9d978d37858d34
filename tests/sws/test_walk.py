"""Runs towards targets: on a linear net with more weights than it needs."""

import json
import re
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interrupting import PowerCutError, interrupt_at
from linear_net import assert_bit_equal
from scipy.stats import sem

import swsjax
from swsjax.errors import CheckpointError, ConfigError, RetrainingError, SwsjaxWarning
from swsjax.sws import budget, targets
from swsjax.sws.budget import retraining_seconds, steps_within
from swsjax.sws.compression import compress
from swsjax.sws.config import Config
from swsjax.sws.moves import GENTLENESS, Move, epochs_of, settings_of, usual_epochs
from swsjax.sws.targets import Level, Targets
from swsjax.sws.walk import allowed, compared, outcome_text, stored_bytes, walk
from swsjax.training import take_apart
from swsjax.training.epochs import compiled_loop
from swsjax.training.loop import feed_of

RNG = np.random.default_rng(0)
TRUE = RNG.choice([0, 0, 0, 0, -1, 1, -0.25, 0.125], (30, 20)).astype(np.float32)
INPUTS = np.float32(RNG.normal(size=(2500, 30)))  # one pass per epoch
DATA = {"x": INPUTS, "y": np.float32(INPUTS @ TRUE)}
PARAMS = {"w": np.float32(TRUE + RNG.normal(0, 0.01, TRUE.shape))}
CONFIG = Config(
    soft_epochs=4,
    hard_epochs=4,
    prune_epochs=2,
    batch_size=50,
    least_steps=50,
    tolerance=1.0,  # one grid to compile
)

JOB = SimpleNamespace(net=None, feed=None, loss_fn=None, evaluate=None)


def loss_fn(params, batch):
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def distance(params):
    """The fraction of the variance of the targets that is not explained."""
    return float(loss_fn(params, DATA) / np.var(DATA["y"]))


def run(config=CONFIG, **arguments):
    return compress(PARAMS, loss_fn, DATA, config, **{"evaluate": distance} | arguments)


PROGRAMS = []


@pytest.fixture(scope="module")
def within():
    return run(max_loss=0.06, callback=lambda _: PROGRAMS.append(compiled_loop._cache_size()))


def test_what_may_be_lost_is_kept(within):
    (outcome,) = within.outcomes
    assert outcome.reached
    assert outcome.loss == distance(outcome.params) <= distance(PARAMS) + 0.06
    assert outcome.file_bytes == len(swsjax.dumps(outcome.params))
    acceptable = [level for level in within.levels if level.loss <= distance(PARAMS) + 0.06]
    assert outcome.file_bytes == min(level.file_bytes for level in acceptable)
    assert_bit_equal(within.params, outcome.params)


def test_levels_get_smaller_and_the_history_is_of_them_all(within):
    cycles = [level for level in within.levels if level.move.kind != "prune"]
    assert len(cycles) >= 3
    assert min(level.file_bytes for level in cycles[1:]) < cycles[0].file_bytes
    lengths = [epochs_of(settings_of(level.move, CONFIG)) for level in within.levels]
    assert [epoch.epoch for epoch in within.history] == [*range(1, sum(lengths) + 1)]
    ends = np.cumsum(lengths)
    usual = usual_epochs(CONFIG)  # what is to come, as long as it is not exceeded
    assert {epoch.epochs for epoch in within.history} == {max(end, usual) for end in ends}
    for level, end in zip(within.levels, ends, strict=True):
        assert within.history[end - 1].error == level.loss


def test_levels_share_compiled_steps(within):
    """Whatever their tau and their length; the three stages differ, and grids."""
    assert {level.move.kind for level in within.levels} == {"anneal", "cycle", "prune"}
    assert len({level.move.tau for level in within.levels}) > 2
    steps = {(epoch.stage, epoch.details.nodes["weights"]) for epoch in within.history}
    assert PROGRAMS[-1] - PROGRAMS[0] + 1 == len(steps) <= 6


def test_few_noisy_examples_are_not_fitted_more_closely_than_by_the_pretrained_net():
    """More weights than examples: trained to the end, they would fit the noise."""
    rng = np.random.default_rng(1)
    x, noise = np.float32(rng.normal(size=(100, 30))), np.float32(rng.normal(size=(100, 20)))
    some, unseen = (
        {"x": x[part], "y": x[part] @ TRUE + noise[part]} for part in np.split(np.arange(100), [25])
    )
    result = compress(PARAMS, loss_fn, some, replace(CONFIG, batch_size=25))
    assert loss_fn(result.params, some) > 0.7 * loss_fn(PARAMS, some)
    assert loss_fn(result.params, unseen) < 2.5 * loss_fn(PARAMS, unseen)


class StoppedError(Exception):
    pass


def stop(epoch):
    raise StoppedError(epoch.epochs)


def test_without_a_budget_long_epochs_are_fewer(monkeypatch):
    monkeypatch.setattr("swsjax.sws.moves._MOST_STEPS", 600)
    with pytest.raises(StoppedError, match=r"^12$"):  # of 50 steps
        run(callback=stop)
    with pytest.raises(StoppedError, match=rf"^{usual_epochs(CONFIG)}$"):
        run(callback=stop, budget=50 * usual_epochs(CONFIG))


def test_targets_in_bytes_are_kept_in_one_run(within):
    sizes = sorted({level.file_bytes for level in within.levels})
    wanted = sizes[-1] + 10, sizes[-3]
    result = run(target_bytes=wanted[::-1])
    assert_bit_equal(result.params, result.outcomes[-1].params)
    for outcome, size in zip(result.outcomes, wanted, strict=True):
        assert outcome.reached
        assert len(swsjax.dumps(outcome.params)) == outcome.file_bytes <= size
        below = [level for level in result.levels if level.file_bytes <= size]
        assert outcome.loss == min(level.loss for level in below)


def test_a_net_that_no_annealing_keeps_is_rounded(monkeypatch):
    """No weight may change by more than a hundredth of the largest: few levels are too few."""
    monkeypatch.setattr(targets, "GENTLENESS", GENTLENESS[:1])
    largest = np.abs(PARAMS["w"]).max()
    result = run(
        evaluate=lambda params: np.abs(params["w"] - PARAMS["w"]).max(), max_loss=0.01 * largest
    )
    assert [level.move.kind for level in result.levels] == ["anneal", "round"]
    assert result.outcomes[0].reached
    np.testing.assert_allclose(result.retrained["w"], PARAMS["w"], rtol=1e-6)
    half = np.ptp(PARAMS["w"]) / 254 / 2  # of the distance of means, which have eight bits, too
    assert np.abs(result.params["w"] - PARAMS["w"]).max() <= 1.001 * half + 2**-8 * largest
    assert np.unique(result.params["w"]).size <= 256
    assert len(result.history) == CONFIG.soft_epochs + CONFIG.hard_epochs


def test_a_target_out_of_reach_is_said():
    with pytest.warns(SwsjaxWarning, match=r"^40 bytes not reached: ") as warned:
        result = run(replace(CONFIG, soft_epochs=2, hard_epochs=2), max_loss=0.005, target_bytes=40)
    (outcome,) = result.outcomes
    assert str(warned[0].message) == str(outcome) == outcome.text
    assert not outcome.reached
    assert outcome.loss <= distance(PARAMS) + 0.005
    assert warned[0].filename == __file__


def test_without_validation_data_the_first_net_that_keeps_its_loss():
    result = run(evaluate=None)
    assert len(result.levels) == 1 or result.levels[-2].loss > result.levels[-1].loss
    assert result.outcomes[0].reached
    # Of the loss that a net of zeros has.
    most = 0.01 * np.mean(DATA["y"] ** 2)
    assert loss_fn(result.params, DATA) < loss_fn(PARAMS, DATA) + 1.1 * most


def test_the_default_is_half_a_percent_of_what_training_gained():
    net = take_apart(PARAMS)

    def measure(weights, carried):
        return np.array(distance(net.rebuild(weights, carried)[0]))

    before, most = allowed(measure, net, None)
    assert before == pytest.approx(distance(PARAMS), rel=1e-5)
    zeros = distance({"w": np.zeros_like(TRUE)})
    assert most == pytest.approx(0.005 * (zeros - before))
    assert zeros > 0.99
    assert allowed(measure, net, 0.3) == (before, 0.3)


def test_losses_of_examples_are_compared_in_pairs():
    rng = np.random.default_rng(0)
    before = rng.normal(5, 3, 200)
    after = before + rng.normal(0.1, 0.2, 200)
    loss, noise = compared(after, before)
    assert loss == pytest.approx(after.mean())
    assert noise == pytest.approx(sem(after - before))
    assert compared(np.array(0.3), np.array(0.1)) == (0.3, 0.0)
    assert compared(np.array([0.3]), np.array([0.1])) == (0.3, 0.0)


def test_other_examples_than_before():
    message = (
        "evaluate returned losses of shape (3,) for the pretrained net, and of shape (2,) for a "
        "smaller one: use the same examples each time"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        compared(np.ones(2), np.ones(3))


def test_levels_are_within_the_loss_by_more_than_their_noise(within):
    def of_each(params):
        """What is not explained, input by input: its mean is the distance."""
        return jnp.mean((INPUTS @ params["w"] - DATA["y"]) ** 2, axis=1) / np.var(DATA["y"])

    result = run(evaluate=of_each, max_loss=0.06)
    first, other = result.levels[0], within.levels[0]
    assert first.loss == pytest.approx(other.loss)
    assert (first.noise > 0, other.noise) == (True, 0.0)
    (outcome,) = result.outcomes
    noise = sem(of_each(result.params) - of_each(PARAMS))
    assert outcome.loss == pytest.approx(distance(result.params))
    assert outcome.loss + noise <= distance(PARAMS) + 0.06
    assert outcome.text.endswith(f", with a standard error of {noise:.1g} (0.06 allowed)")
    assert result.history[-1].error is not None
    assert outcome.file_bytes >= within.outcomes[0].file_bytes


def test_an_accuracy_in_place_of_an_error():
    with pytest.raises(ConfigError, match=r"return an error, not an accuracy, or pass max_loss$"):
        run(evaluate=lambda params: 1 - distance(params))


def test_interrupted_at_any_time_and_started_again(tmp_path, within):
    for last in (8, 19):
        with pytest.raises(PowerCutError):
            run(max_loss=0.06, resume=tmp_path, callback=interrupt_at(last))
    seen = []
    resumed = run(max_loss=0.06, resume=tmp_path, callback=seen.append)
    assert seen[0].epoch == 20
    assert resumed.levels == within.levels
    assert_bit_equal(resumed.params, within.params)
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in within.history]
    # Another target goes on from the levels on disk.
    seen.clear()

    def note(epoch):
        seen.append(epoch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(max_loss=0.005, resume=tmp_path, callback=note)
    assert seen[0].epoch > 8


def test_a_walk_whose_levels_are_all_lost_raises():
    def lost(*_):
        raise RetrainingError("every weight is zero")

    with pytest.raises(RetrainingError, match=r"^every weight is zero$"):
        walk(lost, lambda state: (0.0, 0), Targets(0.0, 1.0), CONFIG, tau=1e-3)


def test_bytes_count_statistics_and_leave_out_what_a_file_cannot_hold():
    params = {"w": np.float32(RNG.normal(size=100)), "f": max}
    alone = stored_bytes(params, None)
    assert alone == len(swsjax.dumps({"w": params["w"]}))
    aux = {"mean": np.float32(RNG.normal(size=100)), "steps": np.int32(3)}
    assert stored_bytes(params, aux) > alone + 400


def test_what_is_said_of_a_net_that_lost_too_much():
    levels = [Level(Move("anneal", None, 1e-7), 0.5, 900)]
    reached, text = outcome_text(levels, 0, Targets(0.01, 0.02), None)
    assert not reached
    assert text == (
        "not reached: the net that keeps most has 900 bytes at a loss of 0.5, 0.49 above the "
        "pretrained net (0.01 allowed)"
    )


def test_what_is_said_of_a_net_whose_loss_the_examples_do_not_tell():
    levels = [Level(Move("anneal", None, 1e-7), 0.01, 900, noise=0.03)]
    assert outcome_text(levels, 0, Targets(0.01, 0.03), None) == (
        True,
        "900 bytes at a loss of 0.01, 0 above the pretrained net, with a standard error of 0.03 "
        "(0.02 allowed); to go on, evaluate more examples, or allow more",
    )


def epochs(result):
    return len(result.history)


BUDGET = 15 * 50  # steps


@pytest.fixture(scope="module")
def short():
    return run(max_loss=0.06, budget=BUDGET)


def test_a_budget_is_kept_and_makes_every_stage_shorter(short, within):
    assert epochs(short) * 50 <= BUDGET + 2 * 50  # the first net is made in any case
    assert epochs(short) < epochs(within)


def test_the_end_of_the_budget_is_said():
    with pytest.warns(SwsjaxWarning, match="the budget of 100 steps ended the run"):
        result = run(target_bytes=40, budget=100)
    assert len(result.levels) == 1
    assert not result.outcomes[0].reached


@pytest.mark.parametrize("budget", [0, -5, 2.5, True, "10k", timedelta(0)])
def test_a_budget_is_a_number_of_steps_or_a_time(budget):
    message = f"budget must be a positive number of steps, or a positive timedelta, got {budget!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        run(budget=budget)


def test_a_time_is_a_number_of_steps_which_is_kept(tmp_path, monkeypatch, short):
    time_of_all = timedelta(seconds=BUDGET / 2)
    monkeypatch.setattr(budget, "retraining_seconds", lambda *_: 0.5)
    in_time = run(max_loss=0.06, budget=time_of_all, resume=tmp_path)
    note = json.loads((tmp_path / "budget.json").read_text())
    assert note == {"seconds": BUDGET / 2, "steps": BUDGET}
    assert_bit_equal(in_time.params, short.params)
    monkeypatch.setattr(budget, "retraining_seconds", None)
    again = run(max_loss=0.06, budget=time_of_all, resume=tmp_path)
    assert_bit_equal(again.params, in_time.params)


def test_another_time_is_measured_again(tmp_path, monkeypatch):
    (tmp_path / "budget.json").write_text('{"seconds": 1.0, "steps": 7}')
    monkeypatch.setattr(budget, "retraining_seconds", lambda *_: 0.5)
    assert steps_within(timedelta(seconds=1), JOB, tmp_path) == 7
    assert steps_within(timedelta(seconds=3), JOB, tmp_path) == 6
    assert steps_within(timedelta(microseconds=1), JOB, None) == 1


def test_a_damaged_number_of_steps(tmp_path):
    note = tmp_path / "budget.json"
    note.write_text('{"seconds": 1.0}')
    message = f"{note} is damaged; delete it to measure again"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        steps_within(timedelta(seconds=1), JOB, tmp_path)


def test_steps_that_take_longer_are_fewer():
    net = take_apart(PARAMS)
    feed = feed_of(DATA, 50)

    def slow(params, batch):
        return loss_fn(params, batch) + jax.pure_callback(waited, jnp.float32(0), batch["x"][0, 0])

    def waited(value):
        time.sleep(0.02)
        return np.float32(value)

    plain, slowed, evaluated = (
        retraining_seconds(net.loss(loss), net, feed, evaluate)
        for loss, evaluate in [
            (loss_fn, None),
            (slow, None),
            (loss_fn, lambda: time.sleep(0.02 * feed.steps)),
        ]
    )
    assert slowed > plain + 0.02
    assert evaluated > plain / 10 + 0.02


def test_a_budget_is_for_runs_towards_targets():
    with pytest.raises(ConfigError, match="max_loss, target_bytes and budget: pass one of them"):
        run(Config(tau=1e-6), budget=1_000)
