"""What a file holds and costs: the report, fronts, published results; pages and figures.

Figures are in ``swsjax.measure.plot`` and the HTML page is in ``swsjax.measure.page``; neither is
imported here.
"""

from swsjax.measure.front import pareto
from swsjax.measure.published import Published
from swsjax.measure.reports import Layer, Report, report

__all__ = ["Layer", "Published", "Report", "pareto", "report"]
