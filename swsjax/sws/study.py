"""A search for settings: the front of error against file size, with Optuna (extra ``search``).

The paper tuned its hyper-parameters and plotted error against compression rate (Ullrich, Meeds,
Welling, ICLR 2017, section 6.2). A search is an Optuna study with two objectives, in a
file or a database; any number of processes and machines may work on it, and leave at any time.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from swsjax.checks import check_integer
from swsjax.errors import (
    CheckpointError,
    ConfigError,
    MissingExtraError,
    RetrainingError,
    SwsjaxError,
    SwsjaxWarning,
)
from swsjax.file.files import dumps
from swsjax.measure.front import pareto
from swsjax.sws.config import Config
from swsjax.sws.front import Front, Point
from swsjax.sws.result import Result
from swsjax.sws.storage import opened, quiet
from swsjax.training.history import Epoch, error_of
from swsjax.trees import is_number

if TYPE_CHECKING:
    import optuna

__all__ = [
    "MARGIN",
    "Study",
    "check_study",
    "is_hopeless",
    "search",
    "space_around",
]

MARGIN = 1.5
"""A trial is stopped half-way if both its error and its bytes exceed another trial's by this
factor."""


class Study(NamedTuple):
    """Where the trials of a search are stored, and how they are sampled."""

    storage: str | PathLike[str] = "search.journal"
    """A file, or the URL of a database in the form of SQLAlchemy, such as
    ``postgresql+psycopg://user@host/name``."""
    name: str = "swsjax"
    """Of the study in the storage."""
    seed: int = 0
    """Each trial samples from this seed and its own number."""


def space_around(trial: "optuna.Trial", base: Config) -> Config:
    """Sample the settings that decide error and size, around those of a config.

    Args:
        trial: Optuna's, which suggests the values.
        base: settings that are not sampled.

    Raises:
        ConfigError: ``tau`` of the base is not a number to sample around.

    - ``tau``, from a quarter to four times that of the base: it trades error against size.
    - ``pi_zero``, from 0.8 to 0.9999: the fraction of weights that the prior wants at zero.
    - ``components``, from 4 to 32: the values that weights may take; few cost error, many bytes.
    - ``soft_learning_rates.precisions``, from a third to three times that of the base, if they are
      learned: their speed decides how many weights become zero.
    - ``keep``, from 0.1 to 1, if the base prunes: the fraction that the pruning stage keeps.

    >>> import optuna
    >>> trial = optuna.trial.FixedTrial(
    ...     {"tau": 2e-6, "not_zero": 0.01, "components": 8, "keep": 0.5})
    >>> space_around(trial, Config(tau=1e-6)).pi_zero
    0.99
    """
    if not is_number(base.tau):
        raise ConfigError(
            "space_around samples tau around that of the base, which must be a number, got "
            f"{base.tau!r}"
        )
    tau, rates = float(base.tau), base.soft_learning_rates
    if base.annealing is None:
        speed = rates.precisions
        precisions = trial.suggest_float("precisions", speed / 3, 3 * speed, log=True)
        rates = replace(rates, precisions=precisions)
    return replace(
        base,
        tau=trial.suggest_float("tau", tau / 4, 4 * tau, log=True),
        pi_zero=1 - trial.suggest_float("not_zero", 1e-4, 0.2, log=True),
        components=trial.suggest_int("components", 4, 32, log=True),
        soft_learning_rates=rates,
        keep=trial.suggest_float("keep", 0.1, 1.0, log=True) if base.prune_epochs else base.keep,
    )


def is_hopeless(mark: tuple[float, float], others: list[tuple[float, float]]) -> bool:
    """Whether both error and bytes of a trial exceed another trial's by the factor ``MARGIN``.

    Args:
        mark: error and bytes of the trial half-way through its hard stage.
        others: half-way marks of the trials that are now on the front.

    >>> is_hopeless((0.04, 9000), [(0.02, 5000)]), is_hopeless((0.04, 6000), [(0.02, 5000)])
    (True, False)
    """
    return any(
        mark[0] > MARGIN * error and mark[1] > MARGIN * size_bytes for error, size_bytes in others
    )


