"""Learning rates of weights and mixture in one stage, and the optimiser that has them."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.checks import check_numbers
from swsjax.errors import ConfigError
from swsjax.sws.prior import GaussianMixture
from swsjax.training.epochs import functions_of
from swsjax.trees import is_number

__all__ = ["LearningRates"]


@dataclass(frozen=True)
class LearningRates:
    """Adam's learning rates in one stage, one per group of parameters, and their schedule.

    Each learning rate rises linearly over ``warmup_epochs`` and then falls along a half cosine to
    ``final`` times its peak (1 keeps it constant). How fast the precisions may grow relative to the
    weights decides how sparse the net becomes: it is an annealing from one wide basin to many
    narrow ones.
    """

    weights: float | optax.GradientTransformation = 1e-3
    """Learning rate of Adam, or any optimiser with a schedule of its own. It is passed the loss
    minus the prior, its gradient and the function, and may search along a line."""
    means: float = 1e-4
    """Learning rate of the component means; the zero mean is fixed."""
    precisions: float = 1e-3
    """Learning rate of the log-precisions."""
    mixing: float = 3e-3
    """Learning rate of the logits of the mixing proportions."""
    warmup_epochs: float = 0.0
    final: float = 1.0
    epsilon: float = 1e-8
    """Added to Adam's root mean square for the weights. A larger value calms its first steps, which
    otherwise move every weight by its full learning rate, however small the gradient."""
    free: float | None = None
    """Learning rate of the weights that are trained but not compressed; None: as the others."""
    dampening: float = 0.0
    """Pull of a weight one width off its assigned mean, in units of the learning rate, in the
    stages after an annealing; the width is that at its end. Without it, weights at the boundary of
    two means go to and fro. It rises along a half cosine over the second half of the stage, once
    weights have found their means."""

    def __post_init__(self) -> None:
        """Check what can be checked before any time is spent."""
        check_numbers(self)
        if not (is_number(self.weights) or isinstance(self.weights, optax.GradientTransformation)):
            raise ConfigError(
                "LearningRates.weights must be a learning rate or an optax optimiser, got "
                f"{self.weights!r}"
            )
        for name in (
            *("weights", "means", "precisions", "mixing"),
            *("warmup_epochs", "final", "free", "dampening"),
        ):
            value = getattr(self, name)
            if is_number(value) and not 0 <= value < float("inf"):
                raise ConfigError(
                    f"LearningRates.{name} must be finite and not negative, got {value}"
                )
        if self.dampening and not is_number(self.weights):
            raise ConfigError(
                "LearningRates.dampening is in units of the learning rate, so weights must be a "
                f"number, got {self.weights!r}"
            )
        if not 0 < self.epsilon < float("inf"):
            raise ConfigError(
                f"LearningRates.epsilon must be positive and finite, got {self.epsilon}"
            )

    def optimizer(self, epochs: int | Array, steps_per_epoch: int) -> optax.GradientTransformation:
        """Make the optimiser over a ``Joint`` of weights and mixtures, for a stage of that length.

        Args:
            epochs: of the stage; in a compiled function, it may be an argument.
            steps_per_epoch: of the stage.

        >>> optimizer = LearningRates().optimizer(epochs=2, steps_per_epoch=10)
        """

        schedule = self._schedule(epochs, steps_per_epoch)

        def adam(peak: float) -> optax.GradientTransformation:
            return optax.adam(lambda step: peak * schedule(step), eps=self.epsilon)

        of_weights = self.weights
        if not isinstance(of_weights, optax.GradientTransformation):
            of_weights = adam(of_weights)
        optimizers = {
            "weights": of_weights,
            "free": _if_any(of_weights if self.free is None else adam(self.free)),
            "mixtures": optax.chain(
                optax.scale_by_adam(), optax.scale_by_schedule(schedule), self._scale_of_mixtures()
            ),
        }

        def labels(trained: Any) -> Any:
            weights = trained.weights._replace(groups="weights", free="free")
            return trained._replace(weights=weights, mixtures="mixtures")

        return _with_whole(optax.partition(optimizers, labels, mask_compatible_extra_args=True))

    def pull(
        self, epochs: int | Array, steps_per_epoch: int, width: float
    ) -> optax.Schedule | None:
        """Make the schedule of the share of the way to its mean that a weight is pulled in a step.

        Args:
            epochs: of the stage.
            steps_per_epoch: of the stage.
            width: standard deviation of the components.

        Returns:
            The schedule; None without ``dampening``.

        >>> pull = LearningRates(dampening=0.1).pull(1, steps_per_epoch=8, width=0.05)
        >>> [round(pull(step).item(), 6) for step in (0, 4, 6, 8)]
        [0.0, 0.0, 0.001, 0.002]
        """
        if not self.dampening:
            return None
        peak = self.dampening / width * self.weights
        schedule = self._schedule(epochs, steps_per_epoch)
        steps = jnp.maximum(epochs * steps_per_epoch, 1)

        def pull(step: Array) -> Array:
            share = jnp.clip(2 * step / steps - 1, 0, 1)
            return jnp.minimum(peak * schedule(step) * (1 - jnp.cos(jnp.pi * share)) / 2, 1.0)

        return pull

    def _scale_of_mixtures(self) -> optax.GradientTransformation:
        peaks = self.means, self.precisions, self.mixing, self.mixing

        def scaled(updates: Any, trained: Any) -> Any:
            del trained
            mixtures = {
                name: GaussianMixture(*(-peak * u for peak, u in zip(peaks, mixture, strict=True)))
                for name, mixture in updates.mixtures.items()
            }
            return updates._replace(mixtures=mixtures)

        return optax.stateless(scaled)

    def _schedule(self, epochs: int | Array, steps_per_epoch: int) -> optax.Schedule:
        """A linear warm-up and a half cosine from a peak of 1.

        As ``optax.warmup_cosine_decay_schedule``, which takes no traced number of steps.
        """
        warmup = round(self.warmup_epochs * steps_per_epoch)
        decay = jnp.maximum(epochs * steps_per_epoch - warmup, 1)

        def schedule(step: Array) -> Array:
            share = jnp.clip((step - warmup) / decay, 0, 1)
            falling = self.final + (1 - self.final) * (1 + jnp.cos(jnp.pi * share)) / 2
            return jnp.where(step < warmup, step / max(warmup, 1), falling)

        return schedule


def _if_any(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Do without an optimiser where it has no parameters: some need one to begin with."""
    with_extra = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Any:
        return optimizer.init(params) if jax.tree.leaves(params) else optax.EmptyState()

    def update(gradients: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
        if not jax.tree.leaves(params):
            return gradients, state
        return with_extra.update(gradients, state, params, **extra)

    return optax.GradientTransformationExtraArgs(init, update)


def _with_whole(partition: optax.GradientTransformation) -> optax.GradientTransformation:
    """Let each optimiser of a partition evaluate its part, in place of all that is trained.

    A line search passes its part alone to ``value_fn``, masked elsewhere.
    """

    def update(
        gradients: Any, state: Any, trained: Any, *, value_fn: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        def of_part(part: Any) -> Any:
            return value_fn(jax.tree.map(_unmasked, part, trained, is_leaf=_is_masked))

        if value_fn is not None:
            extra |= functions_of(of_part)
        return partition.update(gradients, state, trained, **extra)

    return optax.GradientTransformationExtraArgs(partition.init, update)


def _unmasked(part: Any, whole: Any) -> Any:
    return whole if _is_masked(part) else part


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def continued(state: optax.OptState, before: optax.OptState) -> optax.OptState:
    """Give the state of an optimiser Adam's moments of another one; schedules start again.

    Args:
        state: fresh.
        before: of an optimiser over the same parameters.

    >>> params = {"w": jnp.ones(2)}
    >>> before = optax.adam(0.1)
    >>> _, moved = before.update(params, before.init(params))
    >>> state = optax.chain(optax.adam(0.1), optax.scale(2)).init(params)
    >>> print(np.asarray(continued(state, moved)[0][0].mu["w"]).round(3))
    [0.1 0.1]
    """
    moments = iter(_adams(before))
    if len(_adams(state)) != len(_adams(before)):
        return state
    return jax.tree.map(
        lambda node: next(moments) if _is_adam(node) else node, state, is_leaf=_is_adam
    )


def _is_adam(node: Any) -> bool:
    return isinstance(node, optax.ScaleByAdamState)


def _adams(state: optax.OptState) -> list[optax.ScaleByAdamState]:
    return [node for node in jax.tree.leaves(state, is_leaf=_is_adam) if _is_adam(node)]
