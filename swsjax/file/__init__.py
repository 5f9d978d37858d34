"""Nets as files: the ``.sws`` artefact, safetensors, and checkpoints of pretrained nets."""

from swsjax.file.checkpoint import load_checkpoint, save_checkpoint
from swsjax.file.files import dumps, load, loads, read_metadata, save, to_sparse
from swsjax.file.safetensors import (
    flax_kernel,
    flax_kernel_after_flatten,
    from_safetensors,
    safetensors_metadata,
    to_safetensors,
)

__all__ = [
    "dumps",
    "flax_kernel",
    "flax_kernel_after_flatten",
    "from_safetensors",
    "load",
    "load_checkpoint",
    "loads",
    "read_metadata",
    "safetensors_metadata",
    "save",
    "save_checkpoint",
    "to_safetensors",
    "to_sparse",
]
