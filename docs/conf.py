"""Sphinx: python -m sphinx -W docs build/docs."""

import inspect
from importlib import import_module
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages

from sphinx.pycode import ModuleAnalyzer

import swsjax

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
html_static_path = [
    str(Path(find_spec("sphinx-mathjax-offline").origin).parent / "static"),
    "_static",
]
html_css_files = ["site.css"]
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
nb_output_stderr = "remove"  # progress

autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autosummary_generate = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def setup(app):
    """Connect the hooks below: ``remember`` before napoleon, ``correct`` after it."""
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", remember, priority=0)
    app.connect("autodoc-process-docstring", correct, priority=900)


class Long:
    """Stands for a default that is too long for a signature."""

    def __repr__(self):
        return "..."


def shorten(app, what, name, documented, options, signature, returns):
    """Leave types and long defaults out of the signature of a class: they are below it."""
    if what != "class":
        return None
    is_record = hasattr(documented, "__match_args__")
    called = documented if is_record else documented.__init__
    shown = []
    for field in inspect.signature(called).parameters.values():
        is_long = field.default is not field.empty and len(repr(field.default)) > 20
        shown.append(
            field.replace(annotation=field.empty, default=Long() if is_long else field.default)
        )
    return str(inspect.Signature(shown[0 if is_record else 1 :])), returns


texts = {}


def remember(app, what, name, documented, options, lines):
    """Keep the text of each name as it is in the source."""
    texts[name] = list(lines)


def correct(app, what, name, documented, options, lines):
    """Mend the texts of fields and constants.

    Of a field, napoleon takes what precedes a colon for its type, although it has an annotation.
    Of a constant that a room imports, autodoc does not find the text in the module that defines it.
    """
    if what in ("attribute", "property"):
        lines[:] = texts[name]
    if what == "data":
        lines[:] = text_of_constant(name.rpartition(".")[2], documented)


def text_of_constant(name, constant):
    """The text after a constant, from the module that defines it."""
    for module in walk_packages(swsjax.__path__, "swsjax."):
        if module.name == "swsjax.__main__":  # it runs when it is imported
            continue
        found = ModuleAnalyzer.for_module(module.name).find_attr_docs()
        if ("", name) in found and getattr(import_module(module.name), name) is constant:
            return found["", name]
    return []
