"""Losses as functions of parameters and a batch, with labels and without."""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from swsjax.checks import check_examples, check_integer, for_jax
from swsjax.errors import ConfigError
from swsjax.trees import Params, holds_numbers, named_leaves

__all__ = [
    "Apply",
    "ApplyWithAux",
    "Loss",
    "LossWithAux",
    "MakeLoss",
    "check_pair",
    "cross_entropy",
    "distillation",
    "error_rate",
    "logits_of",
    "misclassified",
    "output_matching",
    "with_aux",
    "with_teacher",
]

Apply = Callable[[Params, Any], Array]
"""From parameters and a batch of inputs to logits (batch, classes), or other outputs."""
ApplyWithAux = Callable[[Params, Any, Any], tuple[Array, Any]]
"""From parameters, auxiliary state and inputs to outputs and the state after them."""
Loss = Callable[[Params, Any], Array]
"""From parameters and a batch to the mean loss of its examples, a scalar (nats)."""
LossWithAux = Callable[[Params, Any, Any], tuple[Array, Any]]
"""From parameters, auxiliary state and batch to the mean loss and the state after the batch."""
MakeLoss = Callable[[Apply], Loss]
"""From the outputs of a net to a loss of its parameters: ``cross_entropy``, ``distillation``."""


def cross_entropy(apply: Apply, *, label_smoothing: float = 0.0) -> Loss:
    """Mean cross-entropy of the labels; a batch is ``{"inputs": (B, ...), "labels": (B,)}``.

    Args:
        apply: the net's logits.
        label_smoothing: share of each label that is spread evenly over all classes, from 0 to 1.

    Raises:
        ConfigError: the smoothing is out of its range.

    >>> loss = cross_entropy(lambda params, x: x @ params)
    >>> batch = {"inputs": jnp.eye(2), "labels": jnp.array([0, 1])}
    >>> print(np.asarray(loss(jnp.zeros((2, 4)), batch)).round(4))
    1.3863
    """

    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")

    def loss(params: Params, batch: dict[str, Array]) -> Array:
        logits = _one_array(apply(params, batch["inputs"]))
        surprise = _surprise(logits, batch)
        if label_smoothing:
            of_all = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
            surprise = (1 - label_smoothing) * surprise + label_smoothing * of_all
        return surprise.mean()

    return loss


def with_aux(make: MakeLoss, apply: ApplyWithAux) -> LossWithAux:
    """Make a loss of a net that carries state from step to step, such as batch statistics.

    Args:
        make: from the outputs of a net to a loss, such as ``cross_entropy``; it must compute the
            outputs once.
        apply: outputs of the net in training, and its state after them.

    >>> loss = with_aux(cross_entropy, lambda params, seen, x: (x @ params, seen + len(x)))
    >>> batch = {"inputs": jnp.eye(2), "labels": jnp.array([0, 1])}
    >>> value, seen = loss(jnp.zeros((2, 4)), 0, batch)
    >>> seen
    2
    """

    def loss(params: Params, aux: Any, batch: Any) -> tuple[Array, Any]:
        outputs, after = apply(params, aux, batch["inputs"])
        return make(lambda params, inputs: outputs)(params, batch), after

    return loss


def distillation(
    apply: Apply,
    *,
    teacher_weight: float = 0.5,
    temperature: float = 3.0,
    loss: Loss | None = None,
) -> Loss:
    r"""Divergence from a teacher's softened outputs, alone or mixed with another loss.

    .. math:: (1 - a) \, L(w) + a \, T^2 \, \mathrm{KL}(q_T \,\|\, p_T)

    with p and q the softmax of the net's and the teacher's logits, softened by temperature T
    (Hinton, Vinyals, Dean, arXiv 1503.02531). The teacher's logits are part of the batch, under
    ``"teacher"``: without augmentation they never change, so they are computed once
    (``with_teacher``), not in every step.

    Args:
        apply: the net's logits.
        teacher_weight: a, from 0 (the other loss only) to 1 (the teacher only: no labels needed).
        temperature: T, at least 1.
        loss: L; by default the cross-entropy of the ``"labels"`` in the batch.

    Raises:
        ConfigError: a setting is out of its range; or, in training, the teacher's logits are not
            one array of the shape of the net's.

    >>> loss = distillation(lambda params, x: x @ params, teacher_weight=1.0)
    >>> x = jnp.eye(2)
    >>> batch = {"inputs": x, "teacher": x @ jnp.ones((2, 4))}
    >>> print(np.asarray(loss(jnp.zeros((2, 4)), batch)).round(4))
    0.0
    """
    if not temperature >= 1:
        raise ConfigError(f"temperature must be at least 1, got {temperature}")

    def divergence(outputs: Array, teacher: Array) -> Array:
        student = jax.nn.log_softmax(outputs / temperature)
        taught = jax.nn.log_softmax(teacher / temperature)
        return temperature**2 * jnp.sum(jnp.exp(taught) * (taught - student), axis=-1)

    return _mixed(apply, teacher_weight, divergence, _surprise, loss)


