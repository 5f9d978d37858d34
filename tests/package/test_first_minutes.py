"""The first ten minutes of a new user: a clean clone, an empty home, a terminal; ``-m slow``.

Every step has a time within which it ends on two cores that are not busy, and is never silent for
long on a terminal, except for pip, which is asked to be quiet.
"""

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from browser import CHROMIUM, browser_page

ROOT = Path(__file__).parents[2]
SILENCE = 5.0
READ_BACK = """
import sys, swsjax
net = swsjax.load(sys.argv[1])
print(sum(leaf.size for layer in net.values() for leaf in layer.values()))
"""


def on_terminal(command, cwd, home, *, most_seconds, silence=SILENCE):
    """Run a command on a terminal of 80 columns; its output, once its pace is checked."""
    controller, terminal = pty.openpty()
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "TERM": "xterm",
        "COLUMNS": "80",
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))},
    }
    started = last = time.monotonic()
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    output, longest = b"", 0.0
    while True:
        ready, _, _ = select.select([controller], [], [], 0.2)
        try:
            read = os.read(controller, 65536) if ready else None
        except OSError:  # the other end is closed
            read = b""
        now = time.monotonic()
        longest = max(longest, now - last)
        if read == b"" or (read is None and process.poll() is not None):
            break
        if read:
            output, last = output + read, now
    text = output.decode(errors="replace")
    assert process.wait() == 0, text[-3000:]
    os.close(controller)
    assert time.monotonic() - started < most_seconds, text[-3000:]
    assert longest < silence, f"silent for {longest:.0f} s"
    return text


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clean clone, with its first line run, and an empty home."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout")
    folder, home = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("home")
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    readme = (folder / "README.md").read_text()
    (line,) = re.findall(r"^python3 -m venv .*swsjax demo$", readme, re.MULTILINE)
    text = on_terminal(["bash", "-c", line], folder, home, most_seconds=240, silence=150)
    assert re.search(r"wrote swsjax-demo/demo\.sws", text)
    return folder, home


@pytest.fixture(scope="module")
def small(clone):
    """The file of a net of one's own."""
    folder, home = clone
    script = Path(__file__).with_name("first_net.py")
    command = [folder / ".venv/bin/python", script, "own.sws"]
    text = on_terminal(command, folder, home, most_seconds=300)
    assert (folder / "own.sws").stat().st_size <= 3_000
    before, after = map(float, re.findall(r"test error (\S+) (\S+)", text)[0])
    assert after < before + 0.03
    return folder / "own.sws"


@pytest.mark.slow
def test_a_net_of_ones_own_is_read_back_in_another_process(clone, small):
    folder, home = clone
    command = [folder / ".venv/bin/python", "-c", READ_BACK, small]
    text = on_terminal(command, folder, home, most_seconds=20)
    assert text.split() == [str(80 + 1_168 + 16 * 16 * 48 + 48 + 490)]


@pytest.mark.slow
def test_its_page_opens_in_a_browser(clone, small, tmp_path):
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    folder, home = clone
    page = folder / "own.html"
    command = [folder / ".venv/bin/swsjax", "inspect", small, "--html", page]
    on_terminal(command, folder, home, most_seconds=60)
    with browser_page(tmp_path) as browser:
        browser.open(page, 800)
        assert "own.sws" in browser.evaluate("document.body.innerText")


@pytest.mark.slow
def test_help_answers_at_once(clone):
    folder, home = clone
    for argument in ("--help", "--version"):
        command = [folder / ".venv/bin/swsjax", argument]
        on_terminal(command, folder, home, most_seconds=2)
