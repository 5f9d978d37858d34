r"""Retraining under the mixture prior: weights and mixture together, first soft, then hard.

The objective of a step is the paper's Eq. 6-7 divided by the number N of training examples,

.. math:: \mathrm{loss}(w) - \frac{\tau}{N} \Big( \sum_i \log p(w_i) + \log p(\theta) \Big),

with a mean loss over the batch. In the *soft* stage the net computes with the weights themselves.
In the *hard* stage it computes with each weight's assigned mean (a straight-through estimator),
so that what is trained is what will be written; the paper has no such stage and loses accuracy
when it quantises.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax import exact, table
from swsjax.losses import Loss, Params
from swsjax.prior import GaussianMixture, HyperPriors, hyper_log_prob

__all__ = ["Forward", "Info", "Rates", "State", "Step", "hard", "init", "make_step", "soft"]

Forward = Callable[[Params, Callable[[Params], Params]], Params]
"""From weights, and a function that replaces them by their assigned means, to the parameters that
the net computes with: ``soft`` or ``hard``."""
Step = Callable[["State", Any], tuple["State", "Info"]]


def soft(params: Params, assigned: Callable[[Params], Params]) -> Params:
    """Compute with the weights themselves.

    >>> soft(1.2, round)
    1.2
    """
    del assigned
    return params


def hard(params: Params, assigned: Callable[[Params], Params]) -> Params:
    """Compute with each weight's assigned mean.

    >>> hard(1.2, round)
    1
    """
    return assigned(params)


@dataclass(frozen=True)
class Rates:
    """Adam's learning rates in one stage, one per group, and their course over the stage.

    Each rate rises linearly over ``warmup_epochs`` and then falls along a half cosine to
    ``final`` times its peak (1 keeps it constant). How fast the precisions may grow against the
    weights decides how sparse the net becomes: it is an annealing from one wide basin to many
    narrow ones.
    """

    weights: float = 1e-3
    means: float = 1e-4
    precisions: float = 1e-3
    mixing: float = 3e-3
    warmup_epochs: float = 0.0
    final: float = 1.0
    epsilon: float = 1e-8
    """Added to Adam's root mean square for the weights; a larger value calms its first steps,
    which otherwise move every weight by its full rate whatever the gradient."""

    def optimizer(self, epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
        """Adam over ``(params, mixture)`` with these rates, for a stage of that length.

        >>> optimizer = Rates().optimizer(epochs=2, steps_per_epoch=10)
        """
        warmup = round(self.warmup_epochs * steps_per_epoch)
        steps = max(epochs * steps_per_epoch, warmup + 1)

        def adam(peak: float, epsilon: float = 1e-8) -> optax.GradientTransformation:
            schedule = optax.warmup_cosine_decay_schedule(
                peak if warmup == 0 else 0.0, peak, warmup, steps, self.final * peak
            )
            return optax.adam(schedule, eps=epsilon)

        groups = {
            "weights": adam(self.weights, self.epsilon),
            "means": adam(self.means),
            "precisions": adam(self.precisions),
            "mixing": adam(self.mixing),
        }
        labels = GaussianMixture("means", "precisions", "mixing", "mixing")
        return optax.multi_transform(groups, ("weights", labels))


class State(NamedTuple):
    """Everything a stage of retraining carries from step to step."""

    params: Params
    mixture: GaussianMixture
    opt_state: optax.OptState
    step: Array
    """() int32 steps taken in this stage."""
    key: Array
    """Key of the order in which examples are drawn."""


class Info(NamedTuple):
    """What a step reports."""

    loss: Array
    """() mean loss of the batch (nats), without the prior."""
    log_prior: Array
    """() log-density of weights and mixture under prior and hyper-priors (nats)."""


def init(
    params: Params, mixture: GaussianMixture, optimizer: optax.GradientTransformation, key: Array
) -> State:
    """Start a stage of retraining at ``params`` and ``mixture``, with a fresh optimiser.

    >>> from swsjax.prior import init_mixture
    >>> optimizer = Rates().optimizer(epochs=1, steps_per_epoch=1)
    >>> state = init({"w": jnp.ones(3)}, init_mixture(-1.0, 1.0), optimizer, jax.random.key(0))
    >>> state.step
    Array(0, dtype=int32)
    """
    opt_state = optimizer.init((params, mixture))
    return State(params, mixture, opt_state, jnp.zeros((), jnp.int32), key)


def make_step(
    loss_fn: Loss,
    optimizer: optax.GradientTransformation,
    *,
    forward: Forward,
    tau: float | optax.Schedule,
    train_size: int,
    hyper: HyperPriors,
    nodes: int | None = 2048,
) -> Step:
    """Make the function of one step of retraining, from state and batch to state and info.

    Args:
        loss_fn: mean loss of a batch at given parameters.
        optimizer: over ``(params, mixture)``, as ``Rates.optimizer`` makes.
        forward: ``soft`` or ``hard``.
        tau: weight of the prior on the loss summed over the training set, or its schedule over
            the steps of the stage.
        train_size: number N of training examples.
        hyper: hyper-priors on the mixture.
        nodes: of the grid on which the prior is tabulated, see ``table.node_count``; None evaluates
            it exactly, weight by weight.

    >>> from swsjax.prior import init_mixture
    >>> optimizer = Rates().optimizer(epochs=1, steps_per_epoch=1)
    >>> state = init({"w": jnp.ones(3)}, init_mixture(-1.0, 1.0), optimizer, jax.random.key(0))
    >>> step = make_step(lambda params, batch: jnp.mean((params["w"] - batch) ** 2), optimizer,
    ...                  forward=soft, tau=0.01, train_size=1, hyper=HyperPriors())
    >>> state, info = step(state, jnp.zeros(3))
    >>> info.loss
    Array(1., dtype=float32)
    """
    prior_weight = None if tau == 0 else tau if callable(tau) else optax.constant_schedule(tau)

    def objective(trained: tuple[Params, GaussianMixture], batch: Any, step: Array):
        params, mixture = trained
        if hyper.pi_zero is None:
            mixture = mixture._replace(zero_logit=jax.lax.stop_gradient(mixture.zero_logit))
        leaves, structure = jax.tree.flatten(params)
        if nodes is None:
            log_prior = exact.sum_log_prob(mixture, leaves)
            assign = partial(exact.straight_through, mixture)
        else:
            grid = table.grid_over(leaves, nodes)
            log_prior = table.sum_log_prob(mixture, leaves, grid)
            assign = partial(table.straight_through, mixture, grid=grid)

        def assigned(params: Params) -> Params:
            return jax.tree.unflatten(structure, assign(jax.tree.leaves(params)))

        loss = loss_fn(forward(params, assigned), batch)
        log_prior += hyper_log_prob(mixture, hyper)
        if prior_weight is None:  # saves the gradient of a prior that does not act
            return loss, Info(loss, log_prior)
        return loss - prior_weight(step) / train_size * log_prior, Info(loss, log_prior)

    def step(state: State, batch: Any) -> tuple[State, Info]:
        trained = (state.params, state.mixture)
        gradients, info = jax.grad(objective, has_aux=True)(trained, batch, state.step)
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        params, mixture = optax.apply_updates(trained, updates)
        if hyper.pi_zero is None:  # without a gradient, weight decay would still move it
            mixture = mixture._replace(zero_logit=state.mixture.zero_logit)
        return State(params, mixture, opt_state, state.step + 1, state.key), info

    return step
