"""A search for settings: the front of error against file size, with Optuna (extra ``search``).

The paper tuned its hyper-parameters and plotted error against compression rate (Ullrich, Meeds,
Welling, ICLR 2017, section 6.2 and Figure 2). A search is an Optuna study of two objectives, kept
in a file or a database; any number of processes and machines may work on one, come and go.
"""

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from swsjax.checks import is_number, path_of
from swsjax.compress import Result
from swsjax.config import TAU_PER_EXAMPLE, Config
from swsjax.errors import CheckpointError, ConfigError, RetrainingError, SwsjaxWarning
from swsjax.files import dumps
from swsjax.plot.front import pareto
from swsjax.stages import Progress

if TYPE_CHECKING:
    import optuna

__all__ = ["MARGIN", "Front", "Point", "is_hopeless", "search", "space_around"]

MARGIN = 1.5
"""How often as large both error and bytes of a trial half way must be as another's, to stop it."""

# A worker of a database says this often that it lives; silent for twice as long, its trial failed.
_HEARTBEAT_SECONDS = 60


class Point(NamedTuple):
    """A trial that was completed: what came out, and the settings that ``compress`` took."""

    trial: int
    """Number of the trial in the study; 0 had the settings that the search began with."""
    error: float
    """What ``evaluate`` said of the quantised net."""
    file_bytes: int
    """What the net takes as a file."""
    config: Config
    """Settings, exactly."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return self._asdict() | {"config": self.config.to_dict()}


@dataclass(frozen=True)
class Front:
    """What a search found, by all workers so far; ``str`` gives the front as a table."""

    points: tuple[Point, ...]
    """The trials that none other beats in both error and bytes, smallest file first."""
    beaten: tuple[Point, ...]
    """The other completed ones, in the order of the study."""
    pruned: int
    """How many were stopped early, or failed to make a net."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "front": [point.to_dict() for point in self.points],
            "beaten": [point.to_dict() for point in self.beaten],
            "pruned": self.pruned,
        }

    def __str__(self) -> str:
        lines = [f"{'trial':>5}  {'bytes':>10}  {'error':>8}     {'tau':>8}  {'pi_zero':>8}  "]
        lines[0] += f"{'components':>10}  {'precisions':>10}  {'kept':>6}"
        for trial, error, size, config in self.points:
            kept = f"{config.kept:6.3f}" if config.prune_epochs else f"{'-':>6}"
            tau = "-" if config.tau is None else f"{config.tau:.4g}"
            lines.append(
                f"{trial:>5}  {size:>10,}  {100 * error:>8.2f} %   {tau:>8}  "
                f"{config.pi_zero:>8.5f}  {config.components:>10}  "
                f"{config.soft_rates.precisions:>10.3g}  {kept}"
            )
        completed = len(self.points) + len(self.beaten)
        return "\n".join([*lines, "", f"{completed} trials completed, {self.pruned} pruned"])


def space_around(trial: "optuna.Trial", base: Config) -> Config:
    """Sample the settings that decide error and size, around those of a config.

    Args:
        trial: of Optuna, which suggests the values.
        base: what is not sampled stays as it is here.

    Raises:
        ConfigError: the base's ``tau`` is no number to sample around.

    - ``tau``, from a quarter to four times the base's: the dial between error and size.
    - ``pi_zero``, from 0.8 to 0.9999: the share of weights that the prior wants at zero.
    - ``components``, from 4 to 32: the values that weights may take; few cost error, many bytes.
    - ``soft_rates.precisions``, from a third to three times the base's: the speed of the annealing,
      which decides how many weights end at zero.
    - ``kept``, from 0.1 to 1, where the base prunes: the dial of the last stage.

    >>> import optuna
    >>> trial = optuna.trial.FixedTrial(
    ...     {"tau": 0.1, "not_zero": 0.01, "components": 8, "precisions": 1e-3})
    >>> space_around(trial, Config(tau=0.05)).pi_zero
    0.99
    """
    if not is_number(base.tau):
        raise ConfigError(
            "space_around samples tau around the base's, so that must be a number, got "
            f"{base.tau!r}; the default of compress is {TAU_PER_EXAMPLE:g} for each training "
            "example"
        )
    tau, speed = float(base.tau), base.soft_rates.precisions
    precisions = trial.suggest_float("precisions", speed / 3, 3 * speed, log=True)
    return replace(
        base,
        tau=trial.suggest_float("tau", tau / 4, 4 * tau, log=True),
        pi_zero=1 - trial.suggest_float("not_zero", 1e-4, 0.2, log=True),
        components=trial.suggest_int("components", 4, 32, log=True),
        soft_rates=replace(base.soft_rates, precisions=precisions),
        kept=trial.suggest_float("kept", 0.1, 1.0, log=True) if base.prune_epochs else base.kept,
    )


