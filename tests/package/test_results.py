"""The committed results: the tables show them, and the files give those errors."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import pytest

import swsjax
from swsjax.cli import main
from swsjax.lab import NETS, data_folder
from swsjax.sws import Config
from swsjax.sws.recipes import RECIPES

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("lenet-*/*.json"))
ROWS = [
    (path.parent / row["file"], row)
    for path in RESULTS
    for row in json.loads(path.read_text())["seeds"]
]


def by_name(file, row, *marks):
    return pytest.param(file, row, id=f"{file.parent.name}/{file.name}", marks=marks)


FILES = [by_name(*each) for each in ROWS]
# Each file is seconds of arithmetic: by default, those of the first seed.
EVALUATED = [by_name(*each, *[pytest.mark.slow] * (each[1]["seed"] != 0)) for each in ROWS]


def test_every_recipe_has_results():
    expected = {(net, setting) for net in RECIPES for setting in RECIPES[net].by_name()}
    assert {(path.parent.name, path.stem) for path in RESULTS} == expected
    assert len(ROWS) == 3 * len(expected)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_rows_are_of_the_recipes_as_they_are(path):
    net = path.parent.name
    recipe = RECIPES[net].by_name()[path.stem]
    content = json.loads(path.read_text())
    # A setting that is not in the file has come since; its default changes nothing, or less than a
    # seed does.
    assert Config.from_dict(content["config"]) == recipe.config
    assert content["teacher_weight"] == recipe.teacher_weight
    assert content["temperature"] == recipe.temperature
    assert content["teachers"] == recipe.teachers
    assert content["pretraining"] == asdict(NETS[net].pretraining)


def test_tables_are_the_committed_results():
    path = ROOT / "benchmarks" / "fill_tables.py"
    spec = importlib.util.spec_from_file_location("fill_tables", path)
    fill_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill_tables)
    pages = fill_tables.tables()
    assert [page.name for page in pages] == [
        "README.md",
        "speed.md",
        "engine.md",
        "experiments.md",
        "results.md",
    ]
    for page in pages:
        assert fill_tables.with_tables(page) == page.read_text()


@pytest.mark.parametrize(("file", "row"), FILES)
def test_report_of_the_file_is_the_committed_one(file, row):
    measured = swsjax.report(file).to_dict()
    assert measured.pop("operations") == {}  # a file does not say what it computes
    assert measured | {"errors": row["errors"]} == {name: row[name] for name in measured}


@pytest.mark.skipif(
    # A download that failed leaves an empty folder.
    not list((data_folder() / "mnist").glob("t10k-images*")),
    reason="needs MNIST: set SWSJAX_DATA to its folder",
)
@pytest.mark.parametrize(("file", "row"), EVALUATED)
def test_evaluate_gives_the_committed_error(file, row, capsys):
    assert main(["evaluate", str(file), "--data", "mnist", "--json"]) == 0
    error = json.loads(capsys.readouterr().out)["test_error"]
    # A different processor may round the last bit of a logit differently and turn one image of
    # 10,000.
    assert error == pytest.approx(row["errors"]["decoded"]["test"], abs=1.5e-4)
