r"""Retraining under the mixture prior: weights and mixture together, first soft, then hard.

The objective of a step is the paper's Eq. 6-7 divided by the number N of training examples,

.. math:: \mathrm{loss}(w) - \frac{\tau}{N} \Big( \sum_i \log p(w_i) + \log p(\theta) \Big),

with a mean loss over the batch. In the *soft* stage the net computes with the weights themselves.
In the *hard* stage it computes with each weight's assigned mean (a straight-through estimator),
so that what is trained is what will be written; the paper has no such stage and loses accuracy
when it quantises.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax import exact, table
from swsjax.checks import check_floating, check_numbers, check_scalar, is_number
from swsjax.errors import ConfigError
from swsjax.grid import grid_over, places_on
from swsjax.losses import Loss, LossWithAux, Params
from swsjax.prior import GaussianMixture, HyperPriors, hyper_log_prob
from swsjax.select import WEIGHTS, by_mixture

__all__ = ["Forward", "Info", "Rates", "State", "Step", "hard", "init", "make_step", "soft"]

Forward = Callable[[Params, Callable[[], Params]], Params]
"""From weights, and a function that gives their assigned means, to the parameters that the net
computes with: ``soft`` or ``hard``."""
Step = Callable[["State", Any], tuple["State", "Info"]]
"""From state and batch to the state after a step and what it reports."""


def soft(params: Params, assigned: Callable[[], Params]) -> Params:
    """Compute with the weights themselves.

    >>> soft(1.2, lambda: 1.0)
    1.2
    """
    del assigned
    return params


def hard(params: Params, assigned: Callable[[], Params]) -> Params:
    """Compute with each weight's assigned mean.

    >>> hard(1.2, lambda: 1.0)
    1.0
    """
    return assigned()


@dataclass(frozen=True)
class Rates:
    """Adam's learning rates in one stage, one per group, and their course over the stage.

    Each rate rises linearly over ``warmup_epochs`` and then falls along a half cosine to
    ``final`` times its peak (1 keeps it constant). How fast the precisions may grow against the
    weights decides how sparse the net becomes: it is an annealing from one wide basin to many
    narrow ones.
    """

    weights: float | optax.GradientTransformation = 1e-3
    """A rate for Adam, or any optimiser, with a schedule of its own."""
    means: float = 1e-4
    """Of the components; that of the zero one does not move."""
    precisions: float = 1e-3
    mixing: float = 3e-3
    """Of the logits of the components' shares."""
    warmup_epochs: float = 0.0
    final: float = 1.0
    epsilon: float = 1e-8
    """Added to Adam's root mean square for the weights; a larger value calms its first steps,
    which otherwise move every weight by its full rate whatever the gradient."""

    def __post_init__(self) -> None:
        """Check what can be checked before any time is spent."""
        check_numbers(self)
        if not (is_number(self.weights) or isinstance(self.weights, optax.GradientTransformation)):
            raise ConfigError(
                f"Rates.weights must be a learning rate or an optax optimiser, got {self.weights!r}"
            )
        for name in ("weights", "means", "precisions", "mixing", "warmup_epochs", "final"):
            value = getattr(self, name)
            if is_number(value) and not 0 <= value < float("inf"):
                raise ConfigError(f"Rates.{name} must be finite and not negative, got {value}")
        if not 0 < self.epsilon < float("inf"):
            raise ConfigError(f"Rates.epsilon must be positive and finite, got {self.epsilon}")

    def optimizer(self, epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
        """Optimiser over ``(params, mixtures)`` with these rates, for a stage of that length.

        >>> optimizer = Rates().optimizer(epochs=2, steps_per_epoch=10)
        """
        warmup = round(self.warmup_epochs * steps_per_epoch)
        steps = max(epochs * steps_per_epoch, warmup + 1)

        def adam(peak: float, epsilon: float = 1e-8) -> optax.GradientTransformation:
            schedule = optax.warmup_cosine_decay_schedule(
                peak if warmup == 0 else 0.0, peak, warmup, steps, self.final * peak
            )
            return optax.adam(schedule, eps=epsilon)

        of_weights = self.weights
        if not isinstance(of_weights, optax.GradientTransformation):
            of_weights = adam(of_weights, self.epsilon)
        groups = {
            "weights": of_weights,
            "means": adam(self.means),
            "precisions": adam(self.precisions),
            "mixing": adam(self.mixing),
        }
        of_mixture = GaussianMixture._make(["means", "precisions", "mixing", "mixing"])

        def labels(trained: tuple[Params, Mapping[str, GaussianMixture]]) -> tuple[str, Any]:
            return "weights", dict.fromkeys(trained[1], of_mixture)

        return optax.multi_transform(groups, labels)


class State(NamedTuple):
    """Everything a stage of retraining carries from step to step."""

    params: Params
    """The weights: a pytree of floating arrays."""
    mixtures: dict[str, GaussianMixture]
    """By name; ``{"weights": mixture}`` where there is one over all weights."""
    opt_state: optax.OptState
    """Of the optimiser over ``(params, mixtures)``."""
    step: Array
    """() int32 steps taken in this stage."""
    key: Array
    """Key of the order in which examples are drawn."""
    aux: Any = None
    """What the loss carries from step to step beside the weights: statistics, keys; or None."""


class Info(NamedTuple):
    """What a step reports."""

    loss: Array
    """() mean loss of the batch (nats), without the prior."""
    log_prior: Array
    """() log-density of weights and mixture under prior and hyper-priors (nats)."""


def init(
    params: Params,
    mixtures: Mapping[str, GaussianMixture],
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    aux: Any = None,
) -> State:
    """Start a stage of retraining, with a fresh optimiser.

    Args:
        params: pytree of floating arrays.
        mixtures: the prior or priors by name; ``{"weights": mixture}`` for one over all weights.
        optimizer: over ``(params, mixtures)``.
        key: random key of the order of the examples, for ``epoch``.
        aux: what the loss carries from step to step, if it does.

    Raises:
        ConfigError: params that cannot be trained, or arguments of another kind.

    >>> from swsjax.prior import init_mixture
    >>> optimizer = Rates().optimizer(epochs=1, steps_per_epoch=1)
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0)}
    >>> state = init({"w": jnp.ones(3)}, mixtures, optimizer, jax.random.key(0))
    >>> state.step
    Array(0, dtype=int32)
    """
    check_floating("params", params)
    if not isinstance(mixtures, Mapping):
        raise ConfigError(
            f"mixtures must be a dictionary of them by name, got a {type(mixtures).__name__}; "
            "{'weights': mixture} is for one over all weights"
        )
    _check_optimizer(optimizer)
    mixtures = dict(mixtures)
    opt_state = optimizer.init((params, mixtures))
    return State(params, mixtures, opt_state, jnp.zeros((), jnp.int32), key, aux)


def make_step(
    loss_fn: Loss | LossWithAux,
    optimizer: optax.GradientTransformation,
    *,
    forward: Forward,
    tau: float | optax.Schedule,
    train_size: int,
    hyper: HyperPriors,
    nodes: Mapping[str, int] | int | None = 2048,
    labels: Sequence[str | None] | None = None,
) -> Step:
    """Make the function of one step of retraining, from state and batch to state and info.

    Args:
        loss_fn: mean loss of a batch, ``loss_fn(params, batch) -> scalar``; of a state with
            ``aux``, ``loss_fn(params, aux, batch) -> (scalar, aux)``.
        optimizer: over ``(params, mixtures)``, as ``Rates.optimizer`` makes.
        forward: ``soft`` or ``hard``.
        tau: weight of the prior on the loss summed over the training set, or its schedule over
            the steps of the stage.
        train_size: number N of training examples.
        hyper: hyper-priors on the mixtures.
        nodes: of the grid on which the prior is tabulated, see ``node_count``, for all
            mixtures or for each by name; None evaluates it exactly, weight by weight.
        labels: name of the mixture of each leaf of the params, in the order of
            ``jax.tree.leaves``, or None for a leaf that has none. By default the one mixture
            ``"weights"`` is over all.

    Raises:
        ConfigError: arguments of another kind. The step itself raises it where the state has not
            the mixtures that the labels name.

    >>> from swsjax.prior import init_mixture
    >>> optimizer = Rates().optimizer(epochs=1, steps_per_epoch=1)
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0)}
    >>> state = init({"w": jnp.ones(3)}, mixtures, optimizer, jax.random.key(0))
    >>> step = make_step(lambda params, batch: jnp.mean((params["w"] - batch) ** 2), optimizer,
    ...                  forward=soft, tau=0.01, train_size=1, hyper=HyperPriors())
    >>> state, info = step(state, jnp.zeros(3))
    >>> info.loss
    Array(1., dtype=float32)
    """
    _check_optimizer(optimizer)
    if not callable(forward):
        raise ConfigError(f"forward must be soft or hard, the functions, got {forward!r}")
    prior_weight = None if tau == 0 else tau if callable(tau) else optax.constant_schedule(tau)
    either_form: Callable[..., Any] = loss_fn  # the state knows which

    def names(leaves: Sequence[Array]) -> Sequence[str | None]:
        return [WEIGHTS] * len(leaves) if labels is None else labels

    def objective(
        trained: tuple[Params, dict[str, GaussianMixture]], state: State, batch: Any
    ) -> tuple[Array, tuple[Info, Any]]:
        params, mixtures = trained
        leaves, structure = jax.tree.flatten(params)
        _check_labels(names(leaves), leaves, mixtures)
        if hyper.pi_zero is None:
            mixtures = {name: _held(mixture) for name, mixture in mixtures.items()}
        log_priors = [hyper_log_prob(mixture, hyper) for mixture in mixtures.values()]
        assign: dict[str, Callable[[], list[Array]]] = {}
        for name, weights in by_mixture(leaves, names(leaves)).items():
            if nodes is None:
                log_priors.append(exact.sum_log_prob(mixtures[name], weights))
                assign[name] = partial(exact.straight_through, mixtures[name], weights)
            else:
                grid = grid_over(weights, nodes if isinstance(nodes, int) else nodes[name])
                places = places_on(weights, grid)
                log_priors.append(table.sum_log_prob(mixtures[name], weights, grid, places))
                assign[name] = partial(
                    table.straight_through, mixtures[name], weights, grid, places
                )

        def assigned() -> Params:
            means = {name: iter(means_of()) for name, means_of in assign.items()}
            mixed = [
                leaf if name is None else next(means[name])
                for leaf, name in zip(leaves, names(leaves), strict=True)
            ]
            return jax.tree.unflatten(structure, mixed)

        computing = forward(params, assigned)
        if state.aux is None:
            loss, aux = either_form(computing, batch), None
        else:
            loss, aux = either_form(computing, state.aux, batch)
        log_prior = reduce(operator.add, log_priors)
        info = Info(check_scalar(loss), log_prior)
        if prior_weight is None:  # saves the gradient of a prior that does not act
            return loss, (info, aux)
        return loss - prior_weight(state.step) / train_size * log_prior, (info, aux)

    def step(state: State, batch: Any) -> tuple[State, Info]:
        trained = (state.params, state.mixtures)
        gradients, (info, aux) = jax.grad(objective, has_aux=True)(trained, state, batch)
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        params, mixtures = optax.apply_updates(trained, updates)
        if hyper.pi_zero is None:  # without a gradient, weight decay would still move it
            mixtures = {
                name: mixture._replace(zero_logit=state.mixtures[name].zero_logit)
                for name, mixture in mixtures.items()
            }
        return State(params, mixtures, opt_state, state.step + 1, state.key, aux), info

    return step


def _check_optimizer(optimizer: optax.GradientTransformation) -> None:
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ConfigError(
            "optimizer must be one of optax over (params, mixtures), got a "
            f"{type(optimizer).__name__}; Rates().optimizer(epochs, steps_per_epoch) makes one"
        )


def _check_labels(
    names: Sequence[str | None], leaves: Sequence[Array], mixtures: Mapping[str, GaussianMixture]
) -> None:
    if len(names) != len(leaves):
        raise ConfigError(
            f"labels must name the mixture of each of the {len(leaves)} leaves of params, or None, "
            f"got {len(names)}"
        )
    missing = set(names) - {None, *mixtures}
    if missing:
        raise ConfigError(
            f"the labels name the mixtures {sorted(map(str, missing))}, but the state has "
            f"{sorted(mixtures)}; give them to init"
        )


def _held(mixture: GaussianMixture) -> GaussianMixture:
    """The mixture with the zero component's share not to be trained."""
    return mixture._replace(zero_logit=jax.lax.stop_gradient(mixture.zero_logit))
