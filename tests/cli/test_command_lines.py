"""Any command line ends with an exit code and, if it fails, with one line that says why."""

import contextlib
import io
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swsjax
from swsjax.cli import commands, datasets, files, main, parser, pretrained, runs
from swsjax.errors import DataError, RetrainingError
from swsjax.lab import classification, load_digits

FILES = [
    *("net.sws", "named.sws", "listed.sws", "clash.sws", "complex.sws", "mixed.sws", "odd.sws"),
    *("damaged.sws", "notes.txt", "empty", "deep.json", "list.json", "half.json", "settings.json"),
    *("net.safetensors", "prefix.safetensors", "folder", "loop", "none/net.sws", "none"),
    *("folder/new", "notes.txt/new", ".", "..", "", "\0", "\x1b[31m\n", "\udcff", "é", "n" * 300),
]
NUMBERS = [
    *("0", "-1", "1", "3", "0.5", "1e-6", "nan", "inf", "-inf", "1e999", "1%", "nan%", "-5%"),
    *("100k", "1.5M", "8G", "k", ",", "10k,5k", "10k,", str(2**70), "9" * 5000, "٣", ""),
]
STORAGES = ["mysql://u:p@h/n", "sqlite:///folder", "none://", "a://b:c@d:e/f", "sqlite:///new.db"]
FLAGS = {
    "--out": [*FILES, "pipe"],  # reading one would wait for a writer
    "--html": [*FILES, "pipe"],
    "--pretrained": FILES,
    "--config": FILES,
    "--storage": [*FILES, *STORAGES],
    "--data": [*parser.DATASETS, "mnits"],
    "--setting": [*parser.SETTINGS, "large"],
    **dict.fromkeys(
        ["--seed", "--trials", "--max-error", "--max-loss", "--max-bytes", "--target-bytes"],
        NUMBERS,
    ),
    **dict.fromkeys(["--keep", "--tau", "--strength"], NUMBERS),
    **dict.fromkeys(["--steps", "--batches", "--epochs", "--levels"], NUMBERS),
    "--finish": [*parser.FINISHERS, "train"],
}
PLACES = dict.fromkeys(("pretrain", "compress", "search"), (parser.MODELS,))
PLACES |= dict.fromkeys(["evaluate", "inspect", "decode", "encode"], (FILES,))
PLACES["compare"] = (FILES, FILES)
PLACES["prune"] = (parser.METHODS, parser.MODELS)
OPTIONS = {
    "demo": ["--out"],
    "pretrain": ["--data", "--out", "--seed"],
    "compress": [
        *("--data", "--out", "--seed", "--pretrained", "--setting", "--config", "--keep", "--tau"),
        *("--max-loss", "--target-bytes"),
    ],
    "prune": [
        *("--data", "--out", "--seed", "--pretrained", "--keep", "--finish", "--steps"),
        *("--batches", "--epochs", "--levels", "--max-loss", "--target-bytes", "--strength"),
    ],
    "search": [
        *("--data", "--out", "--seed", "--pretrained", "--setting", "--trials", "--max-error"),
        "--storage",
    ],
    "evaluate": ["--data", "--max-bytes"],
    "inspect": ["--html", "--max-bytes"],
    "compare": ["--html", "--max-bytes"],
    "decode": ["--out", "--max-bytes"],
    "encode": ["--out"],
}
WITH_JSON = ("compare", "inspect", "encode")
NEEDED = {"--data": "digits", "--out": "new"}


@st.composite
def sensible(draw):
    """The arguments of a command, with values of the right kind, good and bad."""
    command = draw(st.sampled_from(sorted(OPTIONS)))
    names = OPTIONS[command]
    needed = NEEDED | ({"--keep": "0.1"} if command == "prune" else {})
    given = {name: good for name, good in needed.items() if name in names}
    for name in draw(st.lists(st.sampled_from(names), max_size=3)):
        given[name] = draw(st.sampled_from(FLAGS[name]))
    place = [draw(st.sampled_from(choices)) for choices in PLACES.get(command, ())]
    json = draw(st.sampled_from([[], ["--json"]])) if command in WITH_JSON else []
    return [command, *place, *json, *(f"{name}={value}" for name, value in given.items())]


