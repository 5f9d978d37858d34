"""A search: its front, its number of trials, which trials it stops, and its arguments."""

import json
import sys
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from search_worker import BASE, error, find, finished, run

import swsjax
from swsjax import Config
from swsjax.errors import CheckpointError, ConfigError, RetrainingError
from swsjax.sws.config import LEARNED
from swsjax.sws.study import MARGIN, Study, check_study, is_hopeless

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "search.journal"
    find(path, 8)
    return path


@pytest.fixture(scope="module")
def front(storage):
    return find(storage, 8)  # runs nothing: the study is complete


def test_no_point_of_the_front_is_dominated(front):
    every = [*front.points, *front.dominated]
    for point in front.points:
        assert not any(
            other.error <= point.error
            and other.file_bytes <= point.file_bytes
            and (other.error, other.file_bytes) != (point.error, point.file_bytes)
            for other in every
        )
    for point in front.dominated:
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
    (first,) = (point for point in [*front.points, *front.dominated] if point.trial == 0)
    assert first.config == BASE


def test_front_as_json_and_table(front):
    content = json.loads(json.dumps(front.to_dict()))
    assert content["stopped"] == front.stopped
    for written, point in zip(content["front"], front.points, strict=True):
        assert Config.from_dict(written.pop("config")) == point.config
        assert written == {
            "trial": point.trial, "error": point.error, "file_bytes": point.file_bytes
        }  # fmt: skip
    header, *rows, empty, summary = str(front).splitlines()
    assert header.split() == [
        *("trial", "bytes", "error", "tau", "pi_zero", "components", "precisions", "keep")
    ]
    assert [int(row.split()[0]) for row in rows] == [point.trial for point in front.points]
    assert empty == ""
    assert summary == f"{8 - front.stopped} trials completed, {front.stopped} stopped early"


def test_same_seed_same_search_however_often_it_is_interrupted(tmp_path, front):
    for trials in (1, 3, 8):
        again = find(tmp_path / "search.journal", trials)
        assert finished(again) == trials
    assert again == front
    assert (
        find(tmp_path / "other.journal", 2, seed=1).to_dict()
        != find(tmp_path / "third.journal", 2).to_dict()
    )


def test_studies_in_one_storage_are_independent(tmp_path):
    assert finished(find(tmp_path / "search.journal", 2, name="one")) == 2
    assert finished(find(tmp_path / "search.journal", 1, name="another")) == 1


def test_custom_space(tmp_path):
    def space(trial, base):
        return replace(base, merge_threshold=trial.suggest_float("merge", 0.1, 1.0))

    front = find(tmp_path / "search.journal", 3, space=space)
    thresholds = {point.config.merge_threshold for point in [*front.points, *front.dominated]}
    assert len(thresholds) == 3


def test_aux_is_passed_to_evaluate(tmp_path):
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
        (RetrainingError("every weight is zero"), "every weight is zero"),
        (None, "the error is nan"),
    ],
)
def test_trial_without_a_net_counts_as_stopped_and_records_why(tmp_path, broken, reason):
    def breaking(config, *, evaluate, callback):
        if broken is not None:
            raise broken
        return run(config, evaluate=evaluate)

    storage = tmp_path / "search.journal"
    front = find(storage, 2, compress=breaking, evaluate=lambda params: np.nan)
    assert (front.points, front.dominated, front.stopped) == ((), (), 2)
    backend = optuna.storages.journal.JournalFileBackend(str(storage))
    study = optuna.load_study(study_name="swsjax", storage=optuna.storages.JournalStorage(backend))
    assert [trial.user_attrs["stopped"] for trial in study.trials] == [reason, reason]


def test_hopeless_trial_is_stopped_half_way_through_the_hard_stage(tmp_path):
    seen = []

    def space(trial, base):
        return replace(base, components=1000, tau=1e-9)  # nearly as large as the net itself

    def worse(params):
        return error(params) + (1.0 if seen and seen[-1][0] else 0.01)

    front = find(
        tmp_path / "search.journal",
        2,
        evaluate=worse,
        space=space,
        callback=lambda trial, epoch: seen.append((trial, epoch.epoch)),
    )
    assert (len(front.points), front.stopped) == (1, 1)
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]


