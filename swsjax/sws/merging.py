r"""Merging redundant components (paper, section 4.3)."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.errors import ConfigError
from swsjax.sws.prior import GaussianMixture, component_means, log_mixing

__all__ = ["kl_divergence", "merge"]


def kl_divergence(mixture: GaussianMixture) -> Array:
    r"""Kullback-Leibler divergence between all pairs of components (nats), (J + 1, J + 1).

    .. math:: \mathrm{KL}(i \| j) = \tfrac12 \Big( \log\frac{\lambda_i}{\lambda_j}
              + \frac{\lambda_j}{\lambda_i} - 1 + \lambda_j (\mu_i - \mu_j)^2 \Big)

    >>> mixture = GaussianMixture(jnp.array([2.0]), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> kl_divergence(mixture)
    Array([[0., 2.],
           [2., 0.]], dtype=float32)
    """
    means, log_precisions = component_means(mixture), mixture.log_precisions
    log_ratio = log_precisions[:, None] - log_precisions[None, :]
    distance = (means[:, None] - means[None, :]) ** 2 * jnp.exp(log_precisions)[None, :]
    return 0.5 * (jnp.expm1(-log_ratio) + log_ratio + distance)


def merge(mixture: GaussianMixture, threshold: float = 0.5) -> GaussianMixture:
    r"""Merge components, closest first, while two have a symmetric divergence below a threshold.

    A merged component has the sum of the mixing proportions, and the mean and variance of the two
    as one distribution:

    .. math:: \mu = \frac{\pi_i \mu_i + \pi_j \mu_j}{\pi_i + \pi_j}, \qquad
              \sigma^2 = \frac{\pi_i (\sigma_i^2 + \mu_i^2) + \pi_j (\sigma_j^2 + \mu_j^2)}
                              {\pi_i + \pi_j} - \mu^2

    A component merged with the zero component keeps mean 0, and its variance is taken about 0. The
    paper averages the variances only; here the distance of the two means counts too, as the merged
    component must cover it.

    Args:
        mixture: J free components.
        threshold: on the mean of KL(i|j) and KL(j|i), in nats. For two components of equal width
            whose means are k standard deviations apart it is k^2 / 2: the default 0.5 merges
            components within one standard deviation. Published thresholds (0 to 1e-5) never merge.

    Returns:
        A mixture with at most J free components, at least one, in order of their means.

    Raises:
        ConfigError: the threshold is negative, or the argument is not a ``GaussianMixture``.

    >>> twins = GaussianMixture(jnp.array([1.0, 1.1]), jnp.zeros(3), jnp.zeros(2), jnp.zeros(()))
    >>> print(merge(twins, threshold=0.1).means)
    [1.05]
    >>> print(merge(twins, threshold=0.001).means)
    [1.  1.1]
    """
    if not isinstance(mixture, GaussianMixture):
        raise ConfigError(
            f"merge takes one GaussianMixture, got a {type(mixture).__name__}; the mixtures of a "
            "result are a dictionary, by group"
        )
    if not threshold >= 0:
        raise ConfigError(f"threshold must not be negative, got {threshold}")
    proportions = np.exp(np.asarray(log_mixing(mixture), np.float64))
    means = np.asarray(component_means(mixture), np.float64)
    variances = np.exp(-np.asarray(mixture.log_precisions, np.float64))
    while len(means) > 2:
        divergence = _symmetric_kl(means, variances)
        i, j = np.unravel_index(np.argmin(divergence), divergence.shape)
        if divergence[i, j] >= threshold:
            break
        i, j = min(i, j), max(i, j)
        proportion = proportions[i] + proportions[j]
        weight = proportions[[i, j]] / proportion
        mean = 0.0 if i == 0 else weight @ means[[i, j]]
        variance = weight @ (variances[[i, j]] + (means[[i, j]] - mean) ** 2)
        proportions[i], means[i], variances[i] = proportion, mean, variance
        proportions, means, variances = (np.delete(a, j) for a in (proportions, means, variances))
    order = np.concatenate([[0], 1 + np.argsort(means[1:])])
    proportions, means, variances = proportions[order], means[order], variances[order]
    return GaussianMixture(
        means=jnp.asarray(means[1:], mixture.means.dtype),
        log_precisions=jnp.asarray(-np.log(variances), mixture.log_precisions.dtype),
        mixing_logits=jnp.asarray(np.log(proportions[1:]), mixture.mixing_logits.dtype),
        zero_logit=jnp.asarray(np.log(proportions[0]) - np.log(proportions[1:].sum()), jnp.float32),
    )


def _symmetric_kl(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Mean of the two divergences of every pair, infinite on the diagonal."""
    ratio = variances[:, None] / variances[None, :]
    square = (means[:, None] - means[None, :]) ** 2
    precisions = 1 / variances
    total = ratio + 1 / ratio - 2 + square * (precisions[:, None] + precisions[None, :])
    divergence = 0.25 * total
    np.fill_diagonal(divergence, np.inf)
    return divergence
