"""Diagnosis of a run, in words: before it starts, and after every epoch."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.checks import check_scalar
from swsjax.errors import ConfigError, RetrainingError, SwsjaxError, SwsjaxWarning
from swsjax.sws.config import Config
from swsjax.sws.plateau import zero_kernels
from swsjax.sws.prior import GaussianMixture, log_prob
from swsjax.sws.step import Info, Joint
from swsjax.training.history import Epoch
from swsjax.training.losses import LossWithAux
from swsjax.training.net import Weights
from swsjax.training.selection import Selection
from swsjax.trees import form_of, is_number

__all__ = [
    "Check",
    "check_finite",
    "check_mixtures",
    "check_some_left",
    "checked",
    "warn_before",
    "warn_of_lost_arrays",
    "why_zero",
]

Check = Callable[[Epoch, Joint, Config], None]
"""Raises ``RetrainingError`` if the net is lost, from the record of an epoch, the weights and
mixtures after it, and the settings."""

_USUAL_TAU = 1.1e-6
# Times the usual tau. LeNets work from a quarter of it to twice; at eight times a small net on
# digits lost 2 % of error, at 45 times all of it.
_WEAK, _STRONG = 1 / 30, 20.0
_FEW_COMPONENTS = 4
_TOY = 1000  # weights, up to which a run takes no time worth a warning
_FAR = 10.0  # times the magnitude of all but a thousandth of the weights
_WIDE = 3.0  # times the standard deviation that the hyper-prior asks for
_WIDER = 1.2  # times the standard deviation at the start; a merge widens it a little
# Nats per weight, under one Gaussian. Under strong hyper-priors on the precisions the weights may
# be far out, by as many nats in all as the sum of the shapes; successful runs were at up to 5
# beyond that, runs with a hundred times the learning rate at 50 and more.
_MISFIT, _MISFIT_HELD = 20.0, 2.0
_SAMPLE = 2**14  # weights to measure it on


def checked(loss_fn: LossWithAux) -> LossWithAux:
    """Check what a loss returns, when it is traced.

    Args:
        loss_fn: of weights, carried part and batch, as ``Net.loss`` makes it.

    Returns:
        The same loss, which raises ``ConfigError`` if it fails, does not return a floating scalar,
        or changes the form of aux.

    >>> loss = checked(lambda params, carried, batch: (batch["y"].mean(), carried))
    >>> loss(jnp.ones(()), (None, ()), {"x": jnp.ones(3)})
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: loss_fn fails on a batch of {'x': 'float32[3]'}: KeyError: 'y'
    """

    def loss(params: Any, carried: Any, batch: Any) -> tuple[Array, Any]:
        try:
            value, after = loss_fn(params, carried, batch)
        except SwsjaxError:
            raise
        except Exception as error:
            first = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"loss_fn fails on a batch of {form_of(batch)}: {type(error).__name__}: {first}"
            ) from error
        check_scalar(value)
        expected, actual = form_of(carried[0]), form_of(after[0])
        if expected != actual:
            raise ConfigError(
                f"loss_fn must return aux in the same form; it received {expected} and returned "
                f"{actual}"
            )
        return value, after

    return loss


def warn_before(config: Config, groups: dict[str, list[Array]]) -> None:
    """Warn of settings that are likely to waste the time of a run.

    Args:
        config: settings.
        groups: the weights of each group, by name.

    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     warn_before(Config(components=2), {"weights": [jnp.linspace(-1, 1, 5000)]})
    >>> print(seen[0].message)
    components=2 gives the 5,000 weights of the group 'weights' few values to share; 16 suit most \
