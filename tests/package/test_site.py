"""The built pages show what the sources say; needs the extra ``docs``."""

import ast
import os
import re
import subprocess
import sys
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ["sphinx", "myst_nb", "furo"]

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, NEEDED)), reason="needs Sphinx: pip install -e '.[docs]'"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, built without running the tutorials; a warning fails."""
    folder = tmp_path_factory.mktemp("site")
    # Without the pages of source code, which are most pages and which no test reads.
    conf = (ROOT / "docs" / "conf.py").read_text()
    listed = re.search(r"^extensions = (\[.*?\])", conf, flags=re.MULTILINE | re.DOTALL).group(1)
    extensions = set(ast.literal_eval(listed)) - {"sphinx.ext.viewcode"}
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-D", "nb_execution_mode=off"]
    command += ["-D", f"extensions={','.join(sorted(extensions))}"]
    # The tests have JAX compile badly and fast; notebooks are not run here.
    done = subprocess.run(
        [*command, ROOT / "docs", folder], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def text_of(html):
    return unescape(re.sub(r"<[^>]+>", "", html))


def words(text):
    """The words of a text, without markup and punctuation."""
    return re.findall(r"\w+", re.sub(r":\w+:`", "`", text))


def texts_in_the_sources():
    """The text under each field of a class, and of each property, by class and name."""
    found = {}
    for path in (ROOT / "swsjax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    found[node.name, field.target.id] = text_after(after)
                if isinstance(field, ast.FunctionDef) and field.decorator_list:
                    found[node.name, field.name] = ast.get_docstring(field) or ""
    return found


def text_after(node):
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return node.value.value if is_text else ""


def fields_on(page):
    """Class, name, signature and text of each field and property on a built page."""
    pattern = (
        r'<dl class="py (?:attribute|property)">\s*<dt class="sig[^>]* id="([\w.]+)">(.*?)</dt>'
        r"\s*<dd>(.*?)</dd></dl>"
    )
    for name, signature, text in re.findall(pattern, page, flags=re.DOTALL):
        yield (*name.split(".")[-2:], text_of(signature), text_of(text))


def test_fields_have_the_texts_of_the_sources(site):
    """Napoleon would take what precedes a colon for a type."""
    expected = texts_in_the_sources()
    fields = list(fields_on((site / "api.html").read_text()))
    assert len(fields) > 100
    for owner, name, _, text in fields:
        first, _, _ = expected[owner, name].partition(">>>")  # an example is coloured apart
        assert words(text)[: len(words(first))] == words(first), (owner, name)


def test_types_of_arrays_have_short_names(site):
    page = text_of((site / "api.html").read_text())
    assert "tau: float | optax.Schedule | None" in page
    assert "weights (ArrayLike)" in page
    assert "opt_state: optax.OptState" in page
    assert "| number |" not in page


def test_numbers_in_tables_are_to_the_right(site):
    page = (site / "results.html").read_text()
    cells = re.findall(r'<td( class="text-right")?><p>([^<]*)</p></td>', page)
    assert sum(bool(right) for right, _ in cells) > 100
    numbers = [right for right, text in cells if re.fullmatch(r"[\d,.]+", text)]
    assert all(numbers)
