"""Losses against NumPy and SciPy."""

import gc
import re
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from swsjax.errors import ConfigError
from swsjax.training.losses import (
    cross_entropy,
    distillation,
    error_rate,
    logits_of,
    misclassified,
    output_matching,
    with_aux,
    with_teacher,
)

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(7, 5))
LABELS = RNG.integers(0, 4, 7)
TEACHER = RNG.normal(0, 3, (7, 4))
PARAMS = RNG.normal(size=(5, 4))
BATCH = {"inputs": INPUTS, "labels": LABELS, "teacher": TEACHER}


def apply(params, inputs):
    return inputs @ params


def value_and_gradient(loss, params=PARAMS, batch=BATCH):
    with jax.enable_x64(True):
        return jax.value_and_grad(loss)(jnp.asarray(params), jax.tree.map(jnp.asarray, batch))


def manual_cross_entropy():
    return -special.log_softmax(INPUTS @ PARAMS, axis=-1)[np.arange(7), LABELS].mean()


def test_cross_entropy():
    value, gradient = value_and_gradient(cross_entropy(apply))
    np.testing.assert_allclose(value, manual_cross_entropy(), rtol=1e-12)
    surprise = special.softmax(INPUTS @ PARAMS, axis=-1) - np.eye(4)[LABELS]
    np.testing.assert_allclose(gradient, INPUTS.T @ surprise / 7, rtol=1e-10)