nets
    """
    weights = sum(leaf.size for leaves in groups.values() for leaf in leaves)
    if is_number(config.tau) and weights > _TOY:
        balance = config.tau / _USUAL_TAU
        if balance > _STRONG:
            _warn(
                f"tau={config.tau:g} lets the prior over {weights:,} weights outweigh the loss; "
                f"the net may collapse to zero. Without tau, a suitable one is found"
            )
        if balance < _WEAK:
            _warn(
                f"tau={config.tau:g} gives the prior over {weights:,} weights almost no influence; "
                "little will be compressed. Without tau, a suitable one is found"
            )
    for name, leaves in groups.items():
        size = sum(leaf.size for leaf in leaves)
        if config.components < _FEW_COMPONENTS and size > _TOY:
            _warn(
                f"components={config.components} gives the {size:,} weights of the group "
                f"{name!r} few values to share; 16 suit most nets"
            )
        values = np.abs(np.concatenate([np.ravel(np.asarray(x, np.float32)) for x in leaves]))
        most, usual = values.max(initial=0), np.quantile(values, 0.999) if size else 0
        if size > _TOY and most > _FAR * usual:
            _warn(
                f"the weights of the group {name!r} extend to {most:.3g}, but all except a "
                f"thousandth are within {usual:.3g}: most components start where there are no "
                "weights. Move the leaf with the large weights to a group of its own, or leave it "
                "out"
            )


def check_finite(epoch: Epoch, info: Info, joint: Any) -> None:
    """Stop a run whose figures are no longer finite.

    Args:
        epoch: its record.
        info: mean figures of its steps.
        joint: weights and mixtures after it, a pytree of arrays.

    Raises:
        RetrainingError: loss, prior, weights or mixtures are not finite.

    >>> info = Info(jnp.ones(()), jnp.ones(()))
    >>> check_finite(Epoch("hard", 3, 4, 0.5), info, {"w": jnp.array([0.1, jnp.nan])})
    Traceback (most recent call last):
        ...
    swsjax.errors.RetrainingError: weights or mixture are not finite after epoch 3 of 4 (hard \
stage); lower the learning rates of that stage, Config.hard_learning_rates
    """
    if not (jnp.isfinite(info.loss) and jnp.isfinite(info.log_prior)):
        see = ", or check that all data are finite and all labels in range"
        data = "" if jnp.isfinite(info.loss) else see
        raise RetrainingError(
            f"loss or prior is not finite {_where(epoch)}: loss {info.loss.item():.4g}, "
            f"log-prior {info.log_prior.item():.4g}; lower the learning rates of that stage, "
            f"Config.{epoch.stage}_learning_rates{data}"
        )
    # The info was computed before the last update.
    if not _is_finite(joint):
        raise RetrainingError(
            f"weights or mixture are not finite {_where(epoch)}; lower the learning rates of "
            f"that stage, Config.{epoch.stage}_learning_rates"
        )


@jax.jit
def _is_finite(joint: Joint) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(joint)]))


def check_some_left(epoch: Epoch, joint: Joint, config: Config) -> None:
    """Stop a run in which every weight would be quantised to zero.

    Args:
        epoch: its record.
        joint: weights and mixtures after it.
        config: settings.

    Raises:
        RetrainingError: every weight is zero.

    >>> from swsjax.sws import init_mixture
    >>> joint = Joint(Weights({}, []), {"weights": init_mixture(-1.0, 1.0, std=0.02)})
    >>> check_some_left(Epoch("hard", 1, 4, 0.5, non_zeros=0), joint, Config())
    Traceback (most recent call last):
        ...
    swsjax.errors.RetrainingError: every weight is zero after epoch 1 of 4 (hard stage): the prior \
outweighs the loss; lower tau
    """
    if epoch.non_zeros == 0:
        raise RetrainingError(
            f"every weight is zero {_where(epoch)}: {why_zero(joint.mixtures, config)}"
        )


def check_mixtures(epoch: Epoch, joint: Joint, config: Config) -> None:
    """Stop a run whose mixtures no longer match the weights.

    Args:
        epoch: its record.
        joint: weights and mixtures after it.
        config: settings.

    Raises:
        RetrainingError: the weights are where a mixture has next to no density.

    >>> from swsjax.sws import init_mixture
    >>> weights = Weights({"weights": [jnp.linspace(-9.0, 9.0, 1000)]}, [])
    >>> joint = Joint(weights, {"weights": init_mixture(-1.0, 1.0)})
    >>> check_mixtures(Epoch("soft", 1, 4, 0.5), joint, Config())
    Traceback (most recent call last):
        ...
    swsjax.errors.RetrainingError: the mixture 'weights' no longer matches the weights after \