def test_net_that_only_guesses_is_stopped_half_way(tmp_path):
    seen, storage = [], tmp_path / "search.journal"

    def space(trial, base):
        return replace(base, tau=100.0)  # every weight becomes zero

    def watch(trial, epoch):
        seen.append((trial, epoch.epoch))

    front = find(storage, 2, max_error=0.5, space=space, callback=watch)
    assert [point.trial for point in front.points] == [0]
    assert (front.dominated, front.stopped) == ((), 1)
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert all(point.error <= 0.5 for point in front.points)
    # Without the limit it is on the front, as the smallest net.
    front = find(tmp_path / "other.journal", 2, space=space)
    assert [point.trial for point in front.points] == [1, 0]


def test_net_that_guesses_at_the_end_is_not_on_the_front(tmp_path):
    def unwatched(config, *, evaluate, callback):
        return run(config, evaluate=evaluate)

    front = find(tmp_path / "search.journal", 1, compress=unwatched, max_error=1e-9)
    assert (front.points, front.dominated, front.stopped) == ((), (), 1)


def test_bytes_half_way_are_those_after_pruning(tmp_path):
    """The trial that was stopped above is not, if pruning keeps a hundredth."""
    base = replace(BASE, prune_epochs=1, keep=1.0)

    def space(trial, base):
        return replace(base, components=1000, tau=1e-9, keep=0.01)

    def worse(params):
        return error(params) + 0.01 * len(np.unique(params["w"]))

    assert find(tmp_path / "one", 2, base=base, evaluate=worse, space=space).stopped == 0
    assert find(tmp_path / "two", 2, evaluate=worse, space=space).stopped == 1


FACTORS = st.floats(0.1, 10.0)
MARK = st.tuples(st.floats(1e-3, 1), st.floats(1, 1e6))


def times(mark, factors):
    return mark[0] * factors[0], mark[1] * factors[1]


@example((0.5, 100.0), (1.4, 1.6))
@example((0.5, 100.0), (1.6, 1.4))
@example((0.5, 100.0), (1.6, 1.6))
@given(MARK, st.tuples(FACTORS, FACTORS))
def test_hopeless_only_if_another_is_better_in_both_by_the_margin(mark, factors):
    is_worse = min(factors) > MARGIN * (1 + 1e-9)
    is_near = not is_worse and min(factors) >= MARGIN * (1 - 1e-9)
    if not is_near:  # there, rounding decides
        assert is_hopeless(times(mark, factors), [mark]) == is_worse


@given(MARK, st.lists(MARK, max_size=5), st.lists(MARK, max_size=5))
def test_hopeless_if_any_of_the_others_is_better(mark, some, more):
    assert not is_hopeless(mark, [])
    assert is_hopeless(mark, some + more) == (is_hopeless(mark, some) or is_hopeless(mark, more))
    assert not is_hopeless(mark, [mark])


def test_search_with_compress(tmp_path):
    weights = np.float32(np.random.default_rng(0).choice([-1, 0, 0, 1], (20, 10)))
    inputs = np.float32(np.random.default_rng(1).normal(size=(200, 20)))
    data = {"x": inputs, "y": inputs @ weights}

    def loss_fn(params, batch):
        return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)

    base = replace(
        LEARNED,
        tau=5e-6,
        components=4,
        soft_epochs=0,
        hard_epochs=1,
        least_steps=1,
        prior="exact",  # no grid to compile
    )
    real = partial(swsjax.compress, {"w": weights + 0.01}, loss_fn, data)
    front = find(
        tmp_path / "search.journal",
        2,
        compress=real,
        base=base,
        evaluate=lambda params: loss_fn(params, data),
    )
    assert finished(front) == 2
    point = front.points[0]
    again = real(point.config)
    assert len(swsjax.dumps(again.params)) == point.file_bytes
    assert float(loss_fn(again.params, data)) == point.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compress": {}}, "compress must be a function, got a dict"),
        ({"evaluate": None}, "evaluate must be a function, got a NoneType"),
        ({"callback": 3}, "callback must be a function, got a int"),
        ({"space": lambda trial, base: None}, "space must return a Config, got a NoneType"),
        ({"base": 0.1}, "base must be a Config, got a float"),
        ({"trials": 0}, "trials must be an integer of at least 1, got 0"),
        ({"max_error": 0}, "max_error must be a number greater than 0, got 0"),
        ({"max_error": "5 %"}, "max_error must be a number greater than 0, got '5 %'"),
        ({"trials": True}, "trials must be an integer of at least 1, got True"),
        ({"callback": 0}, "callback must be a function, got a int"),
        ({"seed": -1}, "the seed of a study must be an integer of at least 0, got -1"),
        ({"seed": 0.5}, "the seed of a study must be an integer of at least 0, got 0.5"),
        (
            {"base": replace(BASE, tau=None)},
            "space_around samples tau around that of the base, which must be a number, got None",
        ),
    ],
)
def test_invalid_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError) as raised:
        find(tmp_path / "search.journal", **{"trials": 1} | arguments)
    assert str(raised.value) == message


