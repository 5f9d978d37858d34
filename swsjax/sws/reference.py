"""What a loss is compared with in retraining: what the pretrained net has, and its unit.

Nothing is known about the loss of a net but its values: a mean or a sum over outputs, in nats or in
square metres. What training gained is the difference between the loss of the pretrained net and
that of the same net with zeros for the weights that are compressed. A loss of which training gained
as much as it does in nats is taken as it is; the unit of any other is such that it gained about
what it does of the cross-entropy of ten classes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from swsjax.training.losses import LossWithAux
from swsjax.training.net import Weights

__all__ = ["Reference", "References", "loss_unit", "no_reference", "zeroed"]

# Of cross-entropy, training gains up to 0.7 nats with two classes, and 7 with a thousand; of
# distillation at a temperature of 6, 35; of a sum over the pixels of an image, some hundred.
_LEAST_GAIN, _MOST_GAIN = 0.5, 1000.0
# Of the cross-entropy of ten classes, 2.3.
_USUAL_GAIN = 2.0


class Reference(NamedTuple):
    """What a loss is compared with."""

    floor: float
    """Loss of a batch at and below which only the prior acts."""
    unit: float
    """What the loss, and the prior with it, is divided by."""


References = Callable[[LossWithAux], Reference]
"""From a loss to what it is compared with."""


def no_reference(loss_fn: LossWithAux) -> Reference:
    """Let every batch act, whatever its loss, and take the loss as it is.

    >>> no_reference(lambda weights, carried, batch: (0.0, carried))
    Reference(floor=-inf, unit=1.0)
    """
    del loss_fn
    return Reference(-math.inf, 1.0)


def loss_unit(gain: float) -> float:
    """Return the unit of a loss: a power of two, by which divided nothing is rounded.

    Args:
        gain: of training, in the loss. Where there is none, or no finite one, the unit is 1.

    >>> [loss_unit(gain) for gain in (2.3, 6000.0, 0.3, -1.0)]
    [1.0, 2048.0, 0.125, 1.0]
    """
    if not 0 < gain < math.inf or _LEAST_GAIN <= gain <= _MOST_GAIN:
        return 1.0
    return 2.0 ** math.floor(math.log2(gain / _USUAL_GAIN))


def zeroed(weights: Weights) -> Weights:
    """Return a net with zeros for the weights that are compressed.

    Args:
        weights: of a net.

    >>> zeroed(Weights({"weights": [jnp.ones(2)]}, [])).groups
    {'weights': [Array([0., 0.], dtype=float32)]}
    """
    return weights._replace(groups=jax.tree.map(jnp.zeros_like, weights.groups))
