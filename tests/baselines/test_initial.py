"""Pruning at initialisation against the formulas, computed in another way."""

from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_tasks import BATCH, CLASSES, in_bfloat16, small, untrained

from swsjax import baselines
from swsjax.baselines.gradients import (
    balanced_batches,
    curvature_product,
    mean_gradient,
    random_batches,
)
from swsjax.errors import ConfigError, RetrainingError
from swsjax.lab import LeNet300100, Variables, classification, load_digits

KEY = jax.random.key(3)


@cache
def digits():
    return classification(LeNet300100, load_digits())


@cache
def dense():
    return digits().init(1)


@cache
def written_out(name, temperature):
    """Gradient of the cross-entropy over all parameters, compiled once."""
    task = small(name)

    def loss(params, aux, batch):
        inputs, labels = (jnp.asarray(array)[batch] for array in task.dataset.train)
        logits = task.apply(params, aux, inputs)[0] / temperature
        picked = jnp.take_along_axis(logits, labels[:, None].astype(int), axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)

    def total(params, aux, batches):
        return sum(loss(params, aux, batch) for batch in batches) / len(batches)

    return jax.jit(jax.grad(total))


def brute_force_gradient(name, net, batches, temperature=1.0):
    gradient = written_out(name, temperature)(*net, [np.asarray(batch) for batch in batches])
    return baselines.kernels(net._replace(params=gradient))


def highest(scores, k):
    """Masks of the k highest scores over all arrays."""
    flat = np.concatenate([np.ravel(score) for score in scores.values()])
    least = np.sort(flat)[-k]
    return {name: np.asarray(score) >= least for name, score in scores.items()}


def assert_masks_equal(ours, expected):
    assert ours.keys() == expected.keys()
    for name, mask in ours.items():
        np.testing.assert_array_equal(mask, expected[name])


