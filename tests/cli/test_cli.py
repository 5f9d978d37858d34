"""The parser, its exit codes, and how commands start and end as processes."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import swsjax
from swsjax.cli import commands, datasets, files, main, methods, parser, pruning
from swsjax.errors import SwsjaxWarning
from swsjax.lab.nets import NETS
from swsjax.sws.recipes import RECIPES


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_the_version_as_a_script_and_as_a_module():
    script = output_of(Path(sys.executable).with_name("swsjax"), "--version")
    module = output_of(sys.executable, "-m", "swsjax", "--version")
    expected = f"swsjax {swsjax.__version__}\n"
    assert (script.stdout, script.stderr) == (module.stdout, module.stderr) == (expected, "")


def test_a_module_fails_with_the_exit_code_of_the_command():
    command = [sys.executable, "-m", "swsjax", "inspect", "none.sws"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "swsjax: error: none.sws does not exist\n"


COMMANDS = [
    *("demo", "pretrain", "compress", "prune", "search"),
    *("compare", "evaluate", "inspect", "decode", "encode"),
]


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
    assert first == "0:00 compiling\n"
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "swsjax: interrupted; the same command goes on from here"
    assert {path.name for path in tmp_path.iterdir()} <= {"pretrained"}


def test_the_names_of_the_parser_are_those_of_the_rooms():
    assert tuple(NETS) == parser.MODELS
    assert tuple(RECIPES) == parser.LENETS
    assert tuple(datasets.DATASETS) == tuple(datasets.FORMS) == parser.DATASETS
    for settings in RECIPES.values():
        assert (*settings.by_name(), "demo") == parser.SETTINGS
    assert tuple(methods.METHODS) == parser.METHODS
    assert (*pruning.FINISHERS, "share") == parser.FINISHERS
    runs = {f"run_{command}" for command in COMMANDS}
    made = (*commands.__all__, *files.__all__, *pruning.__all__)
    assert runs == {name for name in made if name.startswith("run_")}


@pytest.mark.parametrize(("name", "default"), [("keep", swsjax.Config().keep), ("tau", "found")])
def test_the_help_has_the_values_of_the_balanced_settings(name, default, capsys):
    assert getattr(swsjax.Config(), name) == {"found": None}.get(default, default)
    balanced = ", ".join(
        f"{getattr(settings.balanced.config, name):.3g} for {net}"
        for net, settings in RECIPES.items()
    )
    assert parser.BALANCED[name] == f"{default}; balanced: {balanced}"
    with pytest.raises(SystemExit):
        main(["compress", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert parser.BALANCED[name].replace(" ", "") in shown.replace(" ", "")


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.sws"
    swsjax.save(path, {"é": np.ones(3)})
    return path


def test_a_warning_is_one_line(net, capsys, monkeypatch):
    def report(*_, **__):
        warnings.warn("many\n words", SwsjaxWarning, stacklevel=2)
        return "the report"

    monkeypatch.setattr(files, "report", report)
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as for a user; the tests raise them
        shown = warnings.showwarning
        assert main(["inspect", str(net)]) == 0
        assert warnings.showwarning is shown
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("the report\n", "swsjax: warning: many words\n")


def test_an_error_of_the_program_is_a_line_too(net, capsys, monkeypatch):
    def report(*_, **__):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(files, "report", report)
    assert main(["inspect", str(net)]) == 1
    assert capsys.readouterr().err == (
        "swsjax: error: unexpected ZeroDivisionError: division by zero; `python -X dev -m swsjax` "
        "shows where\n"
    )


def test_the_mode_for_developers_shows_where(tmp_path):
    command = [sys.executable, "-X", "dev", "-W", "ignore", "-m", "swsjax", "inspect", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.splitlines()[-1].startswith("IsADirectoryError: ")


def test_a_name_that_the_terminal_cannot_show(net, capsys):
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    with contextlib.redirect_stdout(out):
        assert main(["inspect", str(net)]) == 0
    out.flush()
    assert out.buffer.getvalue().splitlines()[1].startswith(rb"\xe9 ")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name != "posix", reason="a pipe of POSIX")
def test_a_reader_that_does_not_read_to_the_end(net):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "swsjax", "inspect", net]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == "swsjax: error: the output was closed before its end\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("swsjax de", {"demo", "decode"}),
        ("swsjax compress res", {"resnet-8"}),
        ("swsjax search lenet-300-100 --data ", set(parser.DATASETS)),
        ("swsjax inspect --max", {"--max-bytes"}),
    ],
)
def test_a_shell_completes_command_lines(line, words, tmp_path):
    pytest.importorskip("argcomplete")
    out = tmp_path / "completions"
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    script = Path(sys.executable).with_name("swsjax")
    subprocess.run([script], env=environment, check=True, timeout=120)
    assert {word.strip() for word in out.read_text().split("\n")} == words


def test_completion_finds_its_marker():
    for module in ("cli/__init__.py", "__main__.py"):
        path = Path(swsjax.__file__).parent / module
        assert "PYTHON_ARGCOMPLETE_OK" in path.read_text()[:1024]
