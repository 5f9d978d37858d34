r"""Sparse structure selection: whole residual blocks are removed by scales that reach zero.

Huang, Wang, *Data-Driven Sparse Structure Selection for Deep Neural Networks* (ECCV 2018, arXiv
1707.01213): a scale :math:`\lambda` multiplies what a block adds to its input, and is trained by
accelerated proximal gradients, with the penalty :math:`\gamma |\lambda|`.

A net needs no scales in its class. The last layer of a block is linear in its own parameters, so
scaling its outputs is scaling these: :math:`\lambda (K * x + b) = (\lambda K) * x + \lambda b`. In
training, the net is one of ``{"net": params, "scales": {block: scale}}``, and afterwards the scales
are multiplied into the last layers, with the same outputs. A block whose last layer is zero adds
nothing, and nothing reads its other layers.

    blocks = last_layers(net, "*conv2")
    net = sparse_structure_selection(
        task, net, blocks, config, proximal=accelerated_proximal(schedule), key=key)
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.baselines.in_training import train_task
from swsjax.baselines.leaves import chosen_leaves, with_leaves
from swsjax.baselines.weights import check_finite
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.training.history import Epoch
from swsjax.training.pretraining import PretrainConfig
from swsjax.trees import Params, named_leaves

__all__ = [
    "Blocks",
    "accelerated_proximal",
    "last_layers",
    "merge_scales",
    "scaled_task",
    "sparse_structure_selection",
    "with_block_scales",
]

Blocks = Mapping[str, Sequence[str]]
"""For each block, by any name, the leaves in params of its last layer: kernel and bias, or those of
the norm behind them. What the block adds must be linear in them."""


def last_layers(net: Variables, pattern: str) -> dict[str, tuple[str, ...]]:
    """Return the leaves of all layers whose names fit a pattern, by layer.

    Args:
        net: any net.
        pattern: of the names of the blocks' last layers, as for files: ``"*conv2"`` for
            ``ResidualNet``.

    Raises:
        ConfigError: no layer fits.

    >>> net = Variables({"b0conv2": {"kernel": jnp.ones(1)}, "fc": {"kernel": jnp.ones(1)}}, {})
    >>> last_layers(net, "*conv2")
    {'b0conv2': ('b0conv2/kernel',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    layers = {name: name.rpartition("/")[0] for name, _ in named_leaves(net.params)}
    for name, layer in layers.items():
        if fnmatchcase(layer, pattern):
            found[layer] = (*found.get(layer, ()), name)
    if not found:
        raise ConfigError(
            f"no layer fits {pattern!r}; expected a pattern of the layers "
            f"{', '.join(dict.fromkeys(layers.values()))}"
        )
    return found


class _Accelerated(NamedTuple):
    """State of ``accelerated_proximal``."""

    steps: Array
    velocity: Any


def accelerated_proximal(
    learning_rate: optax.ScalarOrSchedule, strength: float = 0.01, momentum: float = 0.9
) -> optax.GradientTransformation:
    r"""Accelerated proximal gradient steps to sparse scales that are not negative.

    .. math::

        z &= S_{\eta\gamma}(\lambda - \eta g), \quad
        S_a(x) = \mathrm{sign}(x) \max(|x| - a, 0) \\
        v &\leftarrow z - \lambda + \mu v \\
        \lambda &\leftarrow \max(0, z + \mu v)

    as Huang and Wang write Nesterov's steps, and their code clips them at zero. Scales at zero may
    come back.

    Args:
        learning_rate: :math:`\eta`, or a schedule of it; that of the weights in the paper.
        strength: :math:`\gamma`.
        momentum: :math:`\mu`.

    Raises:
        ConfigError: strength is negative, or momentum not in [0, 1).

    >>> proximal = accelerated_proximal(0.5, strength=0.5)
    >>> scale, gradient = jnp.array(1.0), jnp.array(0.1)
    >>> updates, _ = proximal.update(gradient, proximal.init(scale), scale)
    >>> print(round(float(scale + updates), 4))  # z = 0.7, v = -0.3
    0.43
    """
    if not 0 <= strength < float("inf") or not 0 <= momentum < 1:
        raise ConfigError(
            "strength must be finite and not negative, and momentum in [0, 1), got "
            f"{strength} and {momentum}"
        )

    def init(params: Params) -> Any:
        return _Accelerated(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Params) -> tuple[Any, Any]:
        rate = learning_rate(state.steps) if callable(learning_rate) else learning_rate

        def proximal(scale: Array, gradient: Array) -> Array:
            stepped = scale - rate * gradient
            return jnp.sign(stepped) * jnp.maximum(jnp.abs(stepped) - rate * strength, 0)

        near = jax.tree.map(proximal, params, updates)
        velocity = jax.tree.map(
            lambda z, scale, v: z - scale + momentum * v, near, params, state.velocity
        )
        change = jax.tree.map(
            lambda z, v, scale: (jnp.maximum(z + momentum * v, 0) - scale).astype(scale.dtype),
            near,
            velocity,
            params,
        )
        return change, _Accelerated(state.steps + 1, velocity)

    return optax.GradientTransformation(init, update)


def with_block_scales(net: Variables, blocks: Blocks) -> Variables:
    """Return a net with a scale of 1 for each block, for ``scaled_task``.

    Args:
        net: any net.
        blocks: its blocks.

    Raises:
        ConfigError: params lack a leaf of a block, or two blocks share one.

    >>> with_block_scales(Variables({"kernel": jnp.ones(1)}, {}), {"b": ["kernel"]}).params
    {'net': {'kernel': Array([1.], dtype=float32)}, 'scales': {'b': Array(1., dtype=float32)}}
    """
    names = [name for leaves in blocks.values() for name in leaves]
    found = chosen_leaves(net.params, names)
    if len(found) < len(names):
        raise ConfigError(f"each leaf must be of one block, got {', '.join(sorted(names))}")
    scales = {block: jnp.ones((), found[leaves[0]].dtype) for block, leaves in blocks.items()}
    return net._replace(params={"net": net.params, "scales": scales})


def merge_scales(net: Variables, blocks: Blocks) -> Variables:
    """Multiply the scales of blocks into their last layers: the same outputs.

    Args:
        net: of a ``scaled_task``.
        blocks: its blocks.

    >>> net = with_block_scales(Variables({"kernel": jnp.ones(1)}, {}), {"b": ["kernel"]})
    >>> merge_scales(net, {"b": ["kernel"]}).params
    {'kernel': Array([1.], dtype=float32)}
    """
    return net._replace(params=_multiplied(net.params, blocks))


def scaled_task(task: Task, blocks: Blocks) -> Task:
    """Return the task whose nets have a scale for each block.

    Args:
        task: any task.
        blocks: of its nets.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task, blocks = classification(LeNet300100, load_digits()), {"b": ["fc3/kernel", "fc3/bias"]}
    >>> net, images = scaled_task(task, blocks).init(0), task.dataset.test.images[:1]
    >>> net.params["scales"]["b"] = jnp.zeros(())
    >>> float(scaled_task(task, blocks).logits(net, images).sum())
    0.0
    """

    def apply(params: Params, aux: Any, images: Any) -> tuple[Array, Any]:
        return task.apply(_multiplied(params, blocks), aux, images)

    return task._replace(
        init=lambda seed: with_block_scales(task.init(seed), blocks),
        apply=apply,
        predict=lambda net, images: task.predict(merge_scales(net, blocks), images),
    )


def sparse_structure_selection(
    task: Task,
    net: Variables,
    blocks: Blocks,
    config: PretrainConfig = PretrainConfig(),
    *,
    proximal: optax.GradientTransformation,
    key: Array,
    callback: Callable[[Epoch], None] | None = None,
    resume: str | PathLike[str] | None = None,
) -> Variables:
    """Train a net with a scale for each block, and multiply the scales into the last layers.

    The last layers of blocks whose scale has reached zero are zero.

    Args:
        task: its images.
        net: to start from.
        blocks: of the net: see ``last_layers``.
        config: the loss, augmentation, optimiser and schedule of the weights. Its seed is not used.
        proximal: the optimiser of the scales, ``accelerated_proximal`` of the learning rates of the
            weights. The scales do not decay.
        key: random key of the order of the examples and of the augmentation.
        callback: called with each epoch's record, as for ``train``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: a kernel is not finite, or as ``with_block_scales``.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> blocks = {"last": ["fc3/kernel", "fc3/bias"]}
    >>> net = sparse_structure_selection(
    ...     task, task.init(0), blocks, PretrainConfig(epochs=1), key=jax.random.key(0),
    ...     proximal=accelerated_proximal(0.1, strength=100.0))
    >>> float(jnp.abs(net.params["fc3"]["kernel"]).max())
    0.0
    """

    check_finite(net)

    def around(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        parts = {"net": optimizer, "scales": proximal}
        return optax.partition(parts, {"net": "net", "scales": "scales"})

    trained = train_task(
        scaled_task(task, blocks),
        with_block_scales(net, blocks),
        config,
        key=key,
        around=around,
        callback=callback,
        resume=resume,
    )
    return merge_scales(trained, blocks)


def _multiplied(params: Params, blocks: Blocks) -> Params:
    scales = params["scales"]
    return with_leaves(
        params["net"],
        {
            name: leaf * scales[block].astype(leaf.dtype)
            for block, leaves in blocks.items()
            for name, leaf in chosen_leaves(params["net"], leaves).items()
        },
    )