def in_all(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def products(net, gradient):
    return {name: kernel * gradient[name] for name, kernel in baselines.kernels(net).items()}


@pytest.mark.parametrize("name", ["two layers", "normalised"])
@pytest.mark.parametrize("batches", [1, 3])
def test_snip_is_the_brute_force_gradient(name, batches):
    """Signed mean over the batches first, then the magnitude."""
    task, net = small(name), untrained(name)
    drawn = random_batches(task.dataset.train, batches, batch_size=BATCH, key=KEY)
    gradient = brute_force_gradient(name, net, drawn)
    scores = {name: np.abs(score) for name, score in products(net, gradient).items()}
    expected = highest(scores, round(0.2 * sum(score.size for score in scores.values())))
    pruned = baselines.snip(task, net, 0.2, batches=batches, batch_size=BATCH, key=KEY)
    assert_masks_equal(baselines.mask(pruned), expected)


@pytest.mark.parametrize("method", [baselines.force, baselines.iter_snip])
def test_one_step_is_snip(method):
    task, net, given = small("two layers"), untrained("two layers"), {"batches": 2, "key": KEY}
    one = method(task, net, 0.2, steps=1, batch_size=BATCH, **given)
    expected = baselines.snip(task, net, 0.2, batch_size=BATCH, **given)
    assert_masks_equal(baselines.mask(one), baselines.mask(expected))


@pytest.mark.parametrize("masks", [baselines.force_masks, baselines.iter_snip_masks])
def test_every_step_against_the_formulas(masks):
    """FORCE ranks all weights by the gradients of the pruned net, Iter SNIP those it has left."""
    task, net, steps, keep = small("two layers"), untrained("two layers"), 4, 0.1
    found = masks(task, net, keep, steps=steps, batch_size=BATCH, key=KEY)
    drawn = random_batches(task.dataset.train, steps, batch_size=BATCH, key=KEY)
    mask = {name: np.ones(kernel.shape, bool) for name, kernel in baselines.kernels(net).items()}
    for step, ours in enumerate(found):
        pruned = baselines.masked(net, mask)
        gradient = brute_force_gradient("two layers", pruned, drawn[step : step + 1])
        scores = {name: np.abs(score) for name, score in products(net, gradient).items()}
        if masks is baselines.iter_snip_masks:
            scores = {name: np.where(mask[name], score, -1) for name, score in scores.items()}
        mask = highest(scores, round(152 * keep ** ((step + 1) / steps)))
        assert_masks_equal(ours, mask)


@pytest.mark.parametrize("masks", [baselines.force_masks, baselines.iter_snip_masks])
@pytest.mark.parametrize("keep", [0.5, 0.003])
def test_counts_are_exact(masks, keep):
    found = masks(digits(), dense(), keep, steps=7, key=KEY)
    assert list(map(in_all, found)) == [round(50_200 * keep ** (t / 7)) for t in range(1, 8)]


def recovered(found):
    """How many weights each step brings back."""
    return [
        in_all({name: mask & ~before[name] for name, mask in after.items()})
        for before, after in pairwise(found)
    ]


def test_iter_snip_is_nested_and_force_is_not():
    given = {"steps": 8, "key": KEY}
    assert recovered(baselines.iter_snip_masks(digits(), dense(), 0.01, **given)) == [0] * 7
    assert sum(recovered(baselines.force_masks(digits(), dense(), 0.01, **given))) > 100


@pytest.mark.parametrize(
    ("method", "masks"),
    [
        (baselines.force, baselines.force_masks),
        (baselines.iter_snip, baselines.iter_snip_masks),
    ],
)
def test_the_last_mask_is_the_net_s(method, masks):
    task, net = small("normalised"), untrained("normalised")
    given = {"steps": 3, "batches": 2, "batch_size": BATCH, "key": KEY}
    pruned = method(task, net, 0.2, **given)
    assert_masks_equal(baselines.mask(pruned), masks(task, net, 0.2, **given)[-1])


def test_force_finds_masks_of_higher_saliency():
    """At 1 %, on batches that neither has seen."""
    one, twenty = (
        baselines.force(digits(), dense(), 0.01, steps=steps, batches=4, key=KEY)
        for steps in (1, 20)
    )
    of_one, of_twenty = (
        baselines.saliency(digits(), net, batches=8, key=jax.random.key(9)) for net in (one, twenty)
    )
    assert of_twenty > 2 * of_one > 0


def test_saliency_against_its_formula():
    task, net = small("normalised"), untrained("normalised")
    pruned = baselines.random(net, 0.5, key=KEY)
    drawn = random_batches(task.dataset.train, 2, batch_size=BATCH, key=KEY)
    gradient = brute_force_gradient("normalised", pruned, drawn)
    mask = baselines.mask(pruned)
    expected = sum(
        float(np.abs(score)[mask[name]].sum()) for name, score in products(net, gradient).items()
    )
    ours = baselines.saliency(task, pruned, batches=2, batch_size=BATCH, key=KEY)
    assert ours == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_that_of_training():
    """BatchNorm normalises by the batch: the running statistics have no part in it."""
    task, net = small("normalised"), untrained("normalised")
    drawn = random_batches(task.dataset.train, 2, batch_size=BATCH, key=KEY)
    other = net._replace(aux=jax.tree.map(lambda leaf: leaf + 3, net.aux))
    first, second = (mean_gradient(task, given, drawn) for given in (net, other))
    for name, gradient in first.items():
        np.testing.assert_array_equal(gradient, second[name])
        assert np.abs(gradient).max() > 0


def in_float64(net):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), net)


def test_the_score_of_grasp_against_finite_differences():
    """The gradient at points along itself, in 64 bits; two batches, each in two halves."""
    task, labels = small("two layers"), small("two layers").dataset.train.labels
    with jax.enable_x64(True):
        net = in_float64(untrained("two layers"))
        drawn = balanced_batches(labels, 2, per_class=10, key=KEY)
        halves = [half.ravel() for batch in drawn for half in (batch[:5], batch[5:])]
        assert all(np.bincount(labels[half]).tolist() == [5] * CLASSES for half in halves)
        direction = brute_force_gradient("two layers", net, halves, temperature=200)

        def gradient_at(distance):
            moved = {
                name: kernel + distance * direction[name]
                for name, kernel in baselines.kernels(net).items()
            }
            moved = baselines.weights.with_kernels(net, moved)
            return brute_force_gradient("two layers", moved, halves, temperature=200)

        step = 1e-2  # the gradient is small, as logits are divided by 200
        ahead, behind = gradient_at(step), gradient_at(-step)
        slope = {name: (ahead[name] - behind[name]) / (2 * step) for name in ahead}
        for name, found in curvature_product(task, net, direction, halves, temperature=200).items():
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(found, slope[name], rtol=1e-5, atol=1e-12)
        expected = highest(products(net, slope), round(152 * 0.2))  # -theta H g is lowest
        pruned = baselines.grasp(task, net, 0.2, batches=2, key=KEY)
        assert_masks_equal(baselines.mask(pruned), expected)