def is_hopeless(mark: tuple[float, float], others: list[tuple[float, float]]) -> bool:
    """Whether another trial was better in both error and bytes by ``MARGIN``.

    Args:
        mark: error and bytes of a trial half way.
        others: those of the trials now on the front, when they were half way.

    >>> is_hopeless((0.04, 9000), [(0.02, 5000)]), is_hopeless((0.04, 6000), [(0.02, 5000)])
    (True, False)
    """
    return any(
        mark[0] > MARGIN * error and mark[1] > MARGIN * size_bytes for error, size_bytes in others
    )


def search(
    compress: Callable[..., Result],
    base: Config,
    *,
    evaluate: Callable[..., float],
    space: "Callable[[optuna.Trial, Config], Config]" = space_around,
    trials: int = 40,
    max_error: float = np.inf,
    storage: str | PathLike[str] = "search.journal",
    name: str = "swsjax",
    seed: int = 0,
    callback: Callable[[int, Progress], None] | None = None,
) -> Front:
    """Search for settings that give a small error and a small file.

    Args:
        compress: from a config to a result: ``functools.partial(swsjax.compress, params, loss_fn,
            data)``. It is called with a config and the keyword arguments ``evaluate`` and
            ``callback``, which are those of ``swsjax.compress``.
        base: settings to start from. The first trial has them as they are; of the others, what
            ``space`` does not sample.
        evaluate: error from 0 to 1 on validation data of a given net, ``evaluate(params)``, or
            with aux ``evaluate(params, aux)``.
        space: samples the settings of a trial, from an Optuna trial and ``base``.
        trials: how many the study is to have in the end, completed or pruned, by whatever worker.
            Each of several workers ends the trial that it is at when the last is done.
        max_error: what ``evaluate`` says of a net that is of no use. A trial with more is stopped
            half way, or counts as stopped: nets that only guess are the smallest.
        storage: a file, or the URL of a database as SQLAlchemy has it, such as
            ``postgresql+psycopg://user@host/name``. What is there is gone on with.
        name: of the study in the storage.
        seed: of what is sampled; from this and its number each trial draws its own.
        callback: called with the number of the trial and its progress, after every epoch.

    Returns:
        What all workers found so far.

    Raises:
        ImportError: Optuna is not installed; the message names the extra that brings it.
        ConfigError: an argument is out of its range, the settings cannot be written down, or the
            database cannot be reached.
        CheckpointError: the study of that name in the storage began with other settings.

    To search with several processes or machines, run the same on each. A worker that is killed
    costs the trial it was at, and only that: it is not counted, and another is made in its place.

    A trial is stopped half way through the hard stage if it is hopeless there: see ``is_hopeless``.
    Its bytes are then the entropy bound times ``kept``, where pruning is still to come. One that
    ends without a net (``RetrainingError``) counts as stopped, and the study keeps why.

    >>> from functools import partial
    >>> from swsjax.compress import compress
    >>> x = jax.random.normal(jax.random.key(0), (512, 4))
    >>> data = {"x": x, "y": x @ jnp.array([1.0, 1.0, 0.0, -1.0])}
    >>> loss = lambda params, batch: jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
    >>> run = partial(compress, {"w": jnp.array([0.98, 1.02, 0.01, -1.0])}, loss, data)
    >>> base = Config(tau=5e-4, components=4, soft_epochs=1, hard_epochs=1)
    >>> front = search(run, base, evaluate=lambda params: loss(params, data), trials=1)
    >>> front.points[0].error < 0.1
    True
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ImportError("a search needs optuna: pip install 'swsjax[search]'") from error
    _check(compress, base, evaluate, space, trials, max_error, seed, callback)

    def objective(trial: optuna.Trial) -> tuple[float, int]:
        # From seed and number, so that neither workers nor a search gone on with draw alike.
        draws = np.random.SeedSequence([seed, trial.number]).generate_state(1).item()
        trial.study.sampler = optuna.samplers.TPESampler(seed=draws)
        config = base if trial.number == 0 else space(trial, base)
        trial.set_user_attr("config", config.to_dict())
        half_way = config.soft_epochs + -(-config.hard_epochs // 2)

        def watch(progress: Progress) -> None:
            if callback is not None:
                callback(trial.number, progress)
            at_half = progress.stage == "hard" and progress.epoch == half_way
            if at_half and progress.error is not None:
                kept = config.kept if config.prune_epochs else 1.0
                mark = (progress.error, kept * progress.bound_bytes)
                trial.set_user_attr("half way", mark)
                if progress.error > max_error:
                    _stop(trial, f"half way, the error was {progress.error:g}")
                if is_hopeless(mark, _marks(trial.study)):
                    _stop(trial, "half way, another was better in both error and bytes")

        try:
            with warnings.catch_warnings():  # that settings will hardly serve is for us to find out
                warnings.simplefilter("ignore", SwsjaxWarning)
                result = compress(config, evaluate=evaluate, callback=watch)
        except RetrainingError as error:
            _stop(trial, str(error))
        net = (result.params,) if result.aux is None else (result.params, result.aux)
        value = float(evaluate(*net))
        if not np.isfinite(value) or value > max_error:
            _stop(trial, f"the error is {value}")
        return value, len(dumps(result.params))

    with _quiet():
        # Once without a storage, before hours are spent on the base, which needs no space.
        sampled = space(optuna.create_study().ask(), base)
        if not isinstance(sampled, Config):
            raise ConfigError(f"space must return a Config, got a {type(sampled).__name__}")
        with _opened(storage) as opened:
            study = _study(opened, name, base)
            while len(_finished(study)) < trials:
                study.optimize(objective, n_trials=1)
            return _front(study)


def _stop(trial: "optuna.Trial", reason: str) -> NoReturn:
    """End a trial as pruned, and keep why."""
    import optuna

    trial.set_user_attr("pruned", reason)
    raise optuna.TrialPruned(reason)


def _check(
    compress: Any,
    base: Any,
    evaluate: Any,
    space: Any,
    trials: Any,
    max_error: Any,
    seed: Any,
    callback: Any,
) -> None:
    functions = {"compress": compress, "evaluate": evaluate, "space": space}
    for name, function in (functions | ({"callback": callback} if callback else {})).items():
        if not callable(function):
            raise ConfigError(f"{name} must be a function, got a {type(function).__name__}")
    if not isinstance(base, Config):
        raise ConfigError(f"base must be a Config, got a {type(base).__name__}")
    if not isinstance(trials, int) or trials < 1:
        raise ConfigError(f"trials must be a number of at least 1, got {trials!r}")
    if not is_number(max_error) or not max_error > 0:
        raise ConfigError(f"max_error must be a number greater than 0, got {max_error!r}")
    if not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a number of at least 0, got {seed!r}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from writing to stderr, and from saying that its heartbeat is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _study(storage: "optuna.storages.BaseStorage", name: str, base: Config) -> "optuna.Study":
    """Open the study, or begin it."""
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
            f"the study {name!r} in this storage began with other settings; give another name or "
            "storage"
        )
    study.set_user_attr("base", settings)
    return study


@contextmanager
def _opened(given: str | PathLike[str]) -> "Iterator[optuna.storages.BaseStorage]":
    """The storage; a database's connections are closed at the end."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if isinstance(given, str) and "://" in given:
        database = _database(given)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()
        return
    path = path_of(given, "storage is a file, or the URL of a database")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the default lock: that is a symbolic link, which Windows refuses to most users.
    backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
    yield optuna.storages.JournalStorage(backend)


def _database(url: str) -> "optuna.storages.RDBStorage":
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    tries = 5  # workers that begin together make the tables together, and all but one fail
    while True:
        tries -= 1
        try:
            return optuna.storages.RDBStorage(url, heartbeat_interval=_HEARTBEAT_SECONDS)
        except SQLAlchemyError as error:
            if tries:
                time.sleep(0.2)
                continue
            shown = re.sub(":[^:@/]*@", ":***@", url)
            reason = str(error).splitlines()[0]
            raise ConfigError(f"the database {shown} cannot be used: {reason}") from error


def _finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """Trials that count; one that is running may never end."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _completed(finished: "list[optuna.trial.FrozenTrial]") -> "list[optuna.trial.FrozenTrial]":
    from optuna.trial import TrialState

    return [trial for trial in finished if trial.state == TrialState.COMPLETE]


def _marks(study: "optuna.Study") -> list[tuple[float, float]]:
    """Where the trials on the front were half way."""
    found = _completed(_finished(study))
    front = pareto([(trial.values[1], trial.values[0]) for trial in found])
    marks = (found[i].user_attrs.get("half way") for i in front)
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
        beaten=tuple(point for i, point in enumerate(points) if i not in front),
        pruned=len(finished) - len(points),
    )
