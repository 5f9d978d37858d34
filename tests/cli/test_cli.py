"""The commands, as a user runs them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import swsjax
from swsjax.cli.main import main
from swsjax.lab.data import load_digits
from swsjax.sws.recipes import LENET_300_100, Recipe, Settings

# Where the tests run in the background of a shell, SIGINT may be ignored from the start. It is set
# here and not by a `preexec_fn`, which forks, and of that JAX warns once it runs.
CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from swsjax.cli.main import main
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", CODE]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [*COMMAND, "demo", "--out", str(folder)], capture_output=True, text=True, timeout=300
    )
    return folder, done


def test_demo_writes_file_report_and_figures(demo):
    folder, done = demo
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "codebook.png",
        "components.png",
        "demo.sws",
        "encoding.png",
        "features-fc1-kernel.png",
        "hyper-priors.png",
        "layers.png",
        "report.html",
        "report.json",
        "weights.png",
    ]
    page = (folder / "report.html").read_text()
    assert page.count("<figure ") == len(list(folder.glob("*.png")))
    assert "<td>100</td>" in page  # soft_epochs, one of the settings
    assert len(page.encode()) < 2_000_000
    content = json.loads((folder / "report.json").read_text())
    assert content["file_bytes"] == (folder / "demo.sws").stat().st_size
    assert content["rates"]["file"] > 50
    assert content["errors"]["decoded file (test)"] < 0.05
    assert f"{content['file_bytes']:,} bytes" in done.stdout


def test_piped_progress_is_plain_lines(demo):
    folder, done = demo
    lines = done.stderr.splitlines()
    assert "\x1b" not in done.stderr
    assert lines[-1].startswith("retrain (hard) 160/160  loss ")
    assert "non-zero" in lines[-1]
    errors = json.loads((folder / "report.json").read_text())["errors"]
    validation = errors["decoded file (validation)"]
    assert f"  error {100 * validation:.2f} %" in lines[-1]


def test_evaluate_gives_the_error_of_the_report(demo, capsys):
    folder, _ = demo
    assert main(["evaluate", str(folder / "demo.sws"), "--data", "digits", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    reported = json.loads((folder / "report.json").read_text())
    assert content["test_error"] == reported["errors"]["decoded file (test)"]
    assert main(["evaluate", str(folder / "demo.sws"), "--data", "digits"]) == 0
    assert capsys.readouterr().out == f"test error {100 * content['test_error']:.2f} %\n"


def test_inspect_text_and_json(demo, capsys):
    folder, _ = demo
    assert main(["inspect", str(folder / "demo.sws"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["parameters"] == 50_610
    assert content["metadata"]["model"] == "lenet-300-100"
    assert main(["inspect", str(folder / "demo.sws")]) == 0
    assert "fc1/kernel" in capsys.readouterr().out


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


def test_encode_undoes_decode(demo, tmp_path, capsys):
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


def quick_recipe(monkeypatch):
    rates = swsjax.Rates(precisions=0.1)
    config = swsjax.Config(
        pi_zero=0.7,
        soft_epochs=9,
        soft_rates=rates,
        hard_epochs=1,
        least_steps=1,
        tolerance=1.0,  # one grid to compile
    )
    settings = Settings(*3 * [Recipe(config)])
    recipes = {"lenet-300-100": settings, "lenet-5-caffe": settings}
    monkeypatch.setattr("swsjax._commands.RECIPES", recipes)


def pretrain_for(epochs, monkeypatch):
    pretraining = {"lenet-300-100": swsjax.PretrainConfig(epochs)}
    monkeypatch.setattr("swsjax._commands._PRETRAINING", pretraining)


def test_the_same_command_goes_on_from_where_it_was_interrupted(tmp_path, capsys, monkeypatch):
    quick_recipe(monkeypatch)
    pretrain_for(8, monkeypatch)
    seen, interrupted = [], tmp_path / "interrupted"

    def retraining(self, progress):
        seen.append(progress.epoch)
        if len(seen) == 4:
            raise KeyboardInterrupt

    def run(folder):
        arguments = ["compress", "lenet-300-100", "--data", "digits", "--tau", "0.001"]
        return main([*arguments, "--out", str(folder)])

    monkeypatch.setattr("swsjax.progress.Reporter.retraining", retraining)
    assert run(interrupted) == 130
    assert run(interrupted) == 0
    assert seen == list(range(1, 11))
    assert run(tmp_path / "whole") == 0
    files = [folder / "lenet-300-100.sws" for folder in (interrupted, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not (interrupted / "state").exists()
    capsys.readouterr()


def test_pretrain_then_compress_from_its_checkpoint(tmp_path, capsys, monkeypatch):
    # A few epochs: what is tested is that the pieces fit, not how well they do.
    pretrain_for(8, monkeypatch)
    quick_recipe(monkeypatch)
    net = tmp_path / "net"
    assert main(["pretrain", "lenet-300-100", "--data", "digits", "--out", str(net)]) == 0
    written = json.loads((net / "pretrain.json").read_text())
    assert written["errors"]["test"] < 0.5
    arguments = ["compress", "lenet-300-100", "--data", "digits", "--tau", "0.001"]
    arguments += ["--checkpoint", str(net / "checkpoint"), "--out", str(tmp_path / "small")]
    assert main(arguments) == 0
    content = json.loads((tmp_path / "small" / "report.json").read_text())
    assert content["errors"]["pretrained (test)"] == written["errors"]["test"]
    assert (tmp_path / "small" / "lenet-300-100.sws").exists()
    capsys.readouterr()
    arguments[1] = "lenet-5-caffe"
    assert main(arguments) == 1  # digits are too small for LeNet-5, and say so
    assert "at least 16 x 16" in capsys.readouterr().err


def _failure(arguments: list[str], capsys) -> str:
    """The one line on stderr of a command that fails."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_file_of_another_kind(tmp_path, capsys):
    path = tmp_path / "other.sws"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    for command in (["inspect"], ["evaluate", "--data", "digits"]):
        line = _failure([command[0], str(path), *command[1:]], capsys)
        assert line.startswith("swsjax: error: ")


