"""Sphinx: python -m sphinx -W docs build/docs."""

import inspect
import os
import sys
from importlib import import_module
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages

import optax
import sphinx.util.typing
from jax.typing import ArrayLike, DTypeLike
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

# Most of their time is compiling, often of what was compiled before.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autosummary_generate = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False


# Types that are named, as in the source: Sphinx would spell out what they stand for.
ALIASES = {
    "optax.OptState": optax.OptState,
    "optax.Schedule": optax.Schedule,
    "ArrayLike": ArrayLike,
    "DTypeLike": DTypeLike,
}


def setup(app):
    """Connect the hooks below: ``remember`` before napoleon, ``correct`` after it."""
    app.connect("builder-inited", name_aliases)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", remember, priority=0)
    app.connect("autodoc-process-docstring", correct, priority=900)


def name_aliases(app):
    """Replace the function that writes types, where Sphinx uses it, by one that knows aliases.

    Not in its own module, where it calls itself.
    """
    home = sphinx.util.typing
    spelled_out = home.stringify_annotation

    def written(annotation, *given, **named):
        text = spelled_out(annotation, *given, **named)
        for name, alias in ALIASES.items():
            text = text.replace(spelled_out(alias, *given, **named), name)
        return text

    for module in [module for name, module in sys.modules.items() if name.startswith("sphinx.")]:
        uses_it = vars(module).get("stringify_annotation") is spelled_out
        if uses_it and module is not home:
            module.stringify_annotation = written


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

    Of a field, napoleon takes what precedes a colon for its type, although it has an annotation; of
    one without a text, autodoc shows that of ``collections.namedtuple``, which says nothing. Of a
    constant that a room imports, autodoc does not find the text in the module that defines it.
    """
    if what in ("attribute", "property"):
        is_empty = texts[name][:1] and texts[name][0].startswith("Alias for field number")
        lines[:] = [] if is_empty else texts[name]
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
