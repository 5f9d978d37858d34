"""Gradients of a task's training loss with respect to the kernels of a net, averaged over batches.

BatchNorm normalises by the statistics of the batch, as in training; the running statistics that
come out are discarded. One program is compiled per task and shape; only the examples of a batch are
copied to the device.
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
    "batch_gradients",
    "check_gradients",
    "curvature_product",
    "finite",
    "mean",
    "mean_gradient",
    "random_batches",
]


def random_batches(data: Any, number: int, *, batch_size: int, key: Array) -> np.ndarray:
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
    return np.concatenate(passes)[:number]


def balanced_batches(labels: np.ndarray, number: int, *, per_class: int, key: Array) -> np.ndarray:
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

    return np.stack(
        [
            np.stack(list(map(drawn, jax.random.split(one, len(members)), members)), axis=1)
            for one in jax.random.split(key, check_integer("batches", number))
        ]
    )


def mean_gradient(
    task: Task, net: Variables, batches: Iterable[np.ndarray], *, temperature: float = 1.0
) -> dict[str, Array]:
    """Mean over batches of the gradient of the loss, with its signs, for each kernel of a net.

    Zeros have a gradient like all other weights.

    Args:
        task: whose loss it is: the mean cross-entropy of a batch.
        net: any net of the task.
        batches: numbers of the training examples in each batch.
        temperature: divides the logits.

    Raises:
        RetrainingError: the gradient is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> gradient = mean_gradient(task, task.init(0), np.arange(64).reshape(2, 32))
    >>> gradient["fc3/kernel"].shape
    (100, 10)
    """
    return _checked(
        mean(batch_gradients(task, net, kernels(net), batches, temperature=temperature))
    )


def batch_gradients(
    task: Task,
    net: Variables,
    weights: Kernels,
    batches: Iterable[np.ndarray],
    *,
    temperature: float = 1.0,
) -> list[dict[str, Array]]:
    """Gradients of the loss of each batch for each kernel, which may not be finite.

    Args:
        task, batches, temperature: as for ``mean_gradient``.
        net: any net of the task.
        weights: in place of its kernels.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net = task.init(0)
    >>> len(batch_gradients(task, net, kernels(net), np.arange(64).reshape(2, 32)))
    2
    """
    return [
        _gradient(task.apply, net, weights, _examples(task, batch), temperature)
        for batch in batches
    ]


def curvature_product(
    task: Task,
    net: Variables,
    direction: Kernels,
    batches: Iterable[np.ndarray],
    *,
    temperature: float = 1.0,
) -> dict[str, Array]:
    """Mean over batches of the Hessian of the loss times a vector, for each kernel of a net.

    Args:
        task, net, batches, temperature: as for ``mean_gradient``.
        direction: the vector, arrays of the kernels' shapes.

    Raises:
        RetrainingError: the product is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> net, batches = task.init(0), np.arange(64).reshape(2, 32)
    >>> gradient = mean_gradient(task, net, batches)
    >>> product = curvature_product(task, net, gradient, batches)
    >>> product["fc3/kernel"].shape
    (100, 10)
    """
    return _checked(
        mean(
            [
                _product(task.apply, net, direction, _examples(task, batch), temperature)
                for batch in batches
            ]
        )
    )


@jax.jit
def mean(found: list[dict[str, Array]]) -> dict[str, Array]:
    """Return the mean of gradients.

    >>> mean([{"w": jnp.ones(1)}, {"w": jnp.zeros(1)}])
    {'w': Array([0.5], dtype=float32)}
    """
    return jax.tree.map(lambda *parts: sum(parts) / len(parts), *found)


@jax.jit
def finite(gradient: Kernels) -> dict[str, Array]:
    """Return whether each array of a gradient is finite.

    >>> finite({"w": jnp.array([1.0, jnp.nan])})
    {'w': Array(False, dtype=bool)}
    """
    return {name: jnp.isfinite(array).all() for name, array in gradient.items()}


def check_gradients(are_finite: Iterable[dict[str, Array]]) -> None:
    """Check that gradients are finite.

    Args:
        are_finite: what ``finite`` returns of each.

    Raises:
        RetrainingError: one is not.

    >>> check_gradients([finite({"w": jnp.ones(1)})])
    """
    for of_arrays in jax.device_get(list(are_finite)):
        for name, is_finite in of_arrays.items():
            if not is_finite:
                raise RetrainingError(
                    f"the gradient of {name} is not finite; check that the net's logits are "
                    "finite, and all labels in range"
                )


def _checked(found: dict[str, Array]) -> dict[str, Array]:
    check_gradients([finite(found)])
    return found


def _examples(task: Task, batch: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of the training examples; the types are those of ``task.data()``."""
    images, labels = task.dataset.train
    return {"inputs": images[batch], "labels": labels[batch].astype(np.int32)}


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
    apply: ApplyWithAux, net: Variables, weights: Kernels, batch: Any, temperature: float
) -> dict[str, Array]:
    return jax.grad(_loss)(dict(weights), apply, net, batch, temperature)


@partial(jax.jit, static_argnums=0)
def _product(
    apply: ApplyWithAux, net: Variables, direction: Kernels, batch: Any, temperature: float
) -> dict[str, Array]:
    def gradient(found: Kernels) -> dict[str, Array]:
        return jax.grad(_loss)(found, apply, net, batch, temperature)

    return jax.jvp(gradient, (kernels(net),), (direction,))[1]
