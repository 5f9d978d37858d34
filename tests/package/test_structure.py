"""The limits that keep the package readable: rooms, modules, functions, parameters, imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import swsjax

PACKAGE = Path(swsjax.__file__).parent
MODULES = {
    str(path.relative_to(PACKAGE.parent)): path.read_text() for path in PACKAGE.rglob("*.py")
}
MANY_PARAMETERS = {"compress", "train"}


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def length(function):
    """Number of lines without the docstring."""
    first = function.body[0]
    has_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    text = first.end_lineno - first.lineno + 1 if has_text else 0
    return function.end_lineno - function.lineno + 1 - text


def parameters(function):
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return [argument.arg for argument in named if argument.arg not in ("self", "cls")]


def test_few_files_beside_the_rooms():
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 6


def test_few_names_at_the_root():
    assert len(swsjax.__all__) <= 40
    assert all(hasattr(swsjax, name) for name in swsjax.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_at_most_400_lines(module):
    assert len(MODULES[module].splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES)
def test_a_function_has_at_most_60_lines(module):
    lengths = {node.name: length(node) for node in functions(ast.parse(MODULES[module]))}
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


@pytest.mark.parametrize("module", MODULES)
def test_a_function_has_at_most_8_parameters(module):
    found = {node.name: parameters(node) for node in functions(ast.parse(MODULES[module]))}
    assert {name for name, given in found.items() if len(given) > 8} <= MANY_PARAMETERS


def test_no_module_of_the_root_has_the_name_of_a_public_function():
    modules = {path.stem for path in PACKAGE.iterdir()}
    for name in swsjax.__all__:
        if callable(getattr(swsjax, name)):
            assert name not in modules


def test_no_module_is_hidden_by_a_name_of_its_room():
    for room in (path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE):
        names = {path.stem for path in room.iterdir()}
        public = ast.parse((room / "__init__.py").read_text()).body[-1]
        assert not names & set(ast.literal_eval(public.value))


def test_importing_the_package_loads_neither_figures_nor_the_page_nor_optuna():
    code = "import sys, swsjax; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"matplotlib", "optuna", "sklearn", "safetensors", "pooch"}
    own = {"swsjax.measure.plot", "swsjax.measure.page", "swsjax.sws.plot"}
    assert not (heavy | own) & loaded
