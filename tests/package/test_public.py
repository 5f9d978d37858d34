"""Every public name is documented: what it is, an example, and the errors it raises."""

import ast
import doctest
import re
import tomllib
from pathlib import Path

import pytest

import swsjax

PACKAGE = Path(swsjax.__file__).parent
TREES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    ): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
ROOMS = {
    ".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")
}


def public(tree):
    """The names in a module's ``__all__``."""
    (names,) = [node.value for node in tree.body if name_of(node) == "__all__"]
    return ast.literal_eval(names)


def text_after(body):
    """Each statement of a body, with the string literal that follows it, or None."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        yield node, after.value.value if is_text else None


def name_of(node):
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", node)
    return getattr(target, "name", getattr(target, "id", None))


def is_overload(node):
    return "overload" in map(ast.unparse, getattr(node, "decorator_list", []))


def definitions():
    """The definition of each public name, with its documentation."""
    for module, tree in TREES.items():
        names = public(tree)
        for node, after in text_after(tree.body):
            if name_of(node) in names and not is_overload(node):
                is_named = isinstance(node, ast.FunctionDef | ast.ClassDef)
                text = ast.get_docstring(node) if is_named else after
                yield pytest.param(node, text or "", id=f"{module}.{name_of(node)}")


DEFINITIONS = list(definitions())
FUNCTIONS = [given for given in DEFINITIONS if isinstance(given.values[0], ast.FunctionDef)]
CONSTANTS = [
    given for given in DEFINITIONS if isinstance(given.values[0], ast.Assign | ast.AnnAssign)
]
CLASSES = [given for given in DEFINITIONS if isinstance(given.values[0], ast.ClassDef)]


def methods(node):
    return [child for child in node.body if isinstance(child, ast.FunctionDef)]


def parents(node):
    """Base classes and decorators of a class, as text."""
    return " ".join(map(ast.unparse, [*node.bases, *node.decorator_list]))


def is_record(node):
    return re.search("NamedTuple|dataclass", parents(node))


def is_plain(node):
    """Whether an example would show nothing."""
    return is_record(node) or re.search("Error|Exception|Warning|Enum", parents(node))


def has_example(text):
    examples = doctest.DocTestParser().get_examples(text)
    return any(not example.options.get(doctest.SKIP) for example in examples)


def raised(node):
    """The errors that a function raises itself, not through others."""
    pending, found = list(node.body), set()
    while pending:
        child = pending.pop()
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            found.add(ast.unparse(child.exc.func))
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(child)
    return found


def imported(tree):
    """The modules of this package that a module imports from at the top, with the names.

    The root only says to type checkers what it imports when it is used.
    """
    checked = [child for node in tree.body if isinstance(node, ast.If) for child in node.body]
    for node in tree.body + checked:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("swsjax"):
            yield node.module, {alias.name for alias in node.names}


@pytest.mark.parametrize("module", TREES)
def test_public_names_are_defined_in_their_module(module):
    defined = {name_of(node) for node in TREES[module].body}
    if module in ROOMS:
        defined = set().union(*(names for _, names in imported(TREES[module])))
    assert set(public(TREES[module])) <= defined


@pytest.mark.parametrize("room", sorted(ROOMS - {"swsjax"}))
def test_a_room_exports_names_that_are_public_in_its_modules(room):
    exported = set()
    for module, names in imported(TREES[room]):
        assert module.startswith(f"{room}.")
        assert names <= set(public(TREES[module]))
        exported |= names
    assert exported == set(public(TREES[room]))


def test_the_root_exports_its_rooms_and_names_that_they_export():
    exported = set()
    for module, names in imported(TREES["swsjax"]):
        known = public(TREES[module])
        if module == "swsjax":
            known = [room.removeprefix("swsjax.") for room in ROOMS]
        assert names <= set(known)
        exported |= names
    assert exported == set(public(TREES["swsjax"]))


@pytest.mark.parametrize(("node", "text"), FUNCTIONS + CLASSES)
def test_the_first_line_is_a_sentence(node, text):
    first, *rest = text.split("\n")
    assert first.endswith(".")
    assert not re.search(r"[.!?] [A-Z]", first)
    assert not any(rest[:1])


@pytest.mark.parametrize(("node", "text"), CONSTANTS)
def test_a_constant_is_explained(node, text):
    assert text.rstrip().endswith(".")


def runs_a_command(node):
    """Whether a function is a command, which takes its options: the tests run it as a user does."""
    return [ast.unparse(given.annotation) for given in node.args.args] == ["argparse.Namespace"]


@pytest.mark.parametrize(
    ("node", "text"), [given for given in FUNCTIONS if not runs_a_command(given.values[0])]
)
def test_a_function_has_an_example(node, text):
    assert has_example(text)


@pytest.mark.parametrize(
    ("node", "text"), [given for given in CLASSES if not is_plain(given.values[0])]
)
def test_a_class_has_an_example(node, text):
    assert any(map(has_example, [text, *(ast.get_docstring(m) or "" for m in methods(node))]))


@pytest.mark.parametrize(
    ("node", "text"), [given for given in CLASSES if is_record(given.values[0])]
)
def test_fields_are_explained(node, text):
    """By a text after the field, or by its name in the text of the class."""
    for field, after in text_after(node.body):
        if isinstance(field, ast.AnnAssign) and not after:
            name = name_of(field)
            assert re.search(rf"\b({name}|{name.replace('_', ' ')})\b", text, re.IGNORECASE)


@pytest.mark.parametrize(("node", "text"), FUNCTIONS)
def test_arguments_are_annotated(node, text):
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    assert all(argument.annotation for argument in named if argument)
    assert node.returns


@pytest.mark.parametrize(("node", "text"), FUNCTIONS)
def test_raised_errors_are_listed(node, text):
    _, _, listed = text.partition("Raises:\n")
    for name in raised(node):
        assert f"{name}: " in listed, name


def test_the_readme_names_the_oldest_versions():
    root = PACKAGE.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    oldest = dict(item.split(">=") for item in settings["dependencies"][:2])
    versions = settings["requires-python"][2:], oldest["jax"], oldest["flax"]
    assert (
        "Python {}, JAX {} and Flax {} or newer".format(*versions)
        in (root / "README.md").read_text()
    )
