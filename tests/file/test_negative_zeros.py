"""Negative zeros are kept, counted by the report and dropped on request; we return none."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swsjax
from swsjax import sws
from swsjax.codec.zeros import count_negative_zeros
from swsjax.sws.prune import zeros_cut
from swsjax.sws.step import Joint
from swsjax.training import Weights, hold_zeros, keep_top


def negative_zeros(tree):
    return sum(count_negative_zeros(np.asarray(leaf)) for leaf in jax.tree.leaves(tree))


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return rng.choice(np.float32([-0.5, -0.25, 0.125, 0.25]), (200, 100))


@pytest.fixture
def masked(weights):
    """The commonest way to prune."""
    return weights * (np.random.default_rng(1).random(weights.shape) < 0.1)


def test_they_are_kept_unless_told_otherwise(masked, tmp_path):
    assert negative_zeros(masked) > 8000
    tree = {"fc": masked, "step": np.arange(3)}
    assert swsjax.loads(swsjax.dumps(tree))["fc"].tobytes() == masked.tobytes()
    positive = {"fc": masked + np.float32(0), "step": np.arange(3)}
    for encoding in ("entropy", "han", "han-huffman"):
        data = swsjax.dumps(tree, encoding=encoding, negative_zeros=False)
        assert data == swsjax.dumps(positive, encoding=encoding)
    size = swsjax.save(tmp_path / "net.sws", tree, negative_zeros=False)
    assert size == len(swsjax.dumps(positive)) < 0.55 * swsjax.save(tmp_path / "all.sws", tree)
    np.testing.assert_array_equal(swsjax.load(tmp_path / "net.sws")["fc"], masked)


def test_the_report_says_what_they_cost(masked):
    data = swsjax.dumps({"fc": masked, "out": np.eye(9, dtype=np.float32)})
    measured = swsjax.report(data)
    first, second = measured.layers
    count = negative_zeros(masked)
    assert (first.negative_zeros, second.negative_zeros) == (count, 0)
    assert second.negative_zero_bits == 0
    without = swsjax.dumps({"fc": masked + np.float32(0), "out": np.eye(9, dtype=np.float32)})
    assert first.negative_zero_bits / 8 == pytest.approx(len(data) - len(without), abs=8)
    lines = [line for line in str(measured).splitlines() if line.startswith("negative")]
    assert lines == [
        f"negative zeros: {count:,} in fc, about {first.negative_zero_bits / 8:,.0f} bytes "
        "that 0.0 would not take"
    ]
    rows = measured.to_dict()["layers"]
    assert rows[0]["negative_zeros"] == count
    assert rows[0]["negative_zero_bits"] == first.negative_zero_bits
    assert "negative_zeros" not in rows[1]
    assert "negative_zero_bits" not in rows[1]


def test_a_report_without_them_does_not_mention_them(weights):
    assert "negative" not in str(swsjax.report(swsjax.dumps({"fc": weights})))


MIXTURE = sws.init_mixture(-1.0, 1.0)


@pytest.mark.parametrize(
    "function",
    [
        lambda w, _: keep_top(w, jax.tree.map(jnp.abs, w), 1000),
        lambda w, _: sws.quantize(MIXTURE, w),
        lambda _, m: sws.quantize(MIXTURE, m),
        lambda w, _: zeros_cut(Joint(Weights({"weights": [w]}, []), {"weights": MIXTURE})),
        lambda _, m: zeros_cut(Joint(Weights({"weights": [m]}, []), {"weights": MIXTURE})),
        lambda _, m: optax.apply_updates(m, hold_zeros().update(jnp.negative(m), None, m)[0]),
    ],
    ids=["keep_top", "quantize", "quantize masked", "zeros_cut", "zeros_cut masked", "hold_zeros"],
)
def test_our_zeros_are_positive(function, weights, masked):
    made = function(jnp.asarray(weights - 0.001), jnp.asarray(masked))
    assert negative_zeros(made) == 0
    assert any((np.asarray(leaf) == 0).any() for leaf in jax.tree.leaves(made))


def test_compress_returns_positive_zeros(masked):
    params = {"w": jnp.asarray(masked[:30, :20]), "b": jnp.full(20, -0.0)}
    inputs = np.random.default_rng(0).normal(size=(64, 30)).astype(np.float32)
    config = sws.Config(
        tau=1e-5,
        soft_epochs=0,
        hard_epochs=2,
        prune_epochs=2,
        batch_size=16,
        least_steps=20,
        prior="exact",  # no grid to compile
    )

    def loss(params, batch):
        wanted = batch["x"] @ masked[:30, :20]
        return jnp.mean((batch["x"] @ params["w"] + params["b"][None] - wanted) ** 2)

    result = swsjax.compress(params, loss, {"x": inputs}, config=config)
    assert negative_zeros(params) > 100
    assert negative_zeros(result.params) == 0
