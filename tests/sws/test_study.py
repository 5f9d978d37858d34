"""A search: its front, its budget, its workers, and what happens when they die."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgres import INITDB, server
from search_worker import BASE, error, find, run

import swsjax
from swsjax import Config, Rates
from swsjax.sws.study import MARGIN, is_hopeless

optuna = pytest.importorskip("optuna")

WORKER = Path(__file__).parent / "search_worker.py"


def start(storage, trials, *slow):
    return subprocess.Popen(
        [sys.executable, WORKER, str(storage), str(trials), *slow],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=WORKER.parent,
    )


def end(*workers):
    """Wait for workers; none has failed, and none has printed anything to stderr."""
    for worker in workers:
        _, said = worker.communicate(timeout=300)
        assert (worker.returncode, said) == (0, "")


def states(front):
    return len(front.points) + len(front.beaten) + front.pruned


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "search.journal"
    find(path, 8)
    return path


@pytest.fixture(scope="module")
def front(storage):
    return find(storage, 8)  # nothing is left to do


def test_no_point_of_the_front_is_beaten(front):
    every = [*front.points, *front.beaten]
    for point in front.points:
        assert not any(
            other.error <= point.error
            and other.file_bytes <= point.file_bytes
            and (other.error, other.file_bytes) != (point.error, point.file_bytes)
            for other in every
        )
    for point in front.beaten:
        assert any(
            other.error <= point.error and other.file_bytes <= point.file_bytes
            for other in front.points
        )
    sizes = [point.file_bytes for point in front.points]
    assert sizes == sorted(sizes)


def test_settings_of_a_point_give_its_file_and_its_error(front):
    for point in (front.points[0], front.points[-1]):
        result = run(point.config, evaluate=error)
        assert len(swsjax.dumps(result.params)) == point.file_bytes
        assert error(result.params) == point.error


def test_the_first_trial_is_the_base(front):
    (first,) = (point for point in [*front.points, *front.beaten] if point.trial == 0)
    assert first.config == BASE


def test_front_as_json_and_table(front):
    content = json.loads(json.dumps(front.to_dict()))
    assert content["pruned"] == front.pruned
    for written, point in zip(content["front"], front.points, strict=True):
        assert Config.from_dict(written.pop("config")) == point.config
        assert written == {
            "trial": point.trial, "error": point.error, "file_bytes": point.file_bytes
        }  # fmt: skip
    header, *rows, empty, summary = str(front).splitlines()
    assert header.split() == [
        *("trial", "bytes", "error", "tau", "pi_zero", "components", "precisions", "kept")
    ]
    assert [int(row.split()[0]) for row in rows] == [point.trial for point in front.points]
    assert empty == ""
    assert summary == f"{8 - front.pruned} trials completed, {front.pruned} pruned"


def test_the_same_seed_makes_the_same_search_however_often_it_is_interrupted(tmp_path, front):
    for trials in (1, 3, 8):
        again = find(tmp_path / "search.journal", trials)
        assert states(again) == trials
    assert again == front
    assert (
        find(tmp_path / "other.journal", 2, seed=1).to_dict()
        != find(tmp_path / "third.journal", 2).to_dict()
    )


def test_studies_in_one_storage_are_apart(tmp_path):
    assert states(find(tmp_path / "search.journal", 2, name="one")) == 2
    assert states(find(tmp_path / "search.journal", 1, name="another")) == 1


def test_a_space_of_ones_own(tmp_path):
    def space(trial, base):
        return replace(base, merge_threshold=trial.suggest_float("merge", 0.1, 1.0))

    front = find(tmp_path / "search.journal", 3, space=space)
    thresholds = {point.config.merge_threshold for point in [*front.points, *front.beaten]}
    assert len(thresholds) == 3


def test_aux_goes_to_evaluate(tmp_path):
    def with_aux(config, *, evaluate, callback):
        return run(config, evaluate=error)._replace(aux={"scale": 2.0})

    front = find(
        tmp_path / "search.journal",
        1,
        compress=with_aux,
        evaluate=lambda params, aux: aux["scale"] * error(params),
    )
    assert front.points[0].error == 2 * error(run(BASE, evaluate=error).params)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (swsjax.RetrainingError("every weight is zero"), "every weight is zero"),
        (None, "the error is nan"),
    ],
)
def test_a_trial_without_a_net_counts_as_pruned_and_says_why(tmp_path, broken, reason):
    def breaking(config, *, evaluate, callback):
        if broken is not None:
            raise broken
        return run(config, evaluate=evaluate)

    storage = tmp_path / "search.journal"
    front = find(storage, 2, compress=breaking, evaluate=lambda params: np.nan)
    assert (front.points, front.beaten, front.pruned) == ((), (), 2)
    backend = optuna.storages.journal.JournalFileBackend(str(storage))
    study = optuna.load_study(study_name="swsjax", storage=optuna.storages.JournalStorage(backend))
    assert [trial.user_attrs["pruned"] for trial in study.trials] == [reason, reason]


def test_a_hopeless_trial_is_stopped_half_way_through_the_hard_stage(tmp_path):
    seen = []

    def space(trial, base):
        return replace(base, components=1000, tau=1e-9)  # hardly smaller than it was

    def worse(params):
        return error(params) + (1.0 if seen and seen[-1][0] else 0.01)

    front = find(
        tmp_path / "search.journal",
        2,
        evaluate=worse,
        space=space,
        callback=lambda trial, progress: seen.append((trial, progress.epoch)),
    )
    assert (len(front.points), front.pruned) == (1, 1)
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]


def test_a_net_that_only_guesses_is_stopped_half_way(tmp_path):
    seen, storage = [], tmp_path / "search.journal"

    def space(trial, base):
        return replace(base, tau=100.0)  # nothing is left

    def watch(trial, progress):
        seen.append((trial, progress.epoch))

    front = find(storage, 2, max_error=0.5, space=space, callback=watch)
    assert [point.trial for point in front.points] == [0]
    assert (front.beaten, front.pruned) == ((), 1)
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert all(point.error <= 0.5 for point in front.points)
    # Without the limit it is the smallest.
    front = find(tmp_path / "other.journal", 2, space=space)
    assert [point.trial for point in front.points] == [1, 0]


def test_a_net_that_guesses_at_the_end_is_not_on_the_front(tmp_path):
    def unwatched(config, *, evaluate, callback):
        return run(config, evaluate=evaluate)

    front = find(tmp_path / "search.journal", 1, compress=unwatched, max_error=1e-9)
    assert (front.points, front.beaten, front.pruned) == ((), (), 1)


def test_bytes_half_way_count_what_pruning_will_leave(tmp_path):
    """The trial that is stopped above is not, if it is to be pruned to a hundredth."""
    base = replace(BASE, prune_epochs=1, kept=1.0)

    def space(trial, base):
        return replace(base, components=1000, tau=1e-9, kept=0.01)

    def worse(params):
        return error(params) + 0.01 * len(np.unique(params["w"]))

    assert find(tmp_path / "one", 2, base=base, evaluate=worse, space=space).pruned == 0
    assert find(tmp_path / "two", 2, evaluate=worse, space=space).pruned == 1


@given(
    mark=st.tuples(st.floats(0, 1), st.floats(1, 1e6)),
    others=st.lists(st.tuples(st.floats(0, 1), st.floats(1, 1e6)), max_size=5),
)
def test_hopeless_only_where_beaten_in_both_by_the_margin(mark, others):
    expected = [
        (error, size)
        for error, size in others
        if mark[0] > MARGIN * error and mark[1] > MARGIN * size
    ]
    assert is_hopeless(mark, others) == bool(expected)
    assert not is_hopeless(mark, [mark])


def test_workers_share_the_budget_of_a_file(tmp_path):
    storage = tmp_path / "search.journal"
    end(*(start(storage, 9) for _ in range(3)))
    front = find(storage, 9)
    assert 9 <= states(front) <= 11  # each worker ends the trial that it is at
    numbers = [point.trial for point in [*front.points, *front.beaten]]
    assert len(set(numbers)) == len(numbers)


def killed_in_a_trial(storage, trials):
    """Kill one worker within a trial, while another goes on; the killed one's trial."""
    worker = start(storage, trials, "slow")
    for _ in range(4):  # three epochs a trial: it is in its second
        number = int(worker.stdout.readline())
    other = start(storage, trials)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    end(other)
    return number


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_a_killed_worker_costs_its_trial_only(tmp_path):
    storage = tmp_path / "search.journal"
    lost = killed_in_a_trial(storage, 4)
    front = find(storage, 4)
    assert states(front) == 4
    assert lost not in [point.trial for point in [*front.points, *front.beaten]]
    assert states(find(storage, 5)) == 5


