"""What the experiments put in place of a part of the method, or after it.

Each function that stands in for another has its signature; its docstring says what differs.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax import GaussianMixture, HyperPriors, Rates, codebook, non_zeros, prune, responsibilities
from swsjax.lab.task import TEMPERATURE, Classifier
from swsjax.training.losses import Loss, Params, distillation

__all__ = [
    "Then",
    "bits_of_weights",
    "expectation_maximisation",
    "last_pass",
    "no_end",
    "no_range",
    "noisy",
    "saliency",
    "saliency_of_bits",
    "to_bfloat16",
    "without_dead_units",
]

Then = Callable[[Loss, dict[str, Array], Params], Params]
"""What is done to the quantised net at the end, given the loss of pruning and its data."""

_optimizer = Rates.optimizer
_BINS = 4096


def saliency(exponent: float, params: Params, squares: Params) -> Params:
    """As ``swsjax.prune.saliency``, whose exponent is 1/4."""
    least = jnp.finfo(jnp.float32).tiny
    return jax.tree.map(
        lambda w, square: jnp.abs(w) * (square + least) ** exponent, params, squares
    )


def bits_of_weights(leaf: Array) -> Array:
    """What a weight of a layer costs: its position, from the layer's density, and its value.

    3.3 bits for the value. Where few weights are left, each takes more of the file.
    """
    density = jnp.clip(jnp.mean(leaf != 0), 1e-6, 1 - 1e-6)
    of_zeros = (1 - density) / density * jnp.log2(1 - density)
    return 3.3 - jnp.log2(density) - of_zeros


def saliency_of_bits(params: Params, squares: Params) -> Params:
    """The method's saliency over the root of what a weight costs in its layer."""
    scores = prune.saliency(params, squares)
    return jax.tree.map(lambda score, leaf: score / jnp.sqrt(bits_of_weights(leaf)), scores, params)


def no_range(leaf: Array, step: Array, mixture: GaussianMixture) -> Array:
    """As in ``swsjax.prune``, but weights may go beyond the outermost means."""
    del mixture
    return jnp.where(leaf == 0, 0, step)


def no_end(leaf: Array, step: Array, mixture: GaussianMixture) -> Array:
    """As in ``swsjax.prune``, but pruned weights take steps, and return if one gets far enough.

    At each epoch so many are cut again that the share which is to be left is.
    """
    low, high = jnp.min(mixture.means), jnp.max(mixture.means)
    return (jnp.clip(leaf + step, low, high) - leaf).astype(step.dtype)


def noisy(net: Classifier, *, temperature: float = TEMPERATURE, std: float = 0.01) -> Loss:
    """Weights that are not zero with Gaussian noise: what can be imprecise should become so."""
    loss = distillation(net.apply, temperature=temperature)

    def with_noise(params: Params, batch: Any) -> Array:
        # The batch is drawn at random, and so is a key made of it.
        key = jax.random.key(jnp.sum(batch["inputs"].astype(jnp.uint32)))
        leaves, structure = jax.tree.flatten(params)
        noise = [
            jnp.where(leaf == 0, 0, std * jax.random.normal(k, leaf.shape))
            for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
        ]
        return loss(jax.tree.map(jnp.add, params, jax.tree.unflatten(structure, noise)), batch)

    return with_noise


def expectation_maximisation(
    share: float, most: float, rates: Rates, epochs: int, steps_per_epoch: int
) -> optax.GradientTransformation:
    r"""As ``Rates.optimizer``, but the mixture goes towards the M-step of the weights as they are.

    With responsibilities r and the modes under the hyper-priors,

    .. math:: \mu_j = \frac{\sum_i r_{ij} w_i}{\sum_i r_{ij}}, \quad
              \lambda_j = \frac{\alpha_j - 1 + \frac12 \sum_i r_{ij}}
                               {\beta_j + \frac12 \sum_i r_{ij} (w_i - \mu_j)^2},

    by a ``share`` of the way each step, log-precisions by ``most`` at most. The weights are counted
    in bins. Means get nothing from the loss.
    """
    inner = _optimizer(rates, epochs, steps_per_epoch)

    def update(gradients: Any, state: Any, trained: Any) -> tuple[Any, Any]:
        (to_params, _), state = inner.update(gradients, state, trained)
        params, mixtures = trained
        weights = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        to_mixtures = {name: towards(mixture, weights) for name, mixture in mixtures.items()}
        return (to_params, to_mixtures), state

    def towards(mixture: GaussianMixture, weights: Array) -> GaussianMixture:
        target = _m_step(mixture, weights, HyperPriors())
        way = jax.tree.map(lambda to, now: share * (to - now), target, mixture)
        return way._replace(log_precisions=jnp.clip(way.log_precisions, -most, most))

    return optax.GradientTransformation(inner.init, update)


def _m_step(mixture: GaussianMixture, weights: Array, hyper: HyperPriors) -> GaussianMixture:
    counts, edges = jnp.histogram(weights, _BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    shares = responsibilities(mixture, centres) * counts[:, None]
    number = shares.sum(0)
    means = jnp.sum(shares * centres[:, None], 0) / jnp.maximum(number, 1e-6)
    means = jnp.where(number > 1e-3, means, jnp.append(0.0, mixture.means)).at[0].set(0.0)
    spread = jnp.sum(shares * (centres[:, None] - means) ** 2, 0)
    gammas = [hyper.zero_precision] + [hyper.precision] * mixture.means.size
    shape, rate = jnp.array(gammas).T
    return GaussianMixture(
        means=means[1:],
        log_precisions=jnp.log((shape - 1 + number / 2) / (rate + spread / 2)),
        mixing_logits=jnp.log(jnp.maximum(number[1:], 1e-3)),
        zero_logit=mixture.zero_logit,
    )


def to_bfloat16(loss: Loss, data: dict[str, Array], params: Params) -> Params:
    """Levels with eight significant bits: the file leaves out the zeros that they end in."""
    del loss, data
    return jax.tree.map(lambda leaf: jax.lax.reduce_precision(leaf, 8, 7), params)


def without_dead_units(loss: Loss, data: dict[str, Array], params: Params) -> Params:
    """Zero what leads to units of which no weight leads on: the net computes the same.

    Of dense layers one after the other.
    """
    del loss, data
    for below, above in reversed(list(pairwise(params))):
        alive = jnp.any(params[above]["kernel"] != 0, axis=1)
        cut = {name: jnp.where(alive, leaf, 0) for name, leaf in params[below].items()}
        params = params | {below: cut}
    return params


def last_pass(cut: float, loss: Loss, data: dict[str, Array], params: Params) -> Params:
    """Zero that share of the weights which costs least loss a bit, then tune the levels.

    The loss of zeroing a weight is taken from the mean square of its gradient over all examples,
    w^2 E[g^2] / 2. (With the term of first order, -g w, the net is lost: the weights that look best
    gone are many that correct one another.)
    """
    scores = jax.tree.map(
        lambda leaf, square: leaf**2 * square / bits_of_weights(leaf),
        params,
        _squares(loss, data, params),
    )
    kept = prune.keep_largest(params, scores, round((1 - cut) * non_zeros(params)))
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
    """The same assignments, levels that are not zero tuned by Adam at 1e-4."""
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
