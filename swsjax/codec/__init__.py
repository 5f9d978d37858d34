"""Bits and bytes of a compressed network: NumPy only, no JAX."""

from swsjax.codec.bound import EntropyBound, entropy_bound
from swsjax.codec.container import ENCODINGS, MAX_BYTES, Contents, pack, read_metadata, unpack
from swsjax.codec.csr import HanBits, han_size

__all__ = [
    "ENCODINGS",
    "MAX_BYTES",
    "Contents",
    "EntropyBound",
    "HanBits",
    "entropy_bound",
    "han_size",
    "pack",
    "read_metadata",
    "unpack",
]
