"""Losses of a classifier, as functions of parameters and a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.errors import ConfigError

__all__ = ["Apply", "Loss", "cross_entropy", "distillation", "error_rate", "logits_of"]

Params = Any
Apply = Callable[[Params, Array], Array]
"""From parameters and a batch of inputs to logits (batch, classes)."""
Loss = Callable[[Params, Any], Array]
"""From parameters and a batch to the mean loss of its examples, a scalar (nats)."""


def cross_entropy(apply: Apply) -> Loss:
    """Mean cross-entropy of the labels; a batch is ``{"inputs": (B, ...), "labels": (B,)}``.

    >>> loss = cross_entropy(lambda params, x: x @ params)
    >>> batch = {"inputs": jnp.eye(2), "labels": jnp.array([0, 1])}
    >>> print(np.asarray(loss(jnp.zeros((2, 4)), batch)).round(4))
    1.3863
    """

    def loss(params: Params, batch: dict[str, Array]) -> Array:
        logits = apply(params, batch["inputs"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()

    return loss


def distillation(apply: Apply, *, share: float = 0.5, temperature: float = 3.0) -> Loss:
    r"""Cross-entropy mixed with the divergence from a teacher's softened outputs.

    .. math:: (1 - s) \, H(y, p) + s \, T^2 \, \mathrm{KL}(q_T \,\|\, p_T)

    with p and q the softmax of the net's and the teacher's logits, softened by temperature T
    (Hinton, Vinyals, Dean, arXiv 1503.02531). The teacher's logits come with the batch, under
    ``"teacher"`` beside ``"inputs"`` and ``"labels"``: without augmentation they never change,
    so they are computed once (``logits_of``), not once a step.

    Args:
        apply: the net's logits.
        share: s, from 0 (labels only) to 1 (no labels).
        temperature: T, at least 1.

    Raises:
        ConfigError: a setting is out of its range.

    >>> loss = distillation(lambda params, x: x @ params, share=1.0)
    >>> x = jnp.eye(2)
    >>> batch = {"inputs": x, "labels": jnp.array([0, 1]), "teacher": x @ jnp.ones((2, 4))}
    >>> print(np.asarray(loss(jnp.zeros((2, 4)), batch)).round(4))
    0.0
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share must lie in [0, 1], got {share}")
    if not temperature >= 1:
        raise ConfigError(f"temperature must be at least 1, got {temperature}")

    def loss(params: Params, batch: dict[str, Array]) -> Array:
        logits = apply(params, batch["inputs"])
        labels = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        student = jax.nn.log_softmax(logits / temperature)
        teacher = jax.nn.log_softmax(batch["teacher"] / temperature)
        divergence = jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
        return jnp.mean((1 - share) * labels + share * temperature**2 * divergence)

    return loss


def logits_of(apply: Apply, params: Params, inputs: Array, *, batch_size: int = 1000) -> Array:
    """Logits of a whole data set, (N, classes), computed ``batch_size`` inputs at a time.

    >>> logits_of(lambda params, x: x @ params, jnp.ones((3, 2)), jnp.ones((5, 3))).shape
    (5, 2)
    """
    compiled = jax.jit(apply)
    batches = [
        compiled(params, jnp.asarray(inputs[start : start + batch_size]))
        for start in range(0, len(inputs), batch_size)
    ]
    return jnp.concatenate(batches)


def error_rate(apply: Apply, params: Params, inputs: Array, labels: Array) -> float:
    """Share of inputs whose largest logit is not their label's, from 0 to 1.

    >>> error_rate(lambda params, x: x @ params, jnp.eye(2), jnp.eye(2), jnp.array([0, 0]))
    0.5
    """
    predicted = jnp.argmax(logits_of(apply, params, inputs), axis=-1)
    return jnp.mean(predicted != jnp.asarray(labels)).item()