def output_matching(apply: Apply, *, teacher_weight: float = 0.5, loss: Loss | None = None) -> Loss:
    r"""Squared distance from a teacher's outputs, alone or mixed with another loss: for regression.

    .. math:: (1 - a) \, L(w) + a \, \mathrm{mean} \, (f(x) - g(x))^2

    with f the net and g the teacher, whose outputs are part of the batch, under ``"teacher"``.

    Args:
        apply: the net's outputs (batch, ...).
        teacher_weight: a, from 0 (the other loss only) to 1 (the teacher only: no targets needed).
        loss: L; by default the mean squared error to the ``"targets"`` in the batch.

    Raises:
        ConfigError: the weight is out of its range; or, in training, the teacher's outputs or the
            targets are not one array of the shape of the net's outputs.

    >>> loss = output_matching(lambda params, x: x * params, teacher_weight=1.0)
    >>> print(loss(jnp.array(2.0), {"inputs": jnp.ones((3, 1)), "teacher": jnp.zeros((3, 1))}))
    4.0
    """

    def error(outputs: Array, batch: dict[str, Array]) -> Array:
        return (outputs - _like("targets", batch, outputs)) ** 2

    def distance(outputs: Array, teacher: Array) -> Array:
        return (outputs - teacher) ** 2

    return _mixed(apply, teacher_weight, distance, error, loss)


def _surprise(logits: Array, batch: dict[str, Array]) -> Array:
    """Cross-entropy of each label in a batch."""
    labels = _class_numbers(batch["labels"], logits)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _class_numbers(labels: Array | np.ndarray, logits: Array) -> Array:
    """The labels, checked to be one class number for each row of logits."""
    labels = jnp.asarray(for_jax("labels", labels))
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != logits.shape[:-1]:
        one_hot = "; take argmax(-1) of one-hot labels" if labels.shape == logits.shape else ""
        raise ConfigError(
            f"labels must be integers of shape {logits.shape[:-1]}, the class of each example, as "
            f"logits are of shape {logits.shape}; got {labels.dtype} of shape {labels.shape}"
            f"{one_hot}"
        )
    return labels


def _mixed(
    apply: Apply,
    teacher_weight: float,
    divergence: Callable[[Array, Array], Array],
    labelled: Callable[[Array, dict[str, Array]], Array],
    loss: Loss | None,
) -> Loss:
    """The divergence from the teacher, mixed with a loss of outputs or of parameters."""
    if not 0 <= teacher_weight <= 1:
        raise ConfigError(f"teacher_weight must lie in [0, 1], got {teacher_weight}")

    def mixed(params: Params, batch: dict[str, Array]) -> Array:
        outputs = _one_array(apply(params, batch["inputs"]))
        of_teacher = teacher_weight * divergence(outputs, _like("teacher", batch, outputs))
        if teacher_weight == 1:  # then there may be no labels
            return jnp.mean(of_teacher)
        if loss is not None:
            return (1 - teacher_weight) * loss(params, batch) + jnp.mean(of_teacher)
        return jnp.mean((1 - teacher_weight) * labelled(outputs, batch) + of_teacher)

    return mixed


def check_pair(returned: Any) -> tuple[Any, Any]:
    """Return what a loss with aux returned, checked to be a pair.

    Raises:
        ConfigError: it is not.

    >>> check_pair(jnp.ones(()))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: loss_fn must return (scalar, aux) if aux is passed, got an array of \
shape ()
    """
    if isinstance(returned, tuple | list) and len(returned) == 2:
        return returned[0], returned[1]
    found = f"a {type(returned).__name__}"
    if holds_numbers(returned):
        found = f"an array of shape {jnp.shape(returned)}"
    raise ConfigError(f"loss_fn must return (scalar, aux) if aux is passed, got {found}")


def _one_array(outputs: Any) -> Array:
    """The outputs of a net, checked to be those of one head."""
    if holds_numbers(outputs):
        return outputs
    heads = ", ".join(name for name, _ in named_leaves(outputs))
    raise ConfigError(
        f"apply must return one array, got a {type(outputs).__name__} of {heads}; pass a function "
        "that returns one of them"
    )


def _like(name: str, batch: dict[str, Any], outputs: Array) -> Array:
    """An entry of a batch, checked to have the shape of the outputs: others would be broadcast."""
    entry: Any = batch[name]
    is_array = holds_numbers(entry)
    if is_array and entry.shape == outputs.shape:
        return entry
    heads = ", ".join(name for name, _ in named_leaves(entry))
    found = f"shape {entry.shape}" if is_array else f"a {type(entry).__name__} of {heads}"
    raise ConfigError(
        f"{name} in a batch must be one array of shape {outputs.shape}, as the outputs of apply "
        f"are, got {found}"
    )


