r"""The prior over the weights: a Gaussian mixture with a component pinned at zero.

All weights share one density (Ullrich, Meeds, Welling, ICLR 2017, Eq. 3; Nowlan and Hinton, 1992),

.. math:: p(w) = \sum_{j=0}^{J} \pi_j \, N(w \mid \mu_j, 1/\lambda_j), \qquad \mu_0 = 0,

whose parameters are learned together with the weights. Everything stays in log-space and float32
(or wider), whatever the dtype of the weights: the density of a pruned net spans hundreds of nats.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from swsjax.checks import check_integer
from swsjax.errors import ConfigError
from swsjax.trees import is_number

__all__ = [
    "Beta",
    "Gamma",
    "GaussianMixture",
    "HyperPriors",
    "assign",
    "component_log_probs",
    "component_means",
    "hyper_log_prob",
    "init_mixture",
    "log_mixing",
    "log_prob",
    "responsibilities",
]

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class GaussianMixture(NamedTuple):
    """Parameters of the mixture: the zero component first, then J free ones; all unconstrained.

    The state of the prior, a pytree: it can be differentiated, updated by optax and checkpointed.
    ``zero_logit`` is separate from the other mixing logits so that ``pi_zero`` can be fixed (the
    paper's 0.999) or learned under its own hyper-prior.
    """

    means: Array
    """(J,) means of the free components; the mean of the zero component is 0 and not stored."""
    log_precisions: Array
    """(J + 1,) log of the precisions 1/sigma^2, zero component first."""
    mixing_logits: Array
    """(J,) softmax logits of how the free components divide 1 - pi_zero."""
    zero_logit: Array
    """() log-odds of pi_zero, the mixing proportion of the zero component."""


def _check_positive(prior: Any) -> None:
    for field in fields(prior):
        value = getattr(prior, field.name)
        if not is_number(value) or not 0 < value < math.inf:
            raise ConfigError(
                f"{type(prior).__name__}.{field.name} must be positive and finite, got {value!r}"
            )


@dataclass(frozen=True)
class Gamma:
    """Gamma hyper-prior on a precision, in shape and rate; its mode is (shape - 1) / rate.

    Raises ``ConfigError`` if a parameter is not positive and finite.
    """

    shape: float
    rate: float

    def __post_init__(self) -> None:
        """Check the parameters."""
        _check_positive(self)


@dataclass(frozen=True)
class Beta:
    """Beta hyper-prior on pi_zero; its mode is (a - 1) / (a + b - 2), its pseudo-count a + b.

    Raises ``ConfigError`` if a parameter is not positive and finite.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        """Check the parameters."""
        _check_positive(self)


@dataclass(frozen=True)
class HyperPriors:
    """Hyper-priors on the mixture; they keep it from collapsing onto single weights.

    The defaults are those of the authors' tutorial: both modes are near a standard deviation of
    0.02. The hyper-prior of the zero component is stronger, as it sees most of the weights. Raises
    ``ConfigError`` if one is of the wrong type.
    """

    zero_precision: Gamma = Gamma(5000.0, 2.0)
    """On the precision of the zero component."""
    precision: Gamma = Gamma(250.0, 0.1)
    """On the precision of each free component."""
    pi_zero: Beta | None = None
    """On the mixing proportion of the zero component; None keeps it fixed."""

    def __post_init__(self) -> None:
        """Check the types."""
        for name in ("zero_precision", "precision"):
            if not isinstance(getattr(self, name), Gamma):
                raise ConfigError(
                    f"HyperPriors.{name} must be a Gamma, got {getattr(self, name)!r}"
                )
        if not (self.pi_zero is None or isinstance(self.pi_zero, Beta)):
            raise ConfigError(f"HyperPriors.pi_zero must be a Beta or None, got {self.pi_zero!r}")


def init_mixture(
    low: float, high: float, *, components: int = 16, pi_zero: float = 0.999, std: float = 0.25
) -> GaussianMixture:
    """Spread free components evenly over the range of the pretrained weights.

    Args:
        low: smallest pretrained weight.
        high: largest pretrained weight.
        components: number J of free components; the zero component is not counted.
        pi_zero: mixing proportion of the zero component, in (0, 1).
        std: standard deviation of every component; wide enough that neighbours overlap.

    Returns:
        The mixture, in float32; the free components have equal mixing proportions.

    Raises:
        ConfigError: the bounds are not finite or not ordered, or a setting is out of its range.

    The evenly spread means are the paper's (section 4.1), the common width is the tutorial's.

    >>> mixture = init_mixture(-1.0, 1.0, components=3, pi_zero=0.9)
    >>> mixture.means
    Array([-1.,  0.,  1.], dtype=float32)
    >>> jnp.exp(log_mixing(mixture)).round(4)
    Array([0.9   , 0.0333, 0.0333, 0.0333], dtype=float32)
    """
    if not (jnp.isfinite(low) and jnp.isfinite(high) and low < high):
        raise ConfigError(
            f"the range of the weights must be finite with low < high, got low={low}, high={high}; "
            "a net whose weights are all equal or not finite has nothing to share"
        )
    components = check_integer("components", components)
    if not 0 < pi_zero < 1:
        raise ConfigError(f"pi_zero must lie strictly between 0 and 1, got {pi_zero}")
    if not 0 < std < math.inf:
        raise ConfigError(f"std must be positive and finite, got {std}")
    return GaussianMixture(
        means=jnp.linspace(low, high, components, dtype=jnp.float32),
        log_precisions=jnp.full((components + 1,), -2 * jnp.log(std), jnp.float32),
        mixing_logits=jnp.zeros((components,), jnp.float32),
        zero_logit=jnp.asarray(math.log(pi_zero) - math.log1p(-pi_zero), jnp.float32),
    )


def component_means(mixture: GaussianMixture) -> Array:
    """Means of all components, (J + 1,), the pinned zero first.

    >>> component_means(init_mixture(-1.0, 1.0, components=2))
    Array([ 0., -1.,  1.], dtype=float32)
    """
    return jnp.concatenate([jnp.zeros((1,), mixture.means.dtype), mixture.means])


def log_mixing(mixture: GaussianMixture) -> Array:
    """Log of the mixing proportions pi, (J + 1,), zero component first.

    >>> jnp.exp(log_mixing(init_mixture(-1.0, 1.0, components=1, pi_zero=0.75)))
    Array([0.75, 0.25], dtype=float32)
    """
    is_zero, is_not = jax.nn.log_sigmoid(jnp.stack([mixture.zero_logit, -mixture.zero_logit]))
    free = jax.nn.log_softmax(mixture.mixing_logits) + is_not
    return jnp.concatenate([is_zero[None], free])


def component_log_probs(mixture: GaussianMixture, weights: ArrayLike) -> Array:
    r"""Joint log-density of weight and component, log pi_j + log N(w | mu_j, 1/lambda_j).

    Args:
        mixture: the prior, J free components.
        weights: any shape and floating dtype.

    Returns:
        Array of shape ``weights.shape + (J + 1,)``, at least float32.

    >>> mixture = init_mixture(-1.0, 1.0, components=2, pi_zero=0.5, std=1.0)
    >>> print(np.asarray(component_log_probs(mixture, 0.0)).round(3))
    [-1.612 -2.805 -2.805]
    """
    w = jnp.asarray(weights)
    w = w.astype(jnp.promote_types(w.dtype, jnp.float32))[..., None]
    axes = tuple(range(w.ndim - 1))
    half_log_precisions = 0.5 * mixture.log_precisions
    heights = log_mixing(mixture) + half_log_precisions - LOG_SQRT_2PI
    deviation = w - jnp.expand_dims(component_means(mixture), axes)
    normalised = deviation * jnp.expand_dims(jnp.exp(half_log_precisions), axes)
    return jnp.expand_dims(heights, axes) - 0.5 * normalised**2


def log_prob(mixture: GaussianMixture, weights: ArrayLike) -> Array:
    """Log-density of each weight under the mixture, in the shape of ``weights`` (nats).

    Builds an array of shape ``weights.shape + (J + 1,)``; for the sum over the weights of a net,
    ``swsjax.sws.exact`` works block by block, and ``swsjax.sws.table`` uses a table.

    >>> mixture = init_mixture(-1.0, 1.0, components=2, pi_zero=0.5, std=1.0)
    >>> print(np.asarray(log_prob(mixture, jnp.array([0.0, 1.0]))).round(3))
    [-1.138 -1.452]
    """
    return jax.nn.logsumexp(component_log_probs(mixture, weights), axis=-1)


def responsibilities(mixture: GaussianMixture, weights: ArrayLike) -> Array:
    """Posterior probability of each component given each weight, ``weights.shape + (J + 1,)``.

    >>> mixture = init_mixture(-1.0, 1.0, components=2, pi_zero=0.5, std=0.25)
    >>> print(np.asarray(responsibilities(mixture, 1.0)).round(3))
    [0.001 0.    0.999]
    """
    return jax.nn.softmax(component_log_probs(mixture, weights), axis=-1)


def assign(mixture: GaussianMixture, weights: ArrayLike) -> Array:
    """Index of the most responsible component of each weight, int32, in the shape of ``weights``.

    >>> assign(init_mixture(-1.0, 1.0, components=2, pi_zero=0.5), jnp.array([-0.9, 0.1, 0.8]))
    Array([1, 0, 2], dtype=int32)
    """
    return jnp.argmax(component_log_probs(mixture, weights), axis=-1).astype(jnp.int32)


def hyper_log_prob(mixture: GaussianMixture, hyper: HyperPriors) -> Array:
    r"""Log-density of the mixture's parameters under the hyper-priors, without constants (nats).

    .. math:: \sum_j (\alpha_j - 1) \log\lambda_j - \beta_j \lambda_j
              + (a - 1) \log\pi_0 + (b - 1) \log(1 - \pi_0)

    The densities are those of the precisions and of pi_zero themselves (no Jacobian of their
    logarithms), so that their modes are where the textbook puts them: paper, section 3.3.

    >>> mixture = init_mixture(-1.0, 1.0, components=1, std=0.02)
    >>> at_mode = jax.grad(lambda m: hyper_log_prob(m, HyperPriors()))(mixture)
    >>> bool(abs(at_mode.log_precisions[0]) < 2)
    True
    """
    zero, free = mixture.log_precisions[0], mixture.log_precisions[1:]
    total = _gamma_log_prob(zero, hyper.zero_precision)
    total += jnp.sum(_gamma_log_prob(free, hyper.precision))
    if hyper.pi_zero is not None:
        total += (hyper.pi_zero.a - 1) * jax.nn.log_sigmoid(mixture.zero_logit)
        total += (hyper.pi_zero.b - 1) * jax.nn.log_sigmoid(-mixture.zero_logit)
    return total


def _gamma_log_prob(log_precision: Array, gamma: Gamma) -> Array:
    return (gamma.shape - 1) * log_precision - gamma.rate * jnp.exp(log_precision)
