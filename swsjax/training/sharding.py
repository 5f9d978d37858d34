"""Sharding of arrays over a mesh of devices, in one process or many.

The mesh has an axis ``"data"``, over which each batch is divided, and may have an axis ``"model"``,
over which the weights are. Everything else is replicated, the training data included. The step does
not depend on this: the compiler divides the work by the sharding of its inputs. The prior is a sum
of table entries over the weights, so devices exchange one table per step, not weights.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from swsjax.errors import ConfigError

__all__ = [
    "check_mesh",
    "divides_weights",
    "gather",
    "replicate",
    "settle",
    "shard_batch",
    "shard_weights",
]

_DATA, _MODEL = "data", "model"


def check_mesh(mesh: Mesh, batch_size: int) -> Mesh:
    """Return the mesh with axes that the compiler may shard over as it chooses.

    Raises:
        ConfigError: it is not a mesh, its axes are not ``"data"`` or ``"data"`` and ``"model"``, or
            the devices along ``"data"`` do not divide the batch.

    >>> check_mesh(Mesh(jax.devices(), ("data",)), 128).axis_names
    ('data',)
    """
    if not isinstance(mesh, Mesh):
        raise ConfigError(
            f"mesh must be a jax.sharding.Mesh, got a {type(mesh).__name__}; "
            "Mesh(jax.devices(), ('data',)) is one"
        )
    if set(mesh.axis_names) not in ({_DATA}, {_DATA, _MODEL}):
        raise ConfigError(
            f"mesh has axes {mesh.axis_names}; expected 'data', over which batches are divided, "
            "and optionally 'model', over which weights are"
        )
    if batch_size % mesh.shape[_DATA]:
        raise ConfigError(
            f"batch_size {batch_size} is not a multiple of the {mesh.shape[_DATA]} devices along "
            "'data'; set a different batch_size"
        )
    return Mesh(mesh.devices, mesh.axis_names)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Put arrays on every device of the mesh; without a mesh, leave them as they are.

    With several processes, each must hold the same values.

    >>> replicate(jnp.ones(2), Mesh(jax.devices(), ("data",))).sharding.is_fully_replicated
    True
    """
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # JAX does not put keys on the devices of other processes, but their data it does.
            data = jax.device_put(jax.random.key_data(leaf), everywhere)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(_free(leaf), everywhere)

    return jax.tree.map(put, tree)


def divides_weights(mesh: Mesh | None) -> bool:
    """Whether the mesh has an axis along which weights are divided.

    >>> divides_weights(Mesh(jax.devices(), ("data",)))
    False
    """
    return mesh is not None and _MODEL in mesh.axis_names


def shard_weights(tree: Any, mesh: Mesh | None) -> Any:
    """Shard each array along its longest axis that the ``"model"`` axis divides, if any.

    >>> mesh = Mesh(np.array(jax.devices()[:1])[:, None], ("data", "model"))
    >>> shard_weights(jnp.ones((3, 4)), mesh).sharding.spec == PartitionSpec(None, "model")
    True
    """
    if mesh is None or not divides_weights(mesh):
        return replicate(tree, mesh)

    def shard(leaf: jax.Array) -> jax.Array:
        axes = [axis for axis, n in enumerate(leaf.shape) if n % mesh.shape[_MODEL] == 0]
        longest = max(axes, key=lambda axis: leaf.shape[axis], default=None)
        spec = [_MODEL if axis == longest else None for axis in range(leaf.ndim)]
        return jax.device_put(_free(leaf), NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(shard, tree)


def shard_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Shard arrays along their first axis over ``"data"``, inside or outside of ``jax.jit``.

    >>> mesh = Mesh(jax.devices(), ("data",))
    >>> placed = shard_batch(jnp.ones((4, 2)), mesh)
    >>> placed.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("data")), 2)
    True
    """
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(_DATA)))


def settle(tree: Any, mesh: Mesh | None) -> Any:
    """Replicate arrays that are not committed to devices, such as counters of a new optimiser.

    Otherwise the first epoch would move them, and the second would compile again for its inputs.

    >>> settle(jnp.zeros(()), Mesh(jax.devices(), ("data",))).committed
    True
    """
    if mesh is None:
        return tree
    return jax.tree.map(lambda leaf: leaf if leaf.committed else replicate(leaf, mesh), tree)


def gather(tree: Any, mesh: Mesh | None) -> Any:
    """Bring whole arrays to one device of this process; without a mesh they already are.

    >>> gather(jnp.ones(2), Mesh(jax.devices(), ("data",)))
    Array([1., 1.], dtype=float32)
    """
    if mesh is None:
        return tree
    return jax.tree.map(_local, _everywhere(mesh)(tree))


@cache  # another function object would compile again
def _everywhere(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _local(leaf: jax.Array) -> jax.Array:
    """The copy of a replicated array that this process has."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jnp.asarray(np.asarray(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jnp.asarray(np.asarray(leaf))


def _free(leaf: Any) -> Any:
    """The array on the host: JAX does not move arrays committed to a device to other processes."""
    return np.asarray(leaf) if getattr(leaf, "is_fully_addressable", False) else leaf
