"""Gradients of a task's training loss with respect to the kernels of a net, averaged over batches.

BatchNorm normalises by the statistics of the batch, as in training; the running statistics that
come out are discarded. The data stay on the device, and one program is compiled per task and shape.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.baselines.weights import Kernels, kernels, with_kernels
from swsjax.checks import check_data, check_integer
from swsjax.errors import RetrainingError
from swsjax.lab.task import Task, Variables
from swsjax.training.losses import ApplyWithAux, cross_entropy, with_aux

__all__ = [
    "balanced_batches",
    "curvature_product",
    "mean_gradient",
    "random_batches",
]


def random_batches(data: Any, number: int, *, batch_size: int, key: Array) -> Array:
    """Draw batches as training does: whole batches of random passes through the data.

    Args:
        data: pytree of arrays with the N examples along the first axis.
        number: how many batches; more than N // batch_size make another pass.
        batch_size: examples per batch.
        key: random key.

    Returns:
        Numbers of examples, (number, batch_size); within a pass all are different.

    Raises:
        ConfigError: number is not a positive integer, or the data are fewer than a batch.

    >>> batches = random_batches(jnp.zeros(10), 3, batch_size=5, key=jax.random.key(0))
    >>> batches.shape, len(set(batches[:2].ravel().tolist()))
    ((3, 5), 10)
    """
    number, size = check_integer("batches", number), check_data(data, batch_size)
    per_pass = size // batch_size
    passes = [
        jax.random.permutation(one, size)[: per_pass * batch_size].reshape(per_pass, batch_size)
        for one in jax.random.split(key, -(-number // per_pass))
    ]
    return jnp.concatenate(passes)[:number]


def balanced_batches(labels: np.ndarray, number: int, *, per_class: int, key: Array) -> Array:
    """Draw batches with the same number of random examples of each class.

    Args:
        labels: (N,) class numbers.
        number: how many batches.
        per_class: examples of each class in each batch, different ones unless the class has fewer.
        key: random key.

    Returns:
        Numbers of examples, (number, per_class, classes).

    Raises:
        ConfigError: number is not a positive integer.

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> batches = balanced_batches(labels, 3, per_class=2, key=jax.random.key(0))
    >>> labels[np.asarray(batches[0])].tolist()
    [[0, 1], [0, 1]]
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def drawn(one: Array, of_class: np.ndarray) -> Array:
        return jax.random.permutation(one, of_class)[np.arange(per_class) % len(of_class)]

    return jnp.stack(
        [
            jnp.stack(list(map(drawn, jax.random.split(one, len(members)), members)), axis=1)
            for one in jax.random.split(key, check_integer("batches", number))
        ]
    )


def mean_gradient(
    task: Task, net: Variables, data: Any, batches: Iterable[Array], *, temperature: float = 1.0
) -> dict[str, Array]:
    """Mean over batches of the gradient of the loss, with its signs, for each kernel of a net.

    Zeros have a gradient like all other weights.

    Args:
        task: whose loss it is: the mean cross-entropy of a batch.
        net: any net of the task.
        data: all examples, as ``task.data()`` returns them.
        batches: numbers of the examples in each batch.
        temperature: divides the logits.

    Raises:
        RetrainingError: the gradient is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> gradient = mean_gradient(task, task.init(0), task.data(), jnp.arange(64).reshape(2, 32))
    >>> gradient["fc3/kernel"].shape
    (100, 10)
    """
    found = [_gradient(task.apply, net, data, batch, temperature) for batch in batches]
    return _checked(_mean(found))


def curvature_product(
    task: Task,
    net: Variables,
    direction: Kernels,
    data: Any,
    batches: Iterable[Array],
    *,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Mean over batches of the Hessian of the loss times a vector, for each kernel of a net.

    Args:
        task, net, data, batches, temperature: as for ``mean_gradient``.
        direction: the vector, arrays of the kernels' shapes.

    Raises:
        RetrainingError: the product is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net, batches = task.init(0), jnp.arange(64).reshape(2, 32)
    >>> gradient = mean_gradient(task, net, task.data(), batches)
    >>> product = curvature_product(task, net, gradient, task.data(), batches)
    >>> product["fc3/kernel"].shape
    (100, 10)
    """
    found = [_product(task.apply, net, direction, data, batch, temperature) for batch in batches]
    return _checked(_mean(found))


def _loss(
    found: Kernels, apply: ApplyWithAux, net: Variables, batch: Any, temperature: float
) -> Array:
    def softened(params: Any, aux: Any, inputs: Any) -> tuple[Array, Any]:
        logits, after = apply(params, aux, inputs)
        return logits / temperature, after

    params, aux = with_kernels(net, found)
    return with_aux(cross_entropy, softened)(params, aux, batch)[0]


@partial(jax.jit, static_argnums=0)
def _gradient(
    apply: ApplyWithAux, net: Variables, data: Any, batch: Array, temperature: float
) -> dict[str, Array]:
    examples = jax.tree.map(lambda array: array[batch], data)
    return jax.grad(_loss)(kernels(net), apply, net, examples, temperature)


@partial(jax.jit, static_argnums=0)
def _product(
    apply: ApplyWithAux,
    net: Variables,
    direction: Kernels,
    data: Any,
    batch: Array,
    temperature: float,
) -> dict[str, Array]:
    examples = jax.tree.map(lambda array: array[batch], data)

    def gradient(found: Kernels) -> dict[str, Array]:
        return jax.grad(_loss)(found, apply, net, examples, temperature)

    return jax.jvp(gradient, (kernels(net),), (direction,))[1]


@jax.jit
def _mean(found: list[dict[str, Array]]) -> dict[str, Array]:
    return jax.tree.map(lambda *parts: sum(parts) / len(parts), *found)


def _checked(found: dict[str, Array]) -> dict[str, Array]:
    """Gradients, found to be finite."""
    for name, is_finite in jax.device_get(_finite(found)).items():
        if not is_finite:
            raise RetrainingError(
                f"the gradient of {name} is not finite; check that the net's logits are finite, "
                "and all labels in range"
            )
    return found


@jax.jit
def _finite(found: dict[str, Array]) -> dict[str, Array]:
    return {name: jnp.isfinite(array).all() for name, array in found.items()}