def test_products_of_half_precision_do_not_vanish():
    """Scores of 1e-9 would all be zero in float16, and the first weights kept."""
    task = small("two layers")
    net = untrained("two layers")
    tiny = jax.tree.map(lambda leaf: (leaf * 1e-5).astype(jnp.float16), net)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tiny)
    ours, expected = (
        baselines.mask(baselines.snip(task, given, 0.2, batch_size=BATCH, key=KEY))
        for given in (tiny, wide)
    )
    agree = sum(int((mask == expected[name]).sum()) for name, mask in ours.items())
    assert agree >= 148


def test_random_keeps_all_weights_equally_often():
    net = Variables({"a": jnp.ones((2, 2)), "b": jnp.ones((3, 2)), "c": jnp.ones(4)}, {})
    masks = [
        baselines.mask(baselines.random(net, 0.3, key=key)) for key in jax.random.split(KEY, 300)
    ]
    assert {in_all(mask) for mask in masks} == {3}
    shares = np.concatenate([np.mean([m[name] for m in masks], axis=0).ravel() for name in "ab"])
    assert np.abs(shares - 0.3).max() < 0.11  # four standard deviations


@pytest.mark.parametrize(
    ("size", "batch_size", "number"), [(10, 5, 2), (11, 3, 1), (11, 3, 7), (4, 4, 3)]
)
def test_batches_are_passes_through_the_data(size, batch_size, number):
    drawn = random_batches(np.zeros(size), number, batch_size=batch_size, key=KEY)
    assert drawn.shape == (number, batch_size)
    per_pass = size // batch_size
    for start in range(0, number, per_pass):
        one = np.ravel(drawn[start : start + per_pass])
        assert len(set(one.tolist())) == len(one)
        assert 0 <= one.min() <= one.max() < size


def test_balanced_batches():
    labels = np.repeat([0, 2, 5], [20, 3, 40])
    drawn = np.asarray(balanced_batches(labels, 2, per_class=6, key=KEY))
    assert drawn.shape == (2, 6, 3)
    np.testing.assert_array_equal(labels[drawn], np.broadcast_to([0, 2, 5], drawn.shape))
    # The class of three examples has each of them twice, all others are different.
    for batch in drawn:
        assert [len(set(batch[:, c].tolist())) for c in range(3)] == [6, 3, 6]
    assert (drawn[0] != drawn[1]).any()


@pytest.mark.parametrize("setting", ["steps", "batches", "batch_size"])
@pytest.mark.parametrize("value", [0, 1.5])
def test_settings_are_positive_integers(setting, value):
    expected = rf"^{setting} must be an integer of at least 1, got {value}$"
    with pytest.raises(ConfigError, match=expected):
        baselines.force(
            small("one layer"), untrained("one layer"), 0.5, key=KEY, **{setting: value}
        )


def test_more_examples_in_a_batch_than_there_are():
    expected = "^data hold 96 examples, fewer than a batch of 128; set a smaller batch_size$"
    with pytest.raises(ConfigError, match=expected):
        baselines.snip(small("one layer"), untrained("one layer"), 0.5, key=KEY)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        (baselines.snip, {"batch_size": BATCH}),
        (baselines.force, {"batch_size": BATCH, "steps": 2}),
        (baselines.force_masks, {"batch_size": BATCH, "steps": 2}),
        (baselines.grasp, {}),
    ],
    ids=["snip", "force", "force_masks", "grasp"],
)
def test_a_gradient_that_is_not_finite(method, given):
    net = untrained("two layers")
    broken = net._replace(
        params=net.params | {"fc2": net.params["fc2"] | {"bias": jnp.full(CLASSES, jnp.nan)}}
    )
    expected = (
        "^the gradient of fc1/kernel is not finite; check that the net's logits are finite, and "
        "all labels in range$"
    )
    with pytest.raises(RetrainingError, match=expected):
        method(small("two layers"), broken, 0.5, key=KEY, **given)


def test_one_program_for_all_steps(monkeypatch):
    traced = []
    task = in_bfloat16(small("one layer"))

    def apply(params, aux, inputs):
        traced.append(1)
        return small("one layer").apply(params, aux, inputs)

    given = {"batch_size": BATCH, "key": KEY}
    task = task._replace(apply=apply)
    baselines.force(task, task.init(0), 0.5, steps=5, batches=2, **given)
    baselines.iter_snip(task, task.init(1), 0.2, steps=3, **given)
    assert len(traced) == 1
