"""Pruning by magnitude, of trained nets.

One threshold for the whole net, as in Liu et al., *Rethinking the Value of Network Pruning* (ICLR
2019, arXiv 1810.05270), or one for each layer, as in Han et al. (NIPS 2015, arXiv 1506.02626). Liu
et al. prune convolutions only; here dense layers are pruned, too: they hold nearly all weights of
the LeNets.
"""

import jax.numpy as jnp

from swsjax.baselines.weights import (
    check_finite,
    kept,
    kernels,
    number_kept,
    weights_kept,
    with_kernels,
)
from swsjax.lab.task import Variables
from swsjax.training.masks import keep_top

__all__ = ["magnitude", "magnitude_per_layer"]


def magnitude(net: Variables, keep: float) -> Variables:
    """Set all weights of the kernels to zero except the largest, over the whole net.

    Exactly round(n keep) of the n weights are kept. Arrays in, arrays out: under ``jax.jit``, too.

    Args:
        net: trained.
        keep: share of the weights to keep, in (0, 1].

    Raises:
        ConfigError: keep is out of its range, or the weights are not finite.

    >>> from swsjax.lab import Variables
    >>> net = Variables({"fc": {"bias": jnp.ones(2), "kernel": jnp.array([[0.1, -0.8]])}}, {})
    >>> magnitude(net, 0.5).params["fc"]["kernel"]
    Array([[ 0. , -0.8]], dtype=float32)
    """
    k = weights_kept(net, keep)
    return kept(net, {name: jnp.abs(kernel) for name, kernel in kernels(net).items()}, k)


def magnitude_per_layer(net: Variables, keep: float) -> Variables:
    """Set all weights of each kernel to zero except the same share of largest ones.

    Exactly round(n keep) of the n weights of each kernel are kept.

    Args:
        net: trained.
        keep: share of each kernel's weights to keep, in (0, 1].

    Raises:
        ConfigError: keep is out of its range, or the weights are not finite.

    >>> from swsjax.lab import Variables
    >>> net = Variables([jnp.array([[0.1, -0.8]]), jnp.array([[3.0, 2.0]])], {})
    >>> magnitude_per_layer(net, 0.5).params
    [Array([[ 0. , -0.8]], dtype=float32), Array([[3., 0.]], dtype=float32)]
    """
    check_finite(net)
    return with_kernels(
        net,
        {
            name: keep_top(kernel, jnp.abs(kernel), number_kept(kernel.size, keep, name))
            for name, kernel in kernels(net).items()
        },
    )
