"""What the experiments do in place of a part of the method, or after it.

Scores and holds for ``three_stages``, a loss, other stages, and what is done to the quantised net
at the end.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax import HyperPriors
from swsjax.lab import Task
from swsjax.sws import (
    Course,
    GaussianMixture,
    Joint,
    Stage,
    codebook,
    non_zeros,
    prune,
    responsibilities,
    three_stages,
)
from swsjax.sws.recipes import TEMPERATURE
from swsjax.training import distillation, keep_top
from swsjax.training.losses import Loss, LossWithAux
from swsjax.trees import Params

__all__ = [
    "Then",
    "dead_units_removed",
    "levels_in_bfloat16",
    "may_come_back",
    "may_leave_range",
    "noisy",
    "saliency",
    "saliency_per_bit",
    "with_last_pass",
    "with_m_steps",
]

Then = Callable[[Loss, dict[str, Array], Params], Params]
"""From the loss of the pruning stage, its data and the quantised net to the net at the end."""

_BINS = 4096


def saliency(exponent: float, params: Params, squares: Params) -> Params:
    """As ``prune.saliency``, whose exponent is 1/4."""
    least = jnp.finfo(jnp.float32).tiny
    return jax.tree.map(
        lambda w, square: jnp.abs(w) * (square + least) ** exponent, params, squares
    )


def saliency_per_bit(params: Params, squares: Params) -> Params:
    """``prune.saliency`` divided by the root of what a weight costs in its layer."""
    scores = prune.saliency(params, squares)
    return jax.tree.map(lambda score, leaf: score / jnp.sqrt(_bits_of(leaf)), scores, params)


def _bits_of(leaf: Array) -> Array:
    """What a weight of a layer costs: its position, from the layer's density, and its value.

    3.3 bits for the value. In a layer with few weights left, each takes more of the file.
    """
    density = jnp.clip(jnp.mean(leaf != 0), 1e-6, 1 - 1e-6)
    of_zeros = (1 - density) / density * jnp.log2(1 - density)
    return 3.3 - jnp.log2(density) - of_zeros


def may_leave_range(leaf: Array, update: Array, mixture: GaussianMixture) -> Array:
    """As ``prune.hold_in_range``, but weights may go beyond the outermost means."""
    del mixture
    return jnp.where(leaf == 0, 0, update)


def may_come_back(leaf: Array, update: Array, mixture: GaussianMixture) -> Array:
    """As ``prune.hold_in_range``, but zeros are updated too.

    Each epoch prunes down to the scheduled share again; a pruned weight that has grown enough by
    then is kept.
    """
    low, high = jnp.min(mixture.means), jnp.max(mixture.means)
    return (jnp.clip(leaf + update, low, high) - leaf).astype(update.dtype)


def noisy(task: Task, *, temperature: float = TEMPERATURE, std: float = 0.01) -> LossWithAux:
    """Distillation with Gaussian noise on the weights that are not zero, to make them robust."""
    loss = task.loss(partial(distillation, temperature=temperature))

    def with_noise(params: Params, aux: Any, batch: Any) -> tuple[Array, Any]:
        # The batch is drawn at random, and so is a key made of it.
        key = jax.random.key(jnp.sum(batch["inputs"].astype(jnp.uint32)))
        leaves, structure = jax.tree.flatten(params)
        noise = [
            jnp.where(leaf == 0, 0, std * jax.random.normal(k, leaf.shape))
            for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
        ]
        noise = jax.tree.unflatten(structure, noise)
        return loss(jax.tree.map(jnp.add, params, noise), aux, batch)

    return with_noise


def with_m_steps(*arguments: Any, share: float, most: float) -> list[Stage]:
    """As ``three_stages``, but the mixture moves towards the M-step of the current weights.

    Args:
        *arguments: those of ``three_stages``.
        share: of the way, in each step of training.
        most: largest change of a log-precision in a step.
    """

    def with_m_step(stage: Stage) -> Stage:
        def course(epochs: int | Array) -> Course:
            found = stage.course(epochs)
            return found._replace(optimizer=_towards_m_step(found.optimizer, share, most))

        return stage._replace(course=course)

    return [with_m_step(stage) for stage in three_stages(*arguments)]


def _towards_m_step(
    optimizer: optax.GradientTransformation, share: float, most: float
) -> optax.GradientTransformation:
    r"""The optimiser's updates of the weights, and a part of the M-step as those of the mixture.

    With responsibilities r and the modes under the hyper-priors,

    .. math:: \mu_j = \frac{\sum_i r_{ij} w_i}{\sum_i r_{ij}}, \quad
              \lambda_j = \frac{\alpha_j - 1 + \frac12 \sum_i r_{ij}}
                               {\beta_j + \frac12 \sum_i r_{ij} (w_i - \mu_j)^2}.

    The weights are counted in bins. The loss does not move the means.
    """

    def update(gradients: Joint, state: Any, joint: Joint) -> tuple[Joint, Any]:
        updates, state = optimizer.update(gradients, state, joint)
        mixtures = {
            name: towards(mixture, joint.weights.groups[name])
            for name, mixture in joint.mixtures.items()
        }
        return updates._replace(mixtures=mixtures), state

    def towards(mixture: GaussianMixture, leaves: list[Array]) -> GaussianMixture:
        weights = jnp.concatenate([leaf.ravel() for leaf in leaves])
        target = _m_step(mixture, weights, HyperPriors())
        way = jax.tree.map(lambda to, now: share * (to - now), target, mixture)
        return way._replace(log_precisions=jnp.clip(way.log_precisions, -most, most))

    return optax.GradientTransformation(optimizer.init, update)


def _m_step(mixture: GaussianMixture, weights: Array, hyper: HyperPriors) -> GaussianMixture:
    counts, edges = jnp.histogram(weights, _BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    shares = responsibilities(mixture, centres) * counts[:, None]
    number = shares.sum(0)
    means = jnp.sum(shares * centres[:, None], 0) / jnp.maximum(number, 1e-6)
    means = jnp.where(number > 1e-3, means, jnp.append(0.0, mixture.means)).at[0].set(0.0)
    spread = jnp.sum(shares * (centres[:, None] - means) ** 2, 0)
    gammas = [hyper.zero_precision] + [hyper.precision] * mixture.means.size
    shape, rate = jnp.array([(gamma.shape, gamma.rate) for gamma in gammas]).T
    return GaussianMixture(
        means=means[1:],
        log_precisions=jnp.log((shape - 1 + number / 2) / (rate + spread / 2)),
        mixing_logits=jnp.log(jnp.maximum(number[1:], 1e-3)),
        zero_logit=mixture.zero_logit,
    )


def levels_in_bfloat16(loss: Loss, data: dict[str, Array], params: Params) -> Params:
    """Levels with eight significant bits: the file omits the zeros that they end in."""
    del loss, data
    return jax.tree.map(lambda leaf: jax.lax.reduce_precision(leaf, 8, 7), params)


def dead_units_removed(loss: Loss, data: dict[str, Array], params: Params) -> Params:
    """Zero the weights into units without a weight to the next layer: the net computes the same.

    For dense layers in sequence.
    """
    del loss, data
    for below, above in reversed(list(pairwise(params))):
        alive = jnp.any(params[above]["kernel"] != 0, axis=1)
        cut = {name: jnp.where(alive, leaf, 0) for name, leaf in params[below].items()}
        params = params | {below: cut}
    return params


def with_last_pass(cut: float, loss: Loss, data: dict[str, Array], params: Params) -> Params:
    """Zero this share of the weights, those that cost the least loss per bit; tune the levels.

    The loss of zeroing a weight is estimated from the mean square of its gradient over all
    examples, w^2 E[g^2] / 2. (With the term of first order, -g w, the net is lost: many of the
    weights that it ranks lowest correct one another.)
    """
    scores = jax.tree.map(
        lambda leaf, square: leaf**2 * square / _bits_of(leaf),
        params,
        _squares(loss, data, params),
    )
    kept = keep_top(params, scores, round((1 - cut) * non_zeros(params)))
    return _with_tuned_levels(loss, data, kept)


def _squares(loss: Loss, data: dict[str, Array], params: Params, batch: int = 200) -> Params:
    """Mean square of the gradients of single examples."""
    size = len(data["labels"])

    def of_one(example: dict[str, Array]) -> Params:
        return jax.grad(loss)(params, jax.tree.map(lambda x: x[None], example))

    @jax.jit
    def summed(examples: dict[str, Array]) -> Params:
        return jax.tree.map(lambda g: jnp.sum(g**2, 0), jax.vmap(of_one)(examples))

    total = jax.tree.map(jnp.zeros_like, params)
    for first in range(0, size, batch):
        examples = _at(data, slice(first, first + batch))
        total = jax.tree.map(jnp.add, total, summed(examples))
    return jax.tree.map(lambda square: square / size, total)


def _with_tuned_levels(
    loss: Loss, data: dict[str, Array], params: Params, epochs: int = 3, batch: int = 128
) -> Params:
    """Tune the levels that are not zero by Adam at 1e-4; the assignments stay."""
    levels = jnp.asarray(codebook(params))
    places = jax.tree.map(lambda leaf: jnp.searchsorted(levels, leaf), params)
    optimizer = optax.adam(1e-4)

    def net_of(levels: Array, places: Params) -> Params:
        return jax.tree.map(lambda place: levels[place], places)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(levels: Array, state: Any, examples: dict[str, Array]) -> tuple[Array, Any]:
        gradient = jax.grad(lambda levels: loss(net_of(levels, places), examples))(levels)
        update, state = optimizer.update(jnp.where(levels == 0, 0, gradient), state)
        return optax.apply_updates(levels, update), state

    state, key = optimizer.init(levels), jax.random.key(0)
    for one in jax.random.split(key, epochs):
        order = jax.random.permutation(one, len(data["labels"]))
        for first in range(0, len(order) - batch + 1, batch):
            examples = _at(data, order[first : first + batch])
            levels, state = step(levels, state, examples)
    return net_of(levels, places)


def _at(data: dict[str, Array], where: slice | Array) -> dict[str, Array]:
    return jax.tree.map(lambda array: array[where], data)