WORDS = st.sampled_from([*OPTIONS, *FLAGS, *FILES, *NUMBERS, "--json", "--help", "--version", "--"])
TEXTS = st.text(st.characters(exclude_characters="/"), max_size=5)  # nothing outside the folder
ANY = st.lists(WORDS | TEXTS, max_size=6)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with files, good and bad."""
    folder = tmp_path_factory.mktemp("prepared")
    tree = {"fc": {"w": np.eye(3, dtype=np.float32)}}
    metadata = {"net.sws": None, "named.sws": "lenet-300-100", "listed.sws": ["lenet-300-100"]}
    for name, model in metadata.items():
        swsjax.save(folder / name, tree, metadata={"model": model})
    swsjax.save(folder / "odd.sws", {"é\n": np.ones(2)}, metadata={"a": {"\x1b": [{}]}})
    swsjax.save(folder / "clash.sws", {"a": {"b": np.ones(2)}, "a/b": np.zeros(2)})
    swsjax.save(folder / "complex.sws", {"w": np.ones(2, complex)})
    mixed = [(("w",), np.ones(2)), ((0,), np.zeros(2))]
    (folder / "mixed.sws").write_bytes(swsjax.codec.pack(mixed))
    (folder / "damaged.sws").write_bytes((folder / "net.sws").read_bytes()[:-1])
    (folder / "notes.txt").write_text("To do")
    (folder / "empty").touch()
    (folder / "deep.json").write_text(100_000 * "[")
    (folder / "list.json").write_text("[1]")
    (folder / "half.json").write_bytes(b'{"tau": "\xff')
    (folder / "settings.json").write_text('{"keep": 0.5}')
    swsjax.to_safetensors(tree, folder / "net.safetensors")
    swsjax.to_safetensors({"x": np.ones(2), "x/m": np.ones(2)}, folder / "prefix.safetensors")
    (folder / "folder").mkdir()
    return folder


@pytest.fixture(scope="module")
def task_of():
    """The task of a net on the digits, each made once: tracing a net takes a while."""
    return cache(lambda model: classification(model, load_digits()))


@pytest.fixture
def run(prepared, task_of, monkeypatch):
    """Run a command line in a copy of the folder; its exit code, stdout and stderr."""

    def reached(*_, **__):
        raise RetrainingError("reached")

    def missing():
        raise DataError("reached")

    for module, names in {
        commands: ("compress_task", "search"),
        pretrained: ("pretrain_task", "load_checkpoint"),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, reached)
    for name in datasets.DATASETS:
        if name != "digits":
            monkeypatch.setitem(datasets.DATASETS, name, missing)
    monkeypatch.setattr(runs, "classification", lambda model, digits: task_of(model))
    monkeypatch.setattr(files, "file_pictures", lambda *_: [])

    def run(arguments):
        before = os.getcwd()
        with tempfile.TemporaryDirectory() as temporary:
            folder = shutil.copytree(prepared, Path(temporary, "all"))
            os.mkfifo(folder / "pipe")
            (folder / "loop").symlink_to("loop")
            os.chdir(folder)
            out, err = (io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2))
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    code = main(arguments)
            except SystemExit as stopped:
                code = stopped.code
            finally:
                os.chdir(before)
        for stream in (out, err):
            stream.flush()
        return code, *(stream.buffer.getvalue().decode() for stream in (out, err))

    return run


def check(code, out, err):
    if code == 0:
        assert out != ""
        return
    assert code in (1, 2)
    lines = [line for line in err.splitlines() if not line.endswith(" compiling")]
    (line,) = lines
    assert line.startswith("swsjax: error: ")
    assert line.isprintable()
    for word in ("unexpected", "Traceback", "Errno", " max_bytes", "like="):
        assert word not in line


ARGUMENTS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.skipif(os.name != "posix", reason="has a pipe of POSIX in its folder")
@ARGUMENTS
@given(arguments=sensible())
def test_a_command_ends_with_a_code_and_a_line(arguments, run):
    check(*run(arguments))


@pytest.mark.skipif(os.name != "posix", reason="has a pipe of POSIX in its folder")
@ARGUMENTS
@given(arguments=ANY)
def test_any_words_end_with_a_code_and_a_line(arguments, run):
    check(*run(arguments))


@pytest.mark.parametrize("command", ["compare", "inspect", "decode", "encode", "evaluate"])
@pytest.mark.parametrize("name", FILES)
def test_every_file_in_every_command_that_reads_one(command, name, run):
    needed = {"decode": ["--out", "new"], "encode": ["--out", "new"]}
    needed["evaluate"] = ["--data", "digits"]
    code, out, err = run([command, *needed.get(command, []), "--", name])
    check(code, out, err)
    if code == 1:
        shown = ascii(name)[1:-1] if name in ("\udcff", "é") else " ".join(name.split())
        assert shown.replace("\x1b", "\\x1b") in err or name == "n" * 300


def test_the_training_commands_begin_only_when_all_is_checked(run):
    for arguments in (
        ["pretrain", "lenet-300-100", "--data", "digits", "--out", "new"],
        ["compress", "lenet-300-100", "--data", "digits", "--out", "new"],
        ["prune", "snip", "lenet-300-100", "--data", "digits", "--keep", "0.1", "--out", "new"],
        ["search", "lenet-300-100", "--data", "digits", "--out", "new", "--storage", "new.db"],
    ):
        code, _, err = run(arguments)
        assert (code, err.splitlines()[-1]) == (1, "swsjax: error: reached")
