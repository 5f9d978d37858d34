"""Figures as functions that draw on matplotlib axes, and as files (extra ``plot``).

The paper's own: weights before and after, the front of error against size, the mixture's components
over training, the relative-index encoding, the hyper-priors, filters and features; and each layer's
density and bytes.
"""

from swsjax.plot.components import plot_components
from swsjax.plot.encoding import plot_encoding, small_example
from swsjax.plot.figures import file_pictures, run_pictures, save_figures, save_pictures
from swsjax.plot.front import Published, front_picture, pareto, plot_front
from swsjax.plot.hyperpriors import plot_betas, plot_gammas
from swsjax.plot.layers import plot_codebook, plot_layers
from swsjax.plot.pictures import plot_features, plot_filters
from swsjax.plot.weights import plot_moves, plot_weights

__all__ = [
    "Published",
    "file_pictures",
    "front_picture",
    "pareto",
    "plot_betas",
    "plot_codebook",
    "plot_components",
    "plot_encoding",
    "plot_features",
    "plot_filters",
    "plot_front",
    "plot_gammas",
    "plot_layers",
    "plot_moves",
    "plot_weights",
    "run_pictures",
    "save_figures",
    "save_pictures",
    "small_example",
]
