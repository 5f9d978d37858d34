"""Settings of ``compress``."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Integral
from typing import Any, Literal, get_args, get_type_hints

import jax.numpy as jnp
import optax
from jax import Array

from swsjax.checks import check_integer, check_numbers
from swsjax.errors import ConfigError
from swsjax.sws.prior import HyperPriors
from swsjax.sws.rates import LearningRates
from swsjax.trees import is_number

__all__ = ["LEARNED", "Annealing", "Config"]

# More distinct values than a file could profit from.
_MOST_COMPONENTS = 2**16


@dataclass(frozen=True)
class Annealing:
    """One standard deviation that all components share; it falls over the soft stage, then stays.

    In units of each array (see ``sws.units``), and as a function of the share of the stage that is
    done: from ``start`` to ``end``, in equal ratios. Every boundary between components passes over
    the weights once, from above. At the end and ``pi_zero=0.999`` the zero component holds what is
    within 0.35 units. Raises ``ConfigError`` if a width is not positive and finite.

    >>> width = Annealing(start=1.0, end=0.25).width(steps=2)
    >>> float(width(0)), float(width(1)), float(width(2))
    (1.0, 0.5, 0.25)
    """

    start: float = 1.0
    """Wide enough for components 16 times closer than the largest weight to overlap."""
    end: float = 0.08
    """Narrow enough to keep apart all weights that training keeps apart; half or a quarter of it
    makes no difference on dense nets."""

    def __post_init__(self) -> None:
        """Check the widths."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not is_number(value) or not 0 < value < float("inf"):
                raise ConfigError(
                    f"Annealing.{field.name} must be positive and finite, got {value!r}"
                )

    def width(self, steps: int | Array) -> optax.Schedule:
        """Make the schedule of the standard deviation over a number of steps."""
        ratio = self.end / self.start
        return lambda step: self.start * ratio ** jnp.minimum(step / jnp.maximum(steps, 1), 1.0)


# Of the stages that compute with assigned means.
_QUANTISED = LearningRates(
    weights=4e-3,
    free=1e-3,
    means=1e-3,
    warmup_epochs=1.0,
    final=0.02,
    epsilon=1e-5,
    dampening=0.1,
)


