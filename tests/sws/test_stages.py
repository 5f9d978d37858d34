"""The stages of a retraining: what each computes, when its hooks run, and how to change them."""

from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_net import DATA, PARAMS, QUICK, STILL, TRUE, assert_bit_equal, loss_fn

from swsjax.sws import stages
from swsjax.sws.compression import compress
from swsjax.sws.config import LEARNED
from swsjax.sws.exact import assigned_means
from swsjax.sws.merging import merge
from swsjax.sws.plans import three_stages
from swsjax.sws.prior import Gamma, HyperPriors
from swsjax.sws.prune import hold_in_range
from swsjax.sws.quantizing import quantize
from swsjax.sws.rates import LearningRates
from swsjax.sws.step import hard, soft
from swsjax.training.masks import held

SHORT = {**QUICK, "soft_epochs": 1, "hard_epochs": 1}
PRUNING = {**SHORT, "prune_epochs": 2, "keep": 0.5}


def run(loss=loss_fn, *, stages=three_stages, start=None, **settings):
    return compress(PARAMS, loss, DATA, replace(LEARNED, **settings), stages=stages, start=start)


@cache
def unpruned():
    return run(**SHORT)


def pruned(start=None, **settings):
    """What the pruning stage makes of a result: as in one run, see ``test_compression.py``."""
    settings = PRUNING | {"soft_epochs": 0, "hard_epochs": 0} | settings
    return run(start=unpruned() if start is None else start, **settings)


def unclipped(leaf, update, mixture):
    """A hold that keeps zeros at zero, but does not clip to the range of the means."""
    del mixture
    return held(leaf, update)


def changed(change, **settings):
    """The three stages, each replaced by what a function makes of it."""
    return lambda *arguments: [change(stage) for stage in three_stages(*arguments, **settings)]


def before_pruning(result):
    """Weights at the start of the pruning stage: zero if they are quantised to zero."""
    return np.where(result.params["w"] == 0, 0, result.retrained["w"])


class PlannedError(Exception):
    pass


def test_stages_follow_the_settings():
    seen = []
    rates = {
        f"{name}_learning_rates": LearningRates(weights=weights)
        for name, weights in (("soft", 1e-3), ("hard", 2e-3), ("prune", 3e-3))
    }

    def planned(*arguments):
        seen.extend(three_stages(*arguments))
        raise PlannedError

    with pytest.raises(PlannedError):
        run(**PRUNING, **rates, tau=1.4e-4, stages=planned)
    assert [(stage.name, stage.epochs) for stage in seen] == [
        ("soft", 1),
        ("hard", 1),
        ("prune", 2),
    ]
    assert [stage.tau for stage in seen] == [1.4e-4, 1.4e-4, 0.0]
    assert [stage.course(stage.epochs).forward for stage in seen] == [soft, hard, hard]
    assert seen[0].loss_fn is seen[1].loss_fn


def test_hooks_of_a_stage_run_in_order():
    calls = []

    def spied(stage):
        def noted(name, function):
            def call(*arguments, **settings):
                calls.append((stage.name, name))
                return function(*arguments, **settings)

            return call

        return stage._replace(
            begin=noted("begin", stage.begin),
            before_epoch=noted("before", stage.before_epoch),
            checks=[noted("check", check) for check in stage.checks[:1]],
            finish=noted("finish", stage.finish),
        )

    run(**PRUNING, stages=changed(spied))
    epoch = ["before", "check"]
    assert [name for stage, name in calls if stage == "soft"] == ["begin", *epoch, "finish"]
    assert [name for stage, name in calls if stage == "hard"] == ["begin", *epoch, "finish"]
    assert [name for stage, name in calls if stage == "prune"] == ["begin", *epoch * 2, "finish"]
    assert list(dict.fromkeys(stage for stage, _ in calls)) == ["soft", "hard", "prune"]


def test_custom_stages():
    """One stage is left out, and one has a different name and length."""

    def two(*arguments):
        first, second, _ = three_stages(*arguments)
        return [first, second._replace(name="round", epochs=3)]

    result = run(**QUICK, stages=two)
    assert [(epoch.stage, epoch.epoch, epoch.epochs) for epoch in result.history] == [
        ("soft", 1, 5), ("soft", 2, 5), ("round", 3, 5), ("round", 4, 5), ("round", 5, 5)
    ]  # fmt: skip


def test_mixture_is_merged_between_the_stages():
    history = run(**QUICK).history
    mixtures = [epoch.details.mixtures["weights"] for epoch in history]
    sizes = [mixture.means.size for mixture in mixtures]
    assert sizes[0] == sizes[1] == 24
    assert sizes[2] == sizes[3] == merge(mixtures[1]).means.size < 24


def test_without_a_hard_stage():
    result = run(**(QUICK | {"hard_epochs": 0}), merge_threshold=0.0)
    assert [epoch.stage for epoch in result.history] == ["soft", "soft"]
    last = result.history[-1].details.mixtures["weights"]
    np.testing.assert_array_equal(result.mixtures["weights"].means, np.sort(last.means))
    assert_bit_equal(result.params, quantize(last, result.retrained))


def test_what_each_stage_computes_with():
    settings = QUICK | {"soft_learning_rates": STILL, "hard_learning_rates": STILL}
    result = run(**settings | {"soft_epochs": 1})
    assert_bit_equal(result.retrained, PARAMS)
    assign = partial(assigned_means, result.mixtures["weights"])
    quantised = jax.tree.map(assign, result.retrained)
    assert result.history[0].loss == pytest.approx(loss_fn(PARAMS, DATA).item(), rel=1e-5)
    assert result.history[1].loss == pytest.approx(loss_fn(quantised, DATA).item(), rel=1e-5)


def nothing_to_learn(params, batch):
    return 0.0 * loss_fn(params, batch)


