"""Sphinx: python -m sphinx -W docs build/docs."""

from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path

project = "swsjax"
author = "The swsjax authors"
copyright = f"2026, {author}"
version = release = version_of("swsjax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = "swsjax"
# MathJax is part of the site, so that formulas need no network. Not as an extension: that one does
# not say that pages may be read in parallel.
html_static_path = [str(Path(find_spec("sphinx-mathjax-offline").origin).parent / "static")]
mathjax_path = "mathjax/tex-chtml.js"
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Tutorials are run in the build; what fails there fails the build.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # they write files
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autosummary_generate = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
