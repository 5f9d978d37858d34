"""What the documentation shows exists: tests, names, arguments, commands; and the README runs."""

import ast
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import swsjax
from swsjax.cli import commands, files, main, pruning

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Lines that end in a backslash are joined with the next.
TEXTS = {str(page.relative_to(ROOT)): page.read_text().replace("\\\n", "") for page in PAGES}
ROOMS = ["swsjax"] + [room.name for room in walk_packages(swsjax.__path__, "swsjax.") if room.ispkg]
# Shown beside what their rooms export.
MODULES = [
    "swsjax.errors",
    "swsjax.measure.comparison_page",
    "swsjax.measure.page",
    "swsjax.measure.published",
    "swsjax.sws.grid",
    "swsjax.sws.prune",
    "swsjax.sws.recipes",
    "swsjax.sws.table",
]


def found(pattern, **more):
    """Every match of a pattern on the pages, once per page, as parameters of a test."""
    return [
        pytest.param(*(match if isinstance(match, tuple) else (match,)), id=f"{page}-{match}")
        for page, text in TEXTS.items()
        for match in sorted(set(re.findall(pattern, text, **more)))
    ]


def blocks():
    """The Python in the fenced blocks of each page."""
    pattern = r"^```(?:python|\{code-cell\} python3)\n(.*?)^```"
    return [
        pytest.param(code, id=f"{page}-{number}")
        for page, text in TEXTS.items()
        for number, code in enumerate(re.findall(pattern, text, re.MULTILINE | re.DOTALL))
    ]


def without_prompts(code):
    """The code of a doctest; other code as it is."""
    lines = re.findall(r"^(?:>>>|\.\.\.) ?(.*)", code, re.MULTILINE)
    return "\n".join(lines) if lines else code


def dotted(node):
    """``swsjax.sws.merge`` of the expression that says so, else nothing."""
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def resolved(name, names):
    """The object of a dotted name, if it begins with one that the code imported."""
    first, *rest = name.split(".")
    value = names.get(first)
    for attribute in rest:
        if not (inspect.ismodule(value) or inspect.isclass(value)):
            return None  # of an instance
        assert hasattr(value, attribute), name
        value = getattr(value, attribute)
    return value


@pytest.mark.parametrize(("file", "name"), found(r"(tests/[\w/]+\.py)(?:::(\w+))?"))
def test_a_named_test_exists(file, name):
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert not name or name in functions


@pytest.mark.parametrize("file", found(r"((?:benchmarks|examples)/[\w/.-]*\w)"))
def test_a_named_file_exists(file):
    assert (ROOT / file).exists()


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_and_headings(page):
    inline, listed = r"\]\(([^)\s]+)\)", r"^\[[^\]]+\]: (\S+)$"
    for target in re.findall(f"{inline}|{listed}", TEXTS[page], re.MULTILINE):
        path, _, heading = "".join(target).partition("#")
        if path and not path.startswith("https:"):  # Sphinx checks links within a page
            file = (ROOT / page).parent / path
            assert file.exists(), path
            assert not heading or heading in anchors(file.read_text()), target


