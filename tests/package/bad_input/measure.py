"""Bad input to reports and figures of files."""

import numpy as np
from matplotlib.figure import Figure

import swsjax
from bad_input.case import PARAMS, Case, saved
from swsjax.errors import ConfigError, WrongTypeError
from swsjax.measure.plot import plot_encoding, plot_features, plot_filters

BASELINE = "baseline must be the original net, a pytree of arrays, got "
ERRORS = (
    "errors must be a dictionary of error rates by stage and split, as "
    "{'decoded': {'test': 0.02}}, got "
)
KERNEL = np.zeros((5, 5, 1, 20), np.float32)

REPORTS = [
    Case(
        "a tree to report on",
        lambda: swsjax.report(PARAMS),
        WrongTypeError,
        "expected a path, got a dict; save writes one, dumps makes its bytes",
    ),
    Case(
        "a missing file",
        lambda: swsjax.report("none.sws"),
        FileNotFoundError,
        "[Errno 2] No such file or directory: 'none.sws'",
    ),
    Case(
        "an error without a name",
        lambda: swsjax.report(saved(), errors=0.02),
        ConfigError,
        ERRORS + "0.02",
    ),
    Case(
        "an error without a split",
        lambda: swsjax.report(saved(), errors={"decoded": 0.02}),
        ConfigError,
        ERRORS + "{'decoded': 0.02}",
    ),
    Case(
        "an error as text",
        lambda: swsjax.report(saved(), errors={"decoded": {"test": "2 %"}}),
        ConfigError,
        ERRORS + "{'decoded': {'test': '2 %'}}",
    ),
    Case(
        "a number of parameters as baseline",
        lambda: swsjax.report(saved(), baseline=266_610),
        ConfigError,
        BASELINE + "leaves of type int",
    ),
    Case(
        "an empty tree as baseline",
        lambda: swsjax.report(saved(), baseline={}),
        ConfigError,
        BASELINE + "no leaves",
    ),
]

FIGURES = [
    Case(
        "a dense kernel as filters",
        lambda: plot_filters(Figure().subplots(1, 2), KERNEL[0, 0], KERNEL[0, 0]),
        ConfigError,
        "filters must be two kernels of the same shape (height, width, in, out), got (1, 20) and "
        "(1, 20)",
    ),
    Case(
        "features of images of a different shape",
        lambda: plot_features(Figure().subplots(1, 2), *np.zeros((2, 64, 10)), (9, 9)),
        ConfigError,
        "features must be two kernels of the same shape (81, units), got (64, 10) and (64, 10)",
    ),
    Case(
        "an example without entries",
        lambda: plot_encoding(Figure().subplots(), np.zeros((2, 8))),
        ConfigError,
        "an example has 1 to 16 entries and columns, got 0 entries and 8 columns",
    ),
]

CASES = REPORTS + FIGURES
