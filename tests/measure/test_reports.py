"""The report measures the bytes of the file."""

import json

import numpy as np
import pytest

import swsjax
from swsjax.codec import entropy_bound, han_size


@pytest.fixture
def tree() -> dict:
    rng = np.random.default_rng(0)
    kernel = rng.choice(np.float32([0, 0.5, -0.25]), (40, 30), p=[0.9, 0.06, 0.04])
    return {"fc": {"kernel": kernel, "bias": np.zeros(30, np.float32)}}


def test_counts_layers_and_totals(tree):
    data = swsjax.dumps(tree)
    measured = swsjax.report(data)
    by_name = {layer.name: layer for layer in measured.layers}
    kernel = by_name["fc/kernel"]
    assert kernel.shape == (40, 30)
    assert kernel.non_zeros == np.count_nonzero(tree["fc"]["kernel"])
    assert (kernel.levels, by_name["fc/bias"].levels) == (3, 1)
    assert measured.parameters == 1230
    assert measured.float32_bytes == 4920
    assert measured.non_zeros == kernel.non_zeros
    assert measured.file_bytes == len(data)


def test_sizes_are_the_codecs(tree):
    measured = swsjax.report(swsjax.dumps(tree))
    arrays = [tree["fc"]["bias"], tree["fc"]["kernel"]]
    assert measured.han_bits == sum(size.total for size in han_size(arrays))
    assert measured.entropy_bits == pytest.approx(sum(b.total for b in entropy_bound(arrays)))
    coded = sum(layer.coded_bits for layer in measured.layers) / 8
    assert measured.file_bytes - 60 < coded < measured.file_bytes
    assert measured.rates == {
        "file": 4920 / measured.file_bytes,
        "han": 8 * 4920 / measured.han_bits,
        "entropy_bound": 8 * 4920 / measured.entropy_bits,
    }


def test_path_and_bytes_give_the_same_report(tree, tmp_path):
    path = tmp_path / "net.sws"
    swsjax.save(path, tree, metadata={"model": "toy"})
    measured = swsjax.report(path, errors={"test": 0.0125})
    assert measured == swsjax.report(path.read_bytes(), errors={"test": 0.0125})
    assert measured.metadata == {"model": "toy"}


def test_dict_survives_json(tree):
    content = swsjax.report(swsjax.dumps(tree), errors={"test": 0.0125}).to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["errors"] == {"test": 0.0125}
    assert content["density"] == content["non_zeros"] / 1230


def test_text_names_each_size_with_its_rate(tree):
    measured = swsjax.report(swsjax.dumps(tree), errors={"test": 0.0125})
    lines = str(measured).splitlines()
    assert any("fc/kernel" in line and "40x30" in line and "1,200" in line for line in lines)
    assert "error test                        1.25 %" in lines
    file_line = next(line for line in lines if line.startswith("file "))
    assert f"{measured.file_bytes:,} bytes" in file_line
    assert f"{measured.rates['file']:.1f}x" in file_line
    assert next(line for line in lines if line.startswith("Han format"))
    assert next(line for line in lines if line.startswith("entropy bound"))


def test_a_tree_without_weights_has_a_report():
    measured = swsjax.report(swsjax.dumps({"empty": np.zeros((0, 3), np.float32)}))
    assert measured.parameters == 0
    assert measured.to_dict()["density"] == 0.0
    assert "empty" in str(measured)


def test_foreign_bytes_are_refused():
    with pytest.raises(swsjax.FormatError):
        swsjax.report(b"PK\x03\x04 something else entirely")