def search(
    compress: Callable[..., Result[Any]],
    base: Config,
    *,
    evaluate: Callable[..., float],
    space: "Callable[[optuna.Trial, Config], Config]" = space_around,
    trials: int = 40,
    max_error: float = np.inf,
    study: Study = Study(),
    callback: Callable[[int, Epoch], None] | None = None,
) -> Front:
    """Search for settings that give a small error and a small file.

    Args:
        compress: from a config to a result: ``functools.partial(swsjax.compress, params, loss_fn,
            data)``. It is called with a config and the keyword arguments ``evaluate`` and
            ``callback`` of ``swsjax.compress``.
        base: settings of the first trial; the others have those of them that ``space`` does not
            sample.
        evaluate: error of a net on validation data, from 0 to 1: ``evaluate(params)``, or with aux
            ``evaluate(params, aux)``.
        space: samples the settings of a trial, from an Optuna trial and ``base``.
        trials: number of trials that the study will have, completed or stopped, by all workers.
            When it is reached, other workers finish their current trial.
        max_error: largest error of a useful net. A trial with a larger error is stopped half-way,
            or counts as stopped: nets that only guess are the smallest.
        study: where the trials are stored. Calling ``search`` again resumes the study.
        callback: called with the number of the trial and the record of each epoch.

    Returns:
        The results of all workers so far.

    Raises:
        MissingExtraError: Optuna is not installed; the message names the extra that contains it.
        ConfigError: an argument is out of its range, the settings cannot be written as JSON, or the
            database cannot be reached.
        CheckpointError: the study of that name in the storage started from other settings.

    To search with several processes or machines, run the same on each. If a worker is killed, only
    its current trial is lost; it does not count, and another replaces it.

    A trial is stopped half-way through the hard stage if it is hopeless: see ``is_hopeless``. Its
    bytes are then the entropy bound times ``keep``, if it has a pruning stage. A trial that loses
    the net (``RetrainingError``) counts as stopped; the study records why.

    >>> from functools import partial
    >>> from swsjax.sws import compress
    >>> x = jax.random.normal(jax.random.key(0), (512, 4))
    >>> data = {"x": x, "y": x @ jnp.array([1.0, 1.0, 0.0, -1.0])}
    >>> loss = lambda params, batch: jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
    >>> run = partial(compress, {"w": jnp.array([0.98, 1.02, 0.01, -1.0])}, loss, data)
    >>> base = Config(tau=1e-6, components=4, soft_epochs=2, hard_epochs=1, prune_epochs=0)
    >>> front = search(run, base, evaluate=lambda params: loss(params, data), trials=1)
    >>> front.points[0].error < 0.1
    True
    """
    optuna = _optuna()
    _check_functions(compress=compress, evaluate=evaluate, space=space)
    if callback is not None:
        _check_functions(callback=callback)
    _check_values(base, trials, max_error)
    _check_type(study)
    run = _Search(compress, base, evaluate, space, max_error, study.seed, callback)
    with quiet():
        # Once without a storage, before hours are spent on the base, which needs no space.
        sampled = space(optuna.create_study().ask(), base)
        if not isinstance(sampled, Config):
            raise ConfigError(f"space must return a Config, got a {type(sampled).__name__}")
        with opened(study.storage) as storage:
            ongoing = _study(storage, study.name, base)
            while len(_finished(ongoing)) < trials:
                ongoing.optimize(partial(_objective, run), n_trials=1)
            return _front(ongoing)


def check_study(study: Study, base: Config) -> None:
    """Open a study, or create it, to see whether a search can work on it, before hours are spent.

    Args:
        study: for ``search``.
        base: for ``search``.

    Raises:
        MissingExtraError: Optuna is not installed; the message names the extra that contains it.
        ConfigError: the database cannot be reached, its driver is not installed, or the file is
            not that of a search.
        CheckpointError: the study of that name in the storage started from other settings.

    >>> check_study(Study(), Config(tau=1e-6))
    >>> check_study(Study(), Config(tau=2e-6))
    Traceback (most recent call last):
        ...
    swsjax.errors.CheckpointError: the study 'swsjax' in this storage started from other \
settings; choose a different name or storage
    """
    _optuna()
    _check_type(study)
    with quiet(), opened(study.storage) as storage:
        _study(storage, study.name, base)


class _Search(NamedTuple):
    """What the trials of a search have in common: arguments of ``search``."""

    compress: Callable[..., Result[Any]]
    base: Config
    evaluate: Callable[..., float]
    space: "Callable[[optuna.Trial, Config], Config]"
    max_error: float
    seed: int
    callback: Callable[[int, Epoch], None] | None


