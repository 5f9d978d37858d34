"""Compressed nets as bytes and as files: any pytree of arrays in, the same bits out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any, TypeVar, overload

import jax
import numpy as np
import scipy.sparse

from swsjax import codec
from swsjax.checks import check_integer, path_of
from swsjax.codec.header import matrix_shape
from swsjax.codec.zeros import positive_zeros
from swsjax.errors import ConfigError, FormatError, WrongTypeError
from swsjax.file.atomic import check_writable, read_bytes, write_bytes
from swsjax.file.leaves import array_of, check_array, form_of_leaf, like_leaf, text_of
from swsjax.trees import Path, is_array, name_of, unboxed_leaves

__all__ = [
    "bytes_of",
    "check_metadata",
    "dumps",
    "leaves_of",
    "load",
    "loads",
    "named_errors",
    "read_metadata",
    "save",
    "to_sparse",
]

TreeT = TypeVar("TreeT")


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
        metadata: a small dictionary of what JSON has, and of NumPy's numbers; costs nothing when
            absent.
        encoding: ``"entropy"`` (smallest), ``"han"`` or ``"han-huffman"`` (the formats in which
            the literature computes compression rates).
        negative_zeros: whether -0.0 stays -0.0. ``weights * mask`` makes one of every negative
            weight, each for about a bit; False writes 0.0 for it.

    Raises:
        WrongTypeError: a leaf is not an array, has a mask or an element type that is not supported,
            a key of the tree is neither a string nor a non-negative integer, or the metadata is not
            JSON.
        ConfigError: unknown encoding, NaN in the metadata, or two leaves with one path.

    Example:
        >>> data = dumps({"w": np.zeros((2, 3), np.float32)}, metadata={"model": "toy"})
        >>> loads(data)["w"].shape, read_metadata(data)
        ((2, 3), {'model': 'toy'})
    """
    check_metadata(metadata)
    leaves = [(path, array_of(name_of(path), leaf)) for path, leaf in unboxed_leaves(tree)]
    paths = {path for path, _ in leaves}
    if len(paths) < len(leaves):
        raise ConfigError("two leaves of the tree have the same path")
    if not negative_zeros:
        leaves = [(path, positive_zeros(leaf)) for path, leaf in leaves]
    return codec.pack(leaves, metadata, encoding)


@overload
def loads(data: bytes, *, like: None = None, max_bytes: int = ...) -> Any: ...
@overload
def loads(data: bytes, *, like: TreeT, max_bytes: int = ...) -> TreeT: ...
def loads(data: bytes, *, like: Any = None, max_bytes: int = codec.MAX_BYTES) -> Any:
    """Return the pytree in the bytes of an ``.sws`` file.

    Args:
        data: what :func:`dumps` returned.
        like: a pytree with the desired structure; its leaves need only a shape and a dtype
            (``jax.eval_shape`` returns such a tree; traced arrays have them, too). Without it the
            result is nested dictionaries; a position beside names becomes a name, as JAX has no
            order for the two.
        max_bytes: refuse a file whose arrays take more than this in total.

    Returns:
        Nested dictionaries of NumPy arrays, keyed by the names and list positions of the original
        tree; or, with ``like``, its structure, with JAX arrays where ``like`` has JAX arrays, on
        the same devices.

    Raises:
        FormatError: the bytes are not a valid file of this format, or larger than allowed.
        ConfigError: ``max_bytes`` is not a number of bytes.
        ConfigError: the file does not fit ``like``; the message names every leaf that does not. Or,
            without ``like``, a position and a name beside it are the same text.

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
        ConfigError: ``max_bytes`` is not a number of bytes.

    >>> leaves_of(dumps({"layers": [np.arange(2)]}))
    [(('layers', 0), array([0, 1]))]
    """
    contents = codec.unpack(data, check_integer("max_bytes", max_bytes, least=0))
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


@overload
def load(path: str | PathLike[str], *, like: None = None, max_bytes: int = ...) -> Any: ...
@overload
def load(path: str | PathLike[str], *, like: TreeT, max_bytes: int = ...) -> TreeT: ...
def load(path: str | PathLike[str], *, like: Any = None, max_bytes: int = codec.MAX_BYTES) -> Any:
    """Return the pytree in a file; see :func:`loads`.

    Example:
        >>> size = save("net.sws", {"w": np.arange(3)})
        >>> load("net.sws")
        {'w': array([0, 1, 2])}
    """
    path = path_of(path, "loads takes bytes")
    with named_errors(path):
        return loads(read_bytes(path), like=like, max_bytes=max_bytes)


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
    return source if isinstance(source, bytes) else read_bytes(path_of(source, advice))


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


def check_metadata(metadata: Any) -> None:
    """Check that metadata are a dictionary with names as keys, or None.

    Raises:
        WrongTypeError: they are not.

    >>> check_metadata({3: "seed"})
    Traceback (most recent call last):
        ...
    swsjax.errors.WrongTypeError: metadata must have strings as keys, got 3
    """
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        raise WrongTypeError(f"metadata must be a dictionary, got a {type(metadata).__name__}")
    for key in metadata:
        if not isinstance(key, str):
            raise WrongTypeError(f"metadata must have strings as keys, got {key!r}")


def to_sparse(array: Any) -> scipy.sparse.csr_array:
    """Return an array as a SciPy sparse matrix: the last axis is the columns.

    Entries that are -0.0 are left out, as SciPy does with every zero.

    Args:
        array: NumPy or JAX array of a type that SciPy knows (not bfloat16 or float16).

    Raises:
        WrongTypeError: SciPy does not know the type, or the array has a mask.

    Example:
        >>> matrix = to_sparse(np.array([[0.0, 2.0], [0.0, 0.0]]))
        >>> matrix.shape, matrix.nnz
        ((2, 2), 1)
    """
    if is_array(array):
        check_array("the array", array)
    made = np.asarray(array)
    made = made.astype(made.dtype.newbyteorder("="), copy=False)
    try:
        return scipy.sparse.csr_array(made.reshape(matrix_shape(made.shape)))
    except ValueError as error:
        raise WrongTypeError(
            f"SciPy has no sparse matrices of type {made.dtype.name}; convert it with astype"
        ) from error


def _nested(arrays: dict[Path, np.ndarray]) -> Any:
    if list(arrays) == [()]:
        return arrays[()]
    tree: dict[str | int, Any] = {}
    for path, array in arrays.items():
        node = tree
        for component in path[:-1]:
            node = node.setdefault(component, {})
        node[path[-1]] = array
    return _of_one_type(tree)


def _of_one_type(node: Any) -> Any:
    """Names in place of positions beside names: JAX sorts keys, and cannot compare the two."""
    if not isinstance(node, dict):
        return node
    mixed = len({type(key) for key in node}) > 1
    made = {str(key) if mixed else key: _of_one_type(child) for key, child in node.items()}
    if len(made) < len(node):
        twice = next(key for key in node if isinstance(key, int) and str(key) in node)
        raise ConfigError(
            f"the file has position {twice} and name {str(twice)!r} in one place; pass like"
        )
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
                f"{name_of(path)} is {text_of(array)} in the file, {dtype}{list(shape)} expected"
            )
            continue
        try:
            out.append(like_leaf(name_of(path), array, leaf))
        except ConfigError as error:
            problems.append(str(error))
    problems += [f"{name_of(path)} is in the file but not expected" for path in arrays]
    if problems:
        raise ConfigError("the file does not fit the tree given: " + "; ".join(problems))
    return jax.tree.unflatten(jax.tree.structure(like), out)