def anchors(text):
    """What a link may name on a page: its headings, as GitHub and MyST write them, and labels."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def test_links_of_the_readme_are_in_one_list():
    """Where the README is the description of a package, they must be absolute: one place to change.

    They are once the metadata has the address of the repository.
    """
    text, _, listed = TEXTS["README.md"].partition("\n[paper]: ")
    assert not re.search(r"\]\(|<a |<img ", text)
    used = set(re.findall(r"\]\[([^\]]+)\]", text))
    targets = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", f"[paper]: {listed}", re.MULTILINE))
    assert used == set(targets)
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert targets["paper"] == urls["Paper"]
    if address := urls.get("Repository"):
        assert all(
            target.startswith(("https://arxiv.org/", address)) for target in targets.values()
        )


@pytest.mark.parametrize("page", re.findall(r"\]: (docs/[\w/]+\.md)", TEXTS["README.md"]))
def test_pages_that_the_readme_links_are_plain_markdown(page):
    """GitHub shows them as they are, and knows neither directives nor roles."""
    assert not re.search(r"^(```|:::)\{|\{\w+\}`", TEXTS[page], re.MULTILINE)


@pytest.mark.parametrize("code", blocks())
def test_names_and_arguments_of_the_package_exist(code):
    names = {"swsjax": swsjax}
    tree = ast.parse(without_prompts(code))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("swsjax"):
            module = import_module(node.module)
            names |= {alias.name: getattr(module, alias.name) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            resolved(dotted(node), names)
        if isinstance(node, ast.Call) and callable(called := resolved(dotted(node.func), names)):
            given = [argument.arg for argument in node.keywords if argument.arg]
            inspect.signature(called).bind_partial(**dict.fromkeys(given))


@pytest.mark.parametrize("name", found(r"`(swsjax(?:\.\w+)+)"))
def test_a_name_in_the_text_exists(name):
    value = swsjax
    for attribute in name.split(".")[1:]:
        if not hasattr(value, attribute):  # a module that is not imported yet
            value = import_module(f"{value.__name__}.{attribute}")
        else:
            value = getattr(value, attribute)


@pytest.mark.parametrize("field", found(r"`Config\(?\.?(\w+)"))
def test_a_setting_in_the_text_exists(field):
    assert field in {*swsjax.Config.__dataclass_fields__, *dir(swsjax.Config)}


@pytest.mark.parametrize("line", found(r"^(?:.*bin/)?swsjax (.*)$", flags=re.MULTILINE))
def test_a_command_line_is_accepted(line, monkeypatch):
    ran = []
    for module in (commands, files, pruning):
        for name in (name for name in module.__all__ if name.startswith("run_")):
            monkeypatch.setattr(module, name, ran.append)
    assert main(shlex.split(line, comments=True)) == 0
    assert len(ran) == 1


def shortest(room, name):
    """The first of the root, the room above and the room itself that exports the same object."""
    value = getattr(import_module(room), name)
    homes = [home for home in ("swsjax", room.rpartition(".")[0], room) if home]
    return next(
        f"{home}.{name}"
        for home in homes
        if name in import_module(home).__all__ and getattr(import_module(home), name) is value
    )


def test_every_public_name_is_on_the_api_page():
    expected = {
        shortest(room, name)
        for room in ROOMS + MODULES
        for name in import_module(room).__all__
        if not inspect.ismodule(getattr(import_module(room), name))
    }
    shown, module = [], ""
    directive = r"^\.\. (currentmodule|auto\w+):: ([\w.]+)$"
    for kind, name in re.findall(directive, TEXTS["docs/api.md"], re.MULTILINE):
        if kind == "currentmodule":
            module = name
        else:
            shown.append(name if name.startswith("swsjax.") else f"{module}.{name}")
    assert expected - set(shown) == set()
    assert len(shown) == len(set(shown))


def test_every_name_at_the_root_is_in_the_summary():
    listed = re.findall(r"^   (\w+)$", TEXTS["docs/api.md"], re.MULTILINE)
    names = [name for name in swsjax.__all__ if not inspect.ismodule(getattr(swsjax, name))]
    assert sorted(listed) == sorted(names)


def test_every_page_is_reached_from_the_first():
    listed = re.findall(r"^[\w/]+$", TEXTS["docs/index.md"], flags=re.MULTILINE)
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert {str(page.with_suffix("")) for page in pages} - {"index"} == set(listed)


EXAMPLE = r"^```python\n(.*?)^```\n\n```text\n(.*?)^```"
((CODE, SHOWN),) = re.findall(EXAMPLE, TEXTS["README.md"], re.MULTILINE | re.DOTALL)


def check_example(printed, folder):
    """What the page shows is printed; the numbers differ a little between processors."""
    assert in_words(printed) == in_words(SHOWN)
    (error,) = re.findall(r"-> ([\d.]+)% of the test images", printed)
    assert float(error) < 7
    assert (folder / "digits.sws").stat().st_size <= 1_000


@pytest.mark.usefixtures("promoting_ranks")
def test_the_example_of_the_readme_within_a_budget(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = "target_bytes=1_000"
    assert CODE.count(target) == 1
    exec(CODE.replace(target, f"{target}, budget=2_500"), {})
    check_example(capsys.readouterr().out, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("promoting_ranks")
def test_the_example_of_the_readme(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    check_example(done.stdout, tmp_path)


def in_words(text):
    """A text without its numbers, and without the space that aligns them."""
    return re.sub(r"-?\d[\d.,]*", "0", text).split()