def test_prior_does_not_act_in_the_pruning_stage():
    """With a loss of zero the prior alone moves the weights, unless they are only pruned."""
    at_start = {}

    def noting(stage):
        def begin(joint):
            joint = stage.begin(joint)
            at_start[stage.name] = jax.tree.map(np.array, joint)
            return joint

        return stage._replace(begin=begin)

    first = run(nothing_to_learn, **SHORT, tau=1.4e-4, stages=changed(noting))
    settings = {"loss": nothing_to_learn, "start": first, "keep": 1.0, "tau": 1.4e-4}
    result = pruned(**settings, stages=changed(noting, hold=unclipped))
    soft, hard, prune = (at_start[name].weights.groups["weights"] for name in at_start)
    assert_bit_equal(soft[0], PARAMS["w"])
    assert np.abs(hard[0] - soft[0]).max() > 1e-3
    moved = np.abs(np.where(prune[0] == 0, 0, prune[0] - hard[0]))
    assert moved.max() > 1e-6
    assert_bit_equal(result.retrained["w"], prune[0])
    # With a tau in that stage it moves them there, too.
    acting = changed(lambda stage: stage._replace(tau=1.4e-4), hold=unclipped)
    again = pruned(**settings, stages=acting)
    assert np.abs(again.retrained["w"] - result.retrained["w"]).max() > 1e-6


def magnitude(groups, squares):
    del squares
    return jax.tree.map(jnp.abs, groups)


def negative(groups, squares):
    del squares
    return jax.tree.map(jnp.negative, groups)


@pytest.mark.parametrize("score", [magnitude, negative])
def test_weights_are_pruned_by_a_different_score(score):
    """Those with the lowest scores, here of weights that do not move."""
    stages = partial(three_stages, score=score, hold=unclipped)
    result = pruned(prune_learning_rates=STILL, stages=stages)
    cut = before_pruning(unpruned())
    scores = np.where(cut == 0, -np.inf, score([cut], None)[0])
    kept = np.argsort(-scores, axis=None)[: round(0.5 * np.count_nonzero(cut))]
    expected = np.where(np.isin(np.arange(cut.size).reshape(cut.shape), kept), cut, 0)
    np.testing.assert_array_equal(result.retrained["w"], expected)


def test_score_gets_the_mean_squares_of_the_gradients():
    """None before the first epoch, then those that the optimiser has measured."""
    seen = []

    def score(groups, squares):
        seen.append(jax.tree.map(np.array, squares["weights"][0]))
        return magnitude(groups, squares)

    pruned(keep=1.0, stages=partial(three_stages, score=score))
    assert [squares.shape for squares in seen] == [TRUE.shape] * 2
    assert not seen[0].any()
    assert (seen[1] > 0).all()


def test_updates_are_held_by_a_different_hold():
    """Unclipped, weights leave the range of the means; with updates of zero, they do not move."""

    def still(leaf, update, mixture):
        del leaf, mixture
        return jnp.zeros_like(update)

    rates = LearningRates(weights=0.1, means=0.0, precisions=0.0, mixing=0.0)
    settings = {"keep": 1.0, "prune_learning_rates": rates}
    in_place, within, beyond = (
        pruned(**settings, stages=partial(three_stages, hold=hold))
        for hold in (still, hold_in_range, unclipped)
    )
    cut = before_pruning(unpruned())
    np.testing.assert_array_equal(in_place.retrained["w"], cut)
    assert_bit_equal(within.retrained, pruned(**settings).retrained)  # the default
    most = within.mixtures["weights"].means.max()
    assert within.retrained["w"].max() <= most < beyond.retrained["w"].max()
    assert ((beyond.retrained["w"] == 0) == (cut == 0)).all()


def nodes_used(monkeypatch, **settings):
    """Nodes of the grids for which steps of a soft stage of four epochs were made, in order."""
    used = []

    def spy(*arguments, nodes, **settings):
        used.append(nodes["weights"])
        return make_step(*arguments, nodes=nodes, **settings)

    make_step = stages.make_step
    with monkeypatch.context() as patch:
        patch.setattr(stages, "make_step", spy)
        history = run(**QUICK | {"soft_epochs": 4, "hard_epochs": 0} | settings).history
    reported = [epoch.details.nodes["weights"] for epoch in history]
    # Those of the next epoch: the first are not reported, and the last are not used.
    assert used == list(dict.fromkeys([used[0], *reported[:-1]]))
    return used


def test_grid_becomes_finer_when_components_become_narrow(monkeypatch):
    narrow = Gamma(1e6, 1.0)  # a standard deviation of 0.001, which does not choose the grid
    hyper_priors, rates = HyperPriors(zero_precision=narrow), LearningRates(precisions=0.2)
    used = nodes_used(monkeypatch, hyper_priors=hyper_priors, soft_learning_rates=rates)
    assert len(used) > 1
    assert all(after % before == 0 for before, after in pairwise(used))
    assert nodes_used(monkeypatch) == used[:1]  # within the tolerance nothing compiles again


def test_run_goes_on_if_the_tolerance_is_out_of_reach(monkeypatch):
    used = nodes_used(monkeypatch, tolerance=1e-12)
    assert used == sorted(used)
    assert used[-1] < 100 * used[0]


def test_nothing_is_traced_again_within_a_stage():
    traces, traced = [], []

    def loss(params, batch):
        traces.append(batch["x"].shape)
        return loss_fn(params, batch)

    config = replace(LEARNED, **QUICK | {"soft_epochs": 3, "prune_epochs": 2})
    compress(PARAMS, loss, DATA, config, callback=lambda epoch: traced.append(len(traces)))
    assert traced == [2, 2, 2, 3, 3, 4, 4]  # once to try it
