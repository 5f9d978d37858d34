"""The committed results: the table says what the files say, and the files give those errors."""

import importlib.util
import json
from pathlib import Path

import pytest

import swsjax
from swsjax.cli.main import main
from swsjax.lab.data import data_folder
from swsjax.sws.recipes import LENET_5_CAFFE, LENET_300_100

ROOT = Path(__file__).parent.parent
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("lenet-*/*.json"))
FILES = [
    pytest.param(path.parent / row["file"], row, id=f"{path.parent.name}/{row['file']}")
    for path in RESULTS
    for row in json.loads(path.read_text())["seeds"]
]


def test_there_are_results():
    assert FILES


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_rows_are_of_the_recipes_as_they_are(path):
    recipe = {"lenet-300-100": LENET_300_100, "lenet-5-caffe": LENET_5_CAFFE}[
        path.parent.name
    ].by_name()[path.stem]
    content = json.loads(path.read_text())
    assert content["config"] == repr(recipe.config)
    assert content["share"] == recipe.share
    assert content["temperature"] == recipe.temperature
    assert content["teachers"] == recipe.teachers


def test_tables_are_the_committed_results():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert [path.name for path in tables.TABLES] == [
        "README.md",
        "speed.md",
        "experiments.md",
        "results.md",
    ]
    for path in tables.TABLES:
        assert tables.with_tables(path) == path.read_text()


@pytest.mark.parametrize(("file", "row"), FILES)
def test_report_of_the_file_is_the_committed_one(file, row):
    measured = swsjax.report(file).to_dict()
    for key in ("file_bytes", "non_zeros", "han_bits", "parameters", "layers"):
        assert measured[key] == row[key]


@pytest.mark.skipif(
    # A download that failed leaves an empty folder.
    not list((data_folder() / "mnist").glob("t10k-images*")),
    reason="needs MNIST: set SWSJAX_DATA to its folder",
)
@pytest.mark.parametrize(("file", "row"), FILES)
def test_evaluate_gives_the_committed_error(file, row, capsys):
    assert main(["evaluate", str(file), "--data", "mnist", "--json"]) == 0
    error = json.loads(capsys.readouterr().out)["test_error"]
    # Another processor may round the last bit of a logit otherwise and turn one image of 10,000.
    assert error == pytest.approx(row["errors"]["decoded file (test)"], abs=1.5e-4)
