"""Rounded inputs of convolutions against a net that is written so."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_tasks import images, small

from swsjax.baselines.affine import quantize_affine
from swsjax.baselines.inputs import RANGES, rounded_inputs, with_input_bits
from swsjax.baselines.levels import rounded_between
from swsjax.baselines.probes import probe
from swsjax.baselines.rules import bits
from swsjax.baselines.schedules import late_bits
from swsjax.baselines.subspaces import fit_point
from swsjax.errors import ConfigError
from swsjax.lab import Variables, classification
from swsjax.training import PretrainConfig


class Convolutions(nnx.Module):
    """Two convolutions, each after a change of its inputs; the second inside a compiled call."""

    def __init__(self, image_shape, classes, *, changes=(lambda x: x,) * 2, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, classes, (2, 2), rngs=rngs)
        self.changes = changes

    def __call__(self, images):
        first, second = self.changes
        x = nnx.relu(self.conv1(first(images - 0.5)))
        return jax.jit(lambda conv, x: conv(x))(self.conv2, second(x)).mean(axis=(1, 2))


def task_of(**options):
    return classification(partial(Convolutions, **options), images(4, 4, 3))


@pytest.fixture(scope="module")
def plain():
    return task_of()


@pytest.fixture(scope="module")
def task(plain):
    return rounded_inputs(plain, momentum=0.75)


def test_without_bits_the_net_is_the_same(plain, task):
    net, expected = task.init(0), plain.init(0)
    split = task.dataset.test
    theirs = plain.logits(expected, split.images)
    np.testing.assert_allclose(task.logits(net, split.images), theirs, rtol=1e-4, atol=1e-7)
    ours, theirs = (
        jax.jit(jax.value_and_grad(made.loss(), has_aux=True))(*found, made.data())
        for made, found in ((task, net), (plain, expected))
    )
    assert ours[0][0] == pytest.approx(float(theirs[0][0]), rel=1e-5)
    for one, two in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(theirs[1]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)


def test_ranges_are_exponential_averages(task):
    net, pixels = task.init(0), jnp.asarray(task.dataset.test.images)
    _, once = task.apply(net.params, net.aux, pixels)
    _, twice = task.apply(net.params, once, pixels)
    values = np.asarray(pixels) / np.float32(255) - 0.5
    kernel, bias = net.params["conv1"]["kernel"], net.params["conv1"]["bias"]
    hidden = jax.lax.conv_general_dilated(
        values, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    most = np.array([values.max(), max(0, np.max(hidden + bias[None, None, None]))])
    least = np.array([values.min(), 0.0])
    for state, times in ((once, 0.25), (twice, 0.25 * 1.75)):
        np.testing.assert_allclose(state[RANGES]["high"], times * most, rtol=1e-5)
        np.testing.assert_allclose(state[RANGES]["low"], times * least, rtol=1e-5)


@pytest.mark.parametrize("number", [1, 3])
def test_inputs_are_rounded_to_their_ranges(number, task):
    low, high = jnp.array([-0.4, 0.0]), jnp.array([0.3, 0.7])
    changes = [partial(rounded_between, low=low[n], high=high[n], bits=number) for n in (0, 1)]
    written, net = task_of(changes=tuple(changes)), task.init(0)
    net.aux[RANGES] = {"bits": jnp.array(number, jnp.int32), "low": low, "high": high}
    pixels = task.dataset.test.images
    expected = written.logits(Variables(net.params, {}), pixels)
    np.testing.assert_allclose(task.logits(net, pixels), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(expected, task_of().logits(Variables(net.params, {}), pixels))


def test_a_family_rounds_weights_and_inputs(task):
    family = fit_point(
        task, bits(2, 4), PretrainConfig(epochs=1, batch_size=8), key=jax.random.key(0)
    )
    assert family.net.aux[RANGES]["bits"] == 0
    assert (family.net.aux[RANGES]["high"] > 0).all()
    net = family.at(3)
    assert net.aux[RANGES]["bits"] == 3
    assert net.aux[RANGES]["bits"].dtype == jnp.int32
    expected = quantize_affine(Variables(family.net.params, {}), 3).params
    for ours, theirs in zip(jax.tree.leaves(net.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    whole = task.whole(net)
    for ours, theirs in zip(jax.tree.leaves(task.parts(whole)), jax.tree.leaves(net), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_inputs_are_rounded_late():
    assert [int(late_bits(4, progress)) for progress in (0, 0.5, 0.79, 0.8, 1)] == [0, 0, 0, 4, 4]
    assert with_input_bits((), lambda bits: 3) == ()


def test_ranges_are_not_probed():
    task = rounded_inputs(small("normalised"))
    found = probe(task, task.init(0), task.dataset.test, batch_size=30, key=jax.random.key(0))
    assert "bn/mean" in found.distances
    assert not any(name.startswith(RANGES) for name in found.distances)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: rounded_inputs(small("two layers")),
            "the net has no convolutions whose inputs could be rounded; fit the task as it is",
        ),
        (lambda: rounded_inputs(task_of(), momentum=1.0), "momentum must be in [0, 1), got 1.0"),
    ],
    ids=range(2),
)
def test_tasks_that_have_none(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()