def with_teacher(
    data: dict[str, Any], apply: Callable[[Params, Any], Any], params: Params
) -> dict[str, Any]:
    """Data with the outputs of a net on their ``"inputs"`` under ``"teacher"``.

    Inputs and outputs may be pytrees, as for ``logits_of``; ``distillation`` and
    ``output_matching`` take one array of outputs.

    Raises:
        ConfigError: the data have no inputs.

    >>> data = with_teacher({"inputs": jnp.eye(2)}, lambda params, x: x @ params, jnp.ones((2, 3)))
    >>> data["teacher"].shape
    (2, 3)
    """
    if "inputs" not in data:
        raise ConfigError(f'data must have "inputs" for the teacher, got {sorted(data)}')
    return data | {"teacher": logits_of(apply, params, data["inputs"])}


def logits_of(
    apply: Callable[[Params, Any], Any], params: Params, inputs: Any, *, batch_size: int = 1000
) -> Any:
    """Logits of a whole data set, (N, classes), computed ``batch_size`` inputs at a time.

    Args:
        apply: the net's logits, or any pytree of outputs (batch, ...), such as several heads.
        params: any pytree; leaves that are not arrays, such as functions, are constants.
        inputs: an array, or a pytree of arrays with the N examples along the first axis.
        batch_size: inputs at a time.

    Raises:
        ConfigError: there are no inputs, or their arrays disagree on their number.

    >>> logits_of(lambda params, x: x @ params, jnp.ones((3, 2)), jnp.ones((5, 3))).shape
    (5, 2)
    """
    batch_size = check_integer("batch_size", batch_size)
    size = check_examples("inputs", inputs)
    if not size:
        raise ConfigError("inputs hold no examples")
    outputs = _compiled(apply, for_jax("params", params))

    def of_batch(start: int) -> Any:
        batch = jax.tree.map(lambda array: array[start : start + batch_size], inputs)
        return outputs(jax.tree.map(jnp.asarray, for_jax("inputs", batch)))

    batches = map(of_batch, range(0, size, batch_size))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)


_COMPILED: WeakKeyDictionary[Callable[..., Any], Callable[..., Any]] = WeakKeyDictionary()
"""Functions of nets that are not all arrays, compiled."""


def _compiled(apply: Callable[[Params, Any], Any], params: Params) -> Callable[[Any], Any]:
    """The outputs of a net as a compiled function of inputs; the same one gives the same program.

    JAX itself compiles functions of arrays only, and forgets a program with its function.
    """
    leaves, structure = jax.tree.flatten(params)
    arrays = [leaf for leaf in leaves if holds_numbers(leaf)]
    constants = tuple(_ARRAY if holds_numbers(leaf) else leaf for leaf in leaves)
    rest = (structure, constants)
    try:
        hash((apply, rest))
        function = ref(apply)
    except TypeError:  # nothing to find the program by: it is compiled for this call
        return partial(jax.jit(partial(_outputs, lambda: apply, rest)), arrays)
    if len(arrays) == len(leaves):
        return partial(jax.jit(apply), params)
    if apply not in _COMPILED:
        _COMPILED[apply] = jax.jit(partial(_outputs, function), static_argnums=0)
    return partial(_COMPILED[apply], rest, arrays)


_ARRAY = object()
"""In place of an array among the constants of a net."""


def _outputs(
    apply: Callable[[], Any], rest: tuple[Any, tuple[Any, ...]], arrays: Any, inputs: Any
) -> Any:
    """Outputs of a net in two parts: its arrays, and the rest."""
    structure, constants = rest
    left, function = iter(arrays), apply()
    assert function is not None
    leaves = [next(left) if leaf is _ARRAY else leaf for leaf in constants]
    return function(jax.tree.unflatten(structure, leaves), inputs)


def misclassified(apply: Apply, params: Params, inputs: Any, labels: Array | np.ndarray) -> Array:
    """Whether the largest logit of each input is not its label's, (N,); 1 or 0.

    Args:
        apply: the net's logits.
        params: any pytree, as for ``logits_of``.
        inputs: an array, or a pytree of arrays with the N examples along the first axis.
        labels: (N,) class numbers.

    >>> misclassified(lambda params, x: x @ params, jnp.eye(2), jnp.eye(2), jnp.array([0, 0]))
    Array([0., 1.], dtype=float32)
    """
    logits = _one_array(logits_of(apply, params, inputs))
    wrong = jnp.argmax(logits, axis=-1) != _class_numbers(labels, logits)
    return wrong.astype(jnp.float32)


def error_rate(apply: Apply, params: Params, inputs: Any, labels: Array | np.ndarray) -> float:
    """Share of inputs whose largest logit is not their label's, from 0 to 1.

    Args:
        apply: the net's logits.
        params: any pytree, as for ``logits_of``.
        inputs: an array, or a pytree of arrays with the N examples along the first axis.
        labels: (N,) class numbers.

    >>> error_rate(lambda params, x: x @ params, jnp.eye(2), jnp.eye(2), jnp.array([0, 0]))
    0.5
    """
    return np.asarray(misclassified(apply, params, inputs, labels)).mean(dtype=float).item()
