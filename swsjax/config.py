"""Settings of ``compress``."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, Literal

import optax

from swsjax.checks import check_numbers, is_number
from swsjax.errors import ConfigError
from swsjax.prior import Beta, Gamma, HyperPriors
from swsjax.retrain import Rates

__all__ = ["TAU_PER_EXAMPLE", "Config"]

TAU_PER_EXAMPLE = 1.1e-6
"""Of the default ``tau``: 0.06 for MNIST. In proportion it serves a thousand examples as well; a
``tau`` of its own, as theory has it, would outweigh the loss of few."""


@dataclass(frozen=True)
class Config:
    """Settings of ``compress``; the defaults suit most nets, ``tau`` is the dial.

    A larger ``tau`` gives a smaller file and a larger error. Raises ``ConfigError`` for a setting
    out of its range.

    >>> Config(tau=0.1).tau
    0.1
    """

    tau: float | optax.Schedule | None = None
    """Weight of the prior on the loss summed over the training examples, or an optax schedule
    of it over the steps of each stage; None: ``TAU_PER_EXAMPLE`` times their number."""
    components: int = 16
    """Free components at the start, beside the zero one."""
    pi_zero: float = 0.999
    """Share of the zero component at the start; stays there unless it has a hyper-prior."""
    initial_std: float = 0.25
    """Standard deviation of every component at the start."""
    hyper_priors: HyperPriors = HyperPriors()
    """What keeps the mixture from collapsing onto single weights."""
    soft_epochs: int = 30
    """Epochs of the first stage, in which the net computes with the weights themselves."""
    soft_rates: Rates = Rates(precisions=7e-4)
    """Learning rates of that stage."""
    hard_epochs: int = 20
    """Epochs of the second, in which it computes with each weight's assigned mean."""
    hard_rates: Rates = Rates(precisions=5e-4, warmup_epochs=1.0, final=0.0, epsilon=1e-5)
    """Learning rates of that stage."""
    prune_epochs: int = 0
    """Epochs of a last stage, of which the first half prunes: for nets with weights to spare."""
    prune_rates: Rates = Rates(warmup_epochs=0.5, final=0.0, epsilon=1e-5)
    """Learning rates of that stage."""
    kept: float = 0.6
    """Share of the weights that are not zero after the hard stage which pruning leaves so."""
    merge_threshold: float = 0.5
    """Symmetric KL divergence (nats) under which two components become one."""
    batch_size: int = 128
    """Examples a step."""
    method: Literal["tabulated", "exact"] = "tabulated"
    """How the prior is evaluated: looked up in a table, or weight by weight (slow; reference)."""
    tolerance: float = 1e-4
    """Relative error of the tabulated prior and its gradients above which its grid is refined."""
    least_steps: int = 300
    """Steps that an epoch has at least: few data are gone through several times in one, MNIST with
    its 390 steps once. The rates and numbers of epochs above are for about 400."""
    seed: int = 0
    """Seed of the order of the examples."""

    def __post_init__(self) -> None:
        """Check what can be checked before any time is spent."""
        check_numbers(self)
        if not (self.tau is None or is_number(self.tau) or callable(self.tau)):
            raise ConfigError(f"tau must be a number or an optax schedule, got {self.tau!r}")
        if is_number(self.tau) and not 0 < self.tau < float("inf"):
            raise ConfigError(f"tau must be positive, got {self.tau}")
        if self.components < 1:
            raise ConfigError(f"components must be at least 1, got {self.components}")
        if not 0 < self.pi_zero < 1:
            raise ConfigError(f"pi_zero must lie strictly between 0 and 1, got {self.pi_zero}")
        if not 0 < self.initial_std < float("inf"):
            raise ConfigError(f"initial_std must be positive and finite, got {self.initial_std}")
        if not isinstance(self.hyper_priors, HyperPriors):
            raise ConfigError(f"hyper_priors must be a HyperPriors, got {self.hyper_priors!r}")
        for name, gamma in zip(HyperPriors._fields[:2], self.hyper_priors[:2], strict=True):
            if not _is_positive(gamma, Gamma):
                raise ConfigError(
                    f"hyper_priors.{name} must be a Gamma of positive shape and rate, got {gamma!r}"
                )
        beta = self.hyper_priors.pi_zero
        if beta is not None and not _is_positive(beta, Beta):
            raise ConfigError(
                f"hyper_priors.pi_zero must be a Beta of positive a and b, or None, got {beta!r}"
            )
        epochs = (self.soft_epochs, self.hard_epochs, self.prune_epochs)
        if min(epochs) < 0 or max(epochs) < 1:
            raise ConfigError(
                "soft_epochs, hard_epochs and prune_epochs must be at least 0 and not all 0, got "
                f"{self.soft_epochs}, {self.hard_epochs} and {self.prune_epochs}"
            )
        for name in ("soft_rates", "hard_rates", "prune_rates"):
            if not isinstance(getattr(self, name), Rates):
                raise ConfigError(f"{name} must be a Rates, got {getattr(self, name)!r}")
        if not 0 < self.kept <= 1:
            raise ConfigError(f"kept must be over 0 and at most 1, got {self.kept}")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.least_steps < 1:
            raise ConfigError(f"least_steps must be at least 1, got {self.least_steps}")
        if self.method not in ("tabulated", "exact"):
            raise ConfigError(f"method must be 'tabulated' or 'exact', got {self.method!r}")
        if not self.tolerance > 0:
            raise ConfigError(f"tolerance must be positive, got {self.tolerance}")
        if not self.merge_threshold >= 0:
            raise ConfigError(f"merge_threshold must not be negative, got {self.merge_threshold}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; ``from_dict`` gives the same config back.

        Raises:
            ConfigError: a schedule or an optimiser is among the settings.

        >>> Config(tau=0.1).to_dict()["tau"]
        0.1
        """
        return {field.name: _plain(field.name, getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        """Make a config of what ``to_dict`` gives, or of a part of it: the rest has its default.

        Raises:
            ConfigError: a setting has an unknown name or is out of its range.

        >>> Config.from_dict({"tau": 0.1, "soft_rates": {"precisions": 0.001}}).soft_rates.final
        1.0
        >>> Config.from_dict({"tua": 0.1})
        Traceback (most recent call last):
            ...
        swsjax.errors.ConfigError: Config has no setting 'tua'; it has 'tau', 'components', \
'pi_zero', 'initial_std', 'hyper_priors', 'soft_epochs', 'soft_rates', 'hard_epochs', \
'hard_rates', 'prune_epochs', 'prune_rates', 'kept', 'merge_threshold', 'batch_size', 'method', \
'tolerance', 'least_steps', 'seed'
        """
        return _made(cls, settings)


_PARTS: dict[type, dict[str, type]] = {
    Config: {
        "hyper_priors": HyperPriors,
        "soft_rates": Rates,
        "hard_rates": Rates,
        "prune_rates": Rates,
    },
    HyperPriors: {"zero_precision": Gamma, "precision": Gamma, "pi_zero": Beta},
}
"""Fields that have fields of their own."""


def _names(kind: Any) -> list[str]:
    return list(kind._fields) if issubclass(kind, tuple) else [field.name for field in fields(kind)]


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Rates | HyperPriors | Gamma | Beta):
        return {
            part: _plain(f"{name}.{part}", getattr(value, part)) for part in _names(type(value))
        }
    if value is None or isinstance(value, str):
        return value
    if not is_number(value):
        raise ConfigError(f"{name} must be a number to be written down, got {value!r}")
    return int(value) if isinstance(value, Integral) else float(value)


def _made(kind: Any, settings: Any) -> Any:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"settings of {kind.__name__} must be a dictionary, got {settings!r}")
    names = _names(kind)
    for name in settings:
        if name not in names:
            known = ", ".join(map(repr, names))
            raise ConfigError(f"{kind.__name__} has no setting {name!r}; it has {known}")
    if kind in (Gamma, Beta) and len(settings) < 2:
        raise ConfigError(f"{kind.__name__} needs {' and '.join(names)}, got {dict(settings)!r}")
    parts = _PARTS.get(kind, {})
    return kind(
        **{
            name: value if name not in parts or value is None else _made(parts[name], value)
            for name, value in settings.items()
        }
    )


def _is_positive(prior: object, kind: type[Gamma] | type[Beta]) -> bool:
    return isinstance(prior, kind) and all(is_number(x) and 0 < x < float("inf") for x in prior)
