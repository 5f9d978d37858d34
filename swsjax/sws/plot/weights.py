"""The weights before and after retraining: distribution, prior, and the move of each weight."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from swsjax.measure.plot.style import BLUE, GREY, ORANGE
from swsjax.sws.prior import GaussianMixture, component_means, log_prob
from swsjax.sws.result import Result
from swsjax.sws.units import over
from swsjax.training.net import named_weights
from swsjax.training.selection import WEIGHTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_moves", "plot_weights"]

_FEW = 1e-3  # fraction of the weights at either end that does not decide the scale


def plot_weights(
    axes: "Sequence[Axes]",
    before: Any,
    result: Result[Any],
    *,
    name: str = WEIGHTS,
    most: int = 20_000,
) -> None:
    """Draw the weights before and after with their mixture, and each weight's move.

    Weights and densities have no unit; counts are per two-hundredth of the range. Single weights
    that were far outside the range of the others are drawn at its ends.

    Args:
        axes: three axes: distribution before, distribution after with the prior's density (drawn
            sideways), and the scatter of weights after against before, between the two.
        before: the pretrained net.
        result: what ``compress`` made of it.
        name: of the group that is drawn.
        most: number of weights in the scatter at most, evenly spaced.

    Ullrich, Meeds, Welling, ICLR 2017, figure 1.

    >>> from matplotlib.figure import Figure
    >>> from swsjax.sws import init_mixture
    >>> from swsjax.training import select
    >>> net = {"w": jnp.linspace(-1.0, 1.0, 100)}
    >>> result = Result(net, net, {"weights": init_mixture(-1.0, 1.0)}, [], select(net))
    >>> plot_weights(Figure().subplots(1, 3), net, result)
    """
    old, new = _both(before, result, name)
    low, high = min(old.min(), new.min()), max(old.max(), new.max())
    bins = np.linspace(low, high, 201).tolist()
    top, side, scatter = axes
    top.hist(old, bins, color=GREY)
    top.set(title="Weights before", ylabel="weights / bin", yscale="log")
    side.hist(new, bins, color=BLUE, orientation="horizontal")
    grid = np.linspace(low, high, 4001)
    density = np.exp(np.asarray(log_prob(result.mixtures[name], grid)))
    density *= new.size * (bins[1] - bins[0])
    side.plot(density, grid, color=ORANGE, linewidth=0.8, label="prior")
    side.set(title="After", xlabel="weights / bin", xscale="log")
    side.legend(loc="upper right", handlelength=1)
    # Between the components the density is close to zero; the counts set the scale.
    top.set_ylim(0.5, 2 * new.size)
    margin = 0.05 * (old.max() - old.min())
    top.set_xlim(old.min() - margin, old.max() + margin)
    side.set_xlim(0.5, 2 * new.size)
    _draw_moves(scatter, old, new, result.mixtures[name], most)


def plot_moves(
    axes: "Axes",
    before: Any,
    result: Result[Any],
    *,
    name: str = WEIGHTS,
    most: int = 20_000,
) -> None:
    """Draw each retrained weight against the pretrained one, and the components as bands.

    A band is two standard deviations on either side of a component's mean; weights have no unit.
    Single weights that were far outside the range of the others are drawn at its ends.

    Args:
        axes: one axes.
        before: the pretrained net.
        result: what ``compress`` made of it.
        name: of the group that is drawn.
        most: number of weights drawn at most, evenly spaced.

    Ullrich, Meeds, Welling, ICLR 2017, figure 2.

    >>> from matplotlib.figure import Figure
    >>> from swsjax.sws import init_mixture
    >>> from swsjax.training import select
    >>> net = {"w": jnp.linspace(-1.0, 1.0, 100)}
    >>> result = Result(net, net, {"weights": init_mixture(-1.0, 1.0)}, [], select(net))
    >>> plot_moves(Figure().subplots(), net, result)
    """
    old, new = _both(before, result, name)
    _draw_moves(axes, old, new, result.mixtures[name], most)


def _draw_moves(
    axes: "Axes", old: np.ndarray, new: np.ndarray, mixture: GaussianMixture, most: int
) -> None:
    pick = np.linspace(0, old.size - 1, min(most, old.size)).astype(int)
    _draw_bands(axes, mixture)
    axes.plot(
        old[pick],
        new[pick],
        ".",
        color=BLUE,
        markersize=1.5,
        alpha=0.4,
        markeredgewidth=0,
        rasterized=True,
    )  # tens of thousands of points
    axes.set(title="Each weight's move", xlabel="weight before", ylabel="weight after")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.15 * (high - low))  # room for the legend


def _draw_bands(axes: "Axes", mixture: GaussianMixture) -> None:
    """Two standard deviations about each component's mean, as horizontal bands."""
    means = np.asarray(component_means(mixture))
    deviations = np.exp(-0.5 * np.asarray(mixture.log_precisions))
    for mean, deviation in zip(means, deviations, strict=True):
        axes.axhspan(mean - 2 * deviation, mean + 2 * deviation, color=ORANGE, alpha=0.3, lw=0)
    axes.patches[0].set_label("component: mean ± 2 sd")
    axes.legend(loc="upper left")


def _both(before: Any, result: Result[Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The weights of a group before, within reach, and after."""
    return _within_reach(_flat(before, result, name)), _flat(result.retrained, result, name)


def _within_reach(weights: np.ndarray) -> np.ndarray:
    """The same, but for the few that would squeeze all others into a corner."""
    low, high = np.quantile(weights, [_FEW, 1 - _FEW])
    margin = (high - low) / 2  # the tails of a Gaussian are within
    return np.clip(weights, low - margin, high + margin) if margin > 0 else weights


def _flat(net: Any, result: Result[Any], name: str) -> np.ndarray:
    """All weights of a group, each array in its unit if the mixture is over weights in units."""
    arrays = list(named_weights(net, result.selection, name).values())
    if result.units is not None:
        units = result.units[name]
        arrays = [over(jnp.asarray(array), unit) for array, unit in zip(arrays, units, strict=True)]
    return np.concatenate([np.asarray(array, np.float32).ravel() for array in arrays])
