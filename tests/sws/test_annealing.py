"""Widths that follow the progress of the soft stage."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from interrupting import PowerCutError, interrupt_at
from linear_net import DATA, PARAMS, assert_bit_equal, distance, loss_fn

from swsjax.errors import ConfigError
from swsjax.sws import Annealing, Config, compress
from swsjax.sws.plans import three_stages
from swsjax.sws.rates import continued
from swsjax.sws.step import hard
from swsjax.training.loop import feed_of

SHORT = Config(
    components=4,
    soft_epochs=3,
    hard_epochs=2,
    prune_epochs=0,
    tau=2e-5,
    batch_size=50,
    least_steps=1,
)


@pytest.fixture(scope="module")
def short():
    return compress(PARAMS, loss_fn, DATA, SHORT)


def widths(history):
    return [entry.details.smallest_sigma for entry in history]


def assert_widths(result, batch_size):
    steps = 3 * 500 // batch_size
    last = [(epoch + 1) * steps // 3 - 1 for epoch in range(3)]  # of each soft epoch
    expected = [1.0 * 0.08 ** (step / steps) for step in last] + [0.08, 0.08]
    np.testing.assert_allclose(widths(result.history), expected, rtol=1e-4)


def test_the_width_follows_the_share_of_the_stage_whatever_the_number_of_steps(short):
    assert_widths(short, SHORT.batch_size)
    assert_widths(compress(PARAMS, loss_fn, DATA, replace(SHORT, batch_size=100)), 100)


def test_all_components_share_the_width_and_none_are_merged(short):
    for entry in short.history:
        assert np.ptp(entry.details.mixtures["weights"].log_precisions) == 0
    assert short.mixtures["weights"].means.size == 4


def test_a_net_near_its_levels_is_quantised_to_them():
    result = compress(PARAMS, loss_fn, DATA, replace(SHORT, soft_epochs=10, hard_epochs=10))
    assert distance(result.params) < 0.05
    assert len(np.unique(result.params["w"])) == 3


def test_the_hard_stage_begins_where_the_soft_one_ended():
    """Its loss does not jump: the net is handed over in the first tenth of the stage."""
    config = replace(SHORT, soft_epochs=1, hard_epochs=10)
    (before, first, *_, last) = compress(PARAMS, loss_fn, DATA, config).history

    def at_once(*arguments):
        soft_stage, hard_stage, _ = three_stages(*arguments)

        def course(epochs):
            return hard_stage.course(epochs)._replace(forward=hard)

        return [soft_stage, hard_stage._replace(course=course)]

    jumped = compress(PARAMS, loss_fn, DATA, config, stages=at_once).history
    assert jumped[0].loss == before.loss
    assert first.loss < before.loss < jumped[1].loss
    assert last.loss < jumped[-1].loss / 2


def test_a_short_run_goes_on_and_ends_the_same(tmp_path, short):
    for last in (2, 3, 4):  # within a stage, at its end, in the next
        with pytest.raises(PowerCutError):
            compress(PARAMS, loss_fn, DATA, SHORT, resume=tmp_path, callback=interrupt_at(last))
    resumed = compress(PARAMS, loss_fn, DATA, SHORT, resume=tmp_path)
    assert_bit_equal(resumed.params, short.params)
    assert_bit_equal(resumed.retrained, short.retrained)


def test_pruning_goes_on_from_the_annealed_net():
    config = replace(SHORT, prune_epochs=4, keep=0.5)
    result = compress(PARAMS, loss_fn, DATA, config)
    before = next(e for e in reversed(result.history) if e.stage == "hard").non_zeros
    assert result.history[-1].non_zeros <= before / 2 + 1


def test_widths_may_be_shared_by_mixtures_of_several_groups():
    params = {"one": PARAMS["w"], "two": 100 * PARAMS["w"]}

    def loss(params, batch):
        return loss_fn({"w": params["one"]}, batch) + loss_fn({"w": params["two"] / 100}, batch)

    rules = [("one", "a"), ("two", "b")]
    result = compress(params, loss, DATA, SHORT, rules=rules)
    assert set(result.mixtures) == {"a", "b"}
    for mixture in result.mixtures.values():
        np.testing.assert_allclose(np.exp(-0.5 * mixture.log_precisions), 0.08, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, "wide"])
def test_widths_out_of_range(value):
    with pytest.raises(ConfigError) as caught:
        Annealing(end=value)
    assert str(caught.value) == f"Annealing.end must be positive and finite, got {value!r}"


def test_annealing_of_the_wrong_type():
    with pytest.raises(ConfigError) as caught:
        Config(annealing=0.08)
    assert str(caught.value) == "annealing must be an Annealing or None, got 0.08"


def test_settings_as_plain_values():
    config = Config(annealing=Annealing(0.3, 0.1))
    assert Config.from_dict(config.to_dict()) == config


def test_moments_of_another_optimiser_are_left():
    params = {"w": jnp.ones(3)}
    fresh = optax.sgd(0.1, momentum=0.9).init(params)
    assert_bit_equal(continued(fresh, optax.adam(0.1).init(params)), fresh)
    moved = jax.tree.map(jnp.ones_like, optax.adam(0.1).init(params))
    assert_bit_equal(continued(optax.adam(0.1).init(params), moved), moved)


def test_moments_go_on_into_the_soft_and_the_pruning_stage():
    """The hard stage starts its own: its gradients are larger."""
    stages = three_stages(Config(), loss_fn, loss_fn, feed_of(DATA, 128))
    assert [stage.name for stage in stages if stage.continues] == ["soft", "prune"]
