"""A task: a net with statistics goes the same way as one without, from training to the file."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.errors import ConfigError
from swsjax.file.files import load, save
from swsjax.lab.data import Dataset, Split, load_digits
from swsjax.lab.nets import LeNet300100
from swsjax.lab.residual import ResidualNet
from swsjax.lab.task import Variables, classification, pretrain_task
from swsjax.sws.config import LEARNED
from swsjax.sws.quantizing import codebook
from swsjax.sws.recipes import Recipe, compress_task, errors_of
from swsjax.training.losses import cross_entropy
from swsjax.training.pretraining import PretrainConfig, SgdConfig


class Normed(nnx.Module):
    """One hidden layer with BatchNorm."""

    def __init__(self, image_shape, classes, *, rngs):
        self.fc1 = nnx.Linear(image_shape[0] * image_shape[1], 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.fc2 = nnx.Linear(32, classes, rngs=rngs)

    def __call__(self, images):
        hidden = self.norm(self.fc1(images.reshape(len(images), -1)))
        return self.fc2(nnx.relu(hidden))


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def task(digits):
    return classification(Normed, digits)


@pytest.fixture(scope="module")
def pretrained(task):
    return pretrain_task(task, PretrainConfig(epochs=8, learning_rate=5e-3, batch_size=32))


def assert_equal(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@pytest.mark.parametrize("model", [Normed, LeNet300100])
def test_digits_are_learned(model, digits):
    task, losses = classification(model, digits), []
    config = PretrainConfig(epochs=12, learning_rate=5e-3, batch_size=64, seed=3)
    trained = pretrain_task(task, config, callback=lambda epoch: losses.append(epoch.loss))
    assert task.error(task.init(3), digits.validation) > 0.5
    assert task.error(trained, digits.validation) < 0.1
    assert len(losses) == 12
    assert losses[-1] < 0.2 < 0.8 < losses[0]


def test_a_net_with_batch_norm_from_training_to_the_file(task, pretrained, tmp_path):
    config = replace(
        LEARNED,
        components=8,
        pi_zero=0.5,
        initial_std=0.03,
        soft_epochs=0,
        hard_epochs=2,
        batch_size=32,
        least_steps=1,
    )
    result = compress_task(task, pretrained, Recipe(config))
    compressed = Variables(result.params, result.aux)
    assert len(codebook(result.params)) <= 9
    for name, before in pretrained.aux["norm"].items():  # updated by every step
        after = result.aux["norm"][name]
        assert after.shape == (32,)
        assert not np.isclose(after, before, rtol=1e-6).any()
    save(tmp_path / "net.sws", task.whole(compressed), metadata={"data": "digits"})
    decoded = task.parts(load(tmp_path / "net.sws", like=task.whole(pretrained)))
    assert_equal(decoded, compressed)
    test = task.dataset.test
    errors = errors_of(task, pretrained, result, decoded)
    assert errors["decoded"]["test"] == task.error(compressed, test) < 0.2
    assert errors["pretrained"]["test"] == task.error(pretrained, test) < 0.1
    assert errors["decoded"]["validation"] == result.history[-1].error
    retrained = Variables(result.retrained, result.aux)
    assert errors["retrained"] == {"test": task.error(retrained, test)}


def layers(params, images):
    """The outputs of the first layer, and what makes logits of them once normalised."""
    fc1, norm, fc2 = (jax.tree.map(np.asarray, params[name]) for name in ("fc1", "norm", "fc2"))

    def logits(normed):
        hidden = np.maximum(normed * norm["scale"] + norm["bias"], 0)
        return hidden @ fc2["kernel"] + fc2["bias"]

    inputs = images.reshape(len(images), -1) / np.float32(255)
    return inputs @ fc1["kernel"] + fc1["bias"], logits


def test_training_normalises_by_the_batch_and_moves_the_statistics(task, pretrained):
    images = task.dataset.test.images[:50]
    logits, after = task.apply(*pretrained, jnp.asarray(images))
    outputs, logits_from = layers(pretrained.params, images)
    mean, variance = outputs.mean(axis=0), outputs.var(axis=0)
    expected = logits_from((outputs - mean) / np.sqrt(variance + 1e-5))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    for name, seen in (("mean", mean), ("var", variance)):
        moved = 0.9 * np.asarray(pretrained.aux["norm"][name]) + 0.1 * seen
        np.testing.assert_allclose(after["norm"][name], moved, rtol=1e-3, atol=1e-4)


def test_evaluation_normalises_by_the_statistics(task, pretrained):
    images = task.dataset.test.images[:50]
    outputs, logits_from = layers(pretrained.params, images)
    statistics = {name: np.asarray(x) for name, x in pretrained.aux["norm"].items()}
    normed = (outputs - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
    expected = logits_from(normed)
    logits = task.logits(pretrained, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    in_training, _ = task.apply(*pretrained, jnp.asarray(images))
    assert abs(logits - in_training).max() > 0.1


def test_teachers_are_the_mean_of_their_logits(task, pretrained):
    other, images = task.init(1), task.dataset.train.images
    data = task.data([pretrained, other])
    expected = (task.logits(pretrained, images) + task.logits(other, images)) / 2
    np.testing.assert_allclose(data["teacher"], expected, rtol=1e-5, atol=1e-5)
    assert sorted(task.data()) == ["inputs", "labels"]
    np.testing.assert_array_equal(data["labels"], task.dataset.train.labels)


def test_a_net_without_statistics_is_the_tree_of_its_parameters(digits):
    task = classification(LeNet300100, digits)
    net = task.init(0)
    assert net.aux == {}
    assert_equal(task.whole(net), net.params)
    assert_equal(task.parts(net.params), net)
    value, aux = task.loss(cross_entropy)(*net, jax.tree.map(lambda x: x[:5], task.data()))
    assert aux == {}
    assert value == pytest.approx(np.log(10), abs=0.5)


def tinted(split):
    """Grey images as colour images: the digit on a coloured ground."""
    grey = split.images[..., None]
    return Split(np.maximum(grey, np.array([60, 0, 30], np.uint8)), split.labels)


@pytest.mark.parametrize("colours", [True, False])
def test_a_residual_net_from_training_to_the_file(colours, digits, tmp_path):
    small = Split(*(array[:600] for array in digits.train))
    splits = [small, *digits[2:]]
    dataset = Dataset("digits", *(map(tinted, splits) if colours else splits))
    task = classification(partial(ResidualNet, widths=(4, 4, 8, 8), blocks=1), dataset)
    losses, config = [], SgdConfig(epochs=6, batch_size=32, pad=1)
    trained = pretrain_task(task, config, callback=lambda epoch: losses.append(epoch.loss))
    assert task.error(trained, dataset.validation) < 0.4  # flips make digits alike
    assert losses[-1] < 0.7 * losses[0]
    whole = task.whole(trained)
    assert sorted(whole["g1b0bn1"]) == ["bias", "mean", "scale", "var"]
    save(tmp_path / "net.sws", whole)
    assert_equal(task.parts(load(tmp_path / "net.sws", like=whole)), trained)


class Dropping(Normed):
    def __init__(self, image_shape, classes, *, rngs):
        super().__init__(image_shape, classes, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)


class Counting(Normed):
    def __init__(self, image_shape, classes, *, rngs):
        super().__init__(image_shape, classes, rngs=rngs)
        self.steps = nnx.Variable(jnp.zeros((), jnp.int32))


@pytest.mark.parametrize(
    ("model", "names"),
    [(Dropping, "drop/rngs/count, drop/rngs/key"), (Counting, "steps")],
)
def test_other_variables(model, names, digits):
    message = (
        f"the variables of a {model.__name__} must be of type nnx.Param or nnx.BatchStat, got "
        f"also {names}; remove the layers that have them, such as dropout"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        classification(model, digits)


def test_a_finished_pretraining_is_found_again(task, tmp_path):
    config, seen = PretrainConfig(epochs=2, batch_size=64), []
    first, again = (
        pretrain_task(task, config, callback=seen.append, resume=tmp_path) for _ in range(2)
    )
    assert len(seen) == 2
    assert_equal(again, first)


def test_a_task_is_made_without_drawing_weights(digits):
    traced = []

    class Watched(Normed):
        def __init__(self, image_shape, classes, *, rngs):
            super().__init__(image_shape, classes, rngs=rngs)
            traced.append(isinstance(self.fc1.kernel[...], jax.core.Tracer))

    task = classification(Watched, digits)
    assert traced
    assert all(traced)
    task.init(0)
    assert not traced[-1]