def test_search_with_compress(tmp_path):
    weights = np.float32(np.random.default_rng(0).choice([-1, 0, 0, 1], (20, 10)))
    inputs = np.float32(np.random.default_rng(1).normal(size=(200, 20)))
    data = {"x": inputs, "y": inputs @ weights}

    def loss_fn(params, batch):
        return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)

    base = Config(tau=1e-3, components=4, soft_epochs=1, hard_epochs=1, least_steps=1)
    real = partial(swsjax.compress, {"w": weights + 0.01}, loss_fn, data)
    front = find(
        tmp_path / "search.journal",
        2,
        compress=real,
        base=base,
        evaluate=lambda params: loss_fn(params, data),
    )
    assert states(front) == 2
    point = front.points[0]
    again = real(point.config)
    assert len(swsjax.dumps(again.params)) == point.file_bytes
    assert float(loss_fn(again.params, data)) == point.error


@pytest.fixture(scope="module")
def database():
    if INITDB is None:
        pytest.skip("PostgreSQL is not installed (no initdb found)")
    with server() as url:
        yield url


def test_two_workers_on_postgresql(database):
    end(start(database, 6), start(database, 6))  # on an empty database, both at once
    front = find(database, 6)
    assert 6 <= states(front) <= 7


def test_a_killed_worker_on_postgresql(database):
    """Its heart beats no longer, so another worker fails its trial."""
    before = states(find(database, 1))
    lost = killed_in_a_trial(database, before + 4)
    front = find(database, before + 4)
    assert states(front) == before + 4
    assert lost not in [point.trial for point in [*front.points, *front.beaten]]
    time.sleep(3)
    end(start(database, before + 5))
    storage = optuna.storages.RDBStorage(database)
    study = optuna.load_study(study_name="swsjax", storage=storage)
    assert study.trials[lost].state == optuna.trial.TrialState.FAIL
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        BASE,
        Config(tau=jnp.float32(0.1), kept=np.float64(0.3), hard_rates=Rates(weights=1e-5)),
        Config(hyper_priors=swsjax.HyperPriors(pi_zero=swsjax.Beta(3.0, 2.0)), method="exact"),
    ],
)
def test_a_config_survives_json(config):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert list(config.to_dict()) == [field.name for field in fields(Config)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([1], "settings of Config must be a dictionary, got [1]"),
        ({"soft_rates": 3}, "settings of Rates must be a dictionary, got 3"),
        (
            {"hard_rates": {"weight": 1e-3}},
            "Rates has no setting 'weight'; it has 'weights', 'means', 'precisions', 'mixing', "
            "'warmup_epochs', 'final', 'epsilon'",
        ),
        (
            {"hyper_priors": {"precision": {"shape": 1.0}}},
            "Gamma needs shape and rate, got {'shape': 1.0}",
        ),
        ({"kept": 2}, "kept must be over 0 and at most 1, got 2"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(swsjax.ConfigError) as raised:
        Config.from_dict(settings)
    assert str(raised.value) == message


def test_settings_that_cannot_be_written_down():
    schedule = optax.constant_schedule(0.1)
    with pytest.raises(swsjax.ConfigError) as raised:
        Config(tau=schedule).to_dict()
    assert str(raised.value) == f"tau must be a number to be written down, got {schedule!r}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compress": {}}, "compress must be a function, got a dict"),
        ({"evaluate": None}, "evaluate must be a function, got a NoneType"),
        ({"callback": 3}, "callback must be a function, got a int"),
        ({"space": lambda trial, base: None}, "space must return a Config, got a NoneType"),
        ({"base": 0.1}, "base must be a Config, got a float"),
        ({"trials": 0}, "trials must be a number of at least 1, got 0"),
        ({"max_error": 0}, "max_error must be a number greater than 0, got 0"),
        ({"max_error": "5 %"}, "max_error must be a number greater than 0, got '5 %'"),
        ({"seed": -1}, "seed must be a number of at least 0, got -1"),
        (
            {"base": replace(BASE, tau=None)},
            "space_around samples tau around the base's, so that must be a number, got None; the "
            "default of compress is 1.1e-06 for each training example",
        ),
    ],
)
def test_arguments_of_another_kind(tmp_path, arguments, message):
    with pytest.raises(swsjax.ConfigError) as raised:
        find(tmp_path / "search.journal", **{"trials": 1} | arguments)
    assert str(raised.value) == message


def test_a_storage_that_is_none(tmp_path):
    with pytest.raises(TypeError) as raised:
        find(3, 1)
    assert (
        str(raised.value)
        == "expected a path, got a int; storage is a file, or the URL of a database"
    )


def test_a_database_that_is_not_there():
    pytest.importorskip("psycopg")
    with pytest.raises(swsjax.ConfigError) as raised:
        find("postgresql+psycopg://me:secret@127.0.0.1:1/none", 1)
    message = str(raised.value)
    assert message.startswith(
        "the database postgresql+psycopg://me:***@127.0.0.1:1/none cannot be used: "
    )
    assert "secret" not in message


def test_a_study_that_began_with_other_settings(storage):
    with pytest.raises(swsjax.CheckpointError) as raised:
        find(storage, 1, base=replace(BASE, kept=0.5))
    assert str(raised.value) == (
        "the study 'swsjax' in this storage began with other settings; give another name or storage"
    )


def test_missing_optuna_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError) as raised:
        find(tmp_path / "search.journal", 1)
    assert str(raised.value) == "a search needs optuna: pip install 'swsjax[search]'"
