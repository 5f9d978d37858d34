r"""Weights in units of each array's own scale.

A net computes the same if a kernel is stored a hundred times smaller and the factor is divided out
elsewhere; the prior, its widths and the learning rates would act on it a hundred times harder.
Here they act on :math:`v = w / u` with one unit per array,

.. math:: u = \frac{\sum_i |w_i|^3}{\sum_i w_i^2}.

In an array in which a share of the weights has equal size and the others are zero, u is that size,
whatever the share; the weights of a Gaussian array have a root mean square of 0.63 u. Nothing then
depends on how a net stores its weights, and kernels before a normalisation, which the prior shrinks
without resistance, stay at their size in units.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.sws.step import Joint
from swsjax.training.epochs import TrainState
from swsjax.training.losses import Loss, LossWithAux
from swsjax.training.net import Net, Weights

__all__ = ["Carried", "in_units", "measured_again", "scaled", "unit_of"]

# A unit has 16 significant bits and a level 8 (see quantize), so that their product is exact in
# float32 and a file can tell one from the other.
_UNIT_BITS = 16


class Carried(NamedTuple):
    """What a net in units carries along."""

    aux: Any
    """What the loss may change from step to step."""
    frozen: tuple[Array, ...]
    """Constants of the net."""
    units: dict[str, list[Array]]
    """The unit of each compressed array, () float32, by group."""


@jax.jit
def unit_of(weights: Array) -> Array:
    """Measure the unit of an array, rounded to 16 significant bits; 1 if all weights are zero.

    Args:
        weights: any shape and floating dtype.

    >>> print(unit_of(jnp.array([0.0, 0.5, -0.5, 0.0])), unit_of(jnp.zeros(3)))
    0.5 1.0
    """
    sizes = jnp.abs(weights.astype(jnp.promote_types(weights.dtype, jnp.float32)))
    most = jnp.max(sizes, initial=0)
    relative = sizes / jnp.where(most > 0, most, 1)  # cubes of small weights would underflow
    squares = jnp.sum(relative**2)
    unit = most * jnp.sum(relative**3) / jnp.where(most > 0, squares, 1)
    unit = jax.lax.reduce_precision(unit.astype(jnp.float32), 8, _UNIT_BITS - 1)
    return jnp.where(unit > 0, unit, 1)


def in_units(net: Net, units: dict[str, list[Array]] | None = None) -> Net:
    """Return the net with each compressed array in its unit; the function it computes is the same.

    Arrays of less than 32 bits are trained in float32, and computed with in their own type.

    Args:
        net: as ``take_apart`` makes it.
        units: of each array, by group; None measures them.

    >>> from swsjax.training import take_apart
    >>> net = in_units(take_apart({"w": jnp.array([0.25, 0.0, -0.25])}))
    >>> print(net.weights.groups["weights"][0], net.carried.units["weights"][0])
    [ 1.  0. -1.] 0.25
    >>> print(net.rebuild(net.weights, net.carried)[0])
    {'w': Array([ 0.25,  0.  , -0.25], dtype=float32)}
    """
    groups, (aux, frozen) = net.weights.groups, net.carried
    units = jax.tree.map(unit_of, groups) if units is None else units
    types = jax.tree.map(lambda leaf: leaf.dtype, groups)

    def stored(weights: Weights, units: Any) -> Weights:
        arrays = jax.tree.map(
            lambda leaf, kind: leaf.astype(kind), scaled(weights.groups, units), types
        )
        return weights._replace(groups=arrays)

    def rebuild(weights: Weights, carried: Carried) -> tuple[Any, Any]:
        return net.rebuild(stored(weights, carried.units), (carried.aux, carried.frozen))

    def loss(loss_fn: Loss | LossWithAux) -> LossWithAux:
        on_stored = net.loss(loss_fn)

        def on_units(weights: Weights, carried: Carried, batch: Any) -> tuple[Array, Carried]:
            parts = carried.aux, carried.frozen
            value, (after, _) = on_stored(stored(weights, carried.units), parts, batch)
            return value, carried._replace(aux=after)

        return on_units

    return net._replace(
        weights=net.weights._replace(groups=_over(groups, units)),
        carried=Carried(aux, frozen, units),
        rebuild=rebuild,
        loss=loss,
    )


def scaled(groups: dict[str, list[Array]], units: dict[str, list[Array]]) -> dict[str, list[Array]]:
    """Return the weights themselves, u v.

    Args:
        groups: arrays in units, by group.
        units: of each.

    >>> scaled({"weights": [jnp.array([1.0, -1.0])]}, {"weights": [jnp.array(0.25)]})
    {'weights': [Array([ 0.25, -0.25], dtype=float32)]}
    """
    return jax.tree.map(lambda leaf, unit: leaf * unit.astype(leaf.dtype), groups, units)


def _over(groups: Any, units: Any) -> Any:
    def over(leaf: Array, unit: Array) -> Array:
        return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) / unit.astype(leaf.dtype)

    return jax.tree.map(over, groups, units)


def measured_again(state: TrainState, number: int) -> TrainState:
    """Measure the units again, before an epoch; the function of the net stays the same.

    Adam's moments are those of the rescaled weights: a gradient is in inverse units. Optimisers
    with moments of another kind keep them as they are.

    Args:
        state: of a net in units; its params are the ``Joint`` of weights and mixtures.
        number: of the epoch in the stage.

    >>> from swsjax.sws import LearningRates, init, init_mixture
    >>> from swsjax.training import take_apart
    >>> net, optimizer = take_apart({"w": jnp.ones(3)}), LearningRates().optimizer(1, 1)
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0)}
    >>> state = init(in_units(net), mixtures, optimizer, jax.random.key(0))
    >>> weights = state.params.weights._replace(groups={"weights": [jnp.full(3, 0.5)]})
    >>> state = measured_again(state._replace(params=state.params._replace(weights=weights)), 1)
    >>> print(state.params.weights.groups["weights"][0], state.aux.units["weights"][0])
    [1. 1. 1.] 0.5
    """
    del number
    joint: Joint = state.params
    carried: Carried = state.aux
    groups = joint.weights.groups

    def measured(leaf: Array, unit: Array) -> Array:
        return unit_of(leaf * unit.astype(leaf.dtype))

    units = jax.tree.map(measured, groups, carried.units)
    change = jax.tree.map(lambda new, old: new / old, units, carried.units)

    def moved(node: Any) -> Any:
        if not isinstance(node, optax.ScaleByAdamState):
            return node
        return node._replace(mu=_moments(node.mu, change, 1), nu=_moments(node.nu, change, 2))

    return state._replace(
        params=joint._replace(weights=joint.weights._replace(groups=_over(groups, change))),
        opt_state=jax.tree.map(
            moved, state.opt_state, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState)
        ),
        aux=carried._replace(units=units),
    )


def _moments(moments: Any, change: Any, power: int) -> Any:
    """Moments of gradients whose weights have new units; those of other parameters unchanged."""
    if not isinstance(moments, Joint) or not isinstance(moments.weights, Weights):
        return moments
    groups = moments.weights.groups
    if len(jax.tree.leaves(groups)) != len(jax.tree.leaves(change)):  # another optimiser's share
        return moments
    groups = jax.tree.map(lambda m, factor: m * (factor**power).astype(m.dtype), groups, change)
    return moments._replace(weights=moments.weights._replace(groups=groups))
