"""What the documentation says of the tests is true of them."""

import ast
import os
import re
import subprocess
import sys
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


def test_the_example_of_the_readme(tmp_path):
    # Compiled well, as it takes twenty thousand steps.
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    command = [sys.executable, "-m", "doctest", ROOT / "README.md"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "digits.sws").exists()
