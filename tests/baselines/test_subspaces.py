"""Lines and points of nets: one step against its gradient by hand, one trace for all levels."""

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_tasks import images, small

from swsjax.baselines.families import Family, mixed
from swsjax.baselines.rules import bits, task_layers, top_k, width
from swsjax.baselines.schedules import at_levels, decaying
from swsjax.baselines.subspaces import SubspaceConfig, fit_line, fit_point, squared_cosine
from swsjax.errors import ConfigError
from swsjax.lab import classification
from swsjax.training import PretrainConfig
from swsjax.trees import named_leaves

KEY = jax.random.key(0)


class Normed(nnx.Module):
    """A hidden layer with BatchNorm, on images of 4 x 4 pixels."""

    def __init__(self, image_shape, classes, *, rngs):
        self.fc1 = nnx.Linear(int(np.prod(image_shape)), 8, rngs=rngs)
        self.bn = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.fc2 = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, images):
        return self.fc2(nnx.relu(self.bn(self.fc1(images.reshape(len(images), -1)))))


@dataclass(frozen=True)
class Steps(PretrainConfig):
    """Steps of plain gradient descent on all images at once."""

    epochs: int = 1
    batch_size: int = 96

    def optimizer(self, steps):
        return optax.sgd(self.learning_rate)


def fixed(alphas, levels):
    return lambda rule, key, progress: (jnp.array(alphas), jnp.array(levels))


@pytest.fixture(scope="module")
def normed():
    return classification(Normed, images(4, 4))


def close(tree, expected, **tolerance):
    for (name, ours), theirs in zip(named_leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, err_msg=name, **tolerance)


def test_a_step_of_a_line_by_hand():
    task, beta = small("two layers"), 0.5
    points = {0.25: 0.3, 0.75: 0.6}
    still, moved = (
        fit_line(
            task,
            top_k(0.1, 1.0, whole=["fc2/*"]),
            Steps(learning_rate=rate),
            key=KEY,
            draw=fixed(list(points), list(points.values())),
            cosine_weight=beta,
        )
        for rate in (0.0, 1.0)
    )
    first = dict(named_leaves(still.net.params))
    second = dict(still.other)
    assert set(second) == set(first)
    assert not jnp.allclose(first["fc1/kernel"], second["fc1/kernel"])
    structure = jax.tree.structure(still.net.params)

    @jax.jit
    @jax.grad
    def gradients_of(weights):
        params = jax.tree.unflatten(structure, list(weights.values()))
        return task.loss()(params, still.net.aux, task.data())[0]

    expected = [dict(first), dict(second)]
    for alpha, share in points.items():
        weights = {name: (1 - alpha) * first[name] + alpha * second[name] for name in first}
        order = np.argsort(np.abs(np.ravel(weights["fc1/kernel"])))
        mask = np.ones(128)
        mask[order[: int((1 - share) * 128)]] = 0
        mask = mask.reshape(16, 8)
        gradients = gradients_of(weights | {"fc1/kernel": weights["fc1/kernel"] * mask})
        gradients["fc1/kernel"] *= mask
        for end, factor in zip(expected, (1 - alpha, alpha), strict=True):
            for name in first:
                end[name] = end[name] - factor * gradients[name]
    names = ["fc1/kernel", "fc2/kernel"]
    one, two = (np.concatenate([np.ravel(end[n]) for n in names]) for end in (first, second))
    product, of_one, of_two = one @ two, one @ one, two @ two
    for end, own, square, other in ((0, one, of_one, two), (1, two, of_two, one)):
        slope = 2 * product / (of_one * of_two) * (other - product / square * own)
        parts = np.split(slope, [128])
        for name, part in zip(names, parts, strict=True):
            expected[end][name] = expected[end][name] - beta * part.reshape(first[name].shape)
    close(dict(named_leaves(moved.net.params)), expected[0], rtol=1e-4, atol=1e-6)
    close(dict(moved.other), expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fit", [fit_line, fit_point])
def test_more_steps_at_more_levels_are_traced_no_more(fit, normed):
    traces = []

    def counted(params, aux, pixels):
        traces.append(None)
        return normed.apply(params, aux, pixels)

    task, rule = normed._replace(apply=counted), top_k(0.1, 1.0)
    counts = []
    for epochs in (1, 5):
        traces.clear()
        family = fit(task, rule, PretrainConfig(epochs=epochs, batch_size=8), key=KEY)
        counts.append(len(traces))
    assert counts[0] == counts[1]
    traces.clear()
    at = jax.jit(lambda level: traces.append(level) or family.at(level).params)
    for level in (0.1, 0.5, 0.9):
        close(at(level), family.at(level).params, rtol=1e-6)
    assert len(traces) == 1


def test_a_structured_line_has_two_sets_of_norm_parameters_only(normed):
    rule = width(0.25, 1.0, task_layers(normed))
    family = fit_line(normed, rule, PretrainConfig(epochs=2, batch_size=32), key=KEY)
    assert set(family.other) == {"bn/scale", "bn/bias"}
    ends = family.on_line(0.0), family.on_line(1.0)
    assert not jnp.allclose(ends[0].params["bn"]["scale"], ends[1].params["bn"]["scale"])
    for layer in ("fc1", "fc2"):
        close(ends[0].params[layer], ends[1].params[layer], rtol=0)
    narrow = family.at(0.25)
    assert jnp.count_nonzero(jnp.any(narrow.params["fc1"]["kernel"] != 0, axis=0)) == 2
    # Between the ends.
    middle = family.on_line(rule.alpha(0.625)).params["bn"]["scale"]
    close(middle, (family.net.params["bn"]["scale"] + family.other["bn/scale"]) / 2, rtol=1e-6)


def test_masked_channels_keep_their_statistics(normed):
    rule, still = width(0.5, 1.0, task_layers(normed)), Steps(learning_rate=0.0)
    family = fit_point(normed, rule, still, draw=at_levels((0.5, 1.0)), key=KEY)
    layer, data = family.net.params["fc1"], normed.data()["inputs"]
    seen = np.mean(np.reshape(data, (96, -1)) / 255 @ layer["kernel"] + layer["bias"][None], axis=0)
    # Two updates of the first half, one of the other.
    times = np.repeat([1 - 0.9**2, 1 - 0.9], 4)
    np.testing.assert_allclose(family.net.aux["bn"]["mean"], times * seen, rtol=1e-4, atol=1e-6)


def test_ends_of_a_line():
    params = {"a": jnp.array([0.1, -3e38]), "b": jnp.array([[1.0]]), "c": jnp.ones(2)}
    other = {"a": jnp.array([0.7, 3e38]), "b": jnp.array([[2.0]])}
    close(mixed(params, other, 0.0), params, rtol=0)
    close(mixed(params, other, 1.0), {**params, **other}, rtol=0)
    np.testing.assert_allclose(mixed(params, other, 0.5)["a"], [0.4, 0.0], rtol=1e-6)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), {"b": params["b"]})
    assert mixed(half, other, 0.5)["b"].dtype == jnp.bfloat16


