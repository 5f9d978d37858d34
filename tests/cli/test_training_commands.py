"""The commands that train: pretrain, compress and search."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from failing import failure

import swsjax
from swsjax.cli import datasets, main, parser
from swsjax.file.files import save
from swsjax.lab.data import Dataset, Split
from swsjax.sws.config import LEARNED
from swsjax.sws.moves import first_tau
from swsjax.sws.recipes import RECIPES, Recipe
from swsjax.sws.walk import Outcome
from swsjax.training.history import Epoch
from swsjax.training.selection import select

COMPRESS = ["compress", "lenet-300-100", "--data", "digits"]
SEARCH = ["search", "lenet-300-100", "--data", "digits"]


@pytest.fixture
def untrained(monkeypatch):
    """Pretraining that takes no time; the list of the seeds of the nets that it was asked for."""
    seeds = []

    def pretrain_task(task, config, *, callback, resume):
        Path(resume).mkdir(parents=True)
        seeds.append(config.seed)
        return task.init(config.seed)

    monkeypatch.setattr("swsjax.cli.pretrained.pretrain_task", pretrain_task)
    return seeds


@pytest.fixture
def stand_in(monkeypatch):
    """In the place of MNIST, a few images of the same form."""
    rng = np.random.default_rng(0)
    labels = np.arange(20, dtype=np.uint8) % 10
    split = Split(rng.integers(0, 256, (20, 28, 28), np.uint8), labels)
    monkeypatch.setitem(datasets.DATASETS, "mnist", lambda: Dataset("mnist", split, split, split))


@pytest.fixture
def quick_demo(monkeypatch):
    """A setting of few epochs: the tests are of how the pieces fit, not of how good nets are."""
    config = replace(
        LEARNED,
        tau=1e-6,
        pi_zero=0.7,
        soft_epochs=9,
        soft_learning_rates=swsjax.LearningRates(precisions=0.1),
        hard_epochs=1,
        least_steps=1,
        tolerance=1.0,  # one grid to compile
    )
    monkeypatch.setattr("swsjax.cli.settings.DEMO", Recipe(config))


def test_pretrain_then_compress_its_checkpoint(
    tmp_path, capsys, quick_demo, trained, pretrain_for, no_figures
):
    net, small = trained.folder, tmp_path / "small"
    written = json.loads((net / "pretrain.json").read_text())
    assert written["errors"]["test"] < 0.5
    text = "validation error {:.2f} %, test {:.2f} %".format(
        *(100 * written["errors"][split] for split in ("validation", "test"))
    )
    assert trained.out == f"{text}\nwrote {net / 'checkpoint'}\n"
    assert re.match(r"\d:\d\d train 8/8  loss ", trained.err.splitlines()[-1])
    pretrain_for(1)  # which would show if the checkpoint were not used
    arguments = ["--setting", "demo", "--pretrained", str(net / "checkpoint"), "--out", str(small)]
    assert main([*COMPRESS, *arguments]) in (0, parser.MISSED)
    assert not (small / "pretrained").exists()
    assert not (small / "state").exists()
    content = json.loads((small / "report.json").read_text())
    assert content["errors"]["pretrained"] == written["errors"]
    assert content["file_bytes"] == (small / "lenet-300-100.sws").stat().st_size
    assert "train " not in capsys.readouterr().err


def quick(folder):
    """Options of a run of few steps, of which nothing compiles twice."""
    config = swsjax.Config(
        soft_epochs=4, hard_epochs=2, prune_epochs=0, least_steps=1, tolerance=1.0
    )
    (folder / "quick.json").write_text(json.dumps(config.to_dict()))
    return ["--config", str(folder / "quick.json")]


@pytest.mark.filterwarnings("always::swsjax.SwsjaxWarning")
def test_targets_are_reached_within_a_budget_and_said(tmp_path, capsys, is_trained, no_figures):
    is_trained(tmp_path)
    options = ["--target-bytes", "30k,20k,1k", "--budget", "200", "--out", str(tmp_path)]
    assert main([*COMPRESS, *options, *quick(tmp_path)]) == parser.MISSED
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"retraining will take about 200 steps, \d+ s here", lines[0])
    assert re.search(r"^1,000 bytes not reached.*; the budget of 200 steps ended", lines[-1])
    for target in (30_000, 20_000):
        (line,) = (line for line in lines if line.startswith(f"{target:,} bytes asked for, "))
        assert " at a loss of " in line
        size = (tmp_path / f"lenet-300-100-{target}.sws").stat().st_size
        assert size <= target + 200  # metadata
    last, smallest = (tmp_path / f"lenet-300-100{size}.sws" for size in ("", "-1000"))
    assert abs(last.stat().st_size - smallest.stat().st_size) <= 1
    assert main(["evaluate", str(tmp_path / "lenet-300-100-30000.sws"), "--data", "digits"]) == 0


@pytest.mark.parametrize("command", ["compress", "search"])
@pytest.mark.parametrize(
    ("net", "setting", "made_for"),
    [
        ("lenet-300-100 digits", "balanced", "lenet-300-100 and lenet-5-caffe on mnist"),
        ("lenet-5-caffe fashion-mnist", "smallest", "lenet-300-100 and lenet-5-caffe on mnist"),
        ("resnet-8 cifar10", "small-loss", "lenet-300-100 and lenet-5-caffe on mnist"),
        ("lenet-300-100 mnist", "demo", "lenet-300-100 on digits"),
    ],
)
def test_a_setting_is_for_the_net_and_the_data_it_was_chosen_for(
    command, net, setting, made_for, tmp_path, capsys
):
    model, data = net.split()
    arguments = [command, model, "--data", data, "--setting", setting, "--out", tmp_path]
    assert failure(capsys, *arguments) == (
        f"swsjax: error: --setting {setting} was chosen for {made_for}; without --setting, the "
        f"default suits {model} on {data}"
    )


def options_of(*arguments):
    return vars(parser._parser().parse_args(arguments))


def test_the_demo_is_a_setting_of_compress():
    demo, compress = options_of("demo"), options_of(*COMPRESS, "--setting", "demo", "--out", "x")
    for options in (demo, compress):
        del options["command"], options["out"]
    assert demo == compress


def test_the_digits_are_too_small_for_lenet_5(tmp_path, capsys):
    arguments = ["compress", "lenet-5-caffe", "--data", "digits", "--out", tmp_path]
    assert failure(capsys, *arguments) == (
        "swsjax: error: LeNet-5 needs images of at least 16 x 16 pixels, got (8, 8)"
    )


@pytest.fixture
def settings_of(tmp_path, monkeypatch, untrained, stand_in):
    """From the options of `compress` to the recipe and the number of teachers of its run."""

    class ReachedError(swsjax.SwsjaxError):
        pass

    found = []

    def compress_task(task, net, recipe, *, teachers, augment, callback, resume, **targets):
        found.append((recipe, len(teachers), targets))
        raise ReachedError

    def run(*options, data="mnist"):
        command = ["compress", "lenet-300-100", "--data", data, "--out", str(tmp_path)]
        assert main([*command, *map(str, options)]) == 1
        return found.pop()

    monkeypatch.setattr("swsjax.cli.commands.compress_task", compress_task)
    monkeypatch.setattr("swsjax.cli.commands.duration", lambda *_: "1 step")
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
    line = failure(capsys, *COMPRESS, "--keep", "0.4", "--setting", "demo", "--out", tmp_path)
    assert line == (
        "swsjax: error: --keep has no effect with --setting demo, which prunes nothing; "
        "choose another setting"
    )


def test_keep_out_of_range(tmp_path, capsys):
    line = failure(capsys, *COMPRESS, "--keep", "2", "--out", tmp_path)
    assert line == "swsjax: error: keep must be over 0 and at most 1, got 2.0"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"keep": 2}', "keep must be over 0 and at most 1, got 2"),
        ("[]", "expected an object of JSON, got []"),
        ("tau = 3", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_file_without_settings(text, reason, tmp_path, capsys):
    path = tmp_path / "settings.json"
    path.write_text(text)
    line = failure(capsys, *COMPRESS, "--config", path, "--out", tmp_path)
    assert line == f"swsjax: error: {path} holds no settings of compress: {reason}"


def without_the_first_layer(task, net, recipe, *, teachers, augment, callback, resume=None):
    """A compression that takes no time: the weights of the first layer are set to zero."""
    fc1 = {"kernel": np.zeros((64, 300), np.float32), "bias": np.zeros(300, np.float32)}
    params = net.params | {"fc1": fc1}
    if resume is not None:
        resume.mkdir()
    callback(Epoch("hard", 2, 2, 0.5, error=0.9, non_zeros=9, bound_bytes=99.0))
    return swsjax.Result(params, params, {}, [], select(params), net.aux)


def test_search_writes_settings_that_compress_takes(tmp_path, capsys, monkeypatch, settings_of):
    found = tmp_path / "found"
    search = [*SEARCH, "--out", str(found), "--trials", "3", "--max-error", "100%"]
    with monkeypatch.context() as patch:
        patch.setattr("swsjax.cli.commands.compress_task", without_the_first_layer)
        assert main(search) == 0
    captured = capsys.readouterr()
    front = json.loads((found / "front.json").read_text())
    assert len(front["front"]) + len(front["dominated"]) + front["stopped"] == 3
    assert "trial 2 (hard) 2/2  loss 0.5  error 90.00 %  9 weights" in captured.err
    assert captured.out.splitlines()[-1] == (
        f"wrote {found / 'front.json'}; compress --config {found}/trial-N.json uses a row"
    )
    assert (found / "front.png").read_bytes().startswith(b"\x89PNG")
    (point,) = front["front"]
    path = found / f"trial-{point['trial']}.json"
    assert json.loads(path.read_text()) == point["config"]
    recipe, *_ = settings_of("--config", path, data="digits")
    assert recipe.config.to_dict() == point["config"]


def test_search_starts_from_a_checkpoint(tmp_path, capsys, monkeypatch, trained):
    monkeypatch.setattr("swsjax.cli.commands.compress_task", without_the_first_layer)
    checkpoint = str(trained.folder / "checkpoint")
    arguments = ["--pretrained", checkpoint, "--trials", "1", "--max-error", "100%"]
    assert main([*SEARCH, "--out", str(tmp_path / "found"), *arguments]) == 0
    assert "train " not in capsys.readouterr().err


def test_a_checkpoint_of_a_different_net(tmp_path, capsys):
    path = tmp_path / "net.sws"
    save(path, {"w": np.ones(3)})
    line = failure(capsys, *COMPRESS, "--pretrained", path, "--out", tmp_path / "small")
    assert line == (
        f"swsjax: error: {path} is not an Orbax checkpoint; give the folder that `swsjax "
        "pretrain` or Orbax's StandardCheckpointer wrote"
    )


def test_a_database_is_opened_before_any_work(tmp_path, capsys, no_work):
    line = failure(capsys, *SEARCH, "--out", tmp_path, "--storage", "mysql://host/name")
    assert line == (
        "swsjax: error: the database mysql://host/name needs a driver: No module named 'MySQLdb'"
    )


@pytest.mark.parametrize("command", ["pretrain", "compress", "prune", "search"])
def test_all_is_checked_before_any_work(command, tmp_path, capsys, no_work):
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pretrain.json").write_text('{"seed": 1}')
    (tmp_path / "out" / "pretrained").mkdir(parents=True)
    (tmp_path / "out" / "pretrained" / "lenet-300-100-digits-0").symlink_to(tmp_path / "other")

    def line(model, out):
        method, keep = (["snip"], ["--keep", "1"]) if command == "prune" else ([], [])
        options = ["--data", "digits", "--out", tmp_path / out, *keep]
        found = failure(capsys, command, *method, model, *options)
        return found.removeprefix("swsjax: error: ")

    assert line("lenet-5-caffe", "new") == (
        "LeNet-5 needs images of at least 16 x 16 pixels, got (8, 8)"
    )
    assert line("resnet-8", "file") == f"{tmp_path / 'file'} is a file, not a folder"
    folder = tmp_path / ("other" if command == "pretrain" else "out")
    kept = folder if command == "pretrain" else folder / "pretrained" / "lenet-300-100-digits-0"
    assert line("lenet-300-100", folder.name) == (
        f"{kept} holds a net with other settings than lenet-300-100 on digits with --seed 0; "
        "delete it, or choose another --out"
    )


@pytest.mark.parametrize("trials", ["0", "-3"])
def test_a_number_of_trials_that_is_none(trials, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*SEARCH, "--out", str(tmp_path / "new"), f"--trials={trials}"])
    assert stopped.value.code == 2
    assert not (tmp_path / "new").exists()
    assert capsys.readouterr().err == (
        f"swsjax: error: argument --trials: expected an integer of at least 1, got '{trials}'; see "
        "`swsjax search --help`\n"
    )


def test_nets_are_trained_once(settings_of, untrained):
    for _ in range(2):
        settings_of("--setting", "small-loss")
        assert untrained == [0, 100, 101, 102, 103]
    settings_of("--seed", 1)
    assert untrained == [0, 100, 101, 102, 103, 1]


def test_the_net_that_is_found_is_the_one_that_was_trained(tmp_path, capsys, pretrain_for):
    pretrain_for(2)
    command = ["pretrain", "lenet-300-100", "--data", "digits", "--out", str(tmp_path)]
    texts = []
    for _ in range(2):
        assert main(command) == 0
        captured = capsys.readouterr()
        texts.append(captured.out)
    assert texts[0] == texts[1]
    assert "train " not in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "pretrain.json"]
    pretrain_for(3)
    assert failure(capsys, *command) == (
        f"swsjax: error: {tmp_path} holds a net with other settings than lenet-300-100 on digits "
        "with --seed 0; delete it, or choose another --out"
    )


def test_a_search_without_a_setting(tmp_path, monkeypatch, untrained, stand_in):
    class ReachedError(swsjax.SwsjaxError):
        pass

    found = []

    def search(compress, base, *, study, **_):
        found.append((base, study.name))
        raise ReachedError

    def searched(model, data):
        assert main(["search", model, "--data", data, "--out", str(tmp_path), "--seed", "2"]) == 1
        return found.pop()

    monkeypatch.setattr("swsjax.cli.commands.search", search)
    monkeypatch.setitem(datasets.DATASETS, "fashion-mnist", datasets.DATASETS["mnist"])
    balanced = RECIPES["lenet-300-100"].balanced.config
    demo = swsjax.cli.settings.DEMO.config
    default = swsjax.Config(tau=4 * first_tau(266_610))
    expected = {"mnist": balanced, "digits": demo, "fashion-mnist": default}
    names = {"mnist": "balanced", "digits": "demo", "fashion-mnist": "default"}
    for data, base in expected.items():
        name = f"lenet-300-100 {data} {names[data]}"
        assert searched("lenet-300-100", data) == (replace(base, seed=2), name)


def test_a_search_that_finds_nothing_of_use_says_so(tmp_path, capsys, monkeypatch, is_trained):
    monkeypatch.setattr("swsjax.cli.commands.compress_task", without_the_first_layer)
    is_trained(tmp_path)
    command = [*SEARCH, "--out", str(tmp_path), "--trials", "1", "--max-error", "1%"]
    assert main(command) == parser.MISSED
    assert capsys.readouterr().out.splitlines()[-1] == (
        "not reached: no trial has a validation error of 1.00 % or less"
    )


def test_a_net_that_lost_too_much_says_so_last(
    tmp_path, capsys, monkeypatch, is_trained, no_figures
):
    def ending(*ends):
        def retrained(task, net, recipe, *, target_bytes, **options):
            result = without_the_first_layer(task, net, recipe, **options)
            outcomes = [Outcome(result.params, result.aux, 0.9, 8, *end) for end in ends]
            return result._replace(outcomes=outcomes)

        return retrained

    missed, reached = (False, "9 bytes not reached"), (True, "8 bytes asked for")

    is_trained(tmp_path)
    monkeypatch.setattr("swsjax.cli.commands.compress_task", without_the_first_layer)
    command = [*COMPRESS, "--out", str(tmp_path)]
    assert main([*command, "--setting", "demo"]) == parser.MISSED
    errors = json.loads((tmp_path / "report.json").read_text())["errors"]
    before, after = (errors[stage]["validation"] for stage in ("pretrained", "decoded"))
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"lost: the validation error is {100 * after:.2f} %, over 3 times the {100 * before:.2f} % "
        "of the pretrained net"
    )
    monkeypatch.setattr("swsjax.cli.commands.compress_task", ending(missed, reached))
    assert main([*command, "--target-bytes", "9,8"]) == parser.MISSED
    assert capsys.readouterr().out.splitlines()[-2:] == ["8 bytes asked for", "9 bytes not reached"]
    monkeypatch.setattr("swsjax.cli.commands.compress_task", ending(reached))
    assert main([*command, "--target-bytes", "8"]) == 0


def test_a_search_that_began_with_another_seed(tmp_path, capsys, monkeypatch, is_trained):
    monkeypatch.setattr("swsjax.cli.commands.compress_task", without_the_first_layer)
    is_trained(tmp_path)
    search = [*SEARCH, "--out", str(tmp_path), "--max-error", "100%"]
    assert main([*search, "--trials", "1"]) == 0
    line = failure(capsys, *search, "--trials", "2", "--seed", "1")
    assert line == (
        "swsjax: error: the search that is stored there began with another --seed, or with another "
        "version of the settings; choose another --storage or --out"
    )


@pytest.mark.parametrize("given", ["1%", "0.01"])
def test_the_largest_error_of_a_search(given, tmp_path, monkeypatch, is_trained):
    class ReachedError(swsjax.SwsjaxError):
        pass

    found = []

    def search(*_, max_error, **__):
        found.append(max_error)
        raise ReachedError

    monkeypatch.setattr("swsjax.cli.commands.search", search)
    is_trained(tmp_path)
    arguments = [*SEARCH, "--out", str(tmp_path)]
    assert main([*arguments, "--max-error", given]) == 1
    assert found == [0.01]
    monkeypatch.setattr("swsjax.lab.task.Task.error", lambda *_: 0.0)
    assert main(arguments) == 1
    assert found[1] > 0  # a pretrained net without an error leaves room for a few
