"""What the documentation says of the tests is true of them."""

import ast
import re
from pathlib import Path

import pytest

import swsjax
import swsjax.plot

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = [
    pytest.param(file, name, id=f"{page.name}-{file}::{name}")
    for page in PAGES
    for file, name in sorted(set(re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text())))
]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_named_tests_exist(file, name):
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert not name or name in functions


def test_tests_are_named():
    assert len(NAMED) > 30


def test_every_public_name_is_on_the_api_page():
    page = (ROOT / "docs" / "api.md").read_text()
    shown = re.findall(r"^\.\. auto\w+:: (\w+)$", page, flags=re.MULTILINE)
    assert sorted(shown) == sorted({*swsjax.__all__, *swsjax.plot.__all__})


def test_every_page_is_reached_from_the_first():
    listed = re.findall(r"^[\w/]+$", (ROOT / "docs" / "index.md").read_text(), flags=re.MULTILINE)
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert {str(page.with_suffix("")) for page in pages} - {"index"} == set(listed)