epoch 1 of 4 (soft stage): their mean log-density is -160, under one Gaussian over them all -3.07. \
They moved faster than its components could follow; lower weights, or raise means, in \
Config.soft_learning_rates
    """
    for name, leaves in joint.weights.groups.items():
        mixture, size = joint.mixtures[name], sum(leaf.size for leaf in leaves)
        held = config.hyper_priors.zero_precision.shape
        held += mixture.means.size * config.hyper_priors.precision.shape
        ours, gaussian = map(float, _fit(mixture, leaves))
        if gaussian - ours > _MISFIT + _MISFIT_HELD * held / size:
            raise RetrainingError(
                f"the mixture {name!r} no longer matches the weights {_where(epoch)}: their mean "
                f"log-density is {ours:.3g}, under one Gaussian over them all {gaussian:.3g}. They "
                "moved faster than its components could follow; lower weights, or raise means, in "
                f"Config.{epoch.stage}_learning_rates"
            )


def warn_of_lost_arrays(quantised: Weights, selection: Selection) -> None:
    """Warn of kernels that are all zero after the soft stage: no signal passes through them.

    Args:
        quantised: the weights, each at the mean of its component.
        selection: what happens to each leaf of the net.

    >>> from swsjax.training import take_apart
    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     net = take_apart({"one": jnp.zeros((9, 40)), "two": jnp.ones((40, 20))})
    ...     warn_of_lost_arrays(net.weights, net.selection)
    >>> print(seen[0].message)
    every weight of one is zero after the soft stage, so no signal passes through; lower tau or \
pi_zero, or move such arrays to a group of their own by a rule
    """
    lost = zero_kernels(quantised, selection)
    if lost and sum(leaf.size for leaf in selection.leaves if isinstance(leaf.group, str)) > _TOY:
        _warn(
            f"every weight of {', '.join(lost)} is zero after the soft stage, so no signal passes "
            "through; lower tau or pi_zero, or move such arrays to a group of their own by a rule"
        )


def why_zero(mixtures: Mapping[str, GaussianMixture], config: Config) -> str:
    """Say why every weight may have become zero, and what to change.

    Args:
        mixtures: by name.
        config: settings.

    >>> from swsjax.sws import init_mixture
    >>> print(why_zero({"weights": init_mixture(-1.0, 1.0, std=0.02)}, Config()))
    the prior outweighs the loss; lower tau
    """
    if config.annealing is not None:
        return "the prior outweighs the loss; lower tau"
    gamma = config.hyper_priors.zero_precision
    wide = max(float(jnp.exp(-0.5 * mixture.log_precisions[0])) for mixture in mixtures.values())
    asked = (gamma.rate / gamma.shape) ** 0.5
    if wide > _WIDER * config.initial_std:
        return (
            f"the zero component has widened from {config.initial_std:g} to {wide:.3g} and holds "
            "them all; lower weights in Config.soft_learning_rates"
        )
    if wide > _WIDE * asked:
        return (
            f"the zero component still has a standard deviation of {wide:.3g}, while hyper_priors "
            f"ask for {asked:.3g}, and holds them all; raise soft_epochs, or precisions in "
            "Config.soft_learning_rates, or lower tau"
        )
    return "the prior outweighs the loss; lower tau"


@jax.jit
def _fit(mixture: GaussianMixture, leaves: Sequence[Array]) -> tuple[Array, Array]:
    """Mean log-density of a sample of the weights, and that under one Gaussian over them."""
    stride = max(1, -(-sum(leaf.size for leaf in leaves) // _SAMPLE))
    # Leaf by leaf: they may be sharded differently.
    picked = [leaf.ravel()[::stride].astype(jnp.float32) for leaf in leaves if leaf.size]

    def mean(function: Callable[[Array], Array]) -> Array:
        total = sum((jnp.sum(function(x)) for x in picked), jnp.zeros(()))
        return total / sum(x.size for x in picked)

    centre = mean(lambda x: x)
    # Not narrower than the components: equal weights are not a misfit.
    least = jnp.exp(-jnp.max(mixture.log_precisions))
    variance = jnp.maximum(mean(lambda x: (x - centre) ** 2), least)
    gaussian = -0.5 * jnp.log(2 * jnp.pi * jnp.e * variance)
    return mean(lambda x: log_prob(mixture, x)), gaussian


def _where(epoch: Epoch) -> str:
    return f"after epoch {epoch.epoch} of {epoch.epochs} ({epoch.stage} stage)"


def _warn(message: str) -> None:
    warnings.warn(message, SwsjaxWarning, stacklevel=4)
