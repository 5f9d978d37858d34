"""What the documentation says of the tests is true of them."""

import ast
import re
from pathlib import Path

import pytest

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
