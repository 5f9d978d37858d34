"""The parser, its exit codes, and how commands start and end as processes."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swsjax.cli import main


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_the_version_as_a_script_and_as_a_module():
    script = output_of(Path(sys.executable).with_name("swsjax"), "--version")
    module = output_of(sys.executable, "-m", "swsjax", "--version")
    expected = f"swsjax {importlib.metadata.version('swsjax')}\n"
    assert (script.stdout, script.stderr) == (module.stdout, module.stderr) == (expected, "")


def test_a_module_fails_with_the_exit_code_of_the_command():
    command = [sys.executable, "-m", "swsjax", "inspect", "none.sws"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "swsjax: error: [Errno 2] No such file or directory: 'none.sws'\n"


COMMANDS = ["demo", "pretrain", "compress", "search", "evaluate", "inspect", "decode", "encode"]


def test_the_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    listed = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert listed == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: swsjax {command} [-h] ")


def misuse(arguments, capsys):
    """The line on stderr of a command that is misused."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "compress lenet-7 --data mnist --out x",
            "swsjax: error: argument model: invalid choice: 'lenet-7' (choose from "
            "'lenet-300-100', 'lenet-5-caffe', 'resnet-8', 'wrn-16-4'); see `swsjax compress "
            "--help`",
        ),
        ("", "swsjax: error: the following arguments are required: COMMAND; see `swsjax --help`"),
    ],
)
def test_misuse_is_one_line_and_exit_code_two(arguments, line, capsys):
    # Newer Pythons leave out the quotes around the choices.
    assert misuse(arguments, capsys).replace("'", "") == line.replace("'", "") + "\n"


@pytest.mark.parametrize("option", ["--checkpoint net", "--kept 0.4"])
@pytest.mark.parametrize("command", ["compress", "search"])
def test_earlier_names_of_options_are_unknown(command, option, capsys):
    line = misuse(f"{command} lenet-300-100 --data digits --out x {option}", capsys)
    assert line == f"swsjax: error: unrecognized arguments: {option}; see `swsjax --help`\n"


# SIGINT may be ignored from the start if the tests run in the background of a shell. It is set here
# and not by a `preexec_fn`, which forks: JAX warns of forks once it runs.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from swsjax.cli import main
sys.exit(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_an_interrupt_leaves_no_half_written_file(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "demo", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stderr.readline()  # once it reports, it is training
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert first.startswith("train 1/60  loss ")
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "swsjax: interrupted"
    assert list(tmp_path.iterdir()) == []
