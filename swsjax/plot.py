"""Figures of a retraining run, as functions that draw on matplotlib axes (extra ``plot``)."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swsjax.compress import Result
from swsjax.nets import take_apart
from swsjax.prior import GaussianMixture, component_means, log_mixing, log_prob
from swsjax.select import WEIGHTS, Rules, by_mixture
from swsjax.stages import Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_components", "plot_weights", "save_figures"]

# Okabe and Ito's palette: told apart in every common form of colour blindness.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#999999"


def plot_weights(
    axes: "Sequence[Axes]",
    before: Any,
    result: Result,
    *,
    name: str = WEIGHTS,
    rules: Rules = (),
    most: int = 20_000,
) -> None:
    """Draw the weights before and after with their mixture, and each weight's move.

    Args:
        axes: three axes: distribution before, distribution after with the prior's density, and
            the scatter of weights after against before.
        before: the pretrained net.
        result: what ``compress`` made of it.
        name: of the mixture whose weights are drawn.
        rules: as given to ``compress``.
        most: weights drawn in the scatter at most, evenly picked.

    >>> from matplotlib.figure import Figure
    >>> from swsjax.prior import init_mixture
    >>> net = {"w": jnp.linspace(-1.0, 1.0, 100)}
    >>> result = Result(net, net, {"weights": init_mixture(-1.0, 1.0)}, [])
    >>> plot_weights(Figure().subplots(1, 3), net, result)
    """
    old, new = _flat(before, name, rules), _flat(result.retrained, name, rules)
    mixture = result.mixtures[name]
    low, high = min(old.min(), new.min()), max(old.max(), new.max())
    bins = np.linspace(low, high, 201).tolist()
    width = bins[1] - bins[0]
    left, right, scatter = axes
    left.hist(old, bins, color=_GREY)
    left.set(title="Weights before", xlabel="weight", ylabel="weights a bin", yscale="log")
    right.hist(new, bins, color=_BLUE, label="weights")
    grid = np.linspace(low, high, 4001)
    density = np.exp(np.asarray(log_prob(mixture, grid))) * new.size * width
    right.plot(grid, density, color=_ORANGE, linewidth=1, label="prior")
    right.set(title="After retraining, with the prior", xlabel="weight", yscale="log")
    # Between the components the density is next to nothing; the counts set the scale.
    for axis in (left, right):
        axis.set_ylim(0.5, 2 * new.size)
    right.legend(frameon=False, loc="upper right")
    pick = np.linspace(0, old.size - 1, min(most, old.size)).astype(int)
    _draw_bands(scatter, mixture)
    scatter.plot(old[pick], new[pick], ".", color=_BLUE, markersize=2, alpha=0.4)
    scatter.set(title="Each weight's move", xlabel="weight before", ylabel="weight after")


def _draw_bands(axis: "Axes", mixture: GaussianMixture) -> None:
    """Two standard deviations about each component's mean, as horizontal bands."""
    deviations = np.exp(-0.5 * np.asarray(mixture.log_precisions))
    for mean, deviation in zip(np.asarray(component_means(mixture)), deviations, strict=True):
        axis.axhspan(mean - 2 * deviation, mean + 2 * deviation, color=_ORANGE, alpha=0.25, lw=0)


