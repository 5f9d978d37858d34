"""What is wrong with a run, in words: before it starts, and after every epoch."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.config import TAU_PER_EXAMPLE, Config
from swsjax.errors import ConfigError, RetrainingError, SwsjaxWarning
from swsjax.losses import LossWithAux
from swsjax.retrain import Info

__all__ = ["check_epoch", "check_loss", "warn_before"]

# Times the default tau. LeNets work from a quarter of it to twice; eight times cost a small net on
# digits 2 % of error, and 45 times all of it.
_WEAK, _STRONG = 1 / 30, 20.0
_FEW_COMPONENTS = 4
_TOY = 1000  # weights, up to which there is no time to be lost
_FAR = 10.0  # times as far out as all but a thousandth of the weights


def check_loss(loss_fn: LossWithAux, params: Any, carried: Any, batch: Any) -> None:
    """Try a loss on shapes alone.

    Args:
        loss_fn: of trained part, carried part and batch, as ``nets.Net.loss`` makes it.
        params: the trained part.
        carried: the carried part.
        batch: pytree of arrays, or of their shapes.

    Raises:
        ConfigError: the loss is no scalar, or what it carries changes its form.

    >>> loss = lambda params, carried, batch: (params * batch, carried)
    >>> check_loss(loss, jnp.ones(()), (), jnp.ones(()))
    >>> check_loss(loss, jnp.ones(()), (), jnp.ones(3))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: loss_fn must return a scalar, got an array of shape (3,); take \
the mean over the batch
    """
    loss, after = jax.eval_shape(loss_fn, params, carried, batch)
    if jnp.shape(loss) != ():
        raise ConfigError(
            f"loss_fn must return a scalar, got an array of shape {jnp.shape(loss)}; take the mean "
            "over the batch"
        )
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        raise ConfigError(f"loss_fn must return a floating number, got {loss.dtype}")
    before = jax.eval_shape(lambda: carried)
    if _form(before) != _form(after):
        raise ConfigError(
            "loss_fn must return aux in the form it got it; it got "
            f"{_form(before)} and returned {_form(after)}"
        )


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
    if isinstance(config.tau, int | float) and weights > _TOY:
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
    """Stop a run that has gone wrong.

    Args:
        progress: what ``compress`` reports of the epoch.
        info: mean figures of its steps.
        state: weights and mixtures after it, a pytree of arrays.

    Raises:
        RetrainingError: loss, prior, weights or mixtures are not finite, or every weight is zero
            after the soft stage.

    >>> from types import SimpleNamespace
    >>> progress = SimpleNamespace(stage="hard", epoch=3, epochs=4, non_zeros=0)
    >>> check_epoch(progress, Info(jnp.ones(()), jnp.ones(())), {"w": jnp.zeros(2)})
    Traceback (most recent call last):
        ...
    swsjax.errors.RetrainingError: every weight is zero after epoch 3 of 4 (hard stage): the prior \
outweighs the loss; lower tau
    """
    where = f"after epoch {progress.epoch} of {progress.epochs} ({progress.stage} stage)"
    if not (jnp.isfinite(info.loss) and jnp.isfinite(info.log_prior)):
        raise RetrainingError(
            f"loss or prior is not finite {where}: loss {info.loss.item()}, log-prior "
            f"{info.log_prior.item()}; lower the learning rates of that stage, "
            f"Config.{progress.stage}_rates"
        )
    # The info is of before the last update.
    if not all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state)):
        raise RetrainingError(
            f"weights or mixture are not finite {where}; lower the learning rates of that stage, "
            f"Config.{progress.stage}_rates"
        )
    if progress.stage != "soft" and progress.non_zeros == 0:
        raise RetrainingError(
            f"every weight is zero {where}: the prior outweighs the loss; lower tau"
        )


def _form(tree: Any) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _warn(message: str) -> None:
    warnings.warn(message, SwsjaxWarning, stacklevel=4)
