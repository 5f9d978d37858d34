"""What is wrong with a run, in words: before it starts, and after every epoch."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.checks import check_scalar, is_number, is_numeric, leaf_name
from swsjax.config import TAU_PER_EXAMPLE, Config
from swsjax.errors import ConfigError, RetrainingError, SwsjaxError, SwsjaxWarning
from swsjax.losses import LossWithAux
from swsjax.prior import GaussianMixture, log_prob
from swsjax.retrain import Info

__all__ = [
    "check_epoch",
    "check_mixtures",
    "checked",
    "warn_before",
    "warn_of_lost_arrays",
    "why_zero",
]

# Times the default tau. LeNets work from a quarter of it to twice; eight times cost a small net on
# digits 2 % of error, and 45 times all of it.
_WEAK, _STRONG = 1 / 30, 20.0
_FEW_COMPONENTS = 4
_TOY = 1000  # weights, up to which there is no time to be lost
_FAR = 10.0  # times as far out as all but a thousandth of the weights
_WIDE = 3.0  # times the standard deviation that the hyper-prior asks for
_WIDER = 1.2  # times that at the start; a merge widens it a little
# Nats a weight, under one Gaussian. Where precisions are held firmly the weights may lie far out,
# as many nats in all as the shapes of their hyper-priors; runs that end well were seen to be at 5
# beyond that, those with a hundred times the learning rate at 50 and over.
_MISFIT, _MISFIT_HELD = 20.0, 2.0
_SAMPLE = 2**14  # weights to tell it from


def checked(loss_fn: LossWithAux) -> LossWithAux:
    """Let a loss say, when it is traced, what is wrong with what it returns.

    Args:
        loss_fn: of trained part, carried part and batch, as ``nets.Net.loss`` makes it; the
            carried part is ``(aux, frozen arrays)``.

    Returns:
        The same loss, which raises ``ConfigError`` if it fails, returns no floating scalar, or
        changes the form of what it carries.

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
                f"loss_fn fails on a batch of {_form(batch)}: {type(error).__name__}: {first}"
            ) from error
        check_scalar(value)
        came, returned = _form(carried[0]), _form(after[0])
        if came != returned:
            raise ConfigError(
                f"loss_fn must return aux in the form it got it; it got {came} and returned "
                f"{returned}"
            )
        return value, after

    return loss


def warn_before(config: Config, groups: dict[str, list[Array]], train_size: int) -> None:
    """Warn of settings that are likely to waste the time of a run.

    Args:
        config: settings.
        groups: the weights under each mixture, by its name.
        train_size: number of training examples.

    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     warn_before(Config(components=2), {"weights": [jnp.linspace(-1, 1, 5000)]}, 5000)
    >>> print(seen[0].message)
    components=2 leaves the 5,000 weights of the mixture 'weights' few values to gather at; 16 \
suit most nets
    """
    weights = sum(leaf.size for leaves in groups.values() for leaf in leaves)
    if is_number(config.tau) and weights > _TOY:
        default = TAU_PER_EXAMPLE * train_size
        balance, advised = config.tau / default, f"{default:.1g}, the default"
        if balance > _STRONG:
            _warn(
                f"tau={config.tau:g} lets the prior over {weights:,} weights outweigh the loss of "
                f"{train_size:,} examples; the net may collapse to zero. Try tau={advised}"
            )
        if balance < _WEAK:
            _warn(
                f"tau={config.tau:g} hardly lets the prior over {weights:,} weights be felt beside "
                f"the loss of {train_size:,} examples; little will be compressed. Try "
                f"tau={advised}"
            )
    for name, leaves in groups.items():
        size = sum(leaf.size for leaf in leaves)
        if config.components < _FEW_COMPONENTS and size > _TOY:
            _warn(
                f"components={config.components} leaves the {size:,} weights of the mixture "
                f"{name!r} few values to gather at; 16 suit most nets"
            )
        values = np.abs(np.concatenate([np.ravel(np.asarray(x, np.float32)) for x in leaves]))
        most, usual = values.max(initial=0), np.quantile(values, 0.999) if size else 0
        if size > _TOY and most > _FAR * usual:
            _warn(
                f"the weights of the mixture {name!r} reach to {most:.3g}, but all except a "
                f"thousandth are within {usual:.3g}: most components start where there are no "
                "weights. Put the leaf with the large ones under another mixture, or leave it out"
            )


