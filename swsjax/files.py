"""Compressed networks as bytes and as files: any pytree of arrays in, the same bits out."""

import contextlib
import os
import secrets
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from swsjax import codec

__all__ = ["dumps", "load", "loads", "read_metadata", "save"]


def dumps(tree, *, metadata=None, encoding="han"):
    """Return a pytree of arrays as the bytes of an ``.sws`` file.

    Arrays with few distinct values get a codebook and sparse coding; the others are stored as
    they are. Every bit comes back: -0.0, infinities and NaN payloads included.

    Args:
        tree: any pytree of NumPy or JAX arrays: dictionaries, lists, tuples, NamedTuples, Flax
            NNX state, Linen variables. Empty containers leave no trace in the file.
        metadata: a small JSON-serialisable dictionary; costs nothing when absent.
        encoding: ``"entropy"`` (smallest), ``"han"`` or ``"han-huffman"`` (the format that
            compression rates are computed in in the literature).

    Raises:
        TypeError: a leaf is no array, its element type is not supported, or a key of the tree is
            neither a string nor a non-negative integer.
        ValueError: unknown encoding, metadata that is not JSON, or two leaves with one path.

    Example:
        >>> data = dumps({"w": np.zeros((2, 3), np.float32)}, metadata={"model": "toy"})
        >>> loads(data)["w"].shape, read_metadata(data)
        ((2, 3), {'model': 'toy'})
    """
    leaves = [(path, _array(path, leaf)) for path, leaf in _leaves(tree)]
    paths = {path for path, _ in leaves}
    if len(paths) < len(leaves):
        raise ValueError("two leaves of the tree have the same path")
    return codec.pack(leaves, metadata, encoding)


def loads(data, *, like=None, max_bytes=codec.MAX_BYTES):
    """Return the pytree in the bytes of an ``.sws`` file.

    Args:
        data: what :func:`dumps` returned.
        like: a pytree with the structure wanted; its leaves need a shape and a dtype only
            (``jax.eval_shape`` gives such a tree). Without it the result is nested dictionaries.
        max_bytes: refuse a file whose arrays take more than this together.

    Returns:
        Nested dictionaries of NumPy arrays, keyed by the names and list positions of the original
        tree; or, with ``like``, its structure, with JAX arrays where ``like`` has JAX arrays.

    Raises:
        FormatError: the bytes are no undamaged file of this format, or are larger than allowed.
        ValueError: the file does not fit ``like``; the message names every leaf that does not.

    Example:
        >>> data = dumps({"layers": [np.arange(2), np.arange(3)]})
        >>> loads(data)
        {'layers': {0: array([0, 1]), 1: array([0, 1, 2])}}
        >>> loads(data, like={"layers": [np.zeros(2, int), np.zeros(3, int)]})
        {'layers': [array([0, 1]), array([0, 1, 2])]}
    """
    contents = codec.unpack(data, max_bytes)
    arrays = {
        spec.path: bits.view(np.dtype(spec.dtype)).reshape(spec.shape)
        for spec, bits in zip(contents.specs, contents.bits, strict=True)
    }
    return _nested(arrays) if like is None else _fitted(arrays, like)


def save(path, tree, *, metadata=None, encoding="han"):
    """Write a pytree of arrays to a file, atomically: the old file stays until the new is whole.

    Takes what :func:`dumps` takes and raises what it raises.

    Returns:
        The size of the file in bytes.
    """
    path = Path(path)
    data = dumps(tree, metadata=metadata, encoding=encoding)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt too must not leave a temporary file behind
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    return len(data)


def load(path, *, like=None, max_bytes=codec.MAX_BYTES):
    """Return the pytree in a file; see :func:`loads`."""
    return loads(_read(path), like=like, max_bytes=max_bytes)


def read_metadata(source):
    """Return the metadata dictionary of a file, given by path or by its bytes.

    Raises:
        FormatError: the file is damaged.
    """
    data = source if isinstance(source, bytes | bytearray | memoryview) else _read(source)
    return codec.read_metadata(data)


def _read(path):
    return Path(path).read_bytes()


def _leaves(tree):
    """``(path, leaf)`` pairs; the box that Flax puts around a parameter leaves no trace."""
    out = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        path = tuple(_component(key) for key in path)
        if _is_variable(leaf):
            inner = jax.tree_util.tree_flatten_with_path(leaf)[0]
            out += [(path + tuple(_component(key) for key in rest[1:]), x) for rest, x in inner]
        else:
            out.append((path, leaf))
    return out


def _is_variable(node):
    return isinstance(node, nnx.Variable)


def _component(key):
    """One key of a JAX path as a string or a non-negative integer."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            key = getattr(key, attribute)
            break
    if isinstance(key, str) or (type(key) is int and key >= 0):
        return key
    raise TypeError(f"tree key {key!r} is neither a string nor a non-negative integer")


def _array(path, leaf):
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"leaf {_name(path)} is a random key; leave it out or give jax.random.key_data(key)"
        )
    if not isinstance(leaf, np.ndarray | np.generic | jax.Array):
        raise TypeError(
            f"leaf {_name(path)} is a {type(leaf).__name__}, not an array; use numpy.asarray"
        )
    return np.asarray(leaf)


def _name(path):
    return "/".join(map(str, path)) or "(the tree itself)"


def _nested(arrays):
    if list(arrays) == [()]:
        return arrays[()]
    tree = {}
    for path, array in arrays.items():
        node = tree
        for component in path[:-1]:
            node = node.setdefault(component, {})
        node[path[-1]] = array
    return tree


def _fitted(arrays, like):
    wanted = _leaves(like)
    problems, out = [], []
    for path, leaf in wanted:
        if path not in arrays:
            problems.append(f"{_name(path)} is not in the file")
            continue
        array = arrays.pop(path)
        dtype = getattr(leaf, "dtype", np.asarray(leaf).dtype)
        if (array.shape, array.dtype) != (np.shape(leaf), dtype):
            problems.append(
                f"{_name(path)} is {array.dtype.name}{list(array.shape)} in the file, "
                f"{dtype}{list(np.shape(leaf))} expected"
            )
        out.append(jnp.asarray(array) if isinstance(leaf, jax.Array) else array)
    problems += [f"{_name(path)} is in the file but not expected" for path in arrays]
    if problems:
        raise ValueError("the file does not fit the tree given: " + "; ".join(problems))
    return jax.tree.unflatten(jax.tree.structure(like), out)
