r"""What follows pruning: fine-tuning, training from scratch under the zeros, rewinding.

The three ways to finish of Liu, Sun, Zhou, Huang, Darrell, *Rethinking the Value of Network
Pruning* (ICLR 2019, arXiv 1810.05270), and the winning tickets of Frankle and Carbin (ICLR 2019,
arXiv 1803.03635). All of them train, and kernels keep their zeros exactly; other arrays are trained
whatever their values, as biases begin at zero.

    dense = pretrain_task(task, config)
    pruned = magnitude(dense, 0.05)
    tuned = fine_tune(task, pruned, epochs=40, key=key)
    scratch_e = scratch(task, pruned, config, key=key)
    ticket = retrain(task, rewind(pruned, task.init(config.seed)), config, key=key)

Scratch-B is ``scratch`` with the epochs of ``scratch_b_epochs``.
"""

from collections.abc import Callable
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.baselines.in_training import seed_of, train_task
from swsjax.baselines.weights import check_finite, kernels, mask, masked, with_kernels
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.training.augment import Augment
from swsjax.training.history import Epoch
from swsjax.training.loop import train
from swsjax.training.pretraining import PretrainConfig
from swsjax.trees import Params, is_number

__all__ = [
    "FINE_TUNING",
    "fine_tune",
    "reinitialised",
    "retrain",
    "rewind",
    "scratch",
    "scratch_b_epochs",
]

FINE_TUNING = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(1e-3, momentum=0.9))
"""SGD at a constant rate of 1e-3, with momentum 0.9 and weight decay 1e-4, as Liu et al. fine-tune
on CIFAR."""


