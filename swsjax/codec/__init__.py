"""The ``.sws`` file format: encoder, decoder and size estimates, in NumPy without JAX."""

from swsjax.codec.bound import EntropyBound, entropy_bound
from swsjax.codec.container import (
    ENCODINGS,
    MAX_BYTES,
    Contents,
    leaf_bits,
    pack,
    read_metadata,
    unpack,
)
from swsjax.codec.han import han_size
from swsjax.codec.hanplan import HanBits
from swsjax.codec.header import DTYPES

__all__ = [
    "DTYPES",
    "ENCODINGS",
    "MAX_BYTES",
    "Contents",
    "EntropyBound",
    "HanBits",
    "entropy_bound",
    "han_size",
    "leaf_bits",
    "pack",
    "read_metadata",
    "unpack",
]
