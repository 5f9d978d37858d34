"""Recipes: their steps per epoch, and distillation from several teachers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from swsjax.lab import Task, Variables, classification, load_digits, pretrain_task
from swsjax.sws.config import LEARNED, Config
from swsjax.sws.recipes import RECIPES, Recipe, compress_task, errors_of, teacher_seeds
from swsjax.training import PretrainConfig
from swsjax.training.loop import feed_of


class Linear(nnx.Module):
    """Softmax regression."""

    def __init__(self, image_shape, classes, *, rngs):
        del rngs
        self.kernel = nnx.Param(jnp.zeros((np.prod(image_shape), classes)))

    def __call__(self, images):
        return images.reshape(len(images), -1) @ self.kernel[...]


@pytest.fixture(scope="module")
def task():
    return classification(Linear, load_digits())


@pytest.fixture(scope="module")
def good(task):
    return pretrain_task(task, PretrainConfig(epochs=20, learning_rate=0.1))


# One epoch of the hard stage, after which nothing is merged.
CONFIG = replace(LEARNED, components=8, pi_zero=0.5, soft_epochs=0, hard_epochs=1, prior="exact")
CONFIG = replace(CONFIG, merge_threshold=0.0)


def test_epoch_passes_several_times_through_small_data():
    def steps(train_size, config):
        feed = feed_of(np.zeros(train_size), config.batch_size, least_steps=config.least_steps)
        return feed.passes, feed.steps

    assert steps(1_300, Config()) == (10, 100)
    assert steps(40_000, Config()) == (1, 312)
    assert steps(1_300, Config(least_steps=1)) == (1, 10)
    mnist = 50_000
    assert steps(mnist, RECIPES["lenet-300-100"].balanced.config) == (1, 390)
    assert steps(mnist, RECIPES["lenet-5-caffe"].balanced.config) == (1, 390)
    assert steps(mnist, RECIPES["lenet-5-caffe"].small_loss.config) == (2, 780)


def test_target_of_several_teachers_is_the_mean_of_their_logits():
    digits = load_digits()
    task = Task(digits, None, None, lambda net, x: x.reshape(len(x), -1) * net.params)
    data = task.data([Variables(np.float32(scale), {}) for scale in (1.0, 3.0, -1.0)])
    images = digits.train.images
    np.testing.assert_allclose(data["teacher"], images.reshape(len(images), 64), rtol=1e-6)
    np.testing.assert_array_equal(data["inputs"], images)
    np.testing.assert_array_equal(data["labels"], digits.train.labels)


@pytest.fixture(scope="module")
def alone(task, good):
    """Taught by itself."""
    return compress_task(task, good, Recipe(CONFIG, teacher_weight=1.0))


def test_net_is_distilled_from_its_teachers(task, good, alone):
    wrong = good._replace(params=jax.tree.map(lambda leaf: -3 * leaf, good.params))
    recipe = Recipe(CONFIG, teacher_weight=1.0)
    taught = compress_task(task, good, recipe, teachers=[wrong])  # their mean is -1 times its own
    assert taught.history[0].loss > 10 * alone.history[0].loss


def test_teachers_see_the_augmented_images(task, good, alone):
    """Where the images stay as they are, that is the logits computed once."""
    recipe = Recipe(CONFIG, teacher_weight=1.0)
    same = compress_task(task, good, recipe, teachers=[good], augment=lambda key, batch: batch)
    negated = compress_task(
        task, good, recipe, augment=lambda key, batch: batch | {"inputs": -batch["inputs"]}
    )
    assert same.history[0].loss == pytest.approx(alone.history[0].loss, rel=1e-4)
    # A linear net without biases agrees with itself on any images.
    assert negated.history[0].loss < 10 * alone.history[0].loss


def test_errors_are_of_the_nets_and_splits_that_they_name(task, good):
    result = compress_task(task, good, Recipe(CONFIG))
    wrong = Variables(jax.tree.map(jnp.negative, good.params), good.aux)
    errors = errors_of(task, good, result, wrong)
    validation, test = task.dataset.validation, task.dataset.test
    assert errors == {
        "pretrained": {"validation": task.error(good, validation), "test": task.error(good, test)},
        "retrained": {"test": task.error(Variables(result.retrained, result.aux), test)},
        "decoded": {"validation": task.error(wrong, validation), "test": task.error(wrong, test)},
    }
    assert errors["decoded"]["test"] > 0.9 > 0.1 > errors["pretrained"]["test"]
    # The history has the error of the quantised net on the validation images.
    quantised = Variables(result.params, result.aux)
    assert result.history[-1].error == task.error(quantised, validation)


def test_no_two_seeds_share_a_teacher():
    seeds = [seed for run in range(20) for seed in teacher_seeds(run, 4)]
    assert len(set(seeds)) == 80
    assert not set(seeds) & set(range(20))  # nor is a teacher the pretrained net of a seed
