"""The report measures the bytes of the file, and rates are against the original net."""

import dataclasses
import json
import re
from typing import NamedTuple

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swsjax
from swsjax.codec import entropy_bound, han_size, leaf_bits
from swsjax.errors import ConfigError, FormatError
from swsjax.lab.data import load_digits
from swsjax.lab.nets import NETS, take_channels
from swsjax.lab.task import classification

ERRORS = {"decoded": {"validation": 0.02, "test": 0.0125}}


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
    assert measured.parameters == measured.baseline_parameters == 1230
    assert measured.float32_bytes == 4920
    assert measured.non_zeros == kernel.non_zeros
    assert measured.file_bytes == len(data)


def test_sizes_are_those_of_the_codec(tree):
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
    measured = swsjax.report(path, errors=ERRORS, baseline=tree)
    assert measured == swsjax.report(path.read_bytes(), errors=ERRORS, baseline=tree)
    assert measured.metadata == {"model": "toy"}


def test_the_dictionary_survives_json(tree):
    content = swsjax.report(swsjax.dumps(tree), errors=ERRORS).to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["errors"] == ERRORS
    assert content["density"] == content["non_zeros"] / 1230


def test_the_text_has_each_size_with_its_rate(tree):
    measured = swsjax.report(swsjax.dumps(tree), errors=ERRORS, baseline=[np.zeros(2000)])
    lines = str(measured).splitlines()
    assert any("fc/kernel" in line and "40x30" in line and "1,200" in line for line in lines)
    bits = {
        "file": 8 * measured.file_bytes,
        "Han format": measured.han_bits,
        "entropy bound": measured.entropy_bits,
    }
    assert lines[-6:] == [
        "error decoded (validation)        2.00 %",
        "error decoded (test)              1.25 %",
        *(
            f"{name:<24}{size / 8:12,.0f} bytes {f'{8 * 8000 / size:.1f}x':>9}"
            for name, size in bits.items()
        ),
        "float32, uncompressed          8,000 bytes      1.0x",
    ]


def test_parameters_and_multiply_adds_are_shown_with_their_shares(tree):
    data, counted = swsjax.dumps(tree), {"dense": np.int64(1000), "zeros skipped": 125}
    assert swsjax.report(data).counts == []
    small = swsjax.report(data, baseline=[np.zeros(2460)], operations=counted)
    assert [line.split("  ")[0] for line in str(small).splitlines()[5:9]] == [
        "parameters, original",
        "parameters, in the file",
        "multiply-adds, dense",
        "multiply-adds, zeros skipped",
    ]
    assert "parameters, in the file                1,230   50.00 %" in str(small)
    assert "multiply-adds, zeros skipped             125   12.50 %" in str(small)
    assert json.loads(json.dumps(small.to_dict()))["operations"] == counted
    assert swsjax.report(data, baseline=[np.zeros(2460)]).counts == small.counts[:2]


