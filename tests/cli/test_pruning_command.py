"""The command that prunes."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from failing import failure

import swsjax
from swsjax.baselines import Convolution, density, kernels, mask
from swsjax.cli import main, methods, parser, pruning
from swsjax.lab import NETS, Dataset, Split, Variables, classification
from swsjax.sws.recipes import Recipe, compress_task

WEIGHTS = 64 * 300 + 300 * 100 + 100 * 10
NET = ["lenet-300-100", "--data", "digits"]


def prune(method, out, *options, keep="5%"):
    """The arguments of a command."""
    return ["prune", method, *NET, "--keep", keep, "--out", str(out), *options]


def net_in(folder):
    return Variables(swsjax.load(folder / "lenet-300-100.sws"), {})


@pytest.mark.parametrize(
    "options",
    [
        "random --epochs 1",
        "snip --epochs 1 --batches 2",
        "iter-snip --epochs 1 --steps 2",
        "force --epochs 1 --steps 3 --batches 2 --levels 4",
        "grasp --epochs 1",
        "magnitude --epochs 1",
        "magnitude --epochs 1 --finish rewind --levels 4",
        "magnitude-per-layer --epochs 1 --finish scratch",
        "lottery --epochs 1 --steps 2",
    ],
)
def test_a_run(options, tmp_path, capsys, monkeypatch, is_trained, no_figures):
    is_trained(tmp_path)
    monkeypatch.setattr(pruning, "_CODEBOOK_EPOCHS", 1)
    method, *others = options.split()
    assert main(prune(method, tmp_path, *others)) in (0, parser.MISSED)
    kept = WEIGHTS // 20
    captured = capsys.readouterr()
    first, *_, last = captured.err.splitlines()
    assert first == "0:00 compiling"
    assert re.fullmatch(r"\d:\d\d train 1/1  loss [\d.]+", last)
    lines = captured.out.splitlines()
    assert lines[0] == f"{method} keeps {kept:,} of {WEIGHTS:,} weights; training takes 1 epochs"
    assert f"wrote {tmp_path / 'lenet-300-100.sws'}, report.html, report.json and 0 figures " in (
        "\n".join(lines)
    )
    net = net_in(tmp_path)
    assert density(net) == pytest.approx(0.05, abs=0.5 / WEIGHTS)
    if method == "magnitude-per-layer":
        assert np.count_nonzero(net.params["fc3"]["kernel"]) == 50
    if "--levels" in others:
        assert max(len(np.unique(kernel)) for kernel in kernels(net).values()) == 5
    metadata = {"model": "lenet-300-100", "data": "digits", "method": method}
    assert swsjax.read_metadata(tmp_path / "lenet-300-100.sws") == metadata
    content = json.loads((tmp_path / "report.json").read_text())
    stages = ["pretrained", *(["pruned"] if "--levels" in others else []), "decoded"]
    assert list(content["errors"]) == stages
    assert all(list(by_split) == ["validation", "test"] for by_split in content["errors"].values())
    page = (tmp_path / "report.html").read_text()
    assert f"<td>{method}</td>" in page
    assert ("pruned: the net that was pruned" in page) == ("--levels" in others)
    written = ["lenet-300-100.sws", "pretrained", "report.html", "report.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == written


def test_pruned_channels_are_removed(tmp_path, capsys, monkeypatch, is_trained, no_figures):
    """The rest is trained, written, reported and evaluated as the small net that it is."""
    is_trained(tmp_path)
    monkeypatch.setattr(pruning, "nets_of", lambda own, task, origins, show: [task.init(1)])
    options = ["--epochs", "1", "--finish", "scratch"]
    assert main(prune("l1-filters", tmp_path, *options, keep="50%")) in (0, parser.MISSED)
    captured = capsys.readouterr()
    first, *shown = captured.out.splitlines()
    assert first == ("l1-filters keeps 50 % of the channels of each layer; training takes 1 epochs")
    net, small = net_in(tmp_path), 64 * 150 + 150 * 50 + 50 * 10
    assert {name: kernel.shape for name, kernel in kernels(net).items()} == {
        "fc1/kernel": (64, 150),
        "fc2/kernel": (150, 50),
        "fc3/kernel": (50, 10),
    }
    assert f"multiply-adds, shrunk                 {small:,}   35.06 %" in shown
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["operations"] == {"dense": WEIGHTS, "shrunk": small, "zeros skipped": small}
    assert content["baseline_parameters"] == WEIGHTS + 410
    assert content["parameters"] == small + 210
    assert "multiply-adds, shrunk" in (tmp_path / "report.html").read_text()
    file = tmp_path / "lenet-300-100.sws"
    assert main(["evaluate", str(file), "--data", "digits", "--json"]) == 0
    error = json.loads(capsys.readouterr().out)["test_error"]
    assert error == content["errors"]["decoded"]["test"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("slimming lenet-300-100 --keep 50%", "slimming needs the scales of BatchNorms, and the "),
        ("slimming resnet-8 --keep 1e-4", "keep 0.0001 of 240 weights in the scales is none; "),
        ("soft-filters lenet-300-100 --keep 50%", "the net has no convolutions, which have kernel"),
        ("structures lenet-300-100", "no layer fits 'g*b*conv2'; expected a pattern of the layers"),
        ("structures resnet-8 --keep 50%", "--keep is for random, snip, iter-snip, force, grasp, "),
        (
            "thinet resnet-8 --keep 50% --strength 1",
            "--strength is for slimming and structures, and has no effect with thinet; leave it",
        ),
        (
            "lasso resnet-8 --keep 50% --finish rewind",
            "--finish rewind is for magnitude and magnitude-per-layer; lasso removes channels, "
            "which the initial net has: give scratch, for new random weights",
        ),
    ],
)
def test_nets_and_options_that_methods_of_channels_do_not_take(
    options, line, tmp_path, capsys, no_work
):
    command = ["prune", *options.split(), "--data", "digits", "--out", str(tmp_path / "new")]
    assert failure(capsys, *command).startswith(f"swsjax: error: {line}")
    assert not (tmp_path / "new").exists()


def test_a_penalty_that_is_negative(capsys):
    command = "prune structures resnet-8 --data digits --out new --strength=-1"
    with pytest.raises(SystemExit) as stopped:
        main(command.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "swsjax: error: argument --strength: expected a number of at least 0, got '-1'; see "
        "`swsjax prune --help`\n"
    )


def test_what_the_convolutions_of_a_lenet_see():
    """Its layers are matrix products, so nothing of the trace says so."""
    split = Split(np.zeros((10, 28, 28), np.uint8), np.arange(10, dtype=np.uint8))
    task = classification(NETS["lenet-5-caffe"].model, Dataset("zeros", split, split, split))
    form = jax.eval_shape(lambda: task.init(0))
    net = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), form)
    assert methods._convolutions(task, net) == {
        "params/conv1/kernel": Convolution((28, 28), padding="VALID"),
        "params/conv2/kernel": Convolution((12, 12), padding="VALID"),
    }


def test_what_is_left_shares_values_and_zeros_stay(
    tmp_path, capsys, monkeypatch, is_trained, no_figures
):
    is_trained(tmp_path)
    config = swsjax.Config(
        soft_epochs=1, hard_epochs=1, prune_epochs=0, least_steps=1, tolerance=1.0
    )
    given = []

    def compressed(task, net, *arguments, **options):
        given.append(net)
        return compress_task(task, net, *arguments, **options)

    monkeypatch.setattr(pruning, "_sharing", lambda options: Recipe(config))
    monkeypatch.setattr(pruning, "compress_task", compressed)
    options = ["--epochs", "1", "--finish", "share", "--target-bytes", "20k"]
    assert main(prune("snip", tmp_path, *options)) == 0
    captured = capsys.readouterr().out.splitlines()
    assert captured[0] == (
        f"snip keeps {WEIGHTS // 20:,} of {WEIGHTS:,} weights; training takes 1 epochs, sharing "
        "about 72 steps"
    )
    assert captured[-1].startswith("20,000 bytes asked for, ")
    assert (tmp_path / "lenet-300-100-20000.sws").exists()
    shared, (pruned,) = mask(net_in(tmp_path)), given
    assert density(pruned) == pytest.approx(0.05, abs=0.5 / WEIGHTS)
    for name, alive in mask(pruned).items():
        assert not (shared[name] & ~alive).any()
    content = json.loads((tmp_path / "report.json").read_text())
    assert list(content["errors"]) == ["pretrained", "pruned", "retrained", "decoded"]


def test_figures_and_what_was_lost(tmp_path, capsys, is_trained):
    is_trained(tmp_path)
    assert main(prune("random", tmp_path, "--epochs", "1", keep="0.001")) == parser.MISSED
    errors = json.loads((tmp_path / "report.json").read_text())["errors"]
    before, after = (errors[stage]["validation"] for stage in ("pretrained", "decoded"))
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"lost: the validation error is {100 * after:.2f} %, over 3 times the {100 * before:.2f} % "
        "of the pretrained net"
    )
    assert (tmp_path / "features-fc1-kernel.png").read_bytes().startswith(b"\x89PNG")


def test_stages_that_ended_are_not_run_again(tmp_path, capsys, monkeypatch, pretrain_for):
    """Neither the pretraining nor the training of a run that ends at its codebooks."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    pretrain_for(2)
    monkeypatch.setattr("swsjax.cli.pruning.tune_codebooks", interrupted)
    command = prune("force", tmp_path, "--steps", "2", "--epochs", "2", "--levels", "4")
    seen = []
    for _ in range(2):
        assert main(command) == 130
        captured = capsys.readouterr()
        folders = [tmp_path / "pretrained", tmp_path / "state" / "training"]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        seen.append({path: path.stat().st_mtime_ns for path in files})
    assert seen[0] == seen[1] != {}
    assert "train " not in captured.err
    assert captured.err.splitlines()[-1] == (
        "swsjax: interrupted; the same command goes on from here"
    )


