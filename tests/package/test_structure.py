"""The limits that keep the package readable: rooms, modules, functions, parameters, imports."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import swsjax

PACKAGE = Path(swsjax.__file__).parent
MODULES = {
    str(path.relative_to(PACKAGE.parent)): path.read_text() for path in PACKAGE.rglob("*.py")
}
# Those that train, and are given data, settings, what to report to and where to resume.
MANY_PARAMETERS = {
    "compress",
    "fine_tune",
    "make_step",
    "network_slimming",
    "pretrain",
    "train",
    "tune_codebook_of_net",
    "tune_codebooks",
}


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


def loaded_by(code):
    """The modules that a new process has loaded after some code, without their submodules."""
    code = f"import sys\n{code}\nprint('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


USE_EVERYTHING = "import swsjax\nfor name in swsjax.__all__: getattr(swsjax, name)"
USE_FILES = "import swsjax; swsjax.load, swsjax.save, swsjax.report, swsjax.from_safetensors"
HEAVY = {"matplotlib", "optuna", "sklearn", "safetensors", "pooch"}
# What an answer of the command line costs: nothing that computes.
ANSWERS = ["--version", "--help", "compress --help", "inspect", "compress lenet-7", "--unknown"]


def test_the_package_loads_neither_figures_nor_the_page_nor_what_extras_bring():
    loaded = loaded_by(USE_EVERYTHING)
    assert "swsjax.sws.study" in loaded
    own = {"swsjax.measure.plot", "swsjax.measure.page", "swsjax.sws.plot"}
    assert not (HEAVY | own) & loaded


def test_files_need_neither_training_nor_checkpoints():
    loaded = loaded_by(USE_FILES)
    assert {"swsjax.file.files", "swsjax.measure.reports"} <= loaded
    assert not (HEAVY | {"orbax", "swsjax.training", "swsjax.sws"}) & loaded


def test_importing_the_package_loads_nothing_else():
    loaded = loaded_by("import swsjax; swsjax.__version__, dir(swsjax)")
    assert {module for module in loaded if module.startswith("swsjax.")} == set()
    assert not (HEAVY | {"jax", "flax", "numpy", "orbax", "rich"}) & loaded


@pytest.mark.parametrize("arguments", ANSWERS)
def test_an_answer_of_the_command_line_loads_nothing_that_computes(arguments):
    code = f"""
from swsjax.cli import main
try: main({arguments.split()})
except SystemExit: pass
"""
    loaded = loaded_by(code)
    own = {module for module in loaded if module.startswith("swsjax.")}
    modules = ("cli", "cli.messages", "cli.options", "cli.parser", "errors")
    assert own == {f"swsjax.{module}" for module in modules}
    assert not (HEAVY | {"jax", "flax", "numpy", "scipy", "orbax", "rich"}) & loaded
    # 64 without the package; counted, as seconds depend on the machine.
    assert len(loaded) < 250


def test_every_name_at_the_root_is_that_of_its_room():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    found = {
        alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in checked.body
        for alias in node.names
    }
    assert {name: getattr(swsjax, name) for name in swsjax.__all__} == found


def test_an_unknown_name_at_the_root():
    with pytest.raises(AttributeError, match=r"^module 'swsjax' has no attribute 'comprss'$"):
        swsjax.comprss  # noqa: B018