def test_a_file_in_place_of_a_study():
    with pytest.raises(ConfigError) as raised:
        swsjax.search(run, BASE, evaluate=error, study="search.journal")
    assert str(raised.value) == "study must be a Study, got a str"


def test_invalid_storage(tmp_path):
    with pytest.raises(TypeError) as raised:
        find(3, 1)
    assert (
        str(raised.value)
        == "expected a path, got a int; storage is a file, or the URL of a database"
    )


def test_missing_database():
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigError) as raised:
        find("postgresql+psycopg://me:secret@127.0.0.1:1/none", 1)
    message = str(raised.value)
    assert message.startswith(
        "the database postgresql+psycopg://me:***@127.0.0.1:1/none cannot be used: "
    )
    assert "secret" not in message


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://me:secret@host/name", "needs a driver: No module named 'MySQLdb'"),
        ("none://me:secret@host/name", "cannot be used: Can't load plugin: "),
        ("postgresql+psycopg://me:secret@host:port/name", "cannot be used: invalid literal for "),
    ],
)
def test_a_database_that_cannot_be_used(url, reason):
    for use in (lambda: find(url, 1), lambda: check_study(Study(url), BASE)):
        with pytest.raises(ConfigError) as raised:
            use()
        message = str(raised.value)
        assert message.startswith(f"the database {url.replace('secret', '***')} {reason}")
        assert "secret" not in message


@pytest.mark.parametrize(
    "content",
    [b"To do", b"notes\nand more\n", b'{"a": 1}\n', b"[]\n3\n", b"\xff\xfe\n", b"null\n", b"{\xff"],
)
def test_a_file_that_is_not_of_a_search(content, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for use in (lambda: find(path, 1), lambda: check_study(Study(path), BASE)):
        with pytest.raises(ConfigError) as raised:
            use()
        assert str(raised.value) == (
            f"{path} is not the file of a search; choose a different storage"
        )
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            lambda trial: trial.suggest_float("merge", 0.1, 1.0),
            lambda trial: trial.suggest_int("merge", 1, 2),
        ),
        (
            lambda trial: trial.suggest_categorical("merge", [0.1, 0.2]),
            lambda trial: trial.suggest_categorical("merge", [0.1, 0.2, 0.3]),
        ),
    ],
)
def test_a_space_that_has_changed_since_the_study_began(before, after, tmp_path):
    storage = tmp_path / "search.journal"
    find(storage, 2, space=lambda trial, base: replace(base, merge_threshold=before(trial)))
    with pytest.raises(CheckpointError) as raised:
        find(storage, 3, space=lambda trial, base: replace(base, merge_threshold=after(trial)))
    message = str(raised.value)
    assert message.startswith("the study 'swsjax' sampled from another space: ")
    assert message.endswith(". Choose a different name or storage")


def test_settings_that_a_space_makes_are_checked_as_such(tmp_path):
    def space(trial, base):
        return replace(base, keep=0.5 if trial.study.study_name != "swsjax" else 2.0)

    with pytest.raises(ConfigError, match=r"^keep must be over 0 and at most 1, got 2\.0$"):
        find(tmp_path / "search.journal", 2, space=space)


def test_integers_of_numpy(tmp_path):
    base = replace(BASE, seed=np.int32(3))
    front = find(tmp_path / "numpy", np.int64(2), base=base, seed=np.int64(1))
    plain = find(tmp_path / "plain", 2, base=replace(BASE, seed=3), seed=1)
    assert front.to_dict() == plain.to_dict()


def test_study_that_started_from_other_settings(storage):
    check_study(Study(storage), BASE)
    with pytest.raises(CheckpointError) as checked:
        check_study(Study(storage), replace(BASE, keep=0.5))
    with pytest.raises(CheckpointError) as raised:
        find(storage, 1, base=replace(BASE, keep=0.5))
    assert str(checked.value) == str(raised.value)
    assert str(raised.value) == (
        "the study 'swsjax' in this storage started from other settings; choose a different name "
        "or storage"
    )


def test_missing_optuna_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    storage = tmp_path / "search.journal"
    for use in (lambda: find(storage, 1), lambda: check_study(Study(storage), BASE)):
        with pytest.raises(ImportError) as raised:
            use()
        assert str(raised.value) == "search needs optuna: pip install 'swsjax[search]'"