def test_rewinding_a_given_net(tmp_path, capsys, trained, so_few_epochs, no_figures):
    net, out = trained.folder, tmp_path / "out"
    options = ["--finish", "rewind", "--pretrained", str(net / "checkpoint")]
    assert failure(capsys, *prune("magnitude", out, *options, "--seed", "3")) == (
        f"swsjax: error: --finish rewind goes back to the initial weights of {net}/checkpoint: "
        "leave --pretrained out, or give a checkpoint that `swsjax pretrain` wrote, and its --seed"
    )
    assert main(prune("magnitude", out, *options)) in (0, parser.MISSED)
    assert not (out / "pretrained").exists()


ONLY_AFTER = (
    "is for trained nets, such as those of magnitude; what {} keeps is trained by the settings of "
    "the pretraining: leave it out, or give share"
)


@pytest.mark.parametrize(
    ("method", "options", "line"),
    [
        (
            "snip",
            "--steps 3",
            "--steps is for iter-snip, force and lottery, and has no effect with snip; leave it "
            "out",
        ),
        (
            "lottery",
            "--batches 3",
            "--batches is for snip, iter-snip, force and grasp, and has no effect with lottery; "
            "leave it out",
        ),
        ("force", "--finish fine-tune", f"--finish fine-tune {ONLY_AFTER.format('force')}"),
        ("lottery", "--finish rewind", f"--finish rewind {ONLY_AFTER.format('lottery')}"),
        (
            "magnitude",
            "--max-loss 1%",
            "--max-loss is for --finish share, which can reach it; leave it out",
        ),
        (
            "random",
            "--target-bytes 3k",
            "--target-bytes is for --finish share, which can reach it; leave it out",
        ),
        (
            "magnitude",
            "--finish scratch --budget 3k",
            "--budget is for --finish share, which can reach it; leave it out",
        ),
        (
            "magnitude",
            "--finish share --levels 4",
            "--levels has no effect with --finish share, which finds its own levels; leave it out",
        ),
        (
            "grasp",
            "--keep 5e-6",
            "keep 5e-06 of 50200 weights in the net is none; keep at least 2e-05",
        ),
        (
            "magnitude-per-layer",
            "--keep 1e-4",
            "keep 0.0001 of 1000 weights in fc3/kernel is none; keep at least 0.001",
        ),
    ],
)
def test_what_is_refused_before_any_work(method, options, line, tmp_path, capsys, no_work):
    command = prune(method, tmp_path / "new", *options.split())
    assert failure(capsys, *command) == f"swsjax: error: {line}"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--keep 0", "argument --keep: expected a share over 0, got '0'"),
        ("--keep 2", "argument --keep: expected 0.5% or 0.005, got '2'"),
        ("--steps 0", "argument --steps: expected an integer from 1 to 10000, got '0'"),
        ("--levels 99999", "argument --levels: expected an integer from 1 to 10000, got '99999'"),
    ],
)
def test_values_that_are_none(option, line, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(prune("force", tmp_path, *option.split()))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"swsjax: error: {line}; see `swsjax prune --help`\n"
