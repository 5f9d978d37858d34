# PYTHON_ARGCOMPLETE_OK
"""``python -m swsjax``: the command line."""

import sys

from swsjax.cli import main

__all__: list[str] = []

sys.exit(main())