def fine_tune(
    task: Task,
    net: Variables,
    *,
    epochs: int,
    key: Array,
    optimizer: optax.GradientTransformation = FINE_TUNING,
    batch_size: int = 64,
    augment: Augment | None = None,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train a pruned net further, from the weights that it has; kernels keep their zeros.

    Args:
        task: its images, and its cross-entropy as the loss.
        net: pruned.
        epochs: passes through the data; Liu et al. take 40, and 80 and 160 in their Table 16.
        key: random key of the order of the examples and of the augmentation.
        optimizer: with a schedule of its own.
        batch_size: examples per step.
        augment: changes every batch, as for ``train``; ``crop_and_flip`` in the papers.
        callback: called with each epoch's record, as for ``train``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: a kernel is not finite, or as ``train``.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.baselines import density, magnitude
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> pruned = magnitude(task.init(0), 0.1)
    >>> density(fine_tune(task, pruned, epochs=1, key=jax.random.key(0)))
    0.1
    """
    check_finite(net)
    trained = train(
        net.params,
        task.loss(),
        task.data(),
        optax.chain(optimizer, _hold_zeros_of_kernels()),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed_of(key),
        aux=net.aux,
        augment=augment,
        callback=callback,
        resume=resume,
    )
    return Variables(trained.params, trained.aux)


def retrain(
    task: Task,
    net: Variables,
    config: PretrainConfig = PretrainConfig(),
    *,
    key: Array,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train a net by the full schedule of its pretraining; kernels keep their zeros.

    For nets pruned at initialisation and for winning tickets (``rewind``): as ``pretrain_task``,
    but from this net, and under its zeros.

    Args:
        task: its images.
        net: to start from.
        config: the loss, augmentation, optimiser and schedule. Its seed is not used.
        key: random key of the order of the examples and of the augmentation.
        callback: called with each epoch's record, as for ``train``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: a kernel is not finite, or the data are fewer than a batch.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.baselines import density, random
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task, key = classification(LeNet300100, load_digits()), jax.random.key(0)
    >>> pruned = random(task.init(0), 0.1, key=key)
    >>> density(retrain(task, pruned, PretrainConfig(epochs=1), key=key))
    0.1
    """
    check_finite(net)
    return train_task(
        task,
        net,
        config,
        key=key,
        around=lambda optimizer: optax.chain(optimizer, _hold_zeros_of_kernels()),
        callback=callback,
        resume=resume,
    )


def scratch(
    task: Task,
    net: Variables,
    config: PretrainConfig = PretrainConfig(),
    *,
    key: Array,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train a pruned net's structure from a random initialisation, by the full schedule.

    Scratch-E of Liu et al. with the epochs of the pretraining, Scratch-B with those of
    ``scratch_b_epochs``, as ``dataclasses.replace(config, epochs=...)``.

    Args:
        task: net and images.
        net: pruned; only its zeros are used.
        config: of the pretraining. Its seed is not used.
        key: random key of the initialisation, the order of the examples and the augmentation.
        callback: called with each epoch's record, as for ``train``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: the data are fewer than a batch.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.baselines import density, magnitude
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> pruned = magnitude(task.init(0), 0.1)
    >>> density(scratch(task, pruned, PretrainConfig(epochs=1), key=jax.random.key(0)))
    0.1
    """
    of_weights, of_order = jax.random.split(key)
    start = reinitialised(task, net, key=of_weights)
    return retrain(task, start, config, key=of_order, callback=callback, resume=resume)


def scratch_b_epochs(epochs: int, large: float, small: float) -> int:
    """Epochs in which a small net costs as many operations as a large one in its own (Scratch-B).

    Liu et al.: int(epochs * large / small).

    Args:
        epochs: of the large net.
        large: multiply-adds of the large net for an example, such as ``Operations.total``.
        small: those of the pruned net, such as ``Operations.masked``.

    Raises:
        ConfigError: an argument is not a positive number, or the result is no epoch.

    >>> scratch_b_epochs(160, 266_200, 133_100)
    320
    """
    for name, value in {"epochs": epochs, "large": large, "small": small}.items():
        if not is_number(value) or not 0 < value < float("inf"):
            raise ConfigError(f"{name} must be a positive number, got {value!r}")
    found = int(epochs * large / small)
    if not found:
        raise ConfigError(
            f"{epochs} epochs of {large} operations are less than one of {small}; pass the "
            "operations of the large net first"
        )
    return found


def reinitialised(task: Task, net: Variables, *, key: Array) -> Variables:
    r"""Return a random initialisation under the zeros of a pruned net, rescaled to them.

    .. math:: \sigma' = \sigma / \sqrt{d}

    for each kernel, of which a share d is not zero: :math:`\sigma` is the standard deviation that
    the net's own initialiser gives it. For He's initialiser with the number of outputs,
    :math:`\sigma^2 = 2 / (k^2 C_{out})`, this is what the code of Liu et al. draws for pruned
    weights (arXiv 1810.05270), :math:`\sigma'^2 = 2 / (N / C_{in})` with N the non-zeros of the
    kernel; they draw that whatever the net's initialiser is.

    Args:
        task: whose initialiser it is.
        net: pruned; only the zeros of its kernels are used.
        key: random key.

    >>> from swsjax.baselines import density, magnitude
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> pruned = magnitude(task.init(0), 0.25)
    >>> density(reinitialised(task, pruned, key=jax.random.key(0)))
    0.25
    """
    fresh, kept = task.init(seed_of(key)), mask(net)

    def rescaled(kernel: Array, kept: Array) -> Array:
        density = jnp.count_nonzero(kept) / max(kept.size, 1)
        return (kernel / jnp.sqrt(jnp.where(density > 0, density, 1))).astype(kernel.dtype)

    found = {name: rescaled(kernel, kept[name]) for name, kernel in kernels(fresh).items()}
    return rewind(net, with_kernels(fresh, found))


def rewind(net: Variables, init: Variables) -> Variables:
    """Return an initialisation under the zeros of a pruned net; everything else is that of init.

    Frankle and Carbin's winning ticket, before ``retrain``, if it is the initialisation that the
    net was trained from. A weight that happens to be exactly zero in it becomes the smallest
    positive number, as a zero would be a pruned weight.

    Args:
        net: pruned; only the zeros of its kernels are used.
        init: weights and statistics to go back to.

    >>> pruned = Variables({"kernel": jnp.array([[0.0, 2.0]]), "bias": jnp.ones(2)}, {})
    >>> init = Variables({"kernel": jnp.array([[0.5, 0.1]]), "bias": jnp.zeros(2)}, {})
    >>> rewind(pruned, init).params
    {'bias': Array([0., 0.], dtype=float32), 'kernel': Array([[0. , 0.1]], dtype=float32)}
    """

    def without_zeros(kernel: Array) -> Array:
        return jnp.where(kernel == 0, jnp.finfo(kernel.dtype).tiny, kernel)

    alive = {name: without_zeros(kernel) for name, kernel in kernels(init).items()}
    return masked(with_kernels(init, alive), mask(net))


def _hold_zeros_of_kernels() -> optax.GradientTransformation:
    """As ``hold_zeros``, for kernels only: biases and shifts of norms begin at zero."""

    def update(updates: Any, state: Any, params: Params) -> tuple[Any, Any]:
        return masked(Variables(updates, ()), mask(Variables(params, ()))).params, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
