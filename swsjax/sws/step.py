r"""One step of retraining: weights and mixture together, with a soft or a hard forward pass.

The objective of a step is the paper's Eq. 6-7 divided by the number N of training examples,

.. math:: \mathrm{loss}(w) - \tau \Big( \sum_i \log p(w_i) + \log p(\theta) \Big),

with a mean loss over the batch; tau here is the paper's divided by N. In the *soft* stage the net
computes with the weights themselves. In the *hard* stage it computes with each weight's assigned
mean (a straight-through estimator), so that the net that is trained is the net that is written; the
paper has no such stage and loses accuracy when it quantises. Between them, the net may be handed
over step by step.
"""

import operator
from collections.abc import Callable, Mapping
from functools import cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.checks import check_floating, check_scalar
from swsjax.errors import ConfigError
from swsjax.sws import exact, table
from swsjax.sws.grid import cells_on, grid_over
from swsjax.sws.histogram import Sample
from swsjax.sws.prior import GaussianMixture, HyperPriors, hyper_log_prob
from swsjax.training.epochs import Step, TrainState, copied, gradient_step, optimizer_of
from swsjax.training.losses import LossWithAux
from swsjax.training.net import Net, Weights
from swsjax.trees import is_integer

__all__ = ["Forward", "Info", "Joint", "hand_over", "hard", "init", "make_step", "soft"]

_OPTIMIZER = (
    "LearningRates().optimizer(epochs, steps_per_epoch) makes one over weights and mixtures"
)

Forward = Callable[[Weights, Callable[[], Weights], Array], Weights]
"""From weights, a function that returns their assigned means, and the number of the step in its
stage, to the weights that the net computes with: ``soft``, ``hard`` or what ``hand_over`` makes."""


def soft(weights: Weights, assigned: Callable[[], Weights], step: Array) -> Weights:
    """Compute with the weights themselves.

    >>> soft(1.2, lambda: 1.0, 0)
    1.2
    """
    del assigned, step
    return weights


def hard(weights: Weights, assigned: Callable[[], Weights], step: Array) -> Weights:
    """Compute with each weight's assigned mean.

    >>> hard(1.2, lambda: 1.0, 0)
    1.0
    """
    del weights, step
    return assigned()


def hand_over(steps: int | Array) -> Forward:
    """Make the way from ``soft`` to ``hard``: a share of the assigned means that rises to 1.

    Weights that the net leans on though their mean is zero then leave the zero component one after
    another, as the loss asks for them. Without it the loss jumps, and calls for many more than are
    needed.

    Args:
        steps: after which the net computes with the means alone.

    >>> forward = hand_over(4)
    >>> weight, mean = jnp.float32(1.5), lambda: jnp.float32(1.0)
    >>> [forward(weight, mean, jnp.int32(step)).item() for step in (0, 2, 4, 6)]
    [1.5, 1.25, 1.0, 1.0]
    """

    def forward(weights: Weights, assigned: Callable[[], Weights], step: Array) -> Weights:
        share = jnp.clip(step / steps, 0, 1)
        blend = partial(_between, share)
        return jax.tree.map(blend, weights, assigned())

    return forward


def _between(share: Array, weight: Array, mean: Array) -> Array:
    share = share.astype(weight.dtype)
    return (1 - share) * weight + share * mean  # at the end, the mean to the last bit


class Joint(NamedTuple):
    """What a step trains: weights and mixtures together."""

    weights: Weights
    """The arrays of the net."""
    mixtures: dict[str, GaussianMixture]
    """The prior over each group of weights, by the group's name."""


class Info(NamedTuple):
    """What a step reports."""

    loss: Array
    """() mean loss of the batch (nats), without the prior."""
    log_prior: Array
    """() log-density of weights and mixtures under prior and hyper-priors (nats)."""


