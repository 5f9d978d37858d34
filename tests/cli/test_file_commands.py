"""The demo, and the commands that read and write files, as a user runs them."""

import io
import json
import os
import re
import subprocess
import sys
import zlib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from failing import failure
from safetensors.numpy import load_file, save_file

import swsjax
from swsjax.cli import datasets, files, main
from swsjax.cli.settings import DEMO
from swsjax.measure import compare


class Demo(NamedTuple):
    folder: Path
    out: str
    err: str
    pretrained: int  # epochs, as of the stages
    soft: int
    hard: int


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo in fewer epochs, with a prior that is heavier in return."""
    folder = tmp_path_factory.mktemp("demo")
    out, err = io.StringIO(), io.StringIO()
    config = replace(DEMO.config, tau=7e-6, soft_epochs=26, hard_epochs=12, tolerance=1.0)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setitem(datasets.PRETRAINING["digits"], "epochs", 30)
        patch.setattr("swsjax.cli.settings.DEMO", DEMO._replace(config=config))
        assert main(["demo", "--out", str(folder)]) == 0
    return Demo(folder, out.getvalue(), err.getvalue(), 30, 26, 12)


def check_demo(demo):
    assert sorted(path.name for path in demo.folder.iterdir()) == [
        "codebook.pdf",
        "codebook.png",
        "components.pdf",
        "components.png",
        "demo.sws",
        "encoding.pdf",
        "encoding.png",
        "features-fc1-kernel.pdf",
        "features-fc1-kernel.png",
        "layers.pdf",
        "layers.png",
        "pretrained",
        "report.html",
        "report.json",
        "weights.pdf",
        "weights.png",
    ]
    page = (demo.folder / "report.html").read_text()
    assert page.count("<figure ") == len(list(demo.folder.glob("*.png")))
    assert f"<td>{demo.soft}</td>" in page  # soft_epochs, one of the settings
    assert len(page.encode()) < 2_000_000
    content = json.loads((demo.folder / "report.json").read_text())
    assert content["file_bytes"] == (demo.folder / "demo.sws").stat().st_size
    assert content["metadata"] == {"model": "lenet-300-100", "data": "digits"}
    assert content["rates"]["file"] > 50
    assert content["errors"]["decoded"]["test"] < 0.05
    assert f"{content['file_bytes']:,} bytes" in demo.out
    # Progress in a pipe is plain lines.
    lines, epochs = demo.err.splitlines(), demo.soft + demo.hard
    lines = [line for line in lines if not line.endswith(", at work on what follows")]
    assert "\x1b" not in demo.err
    assert lines[0] == "0:00 compiling"
    assert re.match(rf"\d:\d\d train \d+/{demo.pretrained}  loss ", lines[1])
    assert re.match(rf"\d:\d\d hard {epochs}/{epochs}  loss ", lines[-1])
    assert lines[-1].endswith(" weights")
    assert f"  error {100 * content['errors']['decoded']['validation']:.2f} %" in lines[-1]


def test_the_demo_writes_file_report_and_figures(demo):
    check_demo(demo)


@pytest.mark.slow
def test_the_demo_as_users_run_it(tmp_path):
    command = [sys.executable, "-m", "swsjax", "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    check_demo(Demo(tmp_path, done.stdout, done.stderr, 60, 60, 40))


def test_evaluate_gives_the_error_of_the_report(demo, capsys):
    folder = demo.folder
    assert main(["evaluate", str(folder / "demo.sws"), "--data", "digits", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    reported = json.loads((folder / "report.json").read_text())
    assert content["test_error"] == reported["errors"]["decoded"]["test"]
    assert main(["evaluate", str(folder / "demo.sws"), "--data", "digits"]) == 0
    assert capsys.readouterr().out == f"test error {100 * content['test_error']:.2f} %\n"


def test_inspect_as_text_and_json(demo, capsys):
    path = demo.folder / "demo.sws"
    expected = swsjax.report(path)
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected.to_dict()
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out == f"{expected}\n"


def test_inspect_writes_a_page_from_the_file_alone(demo, tmp_path, capsys, monkeypatch):
    folder = demo.folder
    command = ["inspect", str(folder / "demo.sws"), "--html", str(tmp_path / "page.html")]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith(f"\nwrote {tmp_path / 'page.html'}\n")
    page = (tmp_path / "page.html").read_text()
    for figure in ("layers", "codebook", "encoding"):
        assert f'<figure id="figure-{figure}">' in page
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*command, "--json"]) == 0
    captured = capsys.readouterr()
    size = json.loads(captured.out)["file_bytes"]
    assert captured.err == "no figures: figures need matplotlib: pip install 'swsjax[plot]'\n"
    page = (tmp_path / "page.html").read_text()
    assert f"{size:,} bytes" in page
    assert "<figure" not in page


def test_decode_writes_the_same_weights_as_safetensors(demo, tmp_path):
    folder = demo.folder
    out = tmp_path / "weights.safetensors"
    assert main(["decode", str(folder / "demo.sws"), "--out", str(out)]) == 0
    tensors = load_file(out)
    tree = swsjax.load(folder / "demo.sws")
    assert len(tensors) == 6
    for name, tensor in tensors.items():
        layer, part = name.split("/")
        np.testing.assert_array_equal(tensor, tree[layer][part])


def test_encode_is_the_inverse_of_decode(demo, tmp_path, capsys):
    folder = demo.folder
    decoded, encoded = tmp_path / "weights.safetensors", tmp_path / "again.sws"
    main(["decode", str(folder / "demo.sws"), "--out", str(decoded)])
    main(["inspect", str(folder / "demo.sws")])
    table = capsys.readouterr().out.removeprefix(f"wrote {decoded}\n")
    assert main(["encode", str(decoded), "--out", str(encoded)]) == 0
    assert capsys.readouterr().out == f"{table}\nwrote {encoded}\n"
    assert encoded.read_bytes() == (folder / "demo.sws").read_bytes()


def test_encode_a_net_pruned_elsewhere(tmp_path, capsys):
    pruned, encoded = tmp_path / "pruned.safetensors", tmp_path / "pruned.sws"
    kernel = np.eye(64, dtype=np.float32)
    save_file({"model.0.weight": kernel, "scale": np.float32([0.5])}, pruned)
    assert main(["encode", str(pruned), "--out", str(encoded), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in content["layers"]] == ["model.0.weight", "scale"]
    assert content["non_zeros"] == 65
    assert content["file_bytes"] == encoded.stat().st_size < 200
    assert content["metadata"] == {}
    np.testing.assert_array_equal(swsjax.load(encoded)["model.0.weight"], kernel)


def test_a_file_of_a_different_kind(tmp_path, capsys):
    path = tmp_path / "other.sws"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    for command in (["inspect"], ["evaluate", "--data", "digits"]):
        line = failure(capsys, command[0], path, *command[1:])
        assert line.startswith(f"swsjax: error: {path} is not an .sws file: ")


def test_a_file_of_a_different_net(tmp_path, capsys):
    path = tmp_path / "net.sws"
    tree = {"fc1": {"kernel": np.zeros((3, 2), np.float32)}}
    swsjax.save(path, tree, metadata={"model": "lenet-300-100"})
    line = failure(capsys, "evaluate", path, "--data", "digits")
    assert line.startswith(f"swsjax: error: {path} does not fit lenet-300-100 on digits: ")
    assert "fc1/kernel is float32[3, 2] in the file, float32[64, 300] expected" in line


@pytest.mark.parametrize(
    ("sizes", "is_net"),
    [((64, 7, 5, 10), True), ((64, 7, 5, 9), False), ((63, 7, 5, 10), False)],
    ids=["fewer channels", "fewer classes", "fewer pixels"],
)
def test_a_file_of_a_net_with_fewer_channels(sizes, is_net, tmp_path, capsys):
    path = tmp_path / "net.sws"
    tree = {
        f"fc{i + 1}": {"kernel": np.ones(sizes[i : i + 2], "f"), "bias": np.ones(sizes[i + 1], "f")}
        for i in range(3)
    }
    swsjax.save(path, tree, metadata={"model": "lenet-300-100"})
    if is_net:
        assert main(["evaluate", str(path), "--data", "digits"]) == 0
        assert capsys.readouterr().out.startswith("test error ")
    else:
        line = failure(capsys, "evaluate", path, "--data", "digits")
        assert line.startswith(f"swsjax: error: {path} does not fit lenet-300-100 on digits: ")


def test_a_file_of_channels_that_do_not_fit_together(tmp_path, capsys):
    path = tmp_path / "net.sws"
    shapes = {"fc1": (64, 7), "fc2": (6, 5), "fc3": (5, 10)}
    tree = {
        name: {"kernel": np.ones(shape, "f"), "bias": np.ones(shape[1], "f")}
        for name, shape in shapes.items()
    }
    swsjax.save(path, tree, metadata={"model": "lenet-300-100"})
    line = failure(capsys, "evaluate", path, "--data", "digits")
    assert line.startswith(f"swsjax: error: {path} does not fit lenet-300-100 on digits: ")


@pytest.mark.parametrize(
    ("command", "module"), [("decode", "safetensors.numpy"), ("encode", "safetensors")]
)
def test_without_safetensors_the_error_names_the_extra(
    command, module, demo, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    line = failure(capsys, command, demo.folder / "demo.sws", "--out", tmp_path / "x")
    assert (
        line
        == "swsjax: error: safetensors files need safetensors: pip install 'swsjax[safetensors]'"
    )


def test_encode_a_file_that_is_not_safetensors(demo, tmp_path, capsys):
    path, out = demo.folder / "demo.sws", tmp_path / "x.sws"
    line = failure(capsys, "encode", path, "--out", out)
    assert line.startswith(f"swsjax: error: {path} is not a valid safetensors file: ")
    assert not out.exists()


@pytest.fixture
def mixed(tmp_path):
    """A file with a position beside a name."""
    path = tmp_path / "mixed.sws"
    path.write_bytes(swsjax.codec.pack([(("w",), np.ones(2)), ((0, "b"), np.zeros(3))]))
    return path


def test_a_position_beside_a_name(mixed, tmp_path, capsys):
    page, out = tmp_path / "page.html", tmp_path / "weights.safetensors"
    assert main(["inspect", str(mixed), "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["name"] for layer in layers] == ["w", "0/b"]
    assert main(["inspect", str(mixed), "--html", str(page)]) == 0
    assert "0/b" in page.read_text()
    assert main(["decode", str(mixed), "--out", str(out)]) == 0
    assert {name: tensor.tolist() for name, tensor in load_file(out).items()} == {
        "w": [1, 1],
        "0/b": [0, 0, 0],
    }


@pytest.mark.parametrize(
    ("command", "needed"),
    [("inspect", []), ("decode", ["--out", "new"]), ("evaluate", ["--data", "digits"])],
)
def test_the_limit_on_decoded_bytes(command, needed, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    swsjax.save("net.sws", {"w": np.zeros(1000)}, metadata={"model": "lenet-300-100"})
    limited = [command, "net.sws", *needed, "--max-bytes"]
    line = failure(capsys, *limited, "7999")
    assert line.endswith(
        "to 8000 bytes, over the limit of 7999; give a larger --max-bytes if you trust the file"
    )
    if command == "evaluate":
        assert "net.sws does not fit lenet-300-100 on digits: " in failure(capsys, *limited, "8k")
    else:
        assert main([*limited, "8k"]) == 0


def test_a_page_of_characters_that_no_encoding_has(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # the metadata are in no figure
    path, page = tmp_path / "net.sws", tmp_path / "page.html"
    data = swsjax.dumps({"w": np.ones(2)}, metadata={"name00": "x"})[:-4]
    data = data.replace(b'"name00"', b'"\\ud800"')  # half of a pair, in as many bytes
    path.write_bytes(data + zlib.crc32(data).to_bytes(4, "big"))
    assert main(["inspect", str(path), "--html", str(page)]) == 0
    assert "\\ud800" in page.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "net.sws", "--html", "."],
        ["inspect", "net.sws", "--html", "none/page.html"],
        ["decode", "net.sws", "--out", "."],
        ["decode", "net.sws", "--out", os.devnull],
        ["encode", "net.safetensors", "--out", "none/net.sws"],
        ["encode", "net.safetensors", "--out", "."],
    ],
)
def test_outputs_are_checked_before_any_work(arguments, tmp_path, capsys, monkeypatch):
    def work(*_, **__):
        raise AssertionError("too late")

    monkeypatch.chdir(tmp_path)
    for name in ("report", "leaves_of", "from_safetensors", "save", "to_safetensors"):
        monkeypatch.setattr(files, name, work)
    assert "too late" not in failure(capsys, *arguments)


def test_an_output_keeps_its_mode(tmp_path):
    path, out = tmp_path / "net.sws", tmp_path / "weights.safetensors"
    swsjax.save(path, {"w": np.ones(2)})
    out.touch()
    out.chmod(0o640)
    assert main(["decode", str(path), "--out", str(out)]) == 0
    assert out.stat().st_mode & 0o777 == 0o640


def test_no_command_writes_over_what_it_reads(tmp_path, capsys):
    net, tensors = tmp_path / "net.sws", tmp_path / "net.safetensors"
    swsjax.save(net, {"w": np.ones(3, np.float32)})
    swsjax.to_safetensors({"w": np.ones(3, np.float32)}, tensors)
    before = net.read_bytes(), tensors.read_bytes()
    for command in (
        ["inspect", str(net), "--html", str(net)],
        ["decode", str(net), "--out", str(net)],
        ["encode", str(tensors), "--out", str(tensors)],
    ):
        assert main(command) == 1
        assert "is the file that is read; choose another to write" in capsys.readouterr().err
    assert (net.read_bytes(), tensors.read_bytes()) == before


def test_negative_zeros_are_dropped_on_demand(tmp_path, capsys):
    weights = np.float32([-0.0, 1.0, 0.0, -0.0])
    source, out = tmp_path / "net.safetensors", tmp_path / "net.sws"
    swsjax.to_safetensors({"w": weights}, source)
    signs = {}
    for option in ([], ["--drop-negative-zeros"]):
        assert main(["encode", str(source), "--out", str(out), *option]) == 0
        decoded = swsjax.load(out)["w"]
        assert np.array_equal(decoded, weights)
        signs[len(option)] = np.signbit(decoded).any()
    assert signs == {0: True, 1: False}


def test_compare_prints_the_table_of_several_files(demo, tmp_path, capsys):
    """With the error of each, which is that of evaluate."""
    one, two = demo.folder / "demo.sws", tmp_path / "other.sws"
    tree = swsjax.load(one)
    swsjax.save(two, tree, metadata=swsjax.read_metadata(one), encoding="han")
    page = tmp_path / "page.html"
    command = ["compare", str(one), str(two)]
    assert main([*command, "--data", "digits", "--html", str(page)]) == 0
    out = capsys.readouterr().out
    error = json.loads((demo.folder / "report.json").read_text())["errors"]["decoded"]["test"]
    errors = {"demo": error, "other": error}
    found = compare({"demo": one, "other": two}, errors=errors)
    assert out == f"{found}\n\nwrote {page}\n"
    assert "Errors are measured on digits" in page.read_text()
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == compare({"demo": one, "other": two}).to_dict()


def test_compared_files_of_one_name_are_told_apart_by_their_paths(tmp_path, capsys):
    paths = [tmp_path / folder / "net.sws" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        swsjax.save(path, {"w": np.ones(3, np.float32)})
    assert main(["compare", *map(str, paths)]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split("  ")[0] for row in rows] == [str(path) for path in paths]
    assert failure(capsys, "compare", paths[0], paths[0]) == (
        f"swsjax: error: {paths[0]} is given twice; give each file once"
    )


def test_files_of_different_nets_are_not_compared_on_data(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(files, "_model_of", lambda file: f"net-{file.stem}")
    assert failure(capsys, "compare", "a.sws", "b.sws", "--data", "digits") == (
        "swsjax: error: files of different nets cannot be compared: a holds net-a, b holds net-b"
    )
