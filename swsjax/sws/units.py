r"""Weights in units of each array's own scale.

A net computes the same if a kernel is stored a hundred times smaller and the factor is divided out
elsewhere; the prior, its widths and the learning rates would act on it a hundred times harder.
Here they act on :math:`v = (w - c) / u` with one unit per array,

.. math:: u = \frac{\sum_i |w_i - c|^3}{\sum_i (w_i - c)^2}.

In an array in which a share of the weights has equal size and the others are zero, u is that size,
whatever the share; the weights of a Gaussian array have a root mean square of 0.63 u. Nothing then
depends on how a net stores its weights, and kernels before a normalisation, which the prior shrinks
without resistance, stay at their size in units.

The offset c is zero, except for vectors of nearly equal weights, such as the scales of a
normalisation: it is their mean. Without it they would all be at 1, on few of the levels, and would
pull those away from the weights of all other arrays, as the loss depends on them much more.
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

__all__ = [
    "Carried",
    "Unit",
    "in_units",
    "measured_again",
    "offset_of",
    "over",
    "stored",
    "unit_of",
]

# A unit has 16 significant bits and a level 8 (see quantize), so that their product is exact in
# float32 and a file can tell one from the other.
_UNIT_BITS = 16
# Standard deviations of a vector within its mean: then its weights are nearly equal.
_ALIKE = 2


class Unit(NamedTuple):
    """How an array is stored: a weight is ``size`` times the one in units, plus ``offset``."""

    size: Array
    """() float32."""
    offset: Array
    """() float32."""


class Carried(NamedTuple):
    """What a net in units carries along."""

    aux: Any
    """What the loss may change from step to step."""
    frozen: tuple[Array, ...]
    """Constants of the net."""
    units: dict[str, list[Unit]]
    """The unit of each compressed array, by group."""


@jax.jit
def unit_of(weights: Array) -> Array:
    """Measure the unit of an array, rounded to 16 significant bits; 1 if all weights are zero.

    Args:
        weights: any shape and floating dtype.

    >>> print(unit_of(jnp.array([0.0, 0.5, -0.5, 0.0])), unit_of(jnp.zeros(3)))
    0.5 1.0
    """
    sizes = jnp.abs(_wide(weights))
    most = jnp.max(sizes, initial=0)
    relative = sizes / jnp.where(most > 0, most, 1)  # cubes of small weights would underflow
    squares = jnp.sum(relative**2)
    unit = _short(most * jnp.sum(relative**3) / jnp.where(most > 0, squares, 1))
    return jnp.where(unit > 0, unit, 1)


@jax.jit
def offset_of(weights: Array) -> Array:
    """Return the mean of a vector of nearly equal weights, to 16 significant bits; 0 of any other.

    Args:
        weights: any shape and floating dtype.

    >>> print(offset_of(jnp.array([0.875, 1.125])), offset_of(jnp.array([0.0, 2.0])))
    1.0 0.0
    """
    if weights.ndim > 1 or not weights.size:
        return jnp.zeros((), jnp.float32)
    wide = _wide(weights)
    mean, spread = jnp.mean(wide), jnp.std(wide)
    # Equal weights are one level as they are.
    return jnp.where((spread > 0) & (_ALIKE * spread < jnp.abs(mean)), _short(mean), 0)


def in_units(net: Net, units: dict[str, list[Unit]] | None = None) -> Net:
    """Return the net with each compressed array in its unit; the function it computes is the same.

    Arrays of less than 32 bits are trained in float32, and computed with in their own type.

    Args:
        net: as ``take_apart`` makes it.
        units: of each array, by group; None measures them.

    >>> from swsjax.training import take_apart
    >>> net = in_units(take_apart({"w": jnp.array([0.25, 0.0, -0.25])}))
    >>> print(net.weights.groups["weights"][0], net.carried.units["weights"][0].size)
    [ 1.  0. -1.] 0.25
    >>> print(net.rebuild(net.weights, net.carried)[0])
    {'w': Array([ 0.25,  0.  , -0.25], dtype=float32)}
    """
    groups, (aux, frozen) = net.weights.groups, net.carried
    units = _measured(groups) if units is None else units
    types = jax.tree.map(lambda leaf: leaf.dtype, groups)

    def as_given(weights: Weights, units: Any) -> Weights:
        arrays = jax.tree.map(
            lambda leaf, kind: leaf.astype(kind), stored(weights.groups, units), types
        )
        return weights._replace(groups=arrays)

    def rebuild(weights: Weights, carried: Carried) -> tuple[Any, Any]:
        return net.rebuild(as_given(weights, carried.units), (carried.aux, carried.frozen))

    def loss(loss_fn: Loss | LossWithAux) -> LossWithAux:
        on_stored = net.loss(loss_fn)

        def on_units(weights: Weights, carried: Carried, batch: Any) -> tuple[Array, Carried]:
            parts = carried.aux, carried.frozen
            value, (after, _) = on_stored(as_given(weights, carried.units), parts, batch)
            return value, carried._replace(aux=after)

        return on_units

    return net._replace(
        weights=net.weights._replace(groups=_over(groups, units)),
        carried=Carried(aux, frozen, units),
        rebuild=rebuild,
        loss=loss,
    )


@jax.jit
def stored(groups: dict[str, list[Array]], units: dict[str, list[Unit]]) -> dict[str, list[Array]]:
    """Return the weights themselves, u v + c.

    Args:
        groups: arrays in units, by group.
        units: of each.

    >>> stored({"weights": [jnp.array([1.0, -1.0])]}, {"weights": [Unit(jnp.array(0.25), 0.0)]})
    {'weights': [Array([ 0.25, -0.25], dtype=float32)]}
    """
    return jax.tree.map(_stored, groups, units)


def _stored(leaf: Array, unit: Unit) -> Array:
    size, offset = (jnp.asarray(part, leaf.dtype) for part in unit)
    return leaf * size + offset


# Compiled once for all arrays: many small programs would take seconds to compile.
@jax.jit
def _measured(groups: dict[str, list[Array]]) -> dict[str, list[Unit]]:
    def measured(leaf: Array) -> Unit:
        offset = offset_of(leaf)
        return Unit(unit_of(_wide(leaf) - offset), offset)

    return jax.tree.map(measured, groups)


@jax.jit
def _over(groups: dict[str, list[Array]], units: dict[str, list[Unit]]) -> dict[str, list[Array]]:
    return jax.tree.map(over, groups, units)


def over(leaf: Array, unit: Unit) -> Array:
    """Return an array in its unit, v = (w - c) / u.

    Args:
        leaf: the weights.
        unit: of the array.

    >>> print(over(jnp.array([0.75, 1.25]), Unit(jnp.array(0.25), jnp.array(1.0))))
    [-1.  1.]
    """
    return (_wide(leaf) - unit.offset) / unit.size


def _wide(leaf: Array) -> Array:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _short(number: Array) -> Array:
    return jax.lax.reduce_precision(number.astype(jnp.float32), 8, _UNIT_BITS - 1)


@jax.jit
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
    >>> print(state.params.weights.groups["weights"][0], state.aux.units["weights"][0].size)
    [1. 1. 1.] 0.5
    """
    del number
    joint: Joint = state.params
    carried: Carried = state.aux
    groups = joint.weights.groups

    def measured(leaf: Array, unit: Unit) -> Unit:
        weights = _stored(leaf, unit)
        # What an offset was chosen for stays a vector with an offset.
        offset = jnp.where(unit.offset == 0, 0, _short(jnp.mean(weights)))
        return Unit(unit_of(weights - offset.astype(leaf.dtype)), offset)

    def as_change(leaf: Array, new: Unit, old: Unit) -> Unit:
        """The new unit in the old one."""
        del leaf
        return Unit(new.size / old.size, (new.offset - old.offset) / old.size)

    units = jax.tree.map(measured, groups, carried.units)
    change = jax.tree.map(as_change, groups, units, carried.units)

    def moved(node: Any) -> Any:
        if not isinstance(node, optax.ScaleByAdamState):
            return node
        return node._replace(mu=_moments(node.mu, change, 1), nu=_moments(node.nu, change, 2))

    groups = jax.tree.map(over, groups, change)
    return state._replace(
        params=joint._replace(weights=joint.weights._replace(groups=groups)),
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
    if not jax.tree.leaves(groups):  # another optimiser's share
        return moments
    groups = jax.tree.map(lambda m, new: m * (new.size**power).astype(m.dtype), groups, change)
    return moments._replace(weights=moments.weights._replace(groups=groups))