def init(
    net: Net,
    mixtures: Mapping[str, GaussianMixture],
    optimizer: optax.GradientTransformation,
    key: Array,
) -> TrainState:
    """Start a stage of retraining, with a fresh optimiser.

    Args:
        net: as ``take_apart`` makes it.
        mixtures: the prior over each group of the net's weights, by name.
        optimizer: over the ``Joint`` of weights and mixtures, as ``LearningRates.optimizer`` makes.
        key: random key of the order of the examples, for ``epoch``.

    Raises:
        ConfigError: mixtures that are not those of the net's groups, or an argument of the wrong
            type.

    >>> from swsjax.sws import LearningRates, init_mixture
    >>> from swsjax.training import take_apart
    >>> optimizer = LearningRates().optimizer(epochs=1, steps_per_epoch=1)
    >>> net = take_apart({"w": jnp.ones(3)})
    >>> state = init(net, {"weights": init_mixture(-1.0, 1.0)}, optimizer, jax.random.key(0))
    >>> state.step
    Array(0, dtype=int32)
    """
    if not isinstance(net, Net):
        raise ConfigError(f"net must be what take_apart returns, got a {type(net).__name__}")
    check_floating("weights", net.weights)
    if not isinstance(mixtures, Mapping) or set(mixtures) != set(net.weights.groups):
        found = sorted(mixtures) if isinstance(mixtures, Mapping) else type(mixtures).__name__
        raise ConfigError(
            "mixtures must be a dictionary with one mixture per group of weights, "
            f"{sorted(net.weights.groups)}, got {found}"
        )
    for name, mixture in mixtures.items():
        if not isinstance(mixture, GaussianMixture):
            raise ConfigError(
                f"mixtures[{name!r}] must be a GaussianMixture, got a value of type "
                f"{type(mixture).__name__}; init_mixture makes one"
            )
    optimizer = optimizer_of(optimizer, _OPTIMIZER)
    joint = Joint(net.weights, dict(mixtures))
    opt_state = copied(optimizer.init(joint))
    return TrainState(joint, opt_state, jnp.zeros((), jnp.int32), key, net.carried)


def make_step(
    loss_fn: LossWithAux,
    optimizer: optax.GradientTransformation,
    *,
    forward: Forward,
    tau: float | optax.Schedule | None,
    hyper: HyperPriors,
    width: optax.Schedule | None = None,
    pull: optax.Schedule | None = None,
    nodes: Mapping[str, int] | int | None = 2048,
    sample: int | None = None,
    floor: float | Array | None = None,
    unit: float | Array | None = None,
) -> Step:
    """Make the function of one step of retraining, from state and batch to state and ``Info``.

    Args:
        loss_fn: loss of ``Weights``, carried part and batch, as ``net.loss(loss_fn)`` makes it.
        optimizer: over the ``Joint`` of weights and mixtures, as ``LearningRates.optimizer`` makes.
        forward: ``soft``, ``hard`` or what ``hand_over`` makes.
        tau: weight of the prior in the mean loss, or its schedule over the steps of the stage. The
            paper's is N times this, with N training examples. None: ``state.given``, so that one
            compiled step serves several.
        hyper: hyper-priors on the mixtures.
        width: schedule of the standard deviation that all components share, over the steps of the
            stage; None: their precisions are learned, under the hyper-priors.
        pull: schedule of the share of the way to its assigned mean that each compressed weight goes
            in a step, besides its update; None is no pull.
        nodes: nodes of the grid on which the prior is tabulated, see ``node_count``, for all
            mixtures or for each by name; None evaluates it exactly, weight by weight.
        sample: weights of an array that a step counts for the gradient of the mixture, in turn with
            its others; None counts all, and an exact prior does. ``Info.log_prior`` is then an
            estimate.
        floor: loss of a batch (nats) at and below which only the prior acts; None is no floor. At
            the loss that the pretrained net has, retraining does not fit the examples more closely
            than its training did.
        unit: what the objective is divided by; None is 1. It makes no difference but to an
            optimiser that has a scale of its own, as Adam's epsilon is.

    Raises:
        ConfigError: an argument of the wrong type.

    >>> from swsjax.sws import LearningRates, init_mixture
    >>> from swsjax.training import take_apart
    >>> optimizer = LearningRates().optimizer(epochs=1, steps_per_epoch=1)
    >>> net = take_apart({"w": jnp.ones(3)})
    >>> state = init(net, {"weights": init_mixture(-1.0, 1.0)}, optimizer, jax.random.key(0))
    >>> loss = net.loss(lambda params, batch: jnp.mean((params["w"] - batch) ** 2))
    >>> step = make_step(loss, optimizer, forward=soft, tau=0.01, hyper=HyperPriors())
    >>> state, info = step(state, jnp.zeros(3))
    >>> info.loss
    Array(1., dtype=float32)
    """
    optimizer = optimizer_of(optimizer, _OPTIMIZER)
    if not callable(forward):
        raise ConfigError(
            f"forward must be soft or hard, the functions, or what hand_over makes, got {forward!r}"
        )
    if not (nodes is None or is_integer(nodes) or isinstance(nodes, Mapping)):
        raise ConfigError(
            f"nodes must be an integer, or one for each mixture by name, or None, got {nodes!r}"
        )
    fixed = [] if hyper.pi_zero else ["zero_logit"]
    if width is not None:
        fixed.append("log_precisions")

    quantised = forward is not soft or pull is not None

    def objective(joint: Joint, state: TrainState, batch: Any) -> tuple[Array, Any]:
        weights, mixtures = joint
        mixtures = {name: _without_gradient(mixture, fixed) for name, mixture in mixtures.items()}
        counted = None if sample is None else Sample(sample, state.step)
        log_prior, assigned = _prior(weights, mixtures, hyper, nodes, counted, quantised)
        loss, aux = loss_fn(forward(weights, assigned, state.step), state.aux, batch)
        above = loss if floor is None else jnp.maximum(loss, floor)
        means = None if pull is None else assigned().groups
        info = Info(check_scalar(loss), log_prior), jax.lax.stop_gradient(means)
        weight = state.given if tau is None else tau(state.step) if callable(tau) else tau
        value = above if tau == 0 else above - weight * log_prior  # at 0 without its gradient
        return value if unit is None else value / unit, (info, aux)

    gradient = gradient_step(objective, optimizer)

    def step(before: TrainState, batch: Any) -> tuple[TrainState, Info]:
        if width is not None:
            before = _with_width(before, width(before.step))
        state, (info, means) = gradient(before, batch)
        if pull is not None:
            state = _pulled(state, before.params.weights, means, pull(before.step))
        # Without a gradient, weight decay would still move them.
        mixtures = {
            name: mixture._replace(
                **{field: getattr(before.params.mixtures[name], field) for field in fixed}
            )
            for name, mixture in state.params.mixtures.items()
        }
        return state._replace(params=state.params._replace(mixtures=mixtures)), info

    return step