def _objective(run: _Search, trial: "optuna.Trial") -> tuple[float, int]:
    """Run a trial; its error and bytes."""
    import optuna

    # From seed and number, so that neither other workers nor a resumed search sample the same.
    draws = np.random.SeedSequence([int(run.seed), trial.number]).generate_state(1).item()
    trial.study.sampler = optuna.samplers.TPESampler(seed=draws)
    config = run.base if trial.number == 0 else _sampled(run, trial)
    trial.set_user_attr("config", config.to_dict())
    half_way = config.soft_epochs + -(-config.hard_epochs // 2)

    def watch(epoch: Epoch) -> None:
        if run.callback is not None:
            run.callback(trial.number, epoch)
        if epoch.stage == "hard" and epoch.epoch == half_way and epoch.error is not None:
            _judge(trial, epoch, config, run.max_error)

    try:
        with warnings.catch_warnings():  # whether settings work is what the search finds out
            warnings.simplefilter("ignore", SwsjaxWarning)
            result = run.compress(config, evaluate=run.evaluate, callback=watch)
    except RetrainingError as error:
        _stop(trial, str(error))
    net = (result.params,) if result.aux is None else (result.params, result.aux)
    value = error_of(run.evaluate, *net)
    if not np.isfinite(value) or value > run.max_error:
        _stop(trial, f"the error is {value}")
    return value, len(dumps(result.params))


def _sampled(run: _Search, trial: "optuna.Trial") -> Config:
    """The settings of a trial."""
    try:
        return run.space(trial, run.base)
    except SwsjaxError:
        raise
    except ValueError as error:  # Optuna's, of a parameter that had another type in the study
        raise CheckpointError(
            f"the study {trial.study.study_name!r} sampled from another space: {error} Choose a "
            "different name or storage"
        ) from error


def _judge(trial: "optuna.Trial", epoch: Epoch, config: Config, max_error: float) -> None:
    """Stop a trial that is hopeless half-way through the hard stage."""
    assert epoch.error is not None
    assert epoch.bound_bytes is not None
    keep = config.keep if config.prune_epochs else 1.0
    mark = (epoch.error, keep * epoch.bound_bytes)
    trial.set_user_attr("half-way", mark)
    if epoch.error > max_error:
        _stop(trial, f"half-way, the error was {epoch.error:g}")
    if is_hopeless(mark, _marks(trial.study)):
        _stop(trial, "half-way, another was better in both error and bytes")


def _stop(trial: "optuna.Trial", reason: str) -> NoReturn:
    """End a trial early, and record why."""
    import optuna

    trial.set_user_attr("stopped", reason)
    raise optuna.TrialPruned(reason)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtraError("search needs optuna: pip install 'swsjax[search]'") from error
    return optuna


def _check_functions(**functions: Any) -> None:
    for name, function in functions.items():
        if not callable(function):
            raise ConfigError(f"{name} must be a function, got a {type(function).__name__}")


def _check_values(base: Any, trials: Any, max_error: Any) -> None:
    if not isinstance(base, Config):
        raise ConfigError(f"base must be a Config, got a {type(base).__name__}")
    check_integer("trials", trials)
    if not is_number(max_error) or not max_error > 0:
        raise ConfigError(f"max_error must be a number greater than 0, got {max_error!r}")


def _check_type(study: Any) -> None:
    if not isinstance(study, Study):
        raise ConfigError(f"study must be a Study, got a {type(study).__name__}")
    check_integer("the seed of a study", study.seed, least=0, most=2**32 - 1)


def _study(storage: "optuna.storages.BaseStorage", name: str, base: Config) -> "optuna.Study":
    """Open the study, or create it."""
    import optuna

    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["minimize", "minimize"],
        load_if_exists=True,
    )
    settings = base.to_dict()
    if study.user_attrs.setdefault("base", settings) != settings:
        raise CheckpointError(
            f"the study {name!r} in this storage started from other settings; choose a different "
            "name or storage"
        )
    study.set_user_attr("base", settings)
    return study


def _finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """Trials that count; a running one may never end."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _completed(finished: "list[optuna.trial.FrozenTrial]") -> "list[optuna.trial.FrozenTrial]":
    from optuna.trial import TrialState

    return [trial for trial in finished if trial.state == TrialState.COMPLETE]


def _marks(study: "optuna.Study") -> list[tuple[float, float]]:
    """Half-way marks of the trials on the front."""
    found = _completed(_finished(study))
    front = pareto([(trial.values[1], trial.values[0]) for trial in found])
    marks = (found[i].user_attrs.get("half-way") for i in front)
    return [(mark[0], mark[1]) for mark in marks if mark is not None]


def _front(study: "optuna.Study") -> Front:
    finished = _finished(study)
    points = [
        Point(
            trial=trial.number,
            error=trial.values[0],
            file_bytes=round(trial.values[1]),
            config=Config.from_dict(trial.user_attrs["config"]),
        )
        for trial in _completed(finished)
    ]
    front = pareto([(point.file_bytes, point.error) for point in points])
    return Front(
        points=tuple(points[i] for i in front),
        dominated=tuple(point for i, point in enumerate(points) if i not in front),
        stopped=len(finished) - len(points),
    )
