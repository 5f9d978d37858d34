"""A state as the arrays that are written: large leaves as they are, all small ones as one.

Orbax takes about a millisecond for each array, and most leaves of a state are scalars and vectors
of the mixture and the optimiser, of a few bytes each.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.trees import is_array

__all__ = ["abstract_arrays", "arrays_of", "data_of", "state_of"]

StateT = TypeVar("StateT", bound=Any)

_SMALL = 1024  # entries
_TOGETHER = "small"


def arrays_of(state: Any) -> dict[str, Any]:
    """Return the arrays of a state by name, random keys as their data; none of them is empty.

    Args:
        state: pytree of arrays.

    >>> arrays_of({"w": jnp.ones((64, 32)), "step": np.int32(7)})["small"]
    array([7, 0, 0, 0], dtype=uint8)
    """
    leaves = jax.tree.leaves(state)
    found = {
        _name(number): data_of(leaf)
        for number, leaf in enumerate(leaves)
        if leaf.size and not _is_small(leaf)
    }
    small = [np.asarray(data_of(leaf)).tobytes() for leaf in leaves if _is_small(leaf)]
    if small:
        found[_TOGETHER] = np.frombuffer(b"".join(small), np.uint8)
    return found


def abstract_arrays(like: Any) -> dict[str, Any]:
    """Return what ``arrays_of`` would, as shapes with the devices that hold them.

    >>> abstract_arrays({"w": np.ones((64, 32), np.float32)})["00000"].shape
    (64, 32)
    """
    return jax.tree.map(_abstract, arrays_of(like))


def state_of(arrays: Mapping[str, Any], like: StateT) -> StateT:
    """Return the state that ``arrays_of`` took apart, on the devices of ``like``.

    Args:
        arrays: as ``arrays_of`` returns them.
        like: a state of the same structure, shapes and dtypes.

    >>> state = {"step": jnp.int32(7), "w": jnp.ones((64, 32)), "empty": jnp.zeros(0)}
    >>> state_of(arrays_of(state), state)["step"]
    Array(7, dtype=int32)
    """
    leaves, structure = jax.tree.flatten(like)
    small, start, restored = arrays.get(_TOGETHER), 0, []
    for number, leaf in enumerate(leaves):
        if not leaf.size:
            restored.append(leaf)
        elif _is_small(leaf):
            data = data_of(leaf)
            piece = np.asarray(small)[start : start + data.nbytes].tobytes()
            found = np.frombuffer(piece, data.dtype).reshape(data.shape)
            is_device = isinstance(data, jax.Array)
            restored.append(_as(jax.device_put(found, data.sharding) if is_device else found, leaf))
            start += data.nbytes
        else:
            restored.append(_as(arrays[_name(number)], leaf))
    return jax.tree.unflatten(structure, restored)


def data_of(leaf: Any) -> Any:
    """Return the leaf, or the data of a random key.

    >>> data_of(jax.random.key(1)), data_of(2)
    (Array([0, 1], dtype=uint32), 2)
    """
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _name(number: int) -> str:
    return f"{number:05d}"


def _is_small(leaf: Any) -> bool:
    """Whether it is; of several processes, each may have a part of it only."""
    return jax.process_count() == 1 and 0 < leaf.size <= _SMALL


def _is_key(leaf: Any) -> bool:
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def _as(found: Any, like: Any) -> Any:
    return (
        jax.random.wrap_key_data(found, impl=jax.random.key_impl(like)) if _is_key(like) else found
    )