@pytest.mark.parametrize("operations", [266_200, {"dense": -1}, {"dense": 0.5}])
def test_numbers_of_multiply_adds_that_are_none(tree, operations):
    message = (
        "operations must be a dictionary of numbers of multiply-adds, as {'dense': 266200}, got "
        f"{operations!r}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        swsjax.report(swsjax.dumps(tree), operations=operations)


def test_errors_are_as_they_were_measured(tree):
    errors = {"decoded": {"test": np.float32(0.0194), "validation": jnp.float32(0.0212), "all": 1}}
    measured = swsjax.report(swsjax.dumps(tree), errors=errors)
    assert json.dumps(measured.to_dict()["errors"]) == (
        '{"decoded": {"test": 0.0194, "validation": 0.0212, "all": 1.0}}'
    )


def test_a_report_is_summed_up_in_three_lines(tree):
    measured = swsjax.report(swsjax.dumps(tree), errors=ERRORS)
    rate = 4920 / measured.file_bytes
    first = f"Report of a file of {measured.file_bytes:,} bytes, {rate:,.1f}x smaller than float32"
    second = f"{measured.non_zeros:,} of 1,230 weights are not zero, in 2 arrays"
    third = "error: decoded (validation) 2.00 %, decoded (test) 1.25 %"
    assert repr(measured) == f"{first}\n  {second}\n  {third}"
    html = measured._repr_html_()
    assert html.startswith(f"<p>{first}<br>{second}<br>{third}</p><table><tr><th>layer</th>")
    assert html.count("<tr>") == 3
    assert "<td>fc/kernel</td><td>40x30</td><td>1,200</td>" in html
    bare = swsjax.report(swsjax.dumps({"<b>": np.eye(2)}))
    assert repr(bare).splitlines()[1:] == ["  2 of 4 weights are not zero, in 1 array"]
    assert "<td>&lt;b&gt;</td>" in bare._repr_html_()


@pytest.fixture(scope="module")
def original():
    """LeNet-300-100 on digits with few distinct weights."""
    net = classification(NETS["lenet-300-100"].model, load_digits()).init(0).params
    return jax.tree.map(lambda leaf: jnp.where(leaf > 0.1, 0.25, 0.0).astype(jnp.float32), net)


def test_removing_units_compresses_at_least_as_much_as_zeroing_them(original):
    kept, channels = jnp.arange(0, 300, 3), NETS["lenet-300-100"].channels[0]
    removed = take_channels(original, channels, kept)
    is_kept = jnp.zeros((300, 1)).at[kept].set(1)
    zeroed = original | {
        "fc1": {"kernel": original["fc1"]["kernel"] * is_kept.T, "bias": original["fc1"]["bias"]},
        "fc2": original["fc2"] | {"kernel": original["fc2"]["kernel"] * is_kept},
    }
    removed_data, zeroed_data = swsjax.dumps(removed), swsjax.dumps(zeroed)
    by_removal = swsjax.report(removed_data, baseline=original)
    by_zeros = swsjax.report(zeroed_data)
    parameters = 64 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert by_removal.baseline_parameters == by_zeros.baseline_parameters == parameters
    assert by_removal.parameters == parameters - 200 * (64 + 1 + 100)
    assert by_removal.float32_bytes == by_zeros.float32_bytes == 4 * parameters
    assert by_removal.non_zeros == by_zeros.non_zeros
    assert by_removal.rates["file"] == 4 * parameters / len(removed_data)
    for kind, rate in by_removal.rates.items():
        assert rate >= by_zeros.rates[kind]
    # Without the original, the rate would be against the small net.
    assert swsjax.report(removed_data).rates["file"] < by_removal.rates["file"]
    content = by_removal.to_dict()
    assert content["baseline_parameters"] == parameters
    assert content["density"] == by_removal.non_zeros / by_removal.parameters


def test_a_file_of_removed_units_is_loaded_without_like(original, tmp_path):
    channels = NETS["lenet-300-100"].channels
    small = take_channels(original, channels[0], jnp.arange(7))
    small = take_channels(small, channels[1], jnp.arange(5))
    swsjax.save(tmp_path / "small.sws", small)
    loaded = swsjax.load(tmp_path / "small.sws")
    assert jax.tree.map(np.shape, loaded) == {
        "fc1": {"kernel": (64, 7), "bias": (7,)},
        "fc2": {"kernel": (7, 5), "bias": (5,)},
        "fc3": {"kernel": (5, 10), "bias": (10,)},
    }
    jax.tree.map(np.testing.assert_array_equal, loaded, small)


def test_parameters_of_the_baseline_are_its_arrays():
    """Functions and names are none, as in an Equinox module."""
    baseline = [jnp.ones((3, 4)), np.ones(5), jax.nn.relu, "a name", 3.0]
    assert swsjax.report(swsjax.dumps([np.ones(2)]), baseline=baseline).baseline_parameters == 17


def test_a_tree_without_weights_has_a_report():
    measured = swsjax.report(swsjax.dumps({"empty": np.zeros((0, 3), np.float32)}))
    assert measured.parameters == 0
    assert measured.to_dict()["density"] == 0.0
    assert measured.rates["file"] == 0.0
    assert measured.rates["entropy_bound"] is None
    assert "empty" in str(measured)


class Pair(NamedTuple):
    """Its fields are not in the order of the alphabet."""

    late: object
    early: object


@dataclasses.dataclass
class Fields:
    late: object
    early: object


class Module(equinox.Module):
    late: object
    early: object


jax.tree_util.register_dataclass(Fields, ["late", "early"], [])


class Mixed:
    """A name beside a position."""

    def __init__(self, *children):
        self.children = children


jax.tree_util.register_pytree_with_keys(
    Mixed,
    lambda tree: (
        tuple(
            zip(
                (jax.tree_util.GetAttrKey("named"), jax.tree_util.SequenceKey(0)),
                tree.children,
                strict=True,
            )
        ),
        None,
    ),
    lambda _, children: Mixed(*children),
)


@pytest.mark.parametrize("container", [Pair, Fields, Module, Mixed])
def test_rows_are_in_the_order_of_the_file(container):
    children = {"z": np.ones(2), "y": np.ones(3)}, [np.ones(4)] * 11
    tree = container(*children)
    measured = swsjax.report(swsjax.dumps(tree))
    first, second = ("named", "0") if container is Mixed else ("late", "early")
    names = [f"{first}/y", f"{first}/z", *(f"{second}/{i}" for i in range(11))]
    assert [layer.name for layer in measured.layers] == names
    assert [layer.size for layer in measured.layers] == [3, 2, *[4] * 11]
    coded = [layer.coded_bits for layer in measured.layers]
    assert coded == leaf_bits(jax.tree.leaves(tree))


def test_a_single_array_has_a_row():
    (layer,) = swsjax.report(swsjax.dumps(np.ones(3))).layers
    assert layer.name == "(the tree itself)"


def test_the_limit_on_decoded_bytes(tmp_path):
    path = tmp_path / "net.sws"
    swsjax.save(path, {"w": np.zeros(10)})
    assert swsjax.report(path, max_bytes=80).parameters == 10
    with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: leaf .* 80 bytes, over the"):
        swsjax.report(path, max_bytes=79)


def test_foreign_bytes_are_refused():
    with pytest.raises(FormatError, match=r"^not an \.sws file"):
        swsjax.report(b"PK\x03\x04 something else entirely")
