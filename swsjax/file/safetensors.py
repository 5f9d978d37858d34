"""Nets from and to safetensors files, which PyTorch and others read and write.

A PyTorch state dict, saved with ``safetensors.torch.save_file``, becomes a pytree by a map from
the leaves of the tree to the tensors of the file. Nothing is guessed from shapes: a square kernel
fits with and without a transposition. Compare a few outputs of the two nets after reading.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from os import PathLike
from typing import Any

import jax
import numpy as np

from swsjax.checks import path_of
from swsjax.codec.header import MAX_COMPONENTS
from swsjax.errors import ConfigError, FormatError, MissingExtraError, WrongTypeError
from swsjax.file.atomic import check_writable, read_bytes, write_bytes
from swsjax.file.files import check_metadata
from swsjax.file.leaves import array_of, cast, form_of_leaf, like_leaf, may_become, text_of
from swsjax.trees import fits, name_of, unboxed_leaves

__all__ = [
    "Convert",
    "Sources",
    "flax_kernel",
    "flax_kernel_after_flatten",
    "from_safetensors",
    "safetensors_metadata",
    "to_safetensors",
]

Convert = Callable[[np.ndarray], np.ndarray]
"""From a tensor of the file to a leaf of the tree."""
Sources = Mapping[str, str | tuple[str, Convert]]
"""From the name of a leaf to the name of its tensor, or a pair of that and a conversion."""

_MISSING = "safetensors files need safetensors: pip install 'swsjax[safetensors]'"
# safetensors.numpy reads bfloat16 in some of its versions and from some sources only.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
}


def flax_kernel(weight: np.ndarray) -> np.ndarray:
    """Return the weight of a linear layer or a convolution of PyTorch as the kernel of Flax.

    Args:
        weight: (out, in, ...), the axes of the image last.

    Returns:
        The same numbers as (..., in, out).

    Example:
        >>> flax_kernel(np.zeros((300, 784))).shape  # torch.nn.Linear(784, 300)
        (784, 300)
        >>> flax_kernel(np.zeros((20, 1, 5, 3))).shape  # torch.nn.Conv2d(1, 20, (5, 3))
        (5, 3, 1, 20)
    """
    return np.moveaxis(weight, (0, 1), (-1, -2))


def flax_kernel_after_flatten(channels: int) -> Convert:
    """Return what makes the kernel of the linear layer that reads a flattened convolution.

    PyTorch flattens images as (channel, height, width), Flax as (height, width, channel), so the
    inputs of the layer change their order.

    Args:
        channels: number of channels that are flattened.

    Returns:
        A function from PyTorch's weight (out, in) to Flax's kernel (in, out).

    Example:
        >>> weight = np.arange(6).reshape(1, 6)  # one output, 2 channels of 1 x 3 pixels
        >>> flax_kernel_after_flatten(2)(weight)[:, 0]
        array([0, 3, 1, 4, 2, 5])
    """

    def convert(weight: np.ndarray) -> np.ndarray:
        by_channel = weight.reshape(len(weight), channels, -1)
        return flax_kernel(by_channel).reshape(-1, len(weight))

    return convert


def from_safetensors(
    path: str | PathLike[str],
    like: Any = None,
    *,
    sources: Sources | None = None,
    unused: Sequence[str] = (),
) -> Any:
    """Read a safetensors file, for example a PyTorch state dict, as a pytree.

    Args:
        path: the file.
        like: a pytree with the desired structure; its leaves need only a shape and a dtype
            (``jax.eval_shape`` returns such a tree). Without it the result is nested dictionaries,
            as :func:`swsjax.load` returns them: names are split at ``/``. If a name goes on from
            that of a tensor (``x`` and ``x/adam_m``), it is one dictionary with the whole names.
        sources: the tensor of each leaf of ``like``, by the leaf's name (``"fc1/kernel"``): the
            name of a tensor, or a pair of that and a function from the tensor to the leaf, such as
            :func:`flax_kernel`. By default a leaf is the tensor of its own name, which is how
            :func:`to_safetensors` names it.
        unused: names of tensors to leave out, or patterns of names such as ``"*running_*"``.
            Leaving out any other tensor is an error.

    Returns:
        A tree like ``like``, with JAX arrays where it has JAX arrays, on the same devices, and
        NumPy arrays elsewhere. Floating tensors are cast to the floating type of ``like``, if that
        can hold their values; other types are not changed.

    Raises:
        MissingExtraError: safetensors is not installed; the message names the extra that brings it.
        FormatError: the file is not a valid safetensors file.
        ConfigError: the file does not fit ``like`` and ``sources``; the message names everything
            that does not.
        WrongTypeError: an entry of ``sources`` is neither a name nor a pair of name and function,
            or ``unused`` is not a list.

    Example:
        >>> state = {"fc.weight": np.ones((3, 2), np.float32), "fc.steps": np.array(7)}
        >>> to_safetensors(state, "torch.safetensors")
        >>> like = {"dense": {"kernel": jnp.zeros((2, 3))}}
        >>> sources = {"dense/kernel": ("fc.weight", flax_kernel)}
        >>> from_safetensors("torch.safetensors", like, sources=sources, unused=["fc.steps"])
        {'dense': {'kernel': Array([[1., 1., 1.],
               [1., 1., 1.]], dtype=float32)}}
    """
    unused = _names(unused)
    tensors, _ = _read(path)
    if like is not None:
        return _fitted(path, tensors, like, sources or {}, unused)
    if sources or unused:
        raise ConfigError("sources and unused refer to leaves of like; pass like too")
    return _nested(path, tensors)


def to_safetensors(
    tree: Any, path: str | PathLike[str], *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write the arrays of a pytree as a safetensors file, dense, named like ``fc1/kernel``.

    Args:
        tree: any pytree that :func:`swsjax.dumps` takes.
        path: file to write, atomically.
        metadata: a dictionary, written too; values become strings, as the format requires.

    Raises:
        MissingExtraError: safetensors is not installed; the message names the extra.
        WrongTypeError: a leaf is not an array, has a mask or an element type that is not supported,
            or the metadata are not a dictionary with strings as keys.
        ConfigError: two leaves have the same name, or a leaf has the name ``__metadata__``.
        OSError: the file cannot be written, or is a folder, a device or a pipe.

    Example:
        >>> to_safetensors({"fc": {"bias": np.zeros(3, np.float32)}}, "weights.safetensors")
        >>> from_safetensors("weights.safetensors")
        {'fc': {'bias': array([0., 0., 0.], dtype=float32)}}
    """
    try:
        from safetensors.numpy import save as encode
    except ModuleNotFoundError as error:
        raise MissingExtraError(_MISSING) from error

    path = path_of(path, "to_safetensors takes the tree first and then the path")
    check_writable(path)
    arrays = {name: _storable(name, leaf) for name, leaf in _named(tree).items()}
    check_metadata(metadata)
    texts = {key: str(value) for key, value in (metadata or {}).items()}
    write_bytes(path, encode(arrays, texts or None))


