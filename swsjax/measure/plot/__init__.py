"""Figures of files and of kernels, as functions that draw on matplotlib axes (extra ``plot``)."""

from swsjax.measure.plot.encoding import plot_encoding, small_example
from swsjax.measure.plot.figures import file_pictures, save_pictures
from swsjax.measure.plot.front import comparison_picture, front_picture, plot_front
from swsjax.measure.plot.kernels import plot_features, plot_filters
from swsjax.measure.plot.labels import Label
from swsjax.measure.plot.layers import plot_codebook, plot_layers

__all__ = [
    "Label",
    "comparison_picture",
    "file_pictures",
    "front_picture",
    "plot_codebook",
    "plot_encoding",
    "plot_features",
    "plot_filters",
    "plot_front",
    "plot_layers",
    "save_pictures",
    "small_example",
]
