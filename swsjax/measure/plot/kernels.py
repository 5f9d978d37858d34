"""Kernels as images: convolution filters and features of a first dense layer, before and after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from swsjax.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_features", "plot_filters"]


def plot_filters(
    axes: "Sequence[Axes]", before: np.ndarray, after: np.ndarray, *, most: int = 20
) -> None:
    """Draw the filters of a convolution before and after, in one colour scale.

    Each input channel has a row, and each output channel a column; with a single input channel the
    filters fill ten columns. White is zero; weights have no unit.

    Args:
        axes: two axes: before and after.
        before: (height, width, in, out) kernel of the pretrained net.
        after: the kernel of the compressed net.
        most: number of input channels drawn at most; twice as many output channels.

    Raises:
        ConfigError: the kernels are not of this form, or differ in shape.

    Ullrich, Meeds, Welling, ICLR 2017, appendix.

    >>> from matplotlib.figure import Figure
    >>> kernel = np.random.default_rng(0).normal(size=(5, 5, 1, 20))
    >>> plot_filters(Figure().subplots(1, 2), kernel, kernel.round())
    """
    if before.ndim != 4 or before.shape != after.shape:
        raise ConfigError(
            "filters must be two kernels of the same shape (height, width, in, out), got "
            f"{before.shape} and {after.shape}"
        )
    shown = (slice(None), slice(None), slice(most), slice(2 * most))
    inputs, outputs = before[shown].shape[2:]
    columns = 10 if inputs == 1 else outputs
    pictures = [
        np.moveaxis(kernel[shown], (2, 3), (0, 1)).reshape(-1, *kernel.shape[:2])
        for kernel in (before, after)
    ]
    what = f"{inputs * outputs:,} of {np.prod(before.shape[2:]):,} filters"
    _draw(axes, pictures, columns, what)


def plot_features(
    axes: "Sequence[Axes]",
    before: np.ndarray,
    after: np.ndarray,
    image_shape: tuple[int, int],
    *,
    most: int = 30,
) -> None:
    """Draw the features of a first dense layer, before and after, in one colour scale.

    A feature is the weights from all pixels to one unit; the units are those with the largest
    weights after compression. White is zero; weights have no unit.

    Args:
        axes: two axes: before and after.
        before: (pixels, units) kernel of the pretrained net.
        after: the kernel of the compressed net.
        image_shape: height and width of the images, whose product is the number of pixels.
        most: number of units drawn at most.

    Raises:
        ConfigError: the kernels are not of this form, or differ in shape.

    Ullrich, Meeds, Welling, ICLR 2017, appendix.

    >>> from matplotlib.figure import Figure
    >>> kernel = np.random.default_rng(0).normal(size=(64, 100))
    >>> plot_features(Figure().subplots(1, 2), kernel, kernel.round(), (8, 8))
    """
    height, width = image_shape
    if before.ndim != 2 or before.shape != after.shape or len(before) != height * width:
        raise ConfigError(
            f"features must be two kernels of the same shape ({height * width}, units), got "
            f"{before.shape} and {after.shape}"
        )
    units = np.argsort(-(np.asarray(after, np.float64) ** 2).sum(axis=0), kind="stable")[:most]
    pictures = [kernel.T[units].reshape(-1, height, width) for kernel in (before, after)]
    _draw(axes, pictures, 10, f"{len(units)} of {before.shape[1]:,} units")


def _draw(axes: "Sequence[Axes]", pictures: list[np.ndarray], columns: int, what: str) -> None:
    scale = max(float(abs(picture).max()) for picture in pictures) or 1.0
    for axis, picture, when in zip(axes, pictures, ("before", "after"), strict=True):
        # Red and blue, distinguishable in every common form of colour blindness.
        image = axis.imshow(
            _mosaic(picture, columns), "RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest"
        )
        axis.set_facecolor("#cccccc")  # shows between the pictures
        axis.set(title=f"{when.capitalize()}: {what}", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    colors = axes[0].figure.colorbar(image, ax=list(axes), location="bottom", aspect=40, pad=0.04)
    colors.set_label("weight")


def _mosaic(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Images (n, height, width) in this many columns, separated by lines of NaN."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    padded = np.full((rows * columns, height + 1, width + 1), np.nan)
    padded[:count, :height, :width] = pictures
    grid = padded.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    return grid.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