@dataclass(frozen=True)
class Config:
    """Settings of ``compress``; the defaults suit most nets, ``tau`` trades error against size.

    A larger ``tau`` gives a smaller file and a larger error. Raises ``ConfigError`` if a setting is
    out of its range. Learning rates are per step, in units of each array.

    >>> Config(tau=2.2e-6).tau
    2.2e-06
    """

    tau: float | optax.Schedule | None = None
    """Weight of the prior: nats of the mean loss per nat of the prior's density, whose terms are
    one per weight; or an optax schedule of it over the steps of each stage. The paper's tau is this
    times the number of training examples: 0.06 for MNIST. None: ``compress`` finds it, from what
    may be lost."""
    components: int = 16
    """Number of free components at the start; the zero component is not counted."""
    pi_zero: float = 0.999
    """Mixing proportion of the zero component: at the start if it has a hyper-prior, else fixed."""
    annealing: Annealing | None = Annealing()
    """Widths of the components over the soft stage, with weights in units. None: each component has
    a precision of its own, learned from ``initial_std`` under ``hyper_priors``, and weights are as
    they are: the paper's way, see ``LEARNED``."""
    initial_std: float = 0.25
    """Standard deviation of every component at the start, if precisions are learned."""
    hyper_priors: HyperPriors = HyperPriors()
    """On learned precisions, and on ``pi_zero``. They keep the mixture from collapsing onto single
    weights."""
    soft_epochs: int = 30
    """Epochs of the soft stage, in which the net computes with the weights themselves."""
    soft_learning_rates: LearningRates = LearningRates(
        weights=4e-3, free=1e-3, means=1e-3, epsilon=1e-5
    )
    """Learning rates of the soft stage."""
    hard_epochs: int = 20
    """Epochs of the hard stage, in which the net computes with each weight's assigned mean."""
    hard_learning_rates: LearningRates = _QUANTISED
    """Learning rates of the hard stage."""
    prune_epochs: int = 24
    """Epochs of the pruning stage, of which the first half prunes; 0 prunes nothing."""
    prune_learning_rates: LearningRates = replace(_QUANTISED, warmup_epochs=0.5)
    """Learning rates of the pruning stage."""
    keep: float = 0.6
    """Fraction of the non-zero weights after the hard stage that the pruning stage keeps."""
    merge_threshold: float = 0.5
    """Symmetric KL divergence (nats) below which two components are merged after a stage, if their
    precisions are learned."""
    batch_size: int = 128
    """Examples per step."""
    prior: Literal["tabulated", "exact"] = "tabulated"
    """How the prior is evaluated: from a table, or weight by weight (slow on processors; the
    reference). On a CUDA GPU and with few components a kernel is exact, and always used."""
    tolerance: float = 1e-3
    """Relative error of the tabulated prior and its gradients above which its grid is refined."""
    sample: int | None = 2**14
    """Weights of an array that a step counts for the gradient of the mixture, in turn with its
    others, which saves time on processors; None counts all, as is done if a mesh divides them or
    the prior is exact. Each weight has its own gradient in every step."""
    least_steps: int = 100
    """Fewest steps per epoch: an epoch passes through small data several times, and through MNIST
    with its 390 steps once. In fewer, weights do not get far enough to gather."""
    seed: int = 0
    """Of the order of the examples."""

    def __post_init__(self) -> None:
        """Check what can be checked before any time is spent."""
        check_numbers(self)
        if not (self.tau is None or is_number(self.tau) or callable(self.tau)):
            raise ConfigError(f"tau must be a number or an optax schedule, got {self.tau!r}")
        if is_number(self.tau) and not 0 < self.tau < float("inf"):
            raise ConfigError(f"tau must be positive, got {self.tau}")
        if not 0 < self.pi_zero < 1:
            raise ConfigError(f"pi_zero must lie strictly between 0 and 1, got {self.pi_zero}")
        if not 0 < self.initial_std < float("inf"):
            raise ConfigError(f"initial_std must be positive and finite, got {self.initial_std}")
        if not (self.annealing is None or isinstance(self.annealing, Annealing)):
            raise ConfigError(f"annealing must be an Annealing or None, got {self.annealing!r}")
        if not isinstance(self.hyper_priors, HyperPriors):
            raise ConfigError(f"hyper_priors must be a HyperPriors, got {self.hyper_priors!r}")
        epochs = (self.soft_epochs, self.hard_epochs, self.prune_epochs)
        if min(epochs) < 0 or max(epochs) < 1:
            raise ConfigError(
                "soft_epochs, hard_epochs and prune_epochs must be at least 0 and not all 0, got "
                f"{self.soft_epochs}, {self.hard_epochs} and {self.prune_epochs}"
            )
        for name in ("soft_learning_rates", "hard_learning_rates", "prune_learning_rates"):
            if not isinstance(getattr(self, name), LearningRates):
                raise ConfigError(f"{name} must be a LearningRates, got {getattr(self, name)!r}")
        if self.soft_learning_rates.dampening:
            raise ConfigError(
                "soft_learning_rates.dampening must be 0, as the soft stage assigns no means, got "
                f"{self.soft_learning_rates.dampening}"
            )
        if not 0 < self.keep <= 1:
            raise ConfigError(f"keep must be over 0 and at most 1, got {self.keep}")
        for name in ("components", "batch_size", "least_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.sample is not None:
            object.__setattr__(self, "sample", check_integer("sample", self.sample))
        if self.components > _MOST_COMPONENTS:
            raise ConfigError(
                f"components must be at most {_MOST_COMPONENTS:,}, got {self.components:,}; 16 are "
                "enough for most nets"
            )
        if self.prior not in ("tabulated", "exact"):
            raise ConfigError(f"prior must be 'tabulated' or 'exact', got {self.prior!r}")
        if not self.tolerance > 0:
            raise ConfigError(f"tolerance must be positive, got {self.tolerance}")
        if not self.merge_threshold >= 0:
            raise ConfigError(f"merge_threshold must not be negative, got {self.merge_threshold}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; ``from_dict`` is the inverse.

        Raises:
            ConfigError: a schedule or an optimiser is among the settings.

        >>> Config(tau=0.1).to_dict()["tau"]
        0.1
        """
        return {field.name: _plain(field.name, getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        """Make a config from what ``to_dict`` returns, or a part of it: the rest has its default.

        Raises:
            ConfigError: a setting has an unknown name or is out of its range.

        >>> Config.from_dict({"tau": 0.1, "soft_learning_rates": {"precisions": 0.001}}).tau
        0.1
        >>> Config.from_dict({"hyper_priors": {"precison": 2}})
        Traceback (most recent call last):
            ...
        swsjax.errors.ConfigError: HyperPriors has no setting 'precison'; it has 'zero_precision', \
'precision', 'pi_zero'
        """
        return _made(cls, settings)


LEARNED = Config(
    tau=1.1e-6,
    annealing=None,
    prune_epochs=0,
    soft_learning_rates=LearningRates(precisions=7e-4),
    hard_learning_rates=LearningRates(precisions=5e-4, warmup_epochs=1.0, final=0.0, epsilon=1e-5),
    prune_learning_rates=LearningRates(warmup_epochs=0.5, final=0.0, epsilon=1e-5),
    least_steps=300,
    tolerance=1e-4,
)
"""Settings with which the precisions are learned, as in the paper. They depend on the scale of the
weights and on the number of steps: they suit nets like the paper's LeNets."""


def _plain(name: str, value: Any) -> Any:
    if is_dataclass(value):
        return {
            field.name: _plain(f"{name}.{field.name}", getattr(value, field.name))
            for field in fields(value)
        }
    if value is None or isinstance(value, str):
        return value
    if not is_number(value):
        raise ConfigError(
            f"{name} must be a number to be written as JSON, got a {type(value).__name__}"
        )
    return int(value) if isinstance(value, Integral) else float(value)


def _made(kind: Any, settings: Any) -> Any:
    """A dataclass of settings from a dictionary, nested ones included."""
    if not isinstance(settings, Mapping):
        raise ConfigError(f"settings of {kind.__name__} must be a dictionary, got {settings!r}")
    nested = {name: _dataclass_of(hint) for name, hint in get_type_hints(kind).items()}
    for name in settings:
        if name not in nested:
            known = ", ".join(map(repr, nested))
            raise ConfigError(f"{kind.__name__} has no setting {name!r}; it has {known}")
    values = {
        name: value if nested[name] is None or value is None else _made(nested[name], value)
        for name, value in settings.items()
    }
    try:
        return kind(**values)
    except TypeError as error:  # a required setting is missing
        needed = " and ".join(map(repr, nested))
        raise ConfigError(f"{kind.__name__} needs {needed}, got {dict(settings)!r}") from error


def _dataclass_of(hint: Any) -> Any:
    """The dataclass among the types of a field, or None."""
    return next((one for one in (hint, *get_args(hint)) if is_dataclass(one)), None)
