"""Several nets side by side: the figures of each are those of its own report."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import swsjax
from swsjax.errors import ConfigError, FormatError
from swsjax.measure import compare
from swsjax.measure.comparison_page import comparison_page
from swsjax.measure.plot import comparison_picture
from swsjax.measure.published import Published

RNG = np.random.default_rng(0)


def net(density, levels=7):
    values = np.float32(RNG.integers(1, levels, (40, 30)) / 8)
    return {"fc/kernel": values * (RNG.random(values.shape) < density), "bias": np.zeros(30, "f4")}


NETS = {"dense": net(1.0), "a<third>": net(0.3), "few": net(0.05, levels=3)}
ERRORS = {"dense": 0.010, "a<third>": 0.030, "few": 0.020}


@pytest.fixture(scope="module")
def found():
    return compare(NETS, errors=ERRORS)


def test_each_net_is_reported_as_alone(tmp_path):
    swsjax.save(tmp_path / "few.sws", NETS["few"])
    given = {
        "pytree": NETS["dense"],
        "bytes": swsjax.dumps(NETS["a<third>"]),
        "path": tmp_path / "few.sws",
        "text": str(tmp_path / "few.sws"),
    }
    found = compare(given)
    alone = [swsjax.report(swsjax.dumps(each)) for each in (*NETS.values(), NETS["few"])]
    assert list(found.reports) == list(given)
    assert list(found.reports.values()) == alone


def test_the_table_says_what_the_reports_say(found):
    header, *rows, empty, front = str(found).splitlines()
    assert re.split(r"  +", header)[:4] == ["net", "error", "weights", "non-zero"]
    for row, (name, measured) in zip(rows, found.reports.items(), strict=True):
        assert re.split(r"  +", row) == [
            name,
            f"{100 * ERRORS[name]:.2f} %",
            f"{measured.parameters:,}",
            f"{100 * measured.non_zeros / measured.parameters:.2f} %",
            str(max(layer.levels for layer in measured.layers)),
            f"{measured.file_bytes:,}",
            f"{measured.rates['file']:.1f}x",
            f"{measured.entropy_bits / 8:,.0f}",
            f"{measured.han_bits / 8:,.0f}",
        ]
    assert (empty, front) == ("", "on the front of error against bytes: few, dense")
    assert repr(found) == str(found)
    assert "a&lt;third&gt;" in found._repr_html_()


def test_without_errors_there_is_no_front():
    found = compare(NETS)
    assert (found.front, found.points) == ([], {})
    assert "front" not in str(found)
    assert {row[1] for row in found.rows} == {"-"}


@given(st.lists(st.sampled_from([0.0, 0.01, 0.02, 1.0]), min_size=3, max_size=3))
def test_none_on_the_front_is_beaten_and_the_others_are(found, errors):
    found = replace(found, errors=dict(zip(NETS, errors, strict=True)))
    for name, (size, error) in found.points.items():
        beaten = any(
            other[0] <= size and other[1] <= error and other != (size, error)
            for other in found.points.values()
        )
        assert beaten == (name not in found.front)


def test_rates_are_against_the_original_net():
    found = compare(NETS, baseline={"w": np.zeros(10_000)})
    assert {measured.float32_bytes for measured in found.reports.values()} == {40_000}
    assert "all 10,000 parameters of the original net" in comparison_page(found)


def test_as_json(found):
    content = json.loads(json.dumps(found.to_dict()))
    assert content["front"] == ["few", "dense"]
    for name, values in content["nets"].items():
        alone = swsjax.report(swsjax.dumps(NETS[name])).to_dict()
        del alone["errors"]
        assert values == alone | {"error": ERRORS[name]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "nets must be a dictionary by the names of the nets, got a list"),
        (({},), "nets must have at least one net to compare, got none"),
        (
            (NETS, [0.1]),
            "errors must be a dictionary by the names of the nets, got a list",
        ),
        (
            (NETS, {"dense": 0.1}),
            "errors must have the error of each net, 'dense', 'a<third>', 'few', got those of "
            "'dense'",
        ),
        (
            (NETS, ERRORS | {"few": 2.0}),
            "errors['few'] must be a number from 0 to 1, got 2.0",
        ),
        (
            (NETS, ERRORS | {"few": "2 %"}),
            "errors['few'] must be a number from 0 to 1, got '2 %'",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError) as raised:
        compare(arguments[0], errors=arguments[1] if arguments[1:] else None)
    assert str(raised.value) == message


def test_a_damaged_file(tmp_path):
    (tmp_path / "net.sws").write_bytes(b"SWSJ")
    with pytest.raises(FormatError, match=re.escape(str(tmp_path / "net.sws"))):
        compare({"net": tmp_path / "net.sws"})


def test_the_page_has_the_table_and_says_where_errors_are_from(found):
    picture = comparison_picture(found.points, [Published("paper", 900, 0.02, "file")])
    text = comparison_page(found, data="digits", pictures=[picture], versions={"numpy": "2"})
    for row in found.rows:
        for cell in row:
            assert f">{cell.replace('<', '&lt;').replace('>', '&gt;')}<" in text.replace(
                "<wbr>", ""
            )
    assert "Errors are measured on digits." in text
    assert "<code>few</code>, <code>dense</code>" in text
    assert '<figure id="figure-comparison">' in text
    assert "version of numpy" in text
    assert "all 1,230 parameters of the original net" in text


def test_nets_of_different_sizes_are_their_own_baselines():
    text = comparison_page(compare({"one": {"w": np.ones(3)}, "two": {"w": np.ones(4)}}))
    assert "against all parameters of the net itself" in text
    assert "Errors are measured" not in text


def test_the_figure_names_each_net(found):
    picture = comparison_picture(found.points)
    assert (picture.name, picture.caption) == (
        "comparison",
        "Test error against file size, of each net.",
    )
