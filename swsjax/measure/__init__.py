"""What a file holds and a net costs: reports, comparisons, multiply-adds, fronts; figures.

Figures are in ``swsjax.measure.plot``, HTML pages in ``swsjax.measure.page`` and
``swsjax.measure.comparison_page``; none of them is imported here.
"""

from swsjax.measure.comparison import Comparison, compare
from swsjax.measure.flops import Operations, multiply_adds
from swsjax.measure.front import pareto
from swsjax.measure.published import Published
from swsjax.measure.reports import Layer, Report, report

__all__ = [
    "Comparison",
    "Layer",
    "Operations",
    "Published",
    "Report",
    "compare",
    "multiply_adds",
    "pareto",
    "report",
]
