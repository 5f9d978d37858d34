"""Every exception that the package raises on purpose derives from SwsjaxError."""

import ast
import inspect
from pathlib import Path

import pytest

import swsjax
from swsjax import errors

PACKAGE = Path(swsjax.__file__).parent
# Raised for others to catch: the system's errors about files, protocols of Python, argparse and
# Optuna, and faults that the same module turns into an exception of the package.
OTHERS = {
    "AssertionError": {"codec/rangecoder.py"},
    "AttributeError": {"__init__.py"},
    "ArgumentTypeError": {"cli/options.py", "cli/parser.py"},
    "FileNotFoundError": {"file/atomic.py"},
    "IsADirectoryError": {"file/atomic.py"},
    "OSError": {"file/atomic.py"},
    "TrialPruned": {"sws/study.py"},
    "ValueError": {"lab/cifar.py", "lab/data.py", "sws/storage.py"},
}


def raised(path):
    """The names of the classes that a module raises."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            made = node.exc.func
            yield made.attr if isinstance(made, ast.Attribute) else made.id


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n != "SwsjaxWarning"])
def test_a_public_exception_derives_from_the_base(name):
    assert issubclass(getattr(errors, name), swsjax.SwsjaxError)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_module_raises_exceptions_of_the_package(path):
    module = path.relative_to(PACKAGE).as_posix()
    ours = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    others = {name for name in raised(path) if name not in ours}
    assert others <= {name for name, modules in OTHERS.items() if module in modules}
