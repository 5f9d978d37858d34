"""No command writes over what it reads."""

import re

import pytest

from swsjax.cli.output import check_output
from swsjax.errors import ConfigError


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "net.sws"
    path.write_bytes(b"net")
    return path


def link(given):
    path = given.with_name("link")
    path.symlink_to(given.name)
    return path


def hard_link(given):
    path = given.with_name("hard")
    path.hardlink_to(given)
    return path


def detour(given):
    (given.parent / "folder").mkdir()
    return given.parent / "folder" / ".." / given.name


@pytest.mark.parametrize("of", [lambda given: given, link, hard_link, detour])
def test_an_input_is_no_output(of, given):
    path = of(given)
    text = f"{path} is the file that is read; choose another to write"
    for output, source in ((path, given), (given, path)):
        with pytest.raises(
            ConfigError, match=f"^{re.escape(text.replace(str(path), str(output)))}$"
        ):
            check_output(output, given.with_name("other"), source)


def test_other_files_may_be_written(given):
    other = given.with_name("other")
    check_output(other, given)
    other.write_bytes(b"net")  # the same content
    check_output(other, given)
    check_output(other, given.with_name("missing"))