def _pulled(
    state: TrainState, before: Weights, means: dict[str, list[Array]], share: Array
) -> TrainState:
    """Each compressed weight a share of the way further to the mean it was assigned."""

    def towards(weight: Array, was: Array, mean: Array) -> Array:
        return weight + share.astype(weight.dtype) * (mean - was)

    joint: Joint = state.params
    groups = jax.tree.map(towards, joint.weights.groups, before.groups, means)
    return state._replace(params=joint._replace(weights=joint.weights._replace(groups=groups)))


def _prior(
    weights: Weights,
    mixtures: Mapping[str, GaussianMixture],
    hyper: HyperPriors,
    nodes: Mapping[str, int] | int | None,
    sample: Sample | None,
    quantised: bool,
) -> tuple[Array, Callable[[], Weights]]:
    """Log-density of weights and mixtures, and a function that returns the assigned means.

    If the prior is exact, it does so only if ``quantised``: both then come from one pass.
    """
    log_priors = [hyper_log_prob(mixture, hyper) for mixture in mixtures.values()]
    assign: dict[str, Callable[[], list[Array]]] = {}
    for name, leaves in weights.groups.items():
        mixture = mixtures[name]
        if nodes is None and quantised:
            log_prior, means = exact.sum_and_means(mixture, leaves)
            log_priors.append(log_prior)
            assign[name] = partial(list, means)
        elif nodes is None:
            log_priors.append(exact.sum_log_prob(mixture, leaves))
        else:
            grid = grid_over(leaves, int(nodes[name] if isinstance(nodes, Mapping) else nodes))
            cells = cells_on(leaves, grid)
            log_priors.append(table.sum_log_prob(mixture, leaves, grid, cells, sample))
            assign[name] = partial(table.straight_through, mixture, leaves, grid, cells)

    @cache
    def assigned() -> Weights:
        return weights._replace(groups={name: means() for name, means in assign.items()})

    return reduce(operator.add, log_priors), assigned


def _without_gradient(mixture: GaussianMixture, fields: list[str]) -> GaussianMixture:
    fixed = {field: jax.lax.stop_gradient(getattr(mixture, field)) for field in fields}
    return mixture._replace(**fixed)


def _with_width(state: TrainState, width: Array) -> TrainState:
    """All components with this standard deviation."""
    joint: Joint = state.params
    mixtures = {
        name: mixture._replace(
            log_precisions=jnp.full_like(mixture.log_precisions, -2 * jnp.log(width))
        )
        for name, mixture in joint.mixtures.items()
    }
    return state._replace(params=joint._replace(mixtures=mixtures))
