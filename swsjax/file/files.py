"""Compressed nets as bytes and as files: any pytree of arrays in, the same bits out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from swsjax import codec
from swsjax.checks import path_of
from swsjax.codec.header import matrix_shape
from swsjax.codec.zeros import positive_zeros
from swsjax.errors import ConfigError, FormatError
from swsjax.file.atomic import check_writable, write_bytes
from swsjax.trees import Path, is_array, is_number, name_of, unboxed_leaves

__all__ = [
    "array_of",
    "bytes_of",
    "dumps",
    "form_of_leaf",
    "leaves_of",
    "like_leaf",
    "load",
    "loads",
    "named_errors",
    "read_metadata",
    "save",
    "to_sparse",
]


def dumps(
    tree: Any,
    *,
    metadata: Mapping[str, Any] | None = None,
    encoding: str = "entropy",
    negative_zeros: bool = True,
) -> bytes:
    """Return a pytree of arrays as the bytes of an ``.sws`` file.

    Arrays with few distinct values get a codebook and sparse coding; the others are stored as
    they are. Every bit comes back: -0.0, infinities and NaN payloads included.

    Args:
        tree: any pytree of NumPy or JAX arrays: dictionaries, lists, tuples, NamedTuples, Flax
            NNX state, Linen variables. Empty containers are not stored.
        metadata: a small JSON-serialisable dictionary; costs nothing when absent.
        encoding: ``"entropy"`` (smallest), ``"han"`` or ``"han-huffman"`` (the formats in which
            the literature computes compression rates).
        negative_zeros: whether -0.0 stays -0.0. ``weights * mask`` makes one of every negative
            weight, each for about a bit; False writes 0.0 for it.

    Raises:
        TypeError: a leaf is not an array, its element type is not supported, a key of the tree is
            neither a string nor a non-negative integer, or the metadata is not JSON.
        ValueError: unknown encoding, NaN in the metadata, or two leaves with one path.

    Example:
        >>> data = dumps({"w": np.zeros((2, 3), np.float32)}, metadata={"model": "toy"})
        >>> loads(data)["w"].shape, read_metadata(data)
        ((2, 3), {'model': 'toy'})
    """
    if not (metadata is None or isinstance(metadata, Mapping)):
        raise TypeError(f"metadata must be a dictionary, got a {type(metadata).__name__}")
    leaves = [(path, array_of(name_of(path), leaf)) for path, leaf in unboxed_leaves(tree)]
    paths = {path for path, _ in leaves}
    if len(paths) < len(leaves):
        raise ValueError("two leaves of the tree have the same path")
    if not negative_zeros:
        leaves = [(path, positive_zeros(leaf)) for path, leaf in leaves]
    return codec.pack(leaves, metadata, encoding)


def loads(data: bytes, *, like: Any = None, max_bytes: int = codec.MAX_BYTES) -> Any:
    """Return the pytree in the bytes of an ``.sws`` file.

    Args:
        data: what :func:`dumps` returned.
        like: a pytree with the desired structure; its leaves need only a shape and a dtype
            (``jax.eval_shape`` returns such a tree; traced arrays have them, too). Without it the
            result is nested dictionaries.
        max_bytes: refuse a file whose arrays take more than this in total.

    Returns:
        Nested dictionaries of NumPy arrays, keyed by the names and list positions of the original
        tree; or, with ``like``, its structure, with JAX arrays where ``like`` has JAX arrays.

    Raises:
        FormatError: the bytes are not a valid file of this format, or larger than allowed.
        ValueError: the file does not fit ``like``; the message names every leaf that does not.

    Example:
        >>> data = dumps({"layers": [np.arange(2), np.arange(3)]})
        >>> loads(data)
        {'layers': {0: array([0, 1]), 1: array([0, 1, 2])}}
        >>> loads(data, like={"layers": [np.zeros(2, int), np.zeros(3, int)]})
        {'layers': [array([0, 1]), array([0, 1, 2])]}
    """
    arrays = dict(leaves_of(data, max_bytes))
    return _nested(arrays) if like is None else _fitted(arrays, like)


def leaves_of(data: bytes, max_bytes: int = codec.MAX_BYTES) -> list[tuple[Path, np.ndarray]]:
    """Return each array in the bytes of an ``.sws`` file with its path, in the order of the file.

    Raises:
        FormatError: the bytes are not a valid file of this format, or larger than allowed.

    >>> leaves_of(dumps({"layers": [np.arange(2)]}))
    [(('layers', 0), array([0, 1]))]
    """
    contents = codec.unpack(data, max_bytes)
    return [
        (spec.path, bits.view(np.dtype(spec.dtype)).reshape(spec.shape))
        for spec, bits in zip(contents.specs, contents.bits, strict=True)
    ]


def save(
    path: str | PathLike[str],
    tree: Any,
    *,
    metadata: Mapping[str, Any] | None = None,
    encoding: str = "entropy",
    negative_zeros: bool = True,
) -> int:
    """Write a pytree of arrays to a file, atomically: the old file stays until the new is whole.

    Takes what :func:`dumps` takes and raises what it raises. An existing file keeps its mode.

    Returns:
        The size of the file in bytes.

    Raises:
        OSError: the file cannot be written, or is a folder, a device or a pipe.

    Example:
        >>> save("net.sws", {"w": np.zeros((100, 100), np.float32)})
        16
    """
    path = path_of(path, "save takes the path first and then the tree")
    check_writable(path)
    data = dumps(tree, metadata=metadata, encoding=encoding, negative_zeros=negative_zeros)
    write_bytes(path, data)
    return len(data)


def load(path: str | PathLike[str], *, like: Any = None, max_bytes: int = codec.MAX_BYTES) -> Any:
    """Return the pytree in a file; see :func:`loads`.

    Example:
        >>> size = save("net.sws", {"w": np.arange(3)})
        >>> load("net.sws")
        {'w': array([0, 1, 2])}
    """
    path = path_of(path, "loads takes bytes")
    with named_errors(path):
        return loads(path.read_bytes(), like=like, max_bytes=max_bytes)


def read_metadata(source: str | PathLike[str] | bytes) -> dict[str, Any]:
    """Return the metadata dictionary of a file, given by path or by its bytes.

    Raises:
        FormatError: the file is damaged.

    Example:
        >>> read_metadata(dumps({"w": np.zeros(2)}, metadata={"seed": 3}))
        {'seed': 3}
    """
    with named_errors(source):
        return codec.read_metadata(bytes_of(source))


def bytes_of(source: str | PathLike[str] | bytes) -> bytes:
    """Return the bytes of a file, given by path or by themselves.

    >>> bytes_of(b"sws")
    b'sws'
    """
    advice = "save writes one, dumps makes its bytes"
    return source if isinstance(source, bytes) else path_of(source, advice).read_bytes()


@contextmanager
def named_errors(source: str | PathLike[str] | bytes) -> Iterator[None]:
    """Begin the message of a ``FormatError`` with the path of the file, unless bytes were given.

    Raises:
        FormatError: one was raised within.

    >>> with named_errors("notes.txt"):
    ...     loads(b"Notes")
    Traceback (most recent call last):
        ...
    swsjax.errors.FormatError: notes.txt is not an .sws file: it starts with b'Note', not b'sws'
    """
    try:
        yield
    except FormatError as error:
        if isinstance(source, bytes):
            raise
        text = str(error)
        raise FormatError(f"{source}{' is ' if text.startswith('not ') else ': '}{text}") from None


def to_sparse(array: Any) -> scipy.sparse.csr_array:
    """Return an array as a SciPy sparse matrix: the last axis is the columns.

    Entries that are -0.0 are left out, as SciPy does with every zero.

    Args:
        array: NumPy or JAX array of a type that SciPy knows (not bfloat16 or float16).

    Example:
        >>> matrix = to_sparse(np.array([[0.0, 2.0], [0.0, 0.0]]))
        >>> matrix.shape, matrix.nnz
        ((2, 2), 1)
    """
    array = np.asarray(array)
    return scipy.sparse.csr_array(array.reshape(matrix_shape(array.shape)))


def array_of(name: str, leaf: Any) -> np.ndarray:
    """Return the leaf of that name as a NumPy array.

    Raises:
        TypeError: it is not an array, or JAX traces it and it has no values.

    >>> array_of("fc1/bias", jnp.zeros(2))
    array([0., 0.], dtype=float32)
    """
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"leaf {name} is a random key; leave it out or give jax.random.key_data(key)"
        )
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(f"leaf {name} is traced by JAX and has no values; save outside of jit")
    if not is_array(leaf):
        advice = "use numpy.asarray" if is_number(leaf) else "leave it out"
        raise TypeError(f"leaf {name} is a {type(leaf).__name__}, not an array; {advice}")
    return np.asarray(leaf)


def _nested(arrays: dict[Path, np.ndarray]) -> Any:
    if list(arrays) == [()]:
        return arrays[()]
    tree: dict[str | int, Any] = {}
    for path, array in arrays.items():
        node = tree
        for component in path[:-1]:
            node = node.setdefault(component, {})
        node[path[-1]] = array
    return tree


def form_of_leaf(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Return the shape and type that a leaf has or describes, without looking at its values.

    >>> form_of_leaf(jax.ShapeDtypeStruct((2, 3), jnp.float32))
    ((2, 3), dtype('float32'))
    """
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    # A file has no byte order.
    return np.shape(leaf), dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def like_leaf(name: str, array: np.ndarray, leaf: Any) -> Any:
    """Return an array as JAX's if a leaf is JAX's, and in the byte order of the leaf if not.

    Raises:
        ConfigError: JAX would change the type of the array.

    >>> like_leaf("w", np.ones(2, np.float32), jnp.zeros(2))
    Array([1., 1.], dtype=float32)
    """
    if not isinstance(leaf, jax.Array):
        return array.astype(getattr(leaf, "dtype", array.dtype), copy=False)
    made = jnp.asarray(array)
    if made.dtype != array.dtype:
        raise ConfigError(f"{name} is {array.dtype.name}, which JAX holds only with jax_enable_x64")
    return made


def _fitted(arrays: dict[Path, np.ndarray], like: Any) -> Any:
    wanted = unboxed_leaves(like)
    problems, out = [], []
    for path, leaf in wanted:
        if path not in arrays:
            problems.append(f"{name_of(path)} is not in the file")
            continue
        array = arrays.pop(path)
        shape, dtype = form_of_leaf(leaf)
        if (array.shape, array.dtype) != (shape, dtype):
            problems.append(
                f"{name_of(path)} is {array.dtype.name}{list(array.shape)} in the file, "
                f"{dtype}{list(shape)} expected"
            )
            continue
        try:
            out.append(like_leaf(name_of(path), array, leaf))
        except ConfigError as error:
            problems.append(str(error))
    problems += [f"{name_of(path)} is in the file but not expected" for path in arrays]
    if problems:
        raise ValueError("the file does not fit the tree given: " + "; ".join(problems))
    return jax.tree.unflatten(jax.tree.structure(like), out)
