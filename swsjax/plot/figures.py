"""The figures of a run and of a file, as pictures for a folder and for the report page."""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from swsjax.atomic import write_bytes
from swsjax.checks import leaf_name
from swsjax.codec.header import matrix_shape
from swsjax.compress import Result
from swsjax.nets import take_apart
from swsjax.page import Picture
from swsjax.plot.components import plot_components
from swsjax.plot.encoding import plot_encoding, small_example
from swsjax.plot.hyperpriors import plot_betas, plot_gammas
from swsjax.plot.layers import MOST_LAYERS, plot_codebook, plot_layers
from swsjax.plot.pictures import plot_features, plot_filters
from swsjax.plot.style import column_png
from swsjax.plot.weights import plot_moves, plot_weights
from swsjax.prior import HyperPriors
from swsjax.report import Report
from swsjax.select import Rules

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["file_pictures", "run_pictures", "save_figures", "save_pictures"]

_MOST_CONVOLUTIONS = 4  # a deep net has a hundred, and they look alike


def file_pictures(tree: Any, report: Report) -> list[Picture]:
    """Draw what can be said from a file alone: its layers, its values and how Han's format works.

    Args:
        tree: what ``load`` gives back.
        report: of the file.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> from swsjax.files import dumps
    >>> from swsjax.report import report
    >>> tree = {"w": np.eye(32, dtype=np.float32)}
    >>> [picture.name for picture in file_pictures(tree, report(dumps(tree)))]
    ['layers', 'codebook', 'encoding']
    """
    drawn = min(len(report.layers), MOST_LAYERS)
    pictures = [
        Picture(
            "layers",
            "Each layer's density, the share of its weights that are not zero, and its bytes in "
            "the file.",
            column_png(partial(plot_layers, report=report), _beside, 0.8 + 0.17 * drawn),
        ),
        Picture(
            "codebook",
            "How many weights have each value.",
            column_png(partial(plot_codebook, tree=tree), _alone, 2.2),
        ),
    ]
    example = _example(tree)
    if example is not None:
        pictures.append(
            Picture(
                "encoding",
                "How the Han format stores weights: a small piece of this net, its gaps as "
                "relative indexes, with a filler where a gap is too long.",
                column_png(partial(plot_encoding, matrix=example), _alone, 2.2),
            )
        )
    return pictures


def run_pictures(
    before: Any,
    result: Result,
    *,
    rules: Rules = (),
    hyper_priors: HyperPriors | None = None,
    image_shape: tuple[int, int] | None = None,
) -> list[Picture]:
    """Draw what a retraining did: weights, components, and filters or features where there are any.

    Args:
        before: the pretrained net.
        result: what ``compress`` made of it.
        rules: as given to ``compress``.
        hyper_priors: those of the run, to be drawn too.
        image_shape: height and width of the images that a first dense layer sees pixel by pixel.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> from swsjax.prior import init_mixture
    >>> from swsjax.stages import Progress
    >>> net = {"w": jnp.linspace(-1.0, 1.0, 640).reshape(64, 10)}
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0)}
    >>> history = [Progress("soft", 1, 1, 0.5, 100, 17, 90.0, 16, 0.25, None, 0.0, mixtures)]
    >>> result = Result({"w": jnp.eye(64, 10)}, net, mixtures, history)
    >>> [picture.name for picture in run_pictures(net, result, image_shape=(8, 8))]
    ['weights', 'components', 'features-w']
    """
    pictures: list[Picture] = []
    for name in result.mixtures:
        ending = "" if len(result.mixtures) == 1 else f"-{name}"
        pictures += _mixture_pictures(before, result, name, ending, rules)
    pictures += _weight_pictures(before, result, rules, image_shape)
    if hyper_priors is not None:
        pictures.append(_hyper_prior_picture(hyper_priors))
    return pictures


def save_figures(
    folder: str | Path,
    before: Any,
    result: Result,
    *,
    rules: Rules = (),
    hyper_priors: HyperPriors | None = None,
    image_shape: tuple[int, int] | None = None,
) -> list[Path]:
    """Write the figures of a run into a folder and return their paths.

    ``weights.png`` and ``components.png`` (of several mixtures each has its own,
    ``weights-NAME.png``), ``filters-LAYER.png`` of convolutions, ``features-LAYER.png`` of a first
    dense layer and ``hyper-priors.png`` of what is given.

    Args:
        folder: where to write, made already.
        before: the pretrained net.
        result: what ``compress`` made of it.
        rules: as given to ``compress``.
        hyper_priors: those of the run, to be drawn too.
        image_shape: height and width of the images that a first dense layer sees pixel by pixel.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> from swsjax.prior import init_mixture
    >>> from swsjax.stages import Progress
    >>> net, mixtures = {"w": jnp.linspace(-1.0, 1.0, 100)}, {"weights": init_mixture(-1.0, 1.0)}
    >>> history = [Progress("soft", 1, 1, 0.5, 100, 17, 90.0, 16, 0.25, None, 0.0, mixtures)]
    >>> [path.name for path in save_figures(".", net, Result(net, net, mixtures, history))]
    ['weights.png', 'components.png']
    """
    pictures = run_pictures(
        before, result, rules=rules, hyper_priors=hyper_priors, image_shape=image_shape
    )
    return save_pictures(folder, pictures)


