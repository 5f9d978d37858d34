r"""At which points and levels the steps of a training are, by rule, random key and progress.

The schedules of LCS (Nunez et al., WACV 2023, arXiv 2110.04252): each a small function of traced
numbers. Progress is the share of the steps that are done, from 0 to 1. A ``Draw`` says for one step
the points of the line, and the level of each; the losses of all are summed.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from swsjax.baselines.rules import Bits, Rule, TopK

__all__ = [
    "Draw",
    "at_levels",
    "decayed_share",
    "decaying",
    "ends_or_uniform",
    "late",
    "late_bits",
    "late_share",
    "line_draw",
    "point_draw",
    "sandwich",
    "uniform",
]

Draw = Callable[[Rule, Array, Array], tuple[Array, Array]]
"""From the rule, a random key and the progress to the points and the levels of a step, (nets,)."""

_UNTIL = 0.8  # of the steps


def decayed_share(share: ArrayLike, progress: ArrayLike, until: float = _UNTIL) -> Array:
    r"""Share of the weights that a step keeps, from all of them to its own share, linearly.

    .. math:: k(t) = \alpha + (1 - \alpha) \max(0, 1 - t / T_w)

    Args:
        share: :math:`\alpha`, at the end.
        progress: t, share of the steps that are done.
        until: T_w, share of the steps.

    >>> print(decayed_share(0.2, 0.4), decayed_share(0.2, 0.9))
    0.6 0.2
    """
    share = jnp.asarray(share)
    return share + (1 - share) * jnp.maximum(0, 1 - jnp.asarray(progress) / until)


def late_share(share: ArrayLike, progress: ArrayLike, until: float = _UNTIL) -> Array:
    """Share of the weights that a step keeps: all at first, its own share later.

    Args:
        share: at the end.
        progress: share of the steps that are done.
        until: share of the steps that keep all weights.

    >>> print(late_share(0.2, 0.79), late_share(0.2, 0.8))
    1.0 0.2
    """
    return jnp.where(jnp.asarray(progress) < until, 1.0, share)


def late_bits(bits: ArrayLike, progress: ArrayLike, until: float = _UNTIL) -> Array:
    """Bits of the inputs of convolutions in a step: 0, which does not round, at first.

    Args:
        bits: of the weights, from the first step.
        progress: share of the steps that are done.
        until: share of the steps that do not round inputs.

    >>> print(late_bits(3, 0.79), late_bits(3, 0.8))
    0 3
    """
    return jnp.where(jnp.asarray(progress) < until, 0, bits)


def ends_or_uniform(key: Array, least: float, most: float) -> Array:
    """Draw an end half the time, either as often, and any number between them otherwise.

    Args:
        key: random key.
        least, most: the ends.

    >>> float(ends_or_uniform(jax.random.key(0), 0.25, 0.25))
    0.25
    """
    of_kind, of_end, of_number = jax.random.split(key, 3)
    end = jnp.where(jax.random.bernoulli(of_end), most, least)
    number = jax.random.uniform(of_number, (), minval=least, maxval=most)
    return jnp.where(jax.random.bernoulli(of_kind), end, number)


def decaying(rule: Rule, key: Array, progress: Array) -> tuple[Array, Array]:
    """Draw an end or any point, whose share decays: of ``top_k`` on a line, and for one target.

    >>> points, shares = decaying(TopK(0.2, 0.2), jax.random.key(0), jnp.array(0.4))
    >>> print(points, shares)
    [0.2] [0.6]
    """
    alphas = ends_or_uniform(key, *rule.alphas)[None]
    return alphas, decayed_share(rule.of(alphas), progress)


def late(rule: Rule, key: Array, progress: Array) -> tuple[Array, Array]:
    """Draw any point, and keep all weights until 80 % of the steps: of ``top_k`` at a point.

    >>> late(TopK(0.1, 0.2), jax.random.key(0), jnp.array(0.4))[1]
    Array([1.], dtype=float32)
    """
    alphas, shares = uniform(rule, key, progress)
    return alphas, late_share(shares, progress)


def uniform(rule: Rule, key: Array, progress: Array) -> tuple[Array, Array]:
    """Draw any point: of ``bits``.

    >>> points, levels = uniform(Bits(3, 8), jax.random.key(0), jnp.array(0.4))
    >>> bool(3 <= levels[0] <= 8), points.shape
    (True, (1,))
    """
    least, most = rule.alphas
    alphas = jax.random.uniform(key, (1,), minval=least, maxval=most)
    return alphas, rule.of(alphas)


def sandwich(rule: Rule, key: Array, progress: Array) -> tuple[Array, Array]:
    """Take both ends and draw two points between them: of ``width``.

    The sandwich rule of Yu and Huang, *Universally Slimmable Networks* (ICCV 2019, arXiv
    1903.05134), without their distillation.

    >>> from swsjax.baselines.rules import Width
    >>> points, widths = sandwich(Width(0.25, 1.0, ()), jax.random.key(0), jnp.array(0.4))
    >>> print(points[:2], widths[:2], len(widths))
    [0. 1.] [0.25 1.  ] 4
    """
    least, most = rule.alphas
    between = jax.random.uniform(key, (2,), minval=least, maxval=most)
    alphas = jnp.concatenate([jnp.array([least, most]), between])
    return alphas, rule.of(alphas)


def at_levels(levels: Sequence[float]) -> Draw:
    """Take the same levels in every step, as slimmable nets do.

    Yu, Yang, Xu, Yang, Huang, *Slimmable Neural Networks* (ICLR 2019, arXiv 1812.08928), with one
    norm for all widths.

    Args:
        levels: of every step.

    >>> from swsjax.baselines.rules import Width
    >>> at_levels((0.25, 1.0))(Width(0.25, 1.0, ()), jax.random.key(0), jnp.array(0.4))[1]
    Array([0.25, 1.  ], dtype=float32)
    """
    fixed = np.asarray(levels)

    def draw(rule: Rule, key: Array, progress: Array) -> tuple[Array, Array]:
        return rule.alpha(fixed), jnp.asarray(fixed)

    return draw


def line_draw(rule: Rule) -> Draw:
    """Return how LCS draws the steps of a line.

    >>> line_draw(TopK(0.1, 1.0)).__name__
    'decaying'
    """
    return decaying if isinstance(rule, TopK) else point_draw(rule)


def point_draw(rule: Rule) -> Draw:
    """Return how LCS draws the steps of a point.

    >>> point_draw(TopK(0.1, 1.0)).__name__
    'late'
    """
    if isinstance(rule, TopK):
        return late
    return uniform if isinstance(rule, Bits) else sandwich