def safetensors_metadata(path: str | PathLike[str]) -> dict[str, str]:
    """Return the metadata of a safetensors file, empty if it has none.

    Raises:
        MissingExtraError: safetensors is not installed; the message names the extra that brings it.
        FormatError: the file is not a valid safetensors file.

    Example:
        >>> to_safetensors({}, "net.safetensors", metadata={"seed": 3})
        >>> safetensors_metadata("net.safetensors")
        {'seed': '3'}
    """
    return _read(path)[1]


def _read(path: str | PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file by their names, and its metadata."""
    try:
        from safetensors import SafetensorError, deserialize
    except ModuleNotFoundError as error:
        raise MissingExtraError(_MISSING) from error

    data = read_bytes(path_of(path, "the path comes first"))
    try:
        entries = dict(deserialize(data))
    except SafetensorError as error:
        raise FormatError(f"{path} is not a valid safetensors file: {error}") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = {name: _tensor(f"{path}: {name}", entries[name]) for name in sorted(entries)}
    return tensors, header.get("__metadata__", {})


def _tensor(label: str, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise FormatError(
            f"{label} is of type {entry['dtype']}; supported are {', '.join(_DTYPES)}"
        )
    flat = np.frombuffer(entry["data"], np.dtype(_DTYPES[entry["dtype"]]))
    try:
        return flat.reshape(entry["shape"])
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{label} has a shape that NumPy cannot hold: {error}") from error


def _named(tree: Any) -> dict[str, Any]:
    leaves = unboxed_leaves(tree)
    named: dict[str, Any] = {}
    for path, leaf in leaves:
        if (name := name_of(path)) in named:
            raise ConfigError(f"two leaves of the tree have the same name, {name}")
        named[name] = leaf
    return named


def _storable(name: str, leaf: Any) -> np.ndarray:
    array = np.asarray(array_of(name, leaf), order="C")
    if array.dtype.name not in _DTYPES.values():
        raise WrongTypeError(
            f"leaf {name} is of type {array.dtype.name}; safetensors supports "
            f"{', '.join(_DTYPES.values())}"
        )
    if name == "__metadata__":
        raise ConfigError("the name __metadata__ is reserved in safetensors files; rename the leaf")
    return array


def _names(unused: Any) -> list[str]:
    if isinstance(unused, Iterable) and not isinstance(unused, str):
        names = list(unused)
        if all(isinstance(name, str) for name in names):
            return names
    raise WrongTypeError(f"unused must be a list of names, got {unused!r}")


def _fitted(
    path: str | PathLike[str],
    tensors: dict[str, np.ndarray],
    like: Any,
    sources: Sources,
    unused: Sequence[str],
) -> Any:
    wanted = _named(like)
    pairs = {name: _pair(name, sources.get(name, name)) for name in wanted}
    problems = [
        f"{name} is in sources but is not a leaf of the tree{_near(name, wanted)}"
        for name in sources
        if name not in wanted
    ]
    out = []
    for name, leaf in wanted.items():
        try:
            out.append(_leaf(name, *pairs[name], tensors, leaf))
        except ConfigError as error:
            problems.append(str(error))
    taken = {source for source, _ in pairs.values()}
    problems += [
        f"{name} is in the file but not expected (to leave it out, name it in unused)"
        for name in tensors
        if name not in taken and not any(fits(name, pattern, tensors) for pattern in unused)
    ]
    if problems:
        raise ConfigError(f"{path} does not fit the tree given: " + "; ".join(problems))
    return jax.tree.unflatten(jax.tree.structure(like), out)


def _leaf(
    name: str, source: str, convert: Convert | None, tensors: dict[str, np.ndarray], like: Any
) -> np.ndarray | jax.Array:
    """One leaf of the tree from its tensor, or a ConfigError that says why it cannot be."""
    label = name if source == name else f"{name}, from {source},"
    if source not in tensors:
        raise ConfigError(f"{label} is not in the file{_near(source, tensors)}")
    array = tensor = tensors[source]
    found = f"{label} is {text_of(tensor)} in the file"
    if convert is not None:
        try:
            array = np.asarray(convert(tensor))
        except ValueError as error:
            raise ConfigError(f"{found}, which its function rejects: {error}") from error
        found = f"{found}, {text_of(array)} after its function"
    shape, dtype = form_of_leaf(like)
    if array.shape != shape or not may_become(array.dtype, dtype):
        hint = _hint(source, tensor.shape, shape)
        raise ConfigError(f"{found}, expected {dtype}{list(shape)}{hint}")
    return like_leaf(label, cast(found, array, dtype), like)


def _pair(name: str, source: Any) -> tuple[str, Convert | None]:
    match source:
        case str():
            return source, None
        case (str(), convert) if callable(convert):
            return source
    raise WrongTypeError(
        f"sources has {source!r} for {name}; expected the name of a tensor, or a pair of it and "
        "a function"
    )


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def _hint(source: str, actual: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What to try if only the order of the axes differs."""
    if actual == wanted or sorted(actual) != sorted(wanted):
        return ""
    if (*actual[2:], actual[1], actual[0]) == wanted:
        return f' (try ("{source}", flax_kernel))'
    left, axes = list(range(len(actual))), []
    for size in wanted:
        axes.append(next(axis for axis in left if actual[axis] == size))
        left.remove(axes[-1])
    return f' (try ("{source}", lambda x: x.transpose{tuple(axes)}))'


def _nested(path: str | PathLike[str], tensors: dict[str, np.ndarray]) -> dict[Any, Any]:
    for name in tensors:
        if name.count("/") >= MAX_COMPONENTS:
            raise FormatError(f"{path}: {name} has over {MAX_COMPONENTS} components")
    folders = {name: list(accumulate(name.split("/")[:-1], "{}/{}".format)) for name in tensors}
    if any(folder in tensors for found in folders.values() for folder in found):
        return dict(tensors)
    tree: dict[str, Any] = {}
    for name, array in tensors.items():
        *keys, last = name.split("/")
        node = tree
        for key in keys:
            node = node.setdefault(key, {})
        node[last] = array
    return _numbered(tree)


def _numbered(node: Any) -> Any:
    """Names that are list positions, as integers again."""
    if not isinstance(node, dict):
        return node
    numbers = all(re.fullmatch(r"0|[1-9][0-9]{0,17}", name) for name in node)
    return {int(name) if numbers else name: _numbered(child) for name, child in node.items()}