def test_the_cosine_is_one_over_all_kernels():
    keys = jax.random.split(KEY, 4)
    first, second = (
        {"a": jax.random.normal(k, (3, 2)), "b": jax.random.normal(j, (4, 5)), "c": jnp.ones(2)}
        for k, j in (keys[:2], keys[2:])
    )
    one, two = (np.concatenate([np.ravel(x["a"]), np.ravel(x["b"])]) for x in (first, second))
    expected = (one @ two / np.linalg.norm(one) / np.linalg.norm(two)) ** 2
    assert squared_cosine(first, second) == pytest.approx(expected, rel=1e-5)
    assert squared_cosine(first, first) == pytest.approx(1)
    assert squared_cosine(first, {"c": jnp.ones(2)}) == 0
    assert squared_cosine(first, {}) == 0


@pytest.mark.parametrize(
    ("rule", "level"), [(bits(2, 4), 2), (top_k(0.2, 1.0), 0.4)], ids=["bits", "top_k"]
)
def test_nets_of_a_line_have_learnt(rule, level):
    task = small("one layer")
    config = PretrainConfig(epochs=40, batch_size=32, learning_rate=0.02)
    family = fit_line(task, rule, config, key=KEY)
    assert task.error(family.at(level), task.dataset.train) < 0.3  # 0.67 by chance
    assert squared_cosine(family.net.params, family.other) < 0.9


def test_a_target_is_a_point_at_one_level():
    task, rule = small("one layer"), top_k(0.25, 0.25)
    config = PretrainConfig(epochs=40, batch_size=32, learning_rate=0.02)
    family = fit_point(task, rule, config, draw=decaying, key=KEY)
    assert family.other == {}
    assert task.error(family.at(0.25), task.dataset.train) < 0.4
    dense = rule.compressed(family.on_line(0), 1.0)
    close(dense.params, family.net.params, rtol=0)


def test_a_run_that_is_resumed(tmp_path):
    task, config = small("one layer"), PretrainConfig(epochs=2, batch_size=32)
    once, again = (
        fit_line(task, bits(2, 4), config, key=KEY, resume=tmp_path / "run") for _ in range(2)
    )
    close((once.net, once.other), (again.net, again.other), rtol=0)


def test_learning_rates():
    rates = SubspaceConfig().learning_rates(1000)
    steps, expected = [0, 5, 25, 25 + 975 / 2, 1000], [0, 0.02, 0.1, 0.05, 0]
    np.testing.assert_allclose([rates(step) for step in steps], expected, atol=1e-7)
    assert SubspaceConfig().augment() is None
    assert SubspaceConfig(pad=4).augment().keywords == {"pad": 4}
    optimizer = SubspaceConfig(warmup_epochs=0, weight_decay=0.5).optimizer(10)
    start = jnp.array(2.0)
    updates, _ = optimizer.update(jnp.array(3.0), optimizer.init(start), start)
    assert updates == pytest.approx(-0.1 * (3 + 0.5 * 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SubspaceConfig(momentum=1.0), "momentum must be in [0, 1), got 1.0"),
        (lambda: SubspaceConfig(pad=-1), "pad must not be negative, got -1"),
        (
            lambda: SubspaceConfig(epochs=5),
            "warmup_epochs must be at least 0 and fewer than the 5 epochs, got 5",
        ),
        (
            lambda: fit_line(small("one layer"), bits(2, 4), key=KEY, cosine_weight=-1),
            "cosine_weight must be a number of at least 0, got -1",
        ),
        (
            lambda: fit_point(small("one layer"), top_k(0.1, 1, whole=["x"]), key=KEY),
            "'x' in whole fits no kernel; the kernels are fc/kernel",
        ),
    ],
    ids=range(5),
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


def test_weights_that_are_not_finite():
    task = small("one layer")
    broken = task._replace(
        init=lambda seed: jax.tree.map(lambda leaf: leaf * jnp.nan, task.init(seed))
    )
    with pytest.raises(ConfigError, match=r"^kernels must be finite, got NaN or infinity in fc/"):
        fit_point(broken, bits(2, 4), key=KEY)


def test_a_family_says_what_it_is():
    family = Family(small("one layer").init(0), {}, bits(2, 4))
    assert family.rule == bits(2, 4)
    assert family.on_line(0.3).params["fc"]["kernel"] is family.net.params["fc"]["kernel"]
