"""The hyper-priors on the precisions of the mixture and on pi_zero."""

from collections.abc import Mapping
from dataclasses import astuple
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from swsjax.measure.plot.style import BLUE, GREEN, GREY, ORANGE
from swsjax.sws.prior import Beta, Gamma

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_betas", "plot_gammas"]

_LINES = [(BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (GREY, ":")]
_TAIL = 1e-3  # probability outside the figure on either side


class _Curve(NamedTuple):
    label: str
    density: Any  # frozen distribution of scipy.stats
    mode: float


def plot_gammas(axes: "Axes", priors: Mapping[str, Gamma]) -> None:
    """Draw Gamma densities of a component's precision, with their modes.

    The lower scale is the precision 1/sigma^2, the upper scale sigma; weights have no unit.

    Args:
        axes: one axes.
        priors: by the name for the legend; line styles repeat after four.

    Ullrich, Meeds, Welling, ICLR 2017, section 3.3.

    >>> from matplotlib.figure import Figure
    >>> plot_gammas(Figure().subplots(), {"free components": Gamma(250.0, 0.1)})
    """
    _draw(
        axes,
        [
            _Curve(
                f"{name}: Gamma({shape:g}, {rate:g})",
                stats.gamma(shape, scale=1 / rate),
                max(shape - 1, 0) / rate,
            )
            for name, shape, rate in ((name, *astuple(prior)) for name, prior in priors.items())
        ],
    )
    axes.set(title="Gamma hyper-priors on the precisions", xlabel="precision 1/σ²")
    above = axes.secondary_xaxis("top", functions=(_inverse_root, _inverse_square))
    above.set_xlabel("standard deviation σ")
    above.locator_params(axis="x", nbins=5)


def plot_betas(axes: "Axes", priors: Mapping[str, Beta]) -> None:
    """Draw Beta densities of pi_zero, the mixing proportion of the zero component, with modes.

    Args:
        axes: one axes.
        priors: by the name for the legend; line styles repeat after four.

    Ullrich, Meeds, Welling, ICLR 2017, section 3.3.

    >>> from matplotlib.figure import Figure
    >>> plot_betas(Figure().subplots(), {"few": Beta(9.9, 1.1), "many": Beta(99.0, 2.0)})
    """
    _draw(
        axes,
        [
            _Curve(f"{name}: Beta({a:g}, {b:g})", stats.beta(a, b), _beta_mode(a, b))
            for name, a, b in ((name, *astuple(prior)) for name, prior in priors.items())
        ],
    )
    axes.set(title="Beta hyper-priors on π₀", xlabel="mixing proportion of the zero component π₀")


def _draw(axes: "Axes", curves: list[_Curve]) -> None:
    """Densities over the range that contains nearly all of each, with a thin line at each mode."""
    low = min(curve.density.ppf(_TAIL) for curve in curves)
    high = max(curve.density.ppf(1 - _TAIL) for curve in curves)
    grid = np.linspace(low, high, 1001)
    for curve, (color, dash) in zip(curves, cycle(_LINES), strict=False):
        axes.plot(grid, curve.density.pdf(grid), color=color, linestyle=dash, label=curve.label)
        top = curve.density.pdf(np.clip(curve.mode, low, high))
        axes.vlines(curve.mode, 0, top, color=color, linewidth=0.6, linestyle=dash)
    axes.set(
        xlim=(low, high), ylim=(0, (1.1 + 0.1 * len(curves)) * axes.get_ylim()[1]), ylabel="density"
    )
    axes.legend(loc="upper right")


def _beta_mode(a: float, b: float) -> float:
    """The maximum of the density; at an end of the interval if it is monotonic."""
    if min(a, b) > 1:
        return (a - 1) / (a + b - 2)
    return 1.0 if a > b else 0.0


def _inverse_root(precision: npt.ArrayLike) -> npt.ArrayLike:
    return np.maximum(precision, 1e-12) ** -0.5


def _inverse_square(sigma: npt.ArrayLike) -> npt.ArrayLike:
    return np.maximum(sigma, 1e-6) ** -2.0
