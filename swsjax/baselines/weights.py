"""Which weights of a net may be pruned, how many are left, and the ones with the highest scores.

A pruned weight is exactly zero: a net's zeros are its mask. Only kernels are pruned, the floating
arrays of two axes or more; biases, the parameters of norms and statistics never are.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.baselines.leaves import with_leaves
from swsjax.errors import ConfigError
from swsjax.lab.task import Variables
from swsjax.training.masks import keep_top
from swsjax.trees import form_of, is_number, is_weight, named_leaves

__all__ = [
    "Kernels",
    "check_finite",
    "check_share",
    "density",
    "highest",
    "kept",
    "kernels",
    "mask",
    "masked",
    "number_kept",
    "sparsity_patterns",
    "weights_kept",
    "with_kernels",
]

Kernels = Mapping[str, Array]
"""An array for each kernel of a net, by the name of its leaf in ``params``."""


def kernels(net: Variables) -> dict[str, Array]:
    """Return the weights that may be pruned: the floating leaves of params with two axes or more.

    Raises:
        ConfigError: there are none.

    >>> net = Variables({"fc": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}}, {})
    >>> list(kernels(net))
    ['fc/kernel']
    """
    found = {name: leaf for name, leaf in named_leaves(net.params) if _is_kernel(leaf)}
    if not any(leaf.size for leaf in found.values()):
        raise ConfigError(
            "the net has no weights to prune; expected a floating array with two axes or more in "
            f"params, got {form_of(net.params)}"
        )
    return found


def with_kernels(net: Variables, replaced: Kernels) -> Variables:
    """Return a net with other kernels; everything else stays.

    Args:
        net: any net.
        replaced: all of its kernels, as ``kernels`` returns them.

    >>> net = Variables({"fc": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}}, {})
    >>> with_kernels(net, {"fc/kernel": jnp.zeros((3, 2))}).params["fc"]["kernel"].sum()
    Array(0., dtype=float32)
    """
    of_kernels = {name: replaced[name] for name in kernels(net)}
    return net._replace(params=with_leaves(net.params, of_kernels))


def mask(net: Variables) -> dict[str, Array]:
    """Return where the kernels are not zero, as arrays of bools.

    >>> net = Variables({"kernel": jnp.array([[0.0, 0.5]])}, {})
    >>> mask(net)
    {'kernel': Array([[False,  True]], dtype=bool)}
    """
    return {name: kernel != 0 for name, kernel in kernels(net).items()}


def masked(net: Variables, mask: Kernels) -> Variables:
    """Return a net with its kernels set to zero where the mask is False.

    Args:
        net: any net, such as an initialisation.
        mask: arrays of bools, such as the ``mask`` of a pruned net.

    >>> net = Variables({"kernel": jnp.array([[0.5, -0.5]])}, {})
    >>> masked(net, {"kernel": jnp.array([[False, True]])}).params["kernel"]
    Array([[ 0. , -0.5]], dtype=float32)
    """
    return with_kernels(
        net, {name: jnp.where(mask[name], kernel, 0) for name, kernel in kernels(net).items()}
    )


def density(net: Variables) -> float:
    """Share of the kernels' weights that are not zero, from 0 to 1.

    >>> density(Variables({"kernel": jnp.array([[0.0, 0.5], [0.0, 0.0]])}, {}))
    0.25
    """
    found = kernels(net).values()
    left = sum(int(jnp.count_nonzero(kernel)) for kernel in found)
    return left / sum(kernel.size for kernel in found)


def sparsity_patterns(net: Variables) -> dict[str, np.ndarray]:
    r"""Count how often each sparsity pattern occurs among the 3 x 3 slices of each convolution.

    A slice is what a kernel (3, 3, inputs, outputs) has for one input and one output. Its nine
    weights :math:`w_0, \dots, w_8`, row by row, have the pattern

    .. math:: p = \sum_i 2^i [w_i \ne 0]

    Liu et al. (arXiv 1810.05270, Tables 19 and 20) show the share of slices that keep each of the
    nine weights, which follows from these counts.

    Args:
        net: pruned.

    Returns:
        (512,) number of slices of each pattern, by the name of the kernel.

    Raises:
        ConfigError: no kernel is 3 x 3.

    >>> kernel = jnp.zeros((3, 3, 4, 8)).at[1, 1].set(0.5).at[0, 0, 0].set(0.5)
    >>> net = Variables({"conv": kernel}, {})
    >>> counts = sparsity_patterns(net)["conv"]
    >>> {int(pattern): int(counts[pattern]) for pattern in np.flatnonzero(counts)}
    {16: 24, 17: 8}
    >>> kept = np.arange(512)[:, None] >> np.arange(9) & 1  # (patterns, weights)
    >>> (counts @ kept / counts.sum()).reshape(3, 3)
    array([[0.25, 0.  , 0.  ],
           [0.  , 1.  , 0.  ],
           [0.  , 0.  , 0.  ]])
    """
    found = {
        name: _patterns(np.asarray(kernel))
        for name, kernel in kernels(net).items()
        if kernel.ndim == 4 and kernel.shape[:2] == (3, 3)
    }
    if not found:
        raise ConfigError(
            "the net has no kernel of 3 x 3; expected one of (3, 3, inputs, outputs) in params, "
            f"got {form_of(net.params)}"
        )
    return found


def number_kept(size: int, keep: float, what: str = "the net") -> int:
    """Return how many of a number of weights a share is, rounded.

    Args:
        size: number of weights that may be pruned.
        keep: share of them to keep, in (0, 1].
        what: has these weights.

    Raises:
        ConfigError: keep is not in (0, 1], or not one weight.

    >>> number_kept(266_200, 0.01)
    2662
    """
    check_share("keep", keep)
    number = round(size * float(keep))
    if size and not number:
        raise ConfigError(
            f"keep={keep} of {size} weights in {what} is none; keep at least {1 / size:.2g}"
        )
    return number


def check_share(what: str, value: Any) -> None:
    """Check that an argument is a share of a whole, and not none of it.

    Args:
        what: name of the argument.
        value: of any type.

    Raises:
        ConfigError: it is no number in (0, 1].

    >>> check_share("keep", 0)
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: keep must be a number in (0, 1], got 0
    """
    if not is_number(value) or not 0 < value <= 1:
        raise ConfigError(f"{what} must be a number in (0, 1], got {value!r}")


def weights_kept(net: Variables, keep: float) -> int:
    """Return how many weights of a net's kernels a share is, checked that they can be ranked.

    Args:
        net: any net.
        keep: share of the weights to keep, in (0, 1].

    Raises:
        ConfigError: as ``number_kept`` and ``check_finite``.

    >>> weights_kept(Variables({"bias": jnp.ones(2), "kernel": jnp.ones((10, 10))}, {}), 0.07)
    7
    """
    check_finite(net)
    return number_kept(sum(kernel.size for kernel in kernels(net).values()), keep)


def kept(net: Variables, scores: Kernels, k: int) -> Variables:
    """Set all kernels' weights to zero except the ``k`` with the highest scores, over the net.

    The rank is exact, see ``training.keep_top``. Weights that are zero already rank last, even
    after those whose score is NaN: k weights are left that are not zero, if the net has so many.

    Args:
        net: any net.
        scores: of the weights, arrays of the kernels' shapes.
        k: number of weights to keep.

    >>> net = Variables({"bias": jnp.ones(2), "kernel": jnp.array([[0.1, -0.8], [0.3, 0.0]])}, {})
    >>> kept(net, {"kernel": jnp.ones((2, 2))}, 3).params["kernel"]
    Array([[ 0.1, -0.8],
           [ 0.3,  0. ]], dtype=float32)
    """
    return with_kernels(net, highest(kernels(net), scores, k))


@jax.jit
def highest(weights: Kernels, scores: Kernels, k: int | Array) -> dict[str, Array]:
    """Set all weights to zero except the ``k`` with the highest scores; ``kept`` says which.

    Args:
        weights: kernels of a net.
        scores: of the weights.
        k: number of weights to keep.

    >>> highest({"w": jnp.array([0.5, 0.0, 2.0])}, {"w": jnp.array([1.0, 9.0, 3.0])}, 1)
    {'w': Array([0., 0., 2.], dtype=float32)}
    """

    def rank(kernel: Array, score: Array) -> Array:
        """Minus infinity for zeros, and for no other weight."""
        return jnp.where(kernel == 0, -jnp.inf, jnp.fmax(score, jnp.finfo(score.dtype).min))

    ranks = {name: rank(kernel, scores[name]) for name, kernel in weights.items()}
    found: dict[str, Array] = keep_top(dict(weights), ranks, k)
    return found


def check_finite(net: Variables) -> None:
    """Check that all kernels are finite, as others cannot be ranked.

    Under ``jax.jit`` values are not known, and not checked.

    Raises:
        ConfigError: one is not.

    >>> check_finite(Variables({"fc": jnp.array([[jnp.nan, 1.0]])}, {}))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: kernels must be finite, got NaN or infinity in fc; \
load or train the net again
    """
    for name, kernel in kernels(net).items():
        if not isinstance(kernel, jax.core.Tracer) and not jnp.isfinite(kernel).all():
            raise ConfigError(
                f"kernels must be finite, got NaN or infinity in {name}; load or train the net "
                "again"
            )


def _patterns(kernel: np.ndarray) -> np.ndarray:
    numbers = 2 ** np.arange(9) @ (kernel.reshape(9, -1) != 0)
    return np.bincount(numbers, minlength=512)


def _is_kernel(leaf: Any) -> bool:
    return is_weight(leaf) and jnp.ndim(leaf) > 1
