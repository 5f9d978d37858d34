# PYTHON_ARGCOMPLETE_OK
"""The command line: a thin layer over the Python API."""

from swsjax.cli.parser import main

__all__ = ["main"]
