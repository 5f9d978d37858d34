"""Kernels as images: convolution filters and features of a first dense layer, before and after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from swsjax.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST_INPUTS", "filters_height", "plot_features", "plot_filters"]

MOST_INPUTS = 8
"""Input channels that ``plot_filters`` draws by default: smaller filters could not be read."""


def plot_filters(
    axes: "Sequence[Axes]", before: np.ndarray, after: np.ndarray, *, most: int = MOST_INPUTS
) -> None:
    """Draw the filters of a convolution before and after, in one colour scale.

    Each input channel has a row, and each output channel a column, with its number; of many, those
    with the largest weights after compression are drawn. With a single input channel the filters
    fill ten columns. White is zero; weights have no unit.

    Args:
        axes: two axes: before and after.
        before: (height, width, in, out) kernel of the pretrained net.
        after: the kernel of the compressed net.
        most: number of input channels drawn at most; twice as many output channels, if there are
            several inputs.

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
    inputs, outputs = _largest_channels(after, most)
    pictures = [
        np.moveaxis(kernel[:, :, inputs[:, None], outputs], (2, 3), (0, 1)).reshape(
            -1, *kernel.shape[:2]
        )
        for kernel in (before, after)
    ]
    what = f"{len(pictures[0]):,} of {np.prod(before.shape[2:]):,} filters"
    if len(inputs) == 1:
        _draw(axes, pictures, 10, what)
        return
    _draw(axes, pictures, len(outputs), what)
    height, width = before.shape[:2]
    for axis in axes:
        axis.set_yticks((height + 1) * np.arange(len(inputs)) + (height - 1) / 2, inputs)
        axis.set_xticks((width + 1) * np.arange(len(outputs)) + (width - 1) / 2, outputs)
        axis.set_ylabel("input channel")
        axis.tick_params(length=0)
    axes[-1].set_xlabel("output channel")


def filters_height(kernel: np.ndarray) -> float:
    """Height in inches of a figure of filters, before above after, that leaves no gap.

    >>> filters_height(np.ones((5, 5, 1, 20))) < filters_height(np.ones((5, 5, 20, 50)))
    True
    """
    height, width, inputs, outputs = kernel.shape
    columns = 10 if inputs == 1 else min(outputs, 2 * MOST_INPUTS)
    rows = -(-outputs // 10) if inputs == 1 else min(inputs, MOST_INPUTS)
    picture = 3.2 * rows * (height + 1) / (columns * (width + 1))
    return 2 * picture + (1.2 if inputs == 1 else 1.7)


def _largest_channels(kernel: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the input and output channels with the largest weights, in order."""
    squares = (np.asarray(kernel, np.float64) ** 2).sum(axis=(0, 1))
    inputs = np.sort(np.argsort(-squares.sum(axis=1), kind="stable")[:most])
    outputs = np.argsort(-squares.sum(axis=0), kind="stable")
    return inputs, np.sort(outputs[: 2 * most] if len(squares) > 1 else outputs)


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
