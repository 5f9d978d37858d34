r"""What weights become at a level: fewer weights, fewer channels or fewer bits.

The three compressions of Nunez, Horton, Prabhu, Ranjan, Farhadi, Rastegari, *LCS: Learning
Compressible Subspaces for Adaptive Network Compression at Inference Time* (WACV 2023, arXiv
2110.04252), as functions of weights and a level that may be traced: one compiled step has all
levels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from swsjax.baselines.leaves import with_leaves
from swsjax.errors import ConfigError
from swsjax.lab.nets import Channels
from swsjax.training.masks import keep_top
from swsjax.trees import Params, named_leaves

__all__ = ["first_channels", "kept_channels", "rounded", "rounded_between", "top_share"]


def top_share(kernel: Array, share: ArrayLike) -> Array:
    r"""Set the :math:`\lfloor (1 - k) n \rfloor` smallest of the n weights of an array to zero.

    The gradient goes through the weights that are kept only. Of equal magnitudes the first are
    kept.

    Args:
        kernel: weights.
        share: k to keep, from 0 to 1, in float32.

    >>> top_share(jnp.array([0.1, -0.8, 0.3, 0.2]), 0.5)
    Array([ 0. , -0.8,  0.3,  0. ], dtype=float32)
    """
    share = jnp.asarray(share, jnp.float32)
    dropped = jnp.floor((1 - share) * kernel.size).astype(jnp.int32)
    kept: Array = keep_top(kernel, jax.lax.stop_gradient(jnp.abs(kernel)), kernel.size - dropped)
    return kept


def rounded(weights: Array, bits: ArrayLike) -> Array:
    r"""Round weights to at most :math:`2^b` evenly spaced values, one of them 0, straight through.

    As ``quantize_affine``, with a number of bits that may be traced, and the gradient of the
    identity.

    Args:
        weights: an array; its smallest and largest values and zero are the range.
        bits: number b of bits, an integer from 1 to 16.

    >>> rounded(jnp.array([-1.0, -0.4, 0.0, 0.3, 2.0]), 2).tolist()
    [-1.0, 0.0, 0.0, 0.0, 2.0]
    >>> jax.grad(lambda w: rounded(w, 2).sum())(jnp.array([0.3, 2.0])).tolist()
    [1.0, 1.0]
    """
    wide = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    return rounded_between(weights, jnp.min(wide, initial=0), jnp.max(wide, initial=0), bits)


def rounded_between(
    array: Array, low: Array | float, high: Array | float, bits: ArrayLike
) -> Array:
    r"""Round an array to at most :math:`2^b` evenly spaced values of a range, straight through.

    Entries outside of the range become its ends; their gradient is that of the identity, too.

    Args:
        array: any floating array.
        low: end of the range, at most 0.
        high: end of the range, at least 0.
        bits: number b of bits, an integer from 1 to 16.

    >>> rounded_between(jnp.array([-9.0, 0.2, 0.9, 9.0]), -1.0, 2.0, 2).tolist()
    [-1.0, 0.0, 1.0, 2.0]
    """
    most = (1 << jnp.asarray(bits, jnp.int32)) - 1
    wide = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    step = high / most - low / most  # of the widest range, too, in which high - low is infinite
    step = jnp.where(step > 0, step, 1)
    zero = jnp.round(-low / step)
    numbers = jnp.clip(jnp.round(wide / step) + zero, 0, most)
    value = ((numbers - zero) * step).astype(array.dtype)
    # Exactly the value: the difference is zero.
    return jax.lax.stop_gradient(value) + (array - jax.lax.stop_gradient(array))


def first_channels(params: Params, layers: Sequence[Channels], width: ArrayLike) -> Params:
    r"""Set all but the first :math:`\max(1, \mathrm{round}(\gamma C))` channels of layers to zero.

    All parameters that a channel runs through are zero: the weights that make it, its norm's scale
    and bias, and the weights that read it. So it is zero behind each layer and adds nothing, and
    the net computes what the narrow net does, if its norms take each channel alone: BatchNorm and
    instance norm do, layer norm and group norm with several channels per group do not.

    Args:
        params: nested dictionaries of arrays.
        layers: the channels of each layer.
        width: share :math:`\gamma` of the channels, from 0 to 1, in float32.

    Raises:
        ConfigError: as ``kept_channels``.

    >>> params = {"fc1": {"kernel": jnp.ones((1, 4))}, "fc2": {"kernel": jnp.ones((4, 1))}}
    >>> found = first_channels(params, [{"fc1/kernel": 1, "fc2/kernel": 0}], 0.5)
    >>> found["fc1"]["kernel"].tolist(), found["fc2"]["kernel"].ravel().tolist()
    ([[1.0, 1.0, 0.0, 0.0]], [1.0, 1.0, 0.0, 0.0])
    """
    kept = kept_channels(params, params, layers, width)
    found = [(name, leaf) for name, leaf in named_leaves(params) if name in kept]
    return with_leaves(params, {name: jnp.where(kept[name], leaf, 0) for name, leaf in found})


def kept_channels(
    tree: Any, params: Params, layers: Sequence[Channels], width: ArrayLike
) -> dict[str, Array]:
    """Return where the leaves of a tree belong to the first channels of all of their layers.

    Args:
        tree: parameters or statistics of a net.
        params: parameters of the net, which have the numbers of channels.
        layers: the channels of each layer.
        width: share of the channels, as for ``first_channels``.

    Returns:
        Arrays of bools that broadcast against the leaves, for those that channels run through.

    Raises:
        ConfigError: no channels of a layer are in the net, or its leaves disagree on their number.

    >>> params, layers = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 1))}, [{"w": 1, "v": 0, "m": 0}]
    >>> kept_channels({"m": jnp.zeros(4)}, params, layers, 0.5)
    {'m': Array([ True,  True, False, False], dtype=bool)}
    """
    shapes = {name: jnp.shape(leaf) for name, leaf in named_leaves(params)}
    found: dict[str, Array] = {}
    numbers = [_number(shapes, channels) for channels in layers]
    for name, leaf in named_leaves(tree):
        for channels, size in zip(layers, numbers, strict=True):
            if name not in channels:
                continue
            left = jnp.round(jnp.asarray(width, jnp.float32) * size)
            before, after = channels[name], leaf.ndim - channels[name] - 1
            # Where positions were flattened, the channel is the faster index.
            index = jnp.arange(leaf.shape[before]) % size
            alive = (index < jnp.maximum(1, left)).reshape(*[1] * before, -1, *[1] * after)
            found[name] = found.get(name, True) & alive
    return found


def _number(shapes: dict[str, tuple[int, ...]], channels: Channels) -> int:
    """Number of channels of a layer."""
    sizes = {
        name: shapes[name][axis]
        for name, axis in channels.items()
        if name in shapes and axis < len(shapes[name])
    }
    size = min(sizes.values(), default=0)
    if not size or any(other % size for other in sizes.values()):
        raise ConfigError(
            f"the net does not have the channels of {dict(channels)}: it has {sizes or 'none'}; "
            "pass the layers of this net"
        )
    return size