def plot_components(
    axes: "Sequence[Axes]", history: Sequence[Progress], *, name: str = WEIGHTS
) -> None:
    """Draw the components' means with their widths, and the non-zeros, over the epochs.

    A component's line is as opaque as its share of the non-zero components is large, so that
    those which die out fade. Vertical lines are where a stage ends and the next begins.

    Args:
        axes: two axes: components, and non-zero weights with the error where it was measured.
        history: the history of a result of ``compress``.
        name: of the mixture whose components are drawn.

    >>> from matplotlib.figure import Figure
    >>> from swsjax.prior import init_mixture
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0)}
    >>> history = [Progress("soft", 1, 1, 0.5, 100, 17, 90.0, 16, 0.25, None, 0.0, mixtures)]
    >>> plot_components(Figure().subplots(1, 2), history)
    """
    left, right = axes
    stages = [list(group) for _, group in groupby(history, key=lambda p: p.stage)]
    for stage in stages:
        _draw_paths(left, [p.epoch for p in stage], [p.mixtures[name] for p in stage])
    left.set(title="Components: mean ± standard deviation", xlabel="epoch", ylabel="weight")
    epochs = [p.epoch for p in history]
    right.plot(epochs, [p.non_zeros for p in history], color=_BLUE, label="non-zero weights")
    right.set(title="Non-zero weights and error", xlabel="epoch")
    right.set_yscale("symlog", linthresh=1)  # logarithmic, but there may be none at first
    right.set_ylabel("non-zero weights", color=_BLUE)
    if history[0].error is not None:
        twin = right.twinx()
        errors = [np.nan if p.error is None else 100 * p.error for p in history]
        twin.plot(epochs, errors, color=_ORANGE, linestyle="--")
        twin.set_yscale("symlog", linthresh=0.1)
        twin.set_ylabel("error once quantised (%)", color=_ORANGE)
    for stage in stages[1:]:
        for axis in axes:
            axis.axvline(stage[0].epoch - 0.5, color=_GREY, linewidth=0.8, linestyle=":")


def _draw_paths(axis: "Axes", x: list[int], mixtures: Sequence[GaussianMixture]) -> None:
    means = np.stack([component_means(mixture) for mixture in mixtures])
    deviations = np.exp(-0.5 * np.stack([mixture.log_precisions for mixture in mixtures]))
    shares = np.exp(np.asarray(log_mixing(mixtures[-1])))
    opacity = np.concatenate([[1.0], np.clip(shares[1:] / shares[1:].max(), 0.15, 1.0)])
    for j in range(means.shape[1]):
        color = _GREY if j == 0 else _BLUE
        mean, deviation = means[:, j], deviations[:, j]
        axis.fill_between(
            x, mean - deviation, mean + deviation, color=color, alpha=0.25 * opacity[j], lw=0
        )
        axis.plot(x, mean, color=color, alpha=opacity[j], linewidth=1)


def save_figures(
    folder: str | Path, before: Any, result: Result, *, rules: Rules = ()
) -> list[Path]:
    """Write ``weights.png`` and ``components.png`` into a folder and return their paths.

    Of several mixtures each has its own, ``weights-NAME.png``.

    Args:
        folder: where to write, made already.
        before: the pretrained net.
        result: what ``compress`` made of it.
        rules: as given to ``compress``.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra that brings it.

    >>> from swsjax.prior import init_mixture
    >>> net, mixtures = {"w": jnp.linspace(-1.0, 1.0, 100)}, {"weights": init_mixture(-1.0, 1.0)}
    >>> history = [Progress("soft", 1, 1, 0.5, 100, 17, 90.0, 16, 0.25, None, 0.0, mixtures)]
    >>> [path.name for path in save_figures(".", net, Result(net, net, mixtures, history))]
    ['weights.png', 'components.png']
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError("figures need matplotlib: pip install 'swsjax[plot]'") from error

    def figure(columns: int) -> "tuple[Figure, list[Axes]]":
        # No pyplot: it keeps global state and picks a backend, which a library should not.
        made = Figure(figsize=(4.2 * columns, 3.6), layout="constrained", dpi=150)
        FigureCanvasAgg(made)
        return made, list(made.subplots(1, columns))

    paths = []
    for name in result.mixtures:
        ending = "" if len(result.mixtures) == 1 else f"-{name}"
        weights, axes = figure(3)
        plot_weights(axes, before, result, name=name, rules=rules)
        components, axes = figure(2)
        plot_components(axes, result.history, name=name)
        for title, drawn in (("weights", weights), ("components", components)):
            paths.append(Path(folder) / f"{title}{ending}.png")
            drawn.savefig(paths[-1])
    return paths


def _flat(net: Any, name: str, rules: Rules) -> np.ndarray:
    """All weights under a mixture."""
    parts = take_apart(net, rules=rules)
    leaves = by_mixture(parts.params, parts.labels)[name]
    return np.concatenate([np.asarray(leaf, np.float32).ravel() for leaf in leaves])