def check_epoch(progress: Any, info: Info, state: Any) -> None:
    """Stop a run whose figures are lost.

    Args:
        progress: what ``compress`` reports of the epoch.
        info: mean figures of its steps.
        state: weights and mixtures after it, a pytree of arrays.

    Raises:
        RetrainingError: loss, prior, weights or mixtures are not finite.

    >>> from types import SimpleNamespace
    >>> progress = SimpleNamespace(stage="hard", epoch=3, epochs=4)
    >>> check_epoch(progress, Info(jnp.ones(()), jnp.ones(())), {"w": jnp.array([0.1, jnp.nan])})
    Traceback (most recent call last):
        ...
    swsjax.errors.RetrainingError: weights or mixture are not finite after epoch 3 of 4 (hard \
stage); lower the learning rates of that stage, Config.hard_rates
    """
    if not (jnp.isfinite(info.loss) and jnp.isfinite(info.log_prior)):
        see = ", or see whether all data are finite and all labels in range"
        data = "" if jnp.isfinite(info.loss) else see
        raise RetrainingError(
            f"loss or prior is not finite {_where(progress)}: loss {info.loss.item():.4g}, "
            f"log-prior {info.log_prior.item():.4g}; lower the learning rates of that stage, "
            f"Config.{progress.stage}_rates{data}"
        )
    # The info is of before the last update.
    if not all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state)):
        raise RetrainingError(
            f"weights or mixture are not finite {_where(progress)}; lower the learning rates of "
            f"that stage, Config.{progress.stage}_rates"
        )


def check_mixtures(
    progress: Any,
    groups: Mapping[str, Sequence[Array]],
    mixtures: Mapping[str, GaussianMixture],
    config: Config,
) -> None:
    """Stop a run whose mixtures have lost the weights.

    Args:
        progress: what ``compress`` reports of the epoch.
        groups: the weights under each mixture, by its name.
        mixtures: after the epoch, by name.
        config: settings.

    Raises:
        RetrainingError: the weights lie where a mixture has no density to speak of, or all are
            zero after the soft stage.

    >>> from types import SimpleNamespace
    >>> from swsjax.prior import init_mixture
    >>> progress = SimpleNamespace(stage="soft", epoch=1, epochs=4)
    >>> mixtures, weights = {"weights": init_mixture(-1.0, 1.0)}, jnp.linspace(-9.0, 9.0, 1000)
    >>> check_mixtures(progress, {"weights": [weights]}, mixtures, Config())
    Traceback (most recent call last):
        ...
    swsjax.errors.RetrainingError: the mixture 'weights' no longer matches the weights after \
epoch 1 of 4 (soft stage): their mean log-density is -160, of one Gaussian over them all -3.07. \
They have moved faster than its components follow; lower weights, or raise means, in \
Config.soft_rates
    """
    if progress.stage != "soft" and progress.non_zeros == 0:
        raise RetrainingError(
            f"every weight is zero {_where(progress)}: {why_zero(mixtures, config)}"
        )
    if progress.stage == "prune":  # no prior holds the weights where the mixture is
        return
    for name, leaves in groups.items():
        mixture, size = mixtures[name], sum(leaf.size for leaf in leaves)
        held = config.hyper_priors.zero_precision.shape
        held += mixture.means.size * config.hyper_priors.precision.shape
        ours, gaussian = map(float, _fit(mixture, leaves))
        if gaussian - ours > _MISFIT + _MISFIT_HELD * held / size:
            rates = f"Config.{progress.stage}_rates"
            raise RetrainingError(
                f"the mixture {name!r} no longer matches the weights {_where(progress)}: their "
                f"mean log-density is {ours:.3g}, of one Gaussian over them all {gaussian:.3g}. "
                "They have moved faster than its components follow; lower weights, or raise means, "
                f"in {rates}"
            )