def save_pictures(folder: str | Path, pictures: Iterable[Picture]) -> list[Path]:
    """Write each picture as ``NAME.png`` into a folder and return their paths.

    >>> [path.name for path in save_pictures(".", [Picture("weights", "Weights.", b"PNG")])]
    ['weights.png']
    """
    paths = []
    for picture in pictures:
        paths.append(Path(folder) / f"{picture.name}.png")
        write_bytes(paths[-1], picture.png)
    return paths


def _mixture_pictures(
    before: Any, result: Result, name: str, ending: str, rules: Rules
) -> Iterator[Picture]:
    def draw_components(axes: "list[Axes]") -> None:
        plot_components(axes[:2], result.history, name=name)
        plot_moves(axes[2], before, result, name=name, rules=rules)
        axes[2].set_title("Final weights and components")

    yield Picture(
        f"weights{ending}",
        "The weights before retraining (above) and after it (right), with the prior they ended "
        "under; and where each weight went, with the components it could go to.",
        column_png(
            partial(plot_weights, before=before, result=result, name=name, rules=rules), _joint, 3.4
        ),
    )
    if result.history:
        yield Picture(
            f"components{ending}",
            "The mixture's components over training: they move, narrow, merge and die out. Below, "
            "the weights that are not zero with the error, and weights and components at the end.",
            column_png(draw_components, _stacked, 6.2),
        )


def _weight_pictures(
    before: Any, result: Result, rules: Rules, image_shape: tuple[int, int] | None
) -> Iterator[Picture]:
    old, new = _arrays(before, rules), _arrays(result.params, rules)
    convolutions = [path for path, kernel in old.items() if kernel.ndim == 4 and len(kernel) > 1]
    for path in convolutions[:_MOST_CONVOLUTIONS]:
        yield Picture(
            f"filters-{path.replace('/', '-')}",
            f"The filters of the convolution {path} before and after; white is zero.",
            column_png(partial(plot_filters, before=old[path], after=new[path]), _two_high, 4.4),
        )
    if image_shape is None:
        return
    pixels = math.prod(image_shape)
    dense = [path for path, kernel in old.items() if kernel.ndim == 2 and len(kernel) == pixels]
    for path in dense[:1]:
        draw = partial(plot_features, before=old[path], after=new[path], image_shape=image_shape)
        yield Picture(
            f"features-{path.replace('/', '-')}",
            f"What units of {path} look for, before and after: a weight for each pixel; white is "
            "zero.",
            column_png(draw, _two_high, 3.4),
        )


def _hyper_prior_picture(hyper: HyperPriors) -> Picture:
    gammas = {"zero component": hyper.zero_precision, "free components": hyper.precision}
    caption = "What the precisions of the components were expected to be"
    if hyper.pi_zero is None:
        png = column_png(partial(plot_gammas, priors=gammas), _alone, 2.4)
        return Picture("hyper-priors", f"{caption}: their hyper-priors.", png)
    beta = {"zero component": hyper.pi_zero}

    def draw(axes: "list[Axes]") -> None:
        plot_gammas(axes[0], gammas)
        plot_betas(axes[1], beta)

    caption += ", and the share of the zero component: their hyper-priors."
    return Picture("hyper-priors", caption, column_png(draw, _two_high, 4.4))


def _example(tree: Any) -> np.ndarray | None:
    """A small piece of the first array that has one with zeros and few others; None: none has."""
    for leaf in jax.tree.leaves(tree):
        matrix = np.asarray(leaf)
        matrix = matrix.reshape(matrix_shape(matrix.shape))
        if matrix.dtype.kind == "f" and min(matrix.shape) > 1:
            piece = small_example(matrix)
            if 3 <= np.count_nonzero(piece) <= 8:
                return piece
    return None


def _arrays(net: Any, rules: Rules) -> dict[str, np.ndarray]:
    """What is trained of a net, by path."""
    leaves = jax.tree.leaves_with_path(take_apart(net, rules=rules).params)
    return {leaf_name(path): np.asarray(leaf, np.float32) for path, leaf in leaves}


def _alone(figure: "Figure") -> "Axes":
    return figure.subplots()


def _beside(figure: "Figure") -> "list[Axes]":
    return list(figure.subplots(1, 2))


def _two_high(figure: "Figure") -> "list[Axes]":
    return list(figure.subplots(2, 1))


def _stacked(figure: "Figure") -> "list[Axes]":
    """Two over the same epochs, and one with scales of its own."""
    return list(figure.subplots(3, 1, height_ratios=[3, 2, 3]))


def _joint(figure: "Figure") -> "list[Axes]":
    """A scatter with a distribution above it and one beside it, each on the scatter's scale."""
    grid = figure.add_gridspec(2, 2, width_ratios=[5, 2], height_ratios=[2, 5])
    scatter = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=scatter)
    beside = figure.add_subplot(grid[1, 1], sharey=scatter)
    above.tick_params(labelbottom=False)
    beside.tick_params(labelleft=False)
    return [above, beside, scatter]
