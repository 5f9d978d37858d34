"""Crops and flips against NumPy, how often they happen, and that nothing else changes."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.errors import ConfigError
from swsjax.training.augment import crop_and_flip


def crops(image, pad):
    """Every image that may come of one, by whether it is flipped, its row and its column."""
    height, width = image.shape[:2]
    found = {}
    for flipped in (0, 1):
        turned = image[:, ::-1] if flipped else image
        padded = np.zeros((height + 2 * pad, width + 2 * pad, *image.shape[2:]), image.dtype)
        padded[pad : pad + height, pad : pad + width] = turned
        for row in range(2 * pad + 1):
            for column in range(2 * pad + 1):
                crop = padded[row : row + height, column : column + width]
                found[flipped, row, column] = crop
    return found


def found_in(candidates, image):
    (place,) = [key for key, crop in candidates.items() if np.array_equal(crop, image)]
    return place


@pytest.mark.parametrize("shape", [(7, 9, 3), (8, 6)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_image_is_flipped_and_moved_on_its_own(shape, dtype):
    images = np.random.default_rng(0).integers(1, 255, (400, *shape)).astype(dtype)
    batch = {"inputs": jnp.asarray(images), "labels": jnp.arange(400)}
    change = jax.jit(partial(crop_and_flip, pad=2))
    changed = change(jax.random.key(1), batch)
    assert changed["inputs"].dtype == dtype
    np.testing.assert_array_equal(changed["labels"], batch["labels"])
    np.testing.assert_array_equal(batch["inputs"], images)
    places = np.array(
        [
            found_in(crops(before, 2), after)
            for before, after in zip(images, np.asarray(changed["inputs"]), strict=True)
        ]
    )
    flips = places[:, 0].sum()
    assert 150 < flips < 250  # within five standard deviations of 200
    for axis in (1, 2):
        counts = np.bincount(places[:, axis], minlength=5)
        assert (abs(counts - 80) < 40).all()  # five standard deviations
    assert abs(np.corrcoef(places.T) - np.eye(3)).max() < 0.25


def test_the_key_decides():
    batch = {"inputs": jnp.asarray(np.random.default_rng(0).random((16, 8, 8, 3)))}
    first, again, other = (crop_and_flip(jax.random.key(key), batch)["inputs"] for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_without_padding_images_are_only_flipped():
    images = jnp.asarray(np.random.default_rng(0).random((64, 4, 5, 3)))
    changed = crop_and_flip(jax.random.key(0), {"inputs": images}, pad=0)["inputs"]
    is_same, is_flipped = ((changed == x).all((1, 2, 3)) for x in (images, images[:, :, ::-1]))
    assert (is_same ^ is_flipped).all()
    assert 0 < is_flipped.sum() < 64


@pytest.mark.parametrize(
    ("batch", "pad", "message"),
    [
        ({"inputs": jnp.ones((2, 8, 8))}, -1, "pad must be an integer of at least 0, got -1"),
        (
            {"x": jnp.ones((2, 8, 8))},
            4,
            'the batch must have images (batch, height, width, ...) under "inputs", got none',
        ),
        (
            {"inputs": jnp.ones((2, 64))},
            4,
            'the batch must have images (batch, height, width, ...) under "inputs", got an array '
            "of shape (2, 64)",
        ),
    ],
)
def test_batches_without_images(batch, pad, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        crop_and_flip(jax.random.key(0), batch, pad=pad)