@pytest.mark.parametrize("teacher_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation(teacher_weight, temperature):
    loss = distillation(apply, teacher_weight=teacher_weight, temperature=temperature)
    value, _ = value_and_gradient(loss)
    teacher = special.softmax(TEACHER / temperature, axis=-1)
    student = special.softmax(INPUTS @ PARAMS / temperature, axis=-1)
    divergence = special.rel_entr(teacher, student).sum(axis=-1).mean()
    expected = (1 - teacher_weight) * manual_cross_entropy()
    expected += teacher_weight * temperature**2 * divergence
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_distillation_defaults():
    expected = value_and_gradient(distillation(apply, teacher_weight=0.5, temperature=3.0))
    np.testing.assert_array_equal(value_and_gradient(distillation(apply))[1], expected[1])


def test_without_a_teacher_it_is_cross_entropy():
    ours = value_and_gradient(distillation(apply, teacher_weight=0.0))
    for x, y in zip(ours, value_and_gradient(cross_entropy(apply)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


def test_distillation_from_the_net_itself_is_zero():
    batch = BATCH | {
        "teacher": INPUTS @ PARAMS + RNG.normal(size=(7, 1))
    }  # a shift changes nothing
    value, gradient = value_and_gradient(distillation(apply, teacher_weight=1.0), batch=batch)
    np.testing.assert_allclose(value, 0, atol=1e-12)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_gradient_keeps_its_scale_at_high_temperature():
    """Its limit is that of half the mean squared difference of centred logits, per class."""
    _, gradient = value_and_gradient(distillation(apply, teacher_weight=1.0, temperature=1e4))
    difference = INPUTS @ PARAMS - TEACHER
    difference -= difference.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(gradient, INPUTS.T @ difference / 4 / 7, rtol=1e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_weight": -0.1}, "teacher_weight must lie in [0, 1], got -0.1"),
        ({"teacher_weight": 1.5}, "teacher_weight must lie in [0, 1], got 1.5"),
        ({"temperature": 0.5}, "temperature must be at least 1, got 0.5"),
        ({"temperature": float("nan")}, "temperature must be at least 1, got nan"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        distillation(apply, **settings)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_logits_in_batches(batch_size):
    ours = logits_of(apply, PARAMS, INPUTS, batch_size=batch_size)
    np.testing.assert_allclose(ours, INPUTS @ PARAMS, rtol=1e-5, atol=1e-5)


def test_error_rate():
    wrong = (INPUTS @ PARAMS).argmax(axis=-1) != LABELS
    assert 0 < wrong.sum() < 7
    ours = error_rate(apply, PARAMS, INPUTS, LABELS.astype(np.uint8))
    assert type(ours) is float
    assert ours == pytest.approx(wrong.mean())


def squares(params, batch):
    return jnp.sum(params**2) * batch["inputs"].mean()


@pytest.mark.parametrize("make", [distillation, output_matching])
def test_mixed_with_another_loss(make):
    value, _ = value_and_gradient(make(apply, teacher_weight=0.3, loss=squares))
    alone, _ = value_and_gradient(make(apply, teacher_weight=1.0))
    np.testing.assert_allclose(
        value, 0.7 * np.sum(PARAMS**2) * INPUTS.mean() + 0.3 * float(alone), rtol=1e-9
    )


@pytest.mark.parametrize("make", [distillation, output_matching])
def test_the_teacher_alone_needs_no_labels(make):
    batch = {"inputs": INPUTS, "teacher": TEACHER}
    loss = make(apply, teacher_weight=1.0)
    assert value_and_gradient(loss, batch=batch)[0] == value_and_gradient(loss)[0]
    with pytest.raises(KeyError):
        value_and_gradient(make(apply, teacher_weight=0.9), batch=batch)


@pytest.mark.parametrize("teacher_weight", [0.0, 0.3, 1.0])
def test_output_matching(teacher_weight):
    targets = RNG.normal(size=TEACHER.shape)
    batch = BATCH | {"targets": targets}
    value, gradient = value_and_gradient(
        output_matching(apply, teacher_weight=teacher_weight), batch=batch
    )
    outputs = INPUTS @ PARAMS
    other_weight = 1 - teacher_weight
    expected = other_weight * (outputs - targets) ** 2 + teacher_weight * (outputs - TEACHER) ** 2
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-12)
    pull = 2 * (outputs - other_weight * targets - teacher_weight * TEACHER) / outputs.size
    np.testing.assert_allclose(gradient, INPUTS.T @ pull, rtol=1e-10)


def test_with_teacher():
    data = with_teacher({"inputs": jnp.asarray(INPUTS), "labels": LABELS}, apply, PARAMS)
    np.testing.assert_allclose(data["teacher"], INPUTS @ PARAMS, atol=1e-4)
    assert data["labels"] is LABELS


@pytest.mark.parametrize("make", [cross_entropy, distillation])
def test_a_loss_of_a_net_that_carries_state(make):
    def apply_with_aux(params, seen, inputs):
        return apply(params, inputs), seen + len(inputs)

    def with_state(params, batch):
        return with_aux(make, apply_with_aux)(params, 3, batch)

    ours = value_and_gradient(lambda params, batch: with_state(params, batch)[0])
    for x, y in zip(ours, value_and_gradient(make(apply)), strict=True):
        np.testing.assert_array_equal(x, y)
    assert with_state(PARAMS, BATCH)[1] == 10


def test_an_equinox_module_is_evaluated_as_it_is():
    net = eqx.nn.MLP(5, 4, 6, 1, activation=jax.nn.gelu, key=jax.random.key(0))

    def of_net(net, inputs):
        return jax.vmap(net)(inputs)

    expected = of_net(net, jnp.float32(INPUTS))
    ours = logits_of(of_net, net, np.float32(INPUTS), batch_size=3)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    wrong = np.argmax(expected, axis=-1) != LABELS
    np.testing.assert_array_equal(misclassified(of_net, net, INPUTS, LABELS), wrong)
    assert error_rate(of_net, net, INPUTS, LABELS) == pytest.approx(wrong.mean())
    data = with_teacher({"inputs": INPUTS}, of_net, net)
    np.testing.assert_allclose(data["teacher"], expected, rtol=1e-5, atol=1e-6)


def test_functions_and_numbers_in_a_tree_are_constants():
    tree = {"act": jnp.tanh, "axis": -1, "name": "a net", "w": jnp.float32(PARAMS)}

    def of_tree(tree, inputs):
        assert type(tree["axis"]) is int
        assert tree["name"] == "a net"
        return jax.nn.softmax(tree["act"](inputs @ tree["w"]), axis=tree["axis"])

    ours = logits_of(of_tree, tree, INPUTS)
    expected = special.softmax(np.tanh(INPUTS @ PARAMS), axis=-1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("constants", [{}, {"act": jnp.tanh, "name": "a net"}])
def test_a_function_is_traced_once_for_all_nets_of_a_form(constants):
    """Its program, and what it refers to, are dropped with it."""
    seen = []

    def of_tree(tree, inputs):
        seen.append(isinstance(tree["w"], jax.core.Tracer))
        return tree.get("act", jnp.sin)(inputs @ tree["w"])

    first, second = (
        logits_of(of_tree, {"w": jnp.float32(scale * PARAMS)} | constants, INPUTS, batch_size=3)
        for scale in (1, 2)
    )
    assert seen == [True] * 2  # a batch of three and one of one
    assert not np.allclose(first, second)
    known = weakref.ref(of_tree)
    del of_tree
    gc.collect()
    assert known() is None


def test_an_nnx_module_is_evaluated_as_it_is():
    net = nnx.Linear(5, 4, rngs=nnx.Rngs(0))
    ours = logits_of(lambda net, x: net(x), net, INPUTS)
    expected = INPUTS @ net.kernel[...] + net.bias[None]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


PAIR = {"left": INPUTS[:, :2], "right": INPUTS[:, 2:]}


def of_pair(params, inputs):
    return apply(params, jnp.concatenate([inputs["left"], inputs["right"]], axis=1))


@pytest.mark.parametrize("batch_size", [3, 100])
def test_inputs_of_several_arrays(batch_size):
    ours = logits_of(of_pair, PARAMS, PAIR, batch_size=batch_size)
    np.testing.assert_allclose(ours, INPUTS @ PARAMS, rtol=1e-5, atol=1e-5)
    assert error_rate(of_pair, PARAMS, PAIR, LABELS) == error_rate(apply, PARAMS, INPUTS, LABELS)
    batch = BATCH | {"inputs": PAIR}
    ours = value_and_gradient(distillation(of_pair), batch=batch)
    for x, y in zip(ours, value_and_gradient(distillation(apply)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


def test_inputs_that_disagree():
    message = (
        "inputs must be a pytree of arrays with the same number of examples along the first axis, "
        "got first axes {'left': (7,), 'right': (6,)}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        logits_of(of_pair, PARAMS, {"left": INPUTS, "right": INPUTS[1:]})


HEADS = {
    "a dictionary": (lambda x, y: {"class": x, "size": y}, "dict of class, size", "class"),
    "a tuple": (lambda x, y: (x, y), "tuple of 0, 1", 0),
}


@pytest.mark.parametrize("heads", HEADS)
def test_nets_of_several_heads(heads):
    make, found, first = HEADS[heads]

    def of_heads(params, inputs):
        return make(apply(params, inputs), inputs.sum(axis=1))

    outputs = logits_of(of_heads, PARAMS, INPUTS, batch_size=3)
    expected = make(INPUTS @ PARAMS, INPUTS.sum(axis=1))
    assert jax.tree.structure(outputs) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(outputs), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    data = with_teacher({"inputs": INPUTS}, of_heads, PARAMS)
    assert jax.tree.structure(data["teacher"]) == jax.tree.structure(expected)

    message = (
        f"apply must return one array, got a {found}; pass a function that returns one of them"
    )
    for use in (
        lambda: error_rate(of_heads, PARAMS, INPUTS, LABELS),
        lambda: cross_entropy(of_heads)(PARAMS, BATCH),
        lambda: distillation(of_heads)(PARAMS, BATCH),
        lambda: output_matching(of_heads, teacher_weight=1.0)(PARAMS, BATCH),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            use()
    message = (
        f"teacher in a batch must be one array of shape (7, 4), as the outputs of apply are, got a "
        f"{found}"
    )
    for loss in (distillation(apply), output_matching(apply, teacher_weight=1.0)):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            loss(PARAMS, BATCH | data)
    # What it says to do.
    one_head = error_rate(lambda *given: of_heads(*given)[first], PARAMS, INPUTS, LABELS)
    assert one_head == error_rate(apply, PARAMS, INPUTS, LABELS)


@pytest.mark.parametrize("shape", [(1, 4), (4,), (7, 1), (7,), ()])
@pytest.mark.parametrize("name", ["teacher", "targets"])
def test_an_entry_that_would_be_broadcast(name, shape):
    batch = BATCH | {"targets": TEACHER} | {name: np.zeros(shape)}
    message = (
        f"{name} in a batch must be one array of shape (7, 4), as the outputs of apply are, got "
        f"shape {shape}"
    )
    losses = [output_matching(apply)] + [distillation(apply)] * (name == "teacher")
    for loss in losses:
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            loss(PARAMS, batch)


class WithoutReferences:
    """A function that can neither be referred to weakly nor found in a dictionary."""

    __slots__ = ("scale",)
    __hash__ = None

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, tree, inputs):
        return self.scale * (inputs @ tree["w"])


@pytest.mark.parametrize(
    "constants",
    [{}, {"name": "a net"}, {"names": np.array(["a", "b"])}, {"labels": {1, 2}, "act": jnp.tanh}],
    ids=["none", "text", "an array of text", "a set"],
)
@pytest.mark.parametrize("of_tree", [WithoutReferences(2.0), lambda tree, x: 2 * (x @ tree["w"])])
def test_nets_and_functions_that_no_dictionary_finds(of_tree, constants):
    """Each call compiles, and none uses the program of another."""
    for scale in (1, 3):
        tree = {"w": jnp.float32(scale * PARAMS)} | constants
        ours = logits_of(of_tree, tree, INPUTS, batch_size=3)
        np.testing.assert_allclose(ours, 2 * scale * INPUTS @ PARAMS, rtol=1e-5, atol=1e-5)
