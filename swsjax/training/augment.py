"""Random changes of a batch, as part of the compiled step: the ``augment`` of ``train``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from swsjax.checks import check_integer
from swsjax.errors import ConfigError

__all__ = ["Augment", "crop_and_flip"]

Augment = Callable[[Array, Any], Any]
"""From a random key and a batch to the batch that the loss sees; pure, of the same shapes."""


def crop_and_flip(key: Array, batch: dict[str, Array], *, pad: int = 4) -> dict[str, Array]:
    """Flip each image of a batch with probability 1/2, and move it by up to ``pad`` pixels.

    The images are padded with zeros and cropped to their size at random positions.

    Args:
        key: random key.
        batch: with images (batch, height, width, ...) under ``"inputs"``; the rest is unchanged.
        pad: pixels of zeros on each side.

    Raises:
        ConfigError: the batch has no images, or ``pad`` is negative.

    >>> batch = {"inputs": jnp.ones((2, 8, 8, 3)), "labels": jnp.array([3, 5])}
    >>> changed = crop_and_flip(jax.random.key(0), batch)
    >>> changed["inputs"].shape, changed["labels"].tolist()
    ((2, 8, 8, 3), [3, 5])
    """
    pad = check_integer("pad", pad, least=0)
    images = batch["inputs"] if isinstance(batch, dict) and "inputs" in batch else None
    if images is None or images.ndim < 3:
        found = "none" if images is None else f"an array of shape {images.shape}"
        raise ConfigError(
            f'the batch must have images (batch, height, width, ...) under "inputs", got {found}'
        )
    flip_key, crop_key = jax.random.split(key)
    is_flipped = jax.random.bernoulli(flip_key, 0.5, (len(images),))
    corners = jax.random.randint(crop_key, (len(images), 2), 0, 2 * pad + 1)

    def changed(image: Array, flipped: Array, corner: Array) -> Array:
        image = jnp.where(flipped, image[:, ::-1], image)
        still = image.ndim - 2  # axes after height and width
        padded = jnp.pad(image, [(pad, pad)] * 2 + [(0, 0)] * still)
        start = (*corner, *[0] * still)
        return jax.lax.dynamic_slice(padded, start, image.shape)

    return batch | {"inputs": jax.vmap(changed)(images, is_flipped, corners)}
