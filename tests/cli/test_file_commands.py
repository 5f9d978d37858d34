"""The demo, and the commands that read and write files, as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from failing import failure
from safetensors.numpy import load_file, save_file

import swsjax
from swsjax.cli import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "swsjax", "demo", "--out", str(folder)]
    # Optimised, as it takes thousands of steps.
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    return folder, subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_demo_writes_file_report_and_figures(demo):
    folder, done = demo
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "codebook.png",
        "components.png",
        "demo.sws",
        "encoding.png",
        "features-fc1-kernel.png",
        "layers.png",
        "report.html",
        "report.json",
        "weights.png",
    ]
    page = (folder / "report.html").read_text()
    assert page.count("<figure ") == len(list(folder.glob("*.png")))
    assert "<td>60</td>" in page  # soft_epochs, one of the settings
    assert len(page.encode()) < 2_000_000
    content = json.loads((folder / "report.json").read_text())
    assert content["file_bytes"] == (folder / "demo.sws").stat().st_size
    assert content["metadata"] == {"model": "lenet-300-100", "data": "digits"}
    assert content["rates"]["file"] > 50
    assert content["errors"]["decoded"]["test"] < 0.05
    assert f"{content['file_bytes']:,} bytes" in done.stdout


def test_progress_in_a_pipe_is_plain_lines(demo):
    folder, done = demo
    lines = done.stderr.splitlines()
    assert "\x1b" not in done.stderr
    assert lines[0].startswith("train 1/60  loss ")
    assert lines[-1].startswith("hard 100/100  loss ")
    assert "non-zero" in lines[-1]
    errors = json.loads((folder / "report.json").read_text())["errors"]
    assert f"  error {100 * errors['decoded']['validation']:.2f} %" in lines[-1]


def test_evaluate_gives_the_error_of_the_report(demo, capsys):
    folder, _ = demo
    assert main(["evaluate", str(folder / "demo.sws"), "--data", "digits", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    reported = json.loads((folder / "report.json").read_text())
    assert content["test_error"] == reported["errors"]["decoded"]["test"]
    assert main(["evaluate", str(folder / "demo.sws"), "--data", "digits"]) == 0
    assert capsys.readouterr().out == f"test error {100 * content['test_error']:.2f} %\n"


def test_inspect_as_text_and_json(demo, capsys):
    path = demo[0] / "demo.sws"
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == swsjax.report(path).to_dict()
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out == f"{swsjax.report(path)}\n"


def test_inspect_writes_a_page_from_the_file_alone(demo, tmp_path, capsys, monkeypatch):
    folder, _ = demo
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
    folder, _ = demo
    out = tmp_path / "weights.safetensors"
    assert main(["decode", str(folder / "demo.sws"), "--out", str(out)]) == 0
    tensors = load_file(out)
    tree = swsjax.load(folder / "demo.sws")
    assert len(tensors) == 6
    for name, tensor in tensors.items():
        layer, part = name.split("/")
        np.testing.assert_array_equal(tensor, tree[layer][part])


def test_encode_is_the_inverse_of_decode(demo, tmp_path, capsys):
    folder, _ = demo
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
        assert line.startswith("swsjax: error: not an .sws file")


def test_a_file_of_a_different_net(tmp_path, capsys):
    path = tmp_path / "net.sws"
    tree = {"fc1": {"kernel": np.zeros((3, 2), np.float32)}}
    swsjax.save(path, tree, metadata={"model": "lenet-300-100"})
    line = failure(capsys, "evaluate", path, "--data", "digits")
    assert line.startswith(f"swsjax: error: {path} does not fit lenet-300-100 on digits: ")
    assert "fc1/kernel is float32[3, 2] in the file, float32[64, 300] expected" in line


@pytest.mark.parametrize(
    ("command", "module"), [("decode", "safetensors.numpy"), ("encode", "safetensors")]
)
def test_without_safetensors_the_error_names_the_extra(
    command, module, demo, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    line = failure(capsys, command, demo[0] / "demo.sws", "--out", tmp_path / "x")
    assert (
        line
        == "swsjax: error: safetensors files need safetensors: pip install 'swsjax[safetensors]'"
    )


def test_encode_a_file_that_is_not_safetensors(demo, tmp_path, capsys):
    path, out = demo[0] / "demo.sws", tmp_path / "x.sws"
    line = failure(capsys, "encode", path, "--out", out)
    assert line.startswith(f"swsjax: error: {path} is not a valid safetensors file: ")
    assert not out.exists()