def test_file_of_another_net(tmp_path, capsys):
    path = tmp_path / "net.sws"
    tree = {"fc1": {"kernel": np.zeros((3, 2), np.float32)}}
    swsjax.save(path, tree, metadata={"model": "lenet-300-100"})
    line = _failure(["evaluate", str(path), "--data", "digits"], capsys)
    assert line.startswith(f"swsjax: error: {path} does not fit lenet-300-100 on digits: ")
    assert "fc1/kernel" in line


@pytest.mark.parametrize(
    ("command", "module"), [("decode", "safetensors.numpy"), ("encode", "safetensors")]
)
def test_missing_safetensors_names_the_extra(command, module, demo, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    folder, _ = demo
    line = _failure([command, str(folder / "demo.sws"), "--out", str(tmp_path / "x")], capsys)
    assert (
        line
        == "swsjax: error: safetensors files need safetensors: pip install 'swsjax[safetensors]'"
    )


def test_encode_what_is_no_safetensors_file(demo, tmp_path, capsys):
    path, out = demo[0] / "demo.sws", tmp_path / "x.sws"
    line = _failure(["encode", str(path), "--out", str(out)], capsys)
    assert line.startswith(f"swsjax: error: {path} is not an undamaged safetensors file: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "compress lenet-7 --data mnist --out x",
            "swsjax: error: argument model: invalid choice: 'lenet-7' (choose from "
            "'lenet-300-100', 'lenet-5-caffe'); see `swsjax compress --help`",
        ),
        ("", "swsjax: error: the following arguments are required: COMMAND; see `swsjax --help`"),
    ],
)
def test_misuse_is_one_line_and_exit_code_two(arguments, line, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    # Newer Pythons leave out the quotes around the choices.
    assert capsys.readouterr().err.replace("'", "") == line.replace("'", "") + "\n"


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_interrupt_leaves_no_half_written_file(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "demo", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stderr.readline()  # it is at work once it reports
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert first.startswith("pretrain ")
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "swsjax: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_digits_default_is_what_the_demo_uses(demo):
    folder, _ = demo
    assert swsjax.read_metadata(folder / "demo.sws")["data"] == load_digits().name


@pytest.mark.parametrize(
    ("given", "recipe"),
    [
        ([], LENET_300_100.balanced),
        (["--setting", "small-loss"], LENET_300_100.small_loss),
        (["--setting", "smallest"], LENET_300_100.smallest),
    ],
)
def test_setting(given, recipe, tmp_path, capsys, monkeypatch):
    def compress(
        pretrained, dataset, config, *, share, temperature, teachers, callback, checkpoint
    ):
        raise swsjax.ConfigError(repr((config, share, temperature, len(teachers))))

    pretrain_for(1, monkeypatch)
    monkeypatch.setattr("swsjax._commands.compress_classifier", compress)
    arguments = ["compress", "lenet-300-100", "--data", "digits", "--out", str(tmp_path), *given]
    assert main(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"swsjax: error: {tuple(recipe)!r}"


def test_kept_where_nothing_is_pruned(tmp_path, capsys):
    arguments = ["compress", "lenet-300-100", "--data", "digits", "--kept", "0.4"]
    line = _failure([*arguments, "--setting", "small-loss", "--out", str(tmp_path)], capsys)
    assert line == (
        "swsjax: error: --kept does nothing with --setting small-loss, which prunes nothing; "
        "choose another setting"
    )


def test_kept_out_of_range(tmp_path, capsys):
    arguments = ["compress", "lenet-300-100", "--data", "digits", "--kept", "2"]
    line = _failure([*arguments, "--out", str(tmp_path)], capsys)
    assert line == "swsjax: error: kept must be over 0 and at most 1, got 2.0"


def test_search_writes_settings_that_compress_takes(tmp_path, capsys, monkeypatch):
    """With a compression that takes no time: the weights of the first layer are set to zero."""

    def compress(pretrained, dataset, config, *, callback, checkpoint=None, **taught):
        if checkpoint is not None:
            raise swsjax.ConfigError(repr(config))
        fc1 = {"kernel": np.zeros((64, 300), np.float32), "bias": np.zeros(300, np.float32)}
        params = pretrained.params | {"fc1": fc1}
        callback(swsjax.Progress("hard", 2, 2, 0.5, 9, 9, 99.0, 9, 0.1, 0.9, 0.0, {}))
        return swsjax.Result(params, params, {}, [])

    pretrain_for(1, monkeypatch)
    monkeypatch.setattr("swsjax._commands.compress_classifier", compress)
    found = tmp_path / "found"
    search = ["search", "lenet-300-100", "--data", "digits", "--out", str(found), "--trials", "3"]
    assert main(search) == 0
    captured = capsys.readouterr()
    front = json.loads((found / "front.json").read_text())
    assert len(front["front"]) + len(front["beaten"]) + front["pruned"] == 3
    assert "trial 2 (hard) 2/2  loss 0.5000" in captured.err
    assert captured.out.splitlines()[-1] == (
        f"wrote {found / 'front.json'}; --config {found}/trial-N.json gives compress a row"
    )
    assert (found / "front.png").read_bytes().startswith(b"\x89PNG")
    (point,) = front["front"]
    path = found / f"trial-{point['trial']}.json"
    given = ["compress", "lenet-300-100", "--data", "digits", "--config", str(path)]
    assert main([*given, "--out", str(tmp_path / "small")]) == 1
    config = swsjax.Config.from_dict(point["config"])
    assert capsys.readouterr().err.splitlines()[-1] == f"swsjax: error: {config!r}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"kept": 2}', "kept must be over 0 and at most 1, got 2"),
        ("[]", "settings of Config must be a dictionary, got []"),
        ("tau = 3", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_config_file_that_is_none(text, reason, tmp_path, capsys):
    path = tmp_path / "settings.json"
    path.write_text(text)
    arguments = ["compress", "lenet-300-100", "--data", "digits", "--config", str(path)]
    line = _failure([*arguments, "--out", str(tmp_path)], capsys)
    assert line == f"swsjax: error: {path} holds no settings: {reason}"
