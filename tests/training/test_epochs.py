"""One epoch sees every example once, in an order that depends on the key only."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swsjax.training.epochs import TrainState, epoch, gradient_step

INDICES = {"index": np.arange(12), "twice": 2 * np.arange(12)}


def record(state, batch):
    """Append the batch to the record in ``params``; ``step`` counts the batches."""
    aligned = jnp.all(batch["twice"] == 2 * batch["index"])
    seen = state.params.at[state.step].set(jnp.where(aligned, batch["index"], -1))
    return state._replace(params=seen, step=state.step + 1), batch["index"].mean()


def start(seed, steps=4, batch_size=3):
    unseen = jnp.full((steps, batch_size), -1)
    return TrainState(unseen, (), jnp.zeros((), jnp.int32), jax.random.key(seed))


def order(seed=0, epochs=1, size=12, steps=4, batch_size=3):
    """What was seen in each epoch, and the mean infos."""
    data = jax.tree.map(lambda x: jnp.asarray(x[:size]), INDICES)
    state, orders, infos = start(seed, steps, batch_size), [], []
    for _ in range(epochs):
        state, info = epoch(record, state, data, batch_size=batch_size)
        orders.append(np.asarray(state.params).ravel().tolist())
        infos.append(info)
        state = state._replace(step=jnp.zeros((), jnp.int32))
    return orders, infos


def test_every_example_once_in_each_epoch():
    orders, infos = order(epochs=3)
    assert [sorted(seen) for seen in orders] == [list(range(12))] * 3
    assert len({tuple(seen) for seen in orders}) == 3
    assert list(range(12)) not in orders
    np.testing.assert_allclose(infos, 5.5)


def test_order_depends_on_the_key_only():
    assert order(seed=1, epochs=2) == order(seed=1, epochs=2)
    assert order(seed=1)[0] != order(seed=2)[0]


def test_the_incomplete_batch_is_left_out_and_differs_from_epoch_to_epoch():
    orders, _ = order(epochs=20, size=11, steps=3)
    assert all(len(set(seen)) == 9 and min(seen) >= 0 for seen in orders)
    assert set().union(*orders) == set(range(11))


def test_the_state_is_donated():
    state = start(0)
    epoch(record, state, jax.tree.map(jnp.asarray, INDICES), batch_size=3)
    assert state.params.is_deleted()


def test_epochs_compile_once():
    traces = []

    def step(state, batch):
        traces.append(batch["index"].shape)
        return record(state, batch)

    state = start(0)
    for _ in range(3):
        state, _ = epoch(step, state, INDICES, batch_size=3)
    assert traces == [(3,)]


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.lbfgs(memory_size=2)])
def test_a_gradient_step_is_that_of_the_optimizer(optimizer):
    """Line searches take the value, the gradient and the function as well."""
    batch = jnp.array([1.0, 3.0])

    def value(params):
        return jnp.sum((params["x"] - batch) ** 4)

    def objective(params, state, batch):
        return jnp.sum((params["x"] - batch) ** 4), ("info", state.aux + 1)

    params = {"x": jnp.array([0.5, -2.0])}
    opt_state = optimizer.init(params)
    state = TrainState(params, opt_state, jnp.zeros((), jnp.int32), jax.random.key(0), aux=5)
    step = gradient_step(objective, optimizer)
    extended = optax.with_extra_args_support(optimizer)
    for _ in range(3):
        state, info = step(state, batch)
        found, gradient = jax.value_and_grad(value)(params)
        updates, opt_state = extended.update(
            gradient, opt_state, params, value=found, grad=gradient, value_fn=value
        )
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(state.params["x"], params["x"], rtol=1e-6)
    assert (info, state.step, state.aux) == ("info", 3, 8)
