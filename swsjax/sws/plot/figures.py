"""The figures of a run of ``compress``, as pictures for a folder and for the report page."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swsjax.measure.html import Picture
from swsjax.measure.plot.figures import alone, save_pictures, two_high
from swsjax.measure.plot.kernels import filters_height, plot_features, plot_filters
from swsjax.measure.plot.style import column_picture
from swsjax.sws.plot.components import plot_components
from swsjax.sws.plot.hyperpriors import plot_betas, plot_gammas
from swsjax.sws.plot.weights import plot_weights
from swsjax.sws.prior import HyperPriors
from swsjax.sws.result import Result
from swsjax.training.net import named_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["run_pictures", "save_figures"]

_MOST_CONVOLUTIONS = 4  # a deep net has a hundred, which look alike


def run_pictures(
    before: Any,
    result: Result[Any],
    *,
    hyper_priors: HyperPriors | None = None,
    image_shape: tuple[int, int] | None = None,
) -> list[Picture]:
    """Draw what a retraining did: weights, components, and filters or features if there are any.

    Args:
        before: the pretrained net.
        result: what ``compress`` made of it.
        hyper_priors: of the run, if they should be drawn too.
        image_shape: height and width of the images, if a first dense layer takes their pixels.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> from swsjax.sws import Details, init_mixture
    >>> from swsjax.training import Epoch, select
    >>> net = {"w": jnp.linspace(-1.0, 1.0, 640).reshape(64, 10)}
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0)}
    >>> details = Details(17, 16, 0.25, mixtures)
    >>> history = [Epoch("soft", 1, 1, 0.5, non_zeros=100, details=details)]
    >>> result = Result({"w": jnp.eye(64, 10)}, net, mixtures, history, select(net))
    >>> [picture.name for picture in run_pictures(net, result, image_shape=(8, 8))]
    ['weights', 'components', 'features-w']
    """
    pictures: list[Picture] = []
    for name in result.mixtures:
        ending = "" if len(result.mixtures) == 1 else f"-{name}"
        pictures += _mixture_pictures(before, result, name, ending)
    pictures += _weight_pictures(before, result, image_shape)
    if hyper_priors is not None:
        pictures.append(_hyper_prior_picture(hyper_priors))
    return pictures


def save_figures(
    folder: str | Path,
    before: Any,
    result: Result[Any],
    *,
    hyper_priors: HyperPriors | None = None,
    image_shape: tuple[int, int] | None = None,
) -> list[Path]:
    """Write the figures of a run into a folder and return the paths.

    ``weights`` and ``components`` (with several groups ``weights-GROUP`` and ``components-GROUP``),
    ``filters-LAYER`` of convolutions, ``features-LAYER`` of a first dense layer, and
    ``hyper-priors``; each as PNG and as PDF.

    Args:
        folder: where to write; it must exist.
        before: the pretrained net.
        result: what ``compress`` made of it.
        hyper_priors: of the run, if they should be drawn too.
        image_shape: height and width of the images, if a first dense layer takes their pixels.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> from swsjax.sws import Details, init_mixture
    >>> from swsjax.training import Epoch, select
    >>> net, mixtures = {"w": jnp.linspace(-1.0, 1.0, 100)}, {"weights": init_mixture(-1.0, 1.0)}
    >>> details = Details(17, 16, 0.25, mixtures)
    >>> history = [Epoch("soft", 1, 1, 0.5, non_zeros=100, details=details)]
    >>> result = Result(net, net, mixtures, history, select(net))
    >>> [path.name for path in save_figures(".", net, result)]
    ['weights.png', 'weights.pdf', 'components.png', 'components.pdf']
    """
    pictures = run_pictures(before, result, hyper_priors=hyper_priors, image_shape=image_shape)
    return save_pictures(folder, pictures)


def _mixture_pictures(
    before: Any, result: Result[Any], name: str, ending: str
) -> Iterator[Picture]:
    yield column_picture(
        f"weights{ending}",
        "The weights before retraining (above) and after it (right), with the final prior; and the "
        "move of each weight, with the components.",
        partial(plot_weights, before=before, result=result, name=name),
        _joint,
        3.4,
    )
    if result.history:
        yield column_picture(
            f"components{ending}",
            "The components of the mixture during training: they move, narrow, merge and vanish. "
            "Below, the number of non-zero weights and the error.",
            partial(plot_components, history=result.history, name=name),
            _stacked,
            4.2,
        )


def _weight_pictures(
    before: Any, result: Result[Any], image_shape: tuple[int, int] | None
) -> Iterator[Picture]:
    old, new = (_arrays(net, result) for net in (before, result.params))
    convolutions = [path for path, kernel in old.items() if kernel.ndim == 4 and len(kernel) > 1]
    for path in convolutions[:_MOST_CONVOLUTIONS]:
        yield column_picture(
            f"filters-{path.replace('/', '-')}",
            f"Filters of the convolution {path} before and after; white is zero.",
            partial(plot_filters, before=old[path], after=new[path]),
            two_high,
            filters_height(old[path]),
        )
    if image_shape is None:
        return
    pixels = math.prod(image_shape)
    dense = [path for path, kernel in old.items() if kernel.ndim == 2 and len(kernel) == pixels]
    for path in dense[:1]:
        draw = partial(plot_features, before=old[path], after=new[path], image_shape=image_shape)
        yield column_picture(
            f"features-{path.replace('/', '-')}",
            f"The weights from each pixel to units of {path}, before and after; white is zero.",
            draw,
            two_high,
            3.4,
        )


def _hyper_prior_picture(hyper: HyperPriors) -> Picture:
    gammas = {"zero component": hyper.zero_precision, "free components": hyper.precision}
    caption = "Hyper-priors on the precisions of the components"
    if hyper.pi_zero is None:
        draw_gammas = partial(plot_gammas, priors=gammas)
        return column_picture("hyper-priors", f"{caption}.", draw_gammas, alone, 2.4)
    beta = {"zero component": hyper.pi_zero}

    def draw(axes: "list[Axes]") -> None:
        plot_gammas(axes[0], gammas)
        plot_betas(axes[1], beta)

    caption += " and on the mixing proportion of the zero component."
    return column_picture("hyper-priors", caption, draw, two_high, 4.4)


def _arrays(net: Any, result: Result[Any]) -> dict[str, np.ndarray]:
    """The trained arrays of a net, by name."""
    found = named_weights(net, result.selection)
    return {name: np.asarray(leaf, np.float32) for name, leaf in found.items()}


def _stacked(figure: "Figure") -> "list[Axes]":
    """Two axes over the same epochs."""
    return list(figure.subplots(2, 1, height_ratios=[3, 2]))


def _joint(figure: "Figure") -> "list[Axes]":
    """A scatter with distributions above it and to its right, on the scales of the scatter."""
    grid = figure.add_gridspec(2, 2, width_ratios=[5, 2], height_ratios=[2, 5])
    scatter = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=scatter)
    beside = figure.add_subplot(grid[1, 1], sharey=scatter)
    above.tick_params(labelbottom=False)
    beside.tick_params(labelleft=False)
    return [above, beside, scatter]