def warn_of_lost_arrays(quantised: Any, labels: Sequence[str | None]) -> None:
    """Warn of kernels that are all zero after the soft stage: nothing goes through them.

    Args:
        quantised: the trained part of a net, every weight at the mean of its component.
        labels: name of the mixture of each leaf, or None.

    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     net = {"one": jnp.zeros((9, 40)), "two": jnp.ones((40, 20)), "bias": jnp.zeros(20)}
    ...     warn_of_lost_arrays(net, ["weights"] * 3)
    >>> print(seen[0].message)
    every weight of one is zero after the soft stage, so nothing goes through; lower tau or \
pi_zero, or give such arrays a mixture of their own by a rule. Where a normalisation follows, only \
the prior acts on the scale of a kernel
    """
    compressed = [
        (leaf_name(path), leaf)
        for (path, leaf), label in zip(jax.tree.leaves_with_path(quantised), labels, strict=True)
        if label is not None
    ]
    lost = [name for name, leaf in compressed if leaf.ndim > 1 and not jnp.any(leaf)]
    if lost and sum(leaf.size for _, leaf in compressed) > _TOY:
        _warn(
            f"every weight of {', '.join(lost)} is zero after the soft stage, so nothing goes "
            "through; lower tau or pi_zero, or give such arrays a mixture of their own by a rule. "
            "Where a normalisation follows, only the prior acts on the scale of a kernel"
        )


def why_zero(mixtures: Mapping[str, GaussianMixture], config: Config) -> str:
    """Say why every weight may have become zero, and what to set.

    Args:
        mixtures: by name.
        config: settings.

    >>> from swsjax.prior import init_mixture
    >>> print(why_zero({"weights": init_mixture(-1.0, 1.0, std=0.02)}, Config()))
    the prior outweighs the loss; lower tau
    """
    gamma = config.hyper_priors.zero_precision
    wide = max(float(jnp.exp(-0.5 * mixture.log_precisions[0])) for mixture in mixtures.values())
    asked = (gamma.rate / gamma.shape) ** 0.5
    if wide > _WIDER * config.initial_std:
        return (
            f"the zero component has widened from {config.initial_std:g} to {wide:.3g} to hold "
            "them all; lower weights in Config.soft_rates"
        )
    if wide > _WIDE * asked:
        return (
            f"the zero component is still {wide:.3g} wide, where hyper_priors ask for {asked:.3g}, "
            "and holds them all; raise soft_epochs, or precisions in Config.soft_rates, or lower "
            "tau"
        )
    return "the prior outweighs the loss; lower tau"


@jax.jit
def _fit(mixture: GaussianMixture, leaves: Sequence[Array]) -> tuple[Array, Array]:
    """Mean log-density of a sample of the weights, and what one Gaussian over them would give."""
    stride = max(1, -(-sum(leaf.size for leaf in leaves) // _SAMPLE))
    # Leaf by leaf: they may lie on devices in different ways.
    picked = [leaf.ravel()[::stride].astype(jnp.float32) for leaf in leaves if leaf.size]

    def mean(function: Callable[[Array], Array]) -> Array:
        total = sum((jnp.sum(function(x)) for x in picked), jnp.zeros(()))
        return total / sum(x.size for x in picked)

    centre = mean(lambda x: x)
    # Not narrower than the components: weights that are all alike are no misfit.
    least = jnp.exp(-jnp.max(mixture.log_precisions))
    variance = jnp.maximum(mean(lambda x: (x - centre) ** 2), least)
    gaussian = -0.5 * jnp.log(2 * jnp.pi * jnp.e * variance)
    return mean(lambda x: log_prob(mixture, x)), gaussian


def _where(progress: Any) -> str:
    return f"after epoch {progress.epoch} of {progress.epochs} ({progress.stage} stage)"


def _form(tree: Any) -> dict[str, str]:
    return {leaf_name(path): _kind(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def _kind(leaf: Any) -> str:
    if not is_numeric(leaf):
        return type(leaf).__name__
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


def _warn(message: str) -> None:
    warnings.warn(message, SwsjaxWarning, stacklevel=4)
