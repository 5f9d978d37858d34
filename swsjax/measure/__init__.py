"""What a file holds and a net costs: reports, multiply-adds, fronts, published results; figures.

Figures are in ``swsjax.measure.plot`` and the HTML page is in ``swsjax.measure.page``; neither is
imported here.
"""

from swsjax.measure.flops import Operations, multiply_adds
from swsjax.measure.front import pareto
from swsjax.measure.published import Published
from swsjax.measure.reports import Layer, Report, report

__all__ = [
    "Layer",
    "Operations",
    "Published",
    "Report",
    "multiply_adds",
    "pareto",
    "report",
]
