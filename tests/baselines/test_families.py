"""A family in a file, and the nets that are taken out of it."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_tasks import small, untrained

import swsjax
from swsjax.baselines.families import Family, load_family
from swsjax.baselines.rules import bits, top_k, width
from swsjax.baselines.weights import kernels
from swsjax.errors import ConfigError, FormatError, SwsjaxWarning
from swsjax.trees import named_leaves

LAYERS = [{"conv/kernel": 3, "bn/scale": 0, "bn/mean": 0, "fc/kernel": 0}]
RULES = {
    "top_k": (top_k(0.1, 1.0, whole=["fc/*"]), (0.1, 0.37, 1.0)),
    "bits": (bits(2, 8), (2, 5, 8)),
    "width": (width(0.25, 1.0, LAYERS), (0.25, 0.5, 1.0)),
}


def family_of(name, rule):
    first, second = untrained(name), small(name).init(1)
    ends = set(rule.ends(first))
    other = {leaf: array for leaf, array in named_leaves(second.params) if leaf in ends}
    return Family(first, other, rule)


def same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("with_net", [False, True])
def test_nets_of_a_loaded_family_are_equal_bit_by_bit(rule, with_net, tmp_path):
    rule, levels = RULES[rule]
    family = family_of("normalised", rule)
    size = family.save(tmp_path / "family.sws")
    assert size == (tmp_path / "family.sws").stat().st_size
    like = untrained("normalised") if with_net else None
    loaded = load_family(tmp_path / "family.sws", like=like)
    assert loaded.rule == rule
    for level in levels:
        same(loaded.at(level), family.at(level))
    same((loaded.net, loaded.other), (family.net, family.other))


def test_a_point_without_statistics_comes_back(tmp_path):
    family = Family(untrained("bfloat16"), {}, bits(2, 8))
    family.save(tmp_path / "family.sws")
    loaded = load_family(tmp_path / "family.sws")
    same(loaded, loaded)
    same((loaded.net, loaded.other), (family.net, {}))
    same(loaded.at(3), family.at(3))


def test_a_net_taken_out_is_written_as_any_other(tmp_path):
    family = family_of("two layers", bits(1, 16))
    sizes = []
    for number in (1, 3, 8):
        net = family.at(number)
        for kernel in kernels(net).values():
            assert len(jnp.unique(kernel)) <= 2**number
        whole = small("two layers").whole(net)
        sizes.append(swsjax.save(tmp_path / "net.sws", whole))
        same(swsjax.load(tmp_path / "net.sws", like=whole), whole)
    assert sizes == sorted(sizes)
    assert 3 * sizes[0] < sizes[2] < family.save(tmp_path / "family.sws")


def test_shares_that_are_kept():
    family = family_of("two layers", top_k(0.1, 1.0))
    for share in (0.1, 0.5, 1.0):
        for kernel in kernels(family.at(share)).values():
            expected = kernel.size - int((1 - share) * kernel.size)
            assert jnp.count_nonzero(kernel) == expected
    same(family.at(1.0).params["fc1"]["kernel"], family.other["fc1/kernel"])


@pytest.mark.parametrize(
    ("rule", "level", "message"),
    [
        (top_k(0.1, 1.0), 0, "share of the weights must be a number in (0, 1], got 0"),
        (top_k(0.1, 1.0), 1.5, "share of the weights must be a number in (0, 1], got 1.5"),
        (top_k(0.1, 1.0), "half", "share of the weights must be a number in (0, 1], got 'half'"),
        (bits(2, 8), 2.5, "number of bits must be an integer of at least 1, got 2.5"),
        (bits(2, 8), 0, "number of bits must be an integer of at least 1, got 0"),
        (
            width(0.25, 1.0, LAYERS),
            float("nan"),
            "share of the channels must be a number in (0, 1], got nan",
        ),
    ],
    ids=range(6),
)
def test_levels_that_no_net_has(rule, level, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Family(untrained("two layers"), {}, rule).at(level)


@pytest.mark.parametrize(
    ("rule", "level", "trained"),
    [(top_k(0.25, 0.5), 0.1, "0.25 to 0.5"), (bits(3, 8), 9, "3 to 8")],
    ids=["top_k", "bits"],
)
def test_levels_outside_of_the_training(rule, level, trained):
    family = Family(untrained("two layers"), {}, rule)
    with pytest.warns(SwsjaxWarning) as seen:
        net = family.at(level)
    (warning,) = seen
    assert str(warning.message) == (
        f"the family was trained at levels from {trained}, and its net at {level} may be poor; "
        "choose a level between them, or fit a family to it"
    )
    assert warning.filename == __file__
    same(net, rule.compressed(family.net, level))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        family.at(rule.least), family.at(rule.most)


def test_a_family_of_another_net(tmp_path):
    Family(untrained("two layers"), {}, bits(2, 8)).save(tmp_path / "family.sws")
    with pytest.raises(ConfigError) as caught:
        load_family(tmp_path / "family.sws", like=untrained("one layer"))
    assert str(caught.value) == (
        "the family in the file is of another net: params/fc/bias is missing in the file, "
        "float32[3] expected; params/fc/kernel is missing in the file, float32[16, 3] expected; "
        "params/fc1/bias is float32[8] in the file, missing expected; params/fc1/kernel is "
        "float32[16, 8] in the file, missing expected; params/fc2/bias is float32[3] in the file, "
        "missing expected; params/fc2/kernel is float32[8, 3] in the file, missing expected; load "
        "it with a net of its own"
    )


@pytest.mark.parametrize(
    "metadata", [None, {"family": 3}, {"family": {"kind": "Depth"}}, {"family": {"kind": "TopK"}}]
)
def test_a_file_without_a_family(metadata, tmp_path):
    path = tmp_path / "net.sws"
    swsjax.save(path, {"params": np.zeros(2)}, metadata=metadata)
    found = (metadata or {}).get("family")
    message = (
        f"{path}: expected the rule of a family in the metadata, got {found!r}; Family.save writes "
        "families"
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        load_family(path)
