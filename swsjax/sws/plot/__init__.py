"""Figures of a retraining: the paper's own, on matplotlib axes (extra ``plot``)."""

from swsjax.sws.plot.components import plot_components
from swsjax.sws.plot.figures import run_pictures, save_figures
from swsjax.sws.plot.hyperpriors import plot_betas, plot_gammas
from swsjax.sws.plot.weights import plot_moves, plot_weights

__all__ = [
    "plot_betas",
    "plot_components",
    "plot_gammas",
    "plot_moves",
    "plot_weights",
    "run_pictures",
    "save_figures",
]
