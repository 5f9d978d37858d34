"""The commands that train: pretrain, compress and search."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from failing import failure

import swsjax
from swsjax.cli import main
from swsjax.cli.terminal import Reporter
from swsjax.file.files import save
from swsjax.lab.nets import NETS
from swsjax.sws.config import LEARNED
from swsjax.sws.recipes import RECIPES, Recipe, Settings
from swsjax.training.history import Epoch
from swsjax.training.selection import select

COMPRESS = ["compress", "lenet-300-100", "--data", "digits"]


@pytest.fixture
def pretrain_for(monkeypatch):
    """Shorten the pretraining of all nets to a number of epochs."""

    def shorten(epochs):
        config = swsjax.PretrainConfig(epochs)
        for name, net in NETS.items():
            monkeypatch.setitem(NETS, name, net._replace(pretraining=config))

    return shorten


@pytest.fixture
def quick_recipes(monkeypatch):
    """Recipes of few epochs: the tests are of how the pieces fit, not of how good the nets are."""
    config = replace(
        LEARNED,
        pi_zero=0.7,
        soft_epochs=9,
        soft_learning_rates=swsjax.LearningRates(precisions=0.1),
        hard_epochs=1,
        least_steps=1,
        tolerance=1.0,  # one grid to compile
    )
    for name in RECIPES:
        monkeypatch.setitem(RECIPES, name, Settings(*3 * [Recipe(config)]))


def test_the_same_command_resumes_an_interrupted_run(
    tmp_path, capsys, monkeypatch, quick_recipes, pretrain_for
):
    pretrain_for(8)
    seen, interrupted = [], tmp_path / "interrupted"

    def epoch(self, epoch):
        if epoch.stage == "train":
            return
        seen.append(epoch.epoch)
        if len(seen) == 4:
            raise KeyboardInterrupt

    def run(folder):
        given = ["--setting", "balanced", "--tau", "1e-6", "--out", str(folder)]
        return main([*COMPRESS, *given])

    monkeypatch.setattr(Reporter, "epoch", epoch)
    assert run(interrupted) == 130
    assert run(interrupted) == 0
    assert seen == list(range(1, 11))
    assert run(tmp_path / "whole") == 0
    files = [folder / "lenet-300-100.sws" for folder in (interrupted, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not (interrupted / "state").exists()
    capsys.readouterr()


def test_pretrain_then_compress_its_checkpoint(tmp_path, capsys, quick_recipes, pretrain_for):
    pretrain_for(8)
    net, small = tmp_path / "net", tmp_path / "small"
    assert main(["pretrain", "lenet-300-100", "--data", "digits", "--out", str(net)]) == 0
    written = json.loads((net / "pretrain.json").read_text())
    assert written["errors"]["test"] < 0.5
    text = "validation error {:.2f} %, test {:.2f} %".format(
        *(100 * written["errors"][split] for split in ("validation", "test"))
    )
    captured = capsys.readouterr()
    assert captured.out == f"{text}\nwrote {net / 'checkpoint'}\n"
    assert re.match(r"\d:\d\d train 8/8  loss ", captured.err.splitlines()[-1])
    pretrain_for(1)  # which would show if the checkpoint were not used
    arguments = ["--setting", "balanced", "--tau", "1e-6"]
    arguments += ["--pretrained", str(net / "checkpoint"), "--out", str(small)]
    assert main([*COMPRESS, *arguments]) == 0
    content = json.loads((small / "report.json").read_text())
    assert content["errors"]["pretrained"] == written["errors"]
    assert content["file_bytes"] == (small / "lenet-300-100.sws").stat().st_size
    assert "train " not in capsys.readouterr().err


def test_a_target_is_reached_and_said(tmp_path, capsys, pretrain_for):
    pretrain_for(20)
    config = swsjax.Config(
        soft_epochs=6, hard_epochs=4, prune_epochs=0, batch_size=32, least_steps=1, tolerance=1.0
    )
    (tmp_path / "short.json").write_text(json.dumps(config.to_dict()))
    options = ["--config", str(tmp_path / "short.json"), "--target-bytes", "30k,20k"]
    assert main([*COMPRESS, *options, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    sizes = {}
    for target in (30_000, 20_000):
        (line,) = (line for line in lines if line.startswith(f"{target:,} bytes asked for, "))
        sizes[target] = (tmp_path / f"lenet-300-100-{target}.sws").stat().st_size
        assert sizes[target] <= target + 200  # metadata
        assert " at a loss of " in line
    assert abs((tmp_path / "lenet-300-100.sws").stat().st_size - sizes[20_000]) <= 1
    assert main(["evaluate", str(tmp_path / "lenet-300-100-30000.sws"), "--data", "digits"]) == 0


def test_a_setting_of_a_net_without_settings(tmp_path, capsys):
    line = failure(
        capsys,
        "compress",
        "resnet-8",
        "--data",
        "cifar10",
        "--setting",
        "smallest",
        "--out",
        tmp_path,
    )
    assert line == (
        "swsjax: error: --setting is for lenet-300-100 and lenet-5-caffe; without it, every net is "
        "compressed by the same default"
    )


def test_the_digits_are_too_small_for_lenet_5(tmp_path, capsys):
    arguments = ["compress", "lenet-5-caffe", "--data", "digits", "--out", tmp_path]
    assert failure(capsys, *arguments) == (
        "swsjax: error: LeNet-5 needs images of at least 16 x 16 pixels, got (8, 8)"
    )


@pytest.fixture
def settings_of(tmp_path, capsys, monkeypatch, pretrain_for):
    """From the options of `compress` to the recipe and the number of teachers of its run."""

    class ReachedError(swsjax.SwsjaxError):
        pass

    found = []

    def compress_task(task, net, recipe, *, teachers, augment, callback, resume, **targets):
        found.append((recipe, len(teachers), targets))
        raise ReachedError

    def run(*options):
        assert main([*COMPRESS, "--out", str(tmp_path), *map(str, options)]) == 1
        return found.pop()

    pretrain_for(1)
    monkeypatch.setattr("swsjax.cli.commands.compress_task", compress_task)
    return run


@pytest.mark.parametrize(
    ("options", "name", "teachers"),
    [
        (["--setting", "balanced"], "balanced", 0),
        (["--setting", "small-loss"], "small_loss", 4),
        (["--setting", "smallest"], "smallest", 0),
    ],
)
def test_a_setting_is_a_recipe(options, name, teachers, settings_of):
    recipe = getattr(RECIPES["lenet-300-100"], name)
    assert recipe.teachers == teachers
    assert settings_of(*options) == (recipe, teachers, {})


def test_without_a_setting_there_is_one_default(settings_of):
    assert settings_of() == (Recipe(swsjax.Config()), 0, {})


@pytest.mark.parametrize(
    ("options", "targets"),
    [
        (["--max-loss", "0.5%"], {"max_loss": 0.005}),
        (["--max-loss", "0.02"], {"max_loss": 0.02}),
        (["--target-bytes", "100k"], {"target_bytes": [100_000]}),
        (["--target-bytes", "1.5M,800"], {"target_bytes": [1_500_000, 800]}),
    ],
)
def test_targets_in_the_units_of_people(options, targets, settings_of):
    assert settings_of(*options)[2] == targets


def test_options_change_the_settings(settings_of):
    options = ("--setting", "balanced", "--keep", 0.25, "--tau", 0.5, "--seed", 3)
    recipe, *_ = settings_of(*options)
    balanced = RECIPES["lenet-300-100"].balanced
    assert recipe._replace(config=None) == balanced._replace(config=None)
    changed = {"keep": 0.25, "tau": 0.5, "seed": 3}
    assert recipe.config.to_dict() == balanced.config.to_dict() | changed


def test_settings_from_a_file(settings_of, tmp_path):
    config = swsjax.Config(tau=0.3, prune_epochs=3, keep=0.4, seed=9)
    (tmp_path / "settings.json").write_text(json.dumps(config.to_dict()))
    recipe, *_ = settings_of("--config", tmp_path / "settings.json", "--seed", 2)
    assert recipe.config.to_dict() == config.to_dict() | {"seed": 2}


def test_keep_if_nothing_is_pruned(tmp_path, capsys):
    line = failure(capsys, *COMPRESS, "--keep", "0.4", "--setting", "small-loss", "--out", tmp_path)
    assert line == (
        "swsjax: error: --keep has no effect with --setting small-loss, which prunes nothing; "
        "choose another setting"
    )


def test_keep_out_of_range(tmp_path, capsys):
    line = failure(capsys, *COMPRESS, "--keep", "2", "--out", tmp_path)
    assert line == "swsjax: error: keep must be over 0 and at most 1, got 2.0"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"keep": 2}', "keep must be over 0 and at most 1, got 2"),
        ("[]", "settings of Config must be a dictionary, got []"),
        ("tau = 3", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_file_without_settings(text, reason, tmp_path, capsys):
    path = tmp_path / "settings.json"
    path.write_text(text)
    line = failure(capsys, *COMPRESS, "--config", path, "--out", tmp_path)
    assert line == f"swsjax: error: {path} holds no settings of compress: {reason}"


def without_the_first_layer(task, net, recipe, *, teachers, callback):
    """A compression that takes no time: the weights of the first layer are set to zero."""
    fc1 = {"kernel": np.zeros((64, 300), np.float32), "bias": np.zeros(300, np.float32)}
    params = net.params | {"fc1": fc1}
    callback(Epoch("hard", 2, 2, 0.5, error=0.9, non_zeros=9, bound_bytes=99.0))
    return swsjax.Result(params, params, {}, [], select(params), net.aux)


def test_search_writes_settings_that_compress_takes(tmp_path, capsys, monkeypatch, settings_of):
    found = tmp_path / "found"
    search = ["search", "lenet-300-100", "--data", "digits", "--out", str(found), "--trials", "3"]
    with monkeypatch.context() as patch:
        patch.setattr("swsjax.cli.commands.compress_task", without_the_first_layer)
        assert main(search) == 0
    captured = capsys.readouterr()
    front = json.loads((found / "front.json").read_text())
    assert len(front["front"]) + len(front["beaten"]) + front["stopped"] == 3
    assert "trial 2 (hard) 2/2  loss 0.5  error 90.00 %  9 weights" in captured.err
    assert captured.out.splitlines()[-1] == (
        f"wrote {found / 'front.json'}; compress --config {found}/trial-N.json uses a row"
    )
    assert (found / "front.png").read_bytes().startswith(b"\x89PNG")
    (point,) = front["front"]
    path = found / f"trial-{point['trial']}.json"
    assert json.loads(path.read_text()) == point["config"]
    recipe, *_ = settings_of("--config", path)
    assert recipe.config.to_dict() == point["config"]


def test_search_starts_from_a_checkpoint(tmp_path, capsys, monkeypatch, pretrain_for):
    monkeypatch.setattr("swsjax.cli.commands.compress_task", without_the_first_layer)
    pretrain_for(1)
    net = tmp_path / "net"
    assert main(["pretrain", "lenet-300-100", "--data", "digits", "--out", str(net)]) == 0
    capsys.readouterr()
    arguments = ["--pretrained", str(net / "checkpoint"), "--trials", "1"]
    search = ["search", "lenet-300-100", "--data", "digits", "--out", str(tmp_path / "found")]
    assert main([*search, *arguments]) == 0
    assert "train " not in capsys.readouterr().err


def test_a_checkpoint_of_a_different_net(tmp_path, capsys):
    path = tmp_path / "net.sws"
    save(path, {"w": np.ones(3)})
    line = failure(capsys, *COMPRESS, "--pretrained", path, "--out", tmp_path / "small")
    assert line == (
        f"swsjax: error: {path} is not an Orbax checkpoint; give the folder that `swsjax "
        "pretrain` or Orbax's StandardCheckpointer wrote"
    )


def test_a_database_is_opened_before_any_work(tmp_path, capsys, monkeypatch):
    def work(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr("swsjax.cli.commands.pretrain_task", work)
    monkeypatch.setattr("swsjax.cli.commands.classification", work)
    search = ["search", "lenet-300-100", "--data", "digits", "--out", tmp_path]
    line = failure(capsys, *search, "--storage", "mysql://host/name")
    assert line == (
        "swsjax: error: the database mysql://host/name needs a driver: No module named 'MySQLdb'"
    )


def test_a_search_that_began_with_another_seed(tmp_path, capsys, monkeypatch, pretrain_for):
    monkeypatch.setattr("swsjax.cli.commands.compress_task", without_the_first_layer)
    pretrain_for(1)
    search = ["search", "lenet-300-100", "--data", "digits", "--out", str(tmp_path)]
    assert main([*search, "--trials", "1"]) == 0
    line = failure(capsys, *search, "--trials", "2", "--seed", "1")
    assert line == (
        "swsjax: error: the search that is stored there began with another --seed, or with another "
        "version of the settings; choose another --storage or --out"
    )


@pytest.mark.parametrize("given", ["1%", "0.01"])
def test_the_largest_error_of_a_search(given, tmp_path, monkeypatch, pretrain_for):
    class ReachedError(swsjax.SwsjaxError):
        pass

    found = []

    def search(*_, max_error, **__):
        found.append(max_error)
        raise ReachedError

    monkeypatch.setattr("swsjax.cli.commands.search", search)
    pretrain_for(1)
    arguments = ["search", "lenet-300-100", "--data", "digits", "--out", str(tmp_path)]
    assert main([*arguments, "--max-error", given]) == 1
    assert found == [0.01]
    monkeypatch.setattr("swsjax.lab.task.Task.error", lambda *_: 0.0)
    assert main(arguments) == 1
    assert found[1] > 0  # a pretrained net without an error leaves room for a few
