"""One leaf: from a tree to an array that a file can hold, and back into the form of a leaf."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swsjax.codec.header import DTYPES
from swsjax.errors import ConfigError, WrongTypeError
from swsjax.trees import is_array, is_number

__all__ = [
    "array_of",
    "cast",
    "check_array",
    "check_unmasked",
    "form_of_leaf",
    "like_leaf",
    "may_become",
    "on_devices",
    "text_of",
]


def array_of(name: str, leaf: Any) -> np.ndarray:
    """Return the leaf of that name as a NumPy array.

    Raises:
        WrongTypeError: as ``check_array``.

    >>> array_of("fc1/bias", jnp.zeros(2))
    array([0., 0.], dtype=float32)
    """
    check_array(f"leaf {name}", leaf)
    return np.asarray(leaf)


def check_array(label: str, leaf: Any) -> None:
    """Check that a leaf is an array with values, without looking at them.

    Args:
        label: what the leaf is; the message begins with it.
        leaf: of any type.

    Raises:
        WrongTypeError: it is not an array, it has a mask, or JAX traces it and it has no values.

    >>> check_array("leaf fc1/bias", 1.5)
    Traceback (most recent call last):
        ...
    swsjax.errors.WrongTypeError: leaf fc1/bias is a float, not an array; use numpy.asarray
    """
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise WrongTypeError(
            f"{label} is a random key; leave it out or give jax.random.key_data(key)"
        )
    if isinstance(leaf, jax.core.Tracer):
        raise WrongTypeError(f"{label} is traced by JAX and has no values; save outside of jit")
    if not is_array(leaf):
        advice = "use numpy.asarray" if is_number(leaf) else "leave it out"
        raise WrongTypeError(f"{label} is a {type(leaf).__name__}, not an array; {advice}")
    check_unmasked(label, leaf)


def check_unmasked(label: str, leaf: Any) -> None:
    """Check that a leaf is not a masked array, which NumPy and JAX convert without its mask.

    Args:
        label: what the leaf is; the message begins with it.
        leaf: of any type.

    Raises:
        WrongTypeError: it is one.

    >>> check_unmasked("leaf w", np.ma.masked_less(np.array([1.0, -1.0]), 0))
    Traceback (most recent call last):
        ...
    swsjax.errors.WrongTypeError: leaf w is a masked array, whose mask would be lost; fill it, and \
if the mask is needed, pass it as an array of its own
    """
    if isinstance(leaf, np.ma.MaskedArray):
        raise WrongTypeError(
            f"{label} is a masked array, whose mask would be lost; fill it, and if the mask is "
            "needed, pass it as an array of its own"
        )


def form_of_leaf(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Return the shape and type that a leaf has or describes, without looking at its values.

    >>> form_of_leaf(jax.ShapeDtypeStruct((2, 3), jnp.float32))
    ((2, 3), dtype('float32'))
    """
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    # A file has no byte order.
    return np.shape(leaf), dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def text_of(array: np.ndarray) -> str:
    """Return type and shape of an array as messages spell them.

    >>> text_of(np.zeros((2, 3)))
    'float64[2, 3]'
    """
    return f"{array.dtype.name}{list(array.shape)}"


def may_become(actual: Any, wanted: Any) -> bool:
    """Whether numbers of a stored type may be cast to another: both are floating, or the same.

    >>> may_become(np.dtype("float64"), np.dtype("float16"))
    True
    >>> may_become(np.dtype("int64"), np.dtype("float64"))
    False
    """
    if actual == wanted:
        return True
    # Of the types that files have; NumPy has more, of other sizes.
    names = [getattr(dtype, "name", None) for dtype in (actual, wanted)]
    return all(name in DTYPES and jnp.issubdtype(name, jnp.floating) for name in names)


def cast(found: str, array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return an array in another type that it may become, C-contiguous; always a copy.

    Args:
        found: what was found where; the message begins with it.
        array: the stored numbers.
        dtype: the type wanted.

    Raises:
        ConfigError: a number would become infinite or none at all, or cease to be so.

    >>> cast("w is in the file", np.float32([1, 1e6]), np.dtype("float16"))
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: w is in the file and has 1000000.0, which float16 does not hold
    """
    with np.errstate(over="ignore"):
        made = np.array(array, dtype, order="C")
    if array.dtype != dtype:
        lost = (np.isinf(array) != np.isinf(made)) | (np.isnan(array) != np.isnan(made))
        if lost.any():
            raise ConfigError(f"{found} and has {array[lost][0]}, which {dtype} does not hold")
    return made


def like_leaf(name: str, array: np.ndarray, leaf: Any) -> Any:
    """Return an array as JAX's, sharded like the leaf, if that is JAX's; in its byte order if not.

    Raises:
        ConfigError: as ``on_devices``.

    >>> like_leaf("w", np.ones(2, np.float32), jnp.zeros(2))
    Array([1., 1.], dtype=float32)
    """
    if not isinstance(leaf, jax.Array):
        return array.astype(getattr(leaf, "dtype", array.dtype), copy=False)
    # A traced array is nowhere; one that is not committed follows those it is computed with.
    is_placed = not isinstance(leaf, jax.core.Tracer) and leaf.committed
    return on_devices(name, array, leaf.sharding if is_placed else None)


def on_devices(name: str, array: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    """Return an array as JAX's, spread as a sharding says; None leaves the place to JAX.

    Raises:
        ConfigError: JAX would change the type of the array.

    >>> on_devices("w", np.ones(2, np.float32), None)
    Array([1., 1.], dtype=float32)
    """
    made = jnp.asarray(array) if sharding is None else jax.device_put(array, sharding)
    if made.dtype != array.dtype:
        raise ConfigError(f"{name} is {array.dtype.name}, which JAX holds only with jax_enable_x64")
    return made
