"""Statistics of batches against the stored ones, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_tasks import images, small, untrained

from swsjax.baselines import probes
from swsjax.baselines.probes import Probe, correlations, probe
from swsjax.errors import ConfigError
from swsjax.lab import classification

KEY = jax.random.key(0)


class Normed(nnx.Module):
    """BatchNorm of pixels with a momentum of its own, and a layer."""

    def __init__(self, image_shape, classes, *, rngs):
        size = int(np.prod(image_shape))
        self.bn = nnx.BatchNorm(size, momentum=0.7, rngs=rngs)
        self.fc = nnx.Linear(size, classes, rngs=rngs)

    def __call__(self, images):
        return self.fc(self.bn(images.reshape(len(images), -1)))


def test_distances_and_errors_of_batches():
    task = classification(Normed, images(4, 4))
    net, split = task.init(0), task.dataset.test
    net.aux["bn"]["mean"] = jnp.full(16, 0.4)
    found = probe(task, net, split, batch_size=10, key=KEY)
    order = np.asarray(jax.random.permutation(KEY, 30)).reshape(3, 10)
    pixels = split.images.reshape(30, 16)[order] / 255
    means, variances = pixels.mean(axis=1), pixels.var(axis=1)
    expected = {
        "bn/mean": np.abs(means - 0.4).mean(axis=1),
        "bn/var": np.abs(variances - 1).mean(axis=1),
    }
    assert set(found.distances) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found.distances[name], values, rtol=1e-4)
    assert found.errors.mean() == pytest.approx(task.error(net, split))
    assert found.errors.shape == (3,)


def test_statistics_of_the_batch_itself_have_no_distance():
    task = classification(Normed, images(4, 4))
    net, split = task.init(0), task.dataset.test
    pixels = split.images.reshape(30, 16) / 255
    net.aux["bn"] = {"mean": jnp.asarray(pixels.mean(0)), "var": jnp.asarray(pixels.var(0))}
    found = probe(task, net, split, batch_size=30, key=KEY)
    assert max(values.max() for values in found.distances.values()) < 1e-6


def test_probes_of_a_task_share_a_program():
    task = classification(Normed, images(4, 4))
    before = probes._of_batch._cache_size()
    for seed in (0, 1):
        probe(task, task.init(seed), task.dataset.test, batch_size=10, key=KEY)
    assert probes._of_batch._cache_size() == before + 1


def test_correlations():
    distances, errors = [0.1, 0.5, 0.2, 0.9], [0.2, 0.3, 0.1, 0.8]
    of_nets = [
        Probe({"a": np.array([x, x]), "b": np.ones(2)}, np.array([y]))
        for x, y in zip(distances, errors, strict=True)
    ]
    found = correlations(of_nets)
    assert found["a"] == pytest.approx(np.corrcoef(distances, errors)[0, 1])
    assert np.isnan(found["b"])
    with pytest.raises(ConfigError, match=r"^a correlation needs at least two probes, got 1$"):
        correlations(of_nets[:1])


def test_nets_without_statistics_and_few_images():
    task = small("two layers")
    with pytest.raises(ConfigError, match=r"^the net has no statistics to compare with; expected "):
        probe(task, untrained("two layers"), task.dataset.test, key=KEY)
    task = small("BatchNorm")
    message = r"^the images are 30, fewer than a batch of 31; set a smaller batch_size$"
    with pytest.raises(ConfigError, match=message):
        probe(task, untrained("BatchNorm"), task.dataset.test, batch_size=31, key=KEY)
