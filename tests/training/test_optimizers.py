"""Optimisers that take more than the gradient, and what is no optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swsjax.errors import ConfigError
from swsjax.training.epochs import optimizer_of
from swsjax.training.loop import train

TARGET = np.full((1, 4), 2, np.float32)
# In place of L-BFGS, whose own search takes long to compile.
SEARCH = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10))
ASCENT = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))


def loss(params, batch):
    x, y = params["x"][None], params["y"][None]
    return jnp.mean((x - batch) ** 4) + jnp.mean((y + batch) ** 2)


def value_fn(params):
    return loss(params, TARGET)


def gradient(params, _=None):
    return jax.grad(value_fn)(params)


def usual(params):
    return {"value": value_fn(params), "grad": gradient(params), "value_fn": value_fn}


def nothing(params):
    return {}


# Each with what its update takes, as its documentation has it.
OPTIMIZERS = {
    "SAM": (optax.contrib.sam(optax.sgd(0.01), ASCENT), nothing),
    "SAM, opaque": (
        optax.contrib.sam(optax.sgd(0.01), ASCENT, sync_period=3, opaque_mode=True),
        lambda params: {"grad_fn": gradient},
    ),
    "Sophia, in a chain": (
        optax.contrib.sophia(0.01, update_interval=2),
        lambda params: {"obj_fn": value_fn},
    ),
    "a line search, of two steps as one": (
        optax.MultiSteps(SEARCH, 2).gradient_transformation(),
        usual,
    ),
    "a line search of one group": (
        optax.partition({"a": SEARCH}, {"x": "a", "y": "a"}),
        usual,
    ),
    "an update that takes no params": (
        optax.GradientTransformation(
            lambda params: optax.EmptyState(),
            lambda updates, state, params=None: (jax.tree.map(lambda g: -g / 9, updates), state),
        ),
        nothing,
    ),
    "an update that names the value": (
        optax.GradientTransformationExtraArgs(
            lambda params: optax.EmptyState(),
            lambda updates, state, params=None, *, value: (
                jax.tree.map(lambda g: -g / (9 + value), updates),
                state,
            ),
        ),
        lambda params: {"value": value_fn(params)},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_gets_what_it_takes(name):
    """All batches are alike, so that their order has no influence."""
    optimizer, extra = OPTIMIZERS[name]
    params = {"x": jnp.full(4, 5.0), "y": jnp.full(4, -1.0)}
    ours = train(params, loss, np.tile(TARGET, (8, 1))[:, :4], optimizer, epochs=3, batch_size=4)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(gradient(params), state, params, **extra(params))
        return optax.apply_updates(params, updates), state

    state = jax.jit(optimizer.init)(params)
    for _ in range(6):
        params, state = step(params, state)
    for leaf in ("x", "y"):
        np.testing.assert_allclose(ours.params[leaf], params[leaf], rtol=1e-4)
    assert ours.history[-1].loss < ours.history[0].loss


def test_several_steps_as_one_need_no_conversion():
    steps = optax.MultiSteps(optax.adam(0.1), 2)
    params, data = {"x": jnp.zeros(4), "y": jnp.zeros(4)}, np.tile(TARGET, (8, 1))
    ours, expected = (
        train(params, loss, data, optimizer, epochs=2, batch_size=4).params
        for optimizer in (steps, steps.gradient_transformation())
    )
    assert (ours["x"] != 0).all()
    for leaf in ("x", "y"):
        np.testing.assert_array_equal(ours[leaf], expected[leaf])


@pytest.mark.parametrize("given", [0.1, optax.adam, None])
def test_what_is_no_optimizer(given):
    message = f"optimizer must be an optax optimiser, got a {type(given).__name__}; make one"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        optimizer_of(given, "make one")
