"""One epoch sees every example once, in an order that depends on the key only."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swsjax.training.epochs import TrainState, compiled_loop, epoch, gradient_step, shuffled

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


def convolution(state, batch):
    """A gradient step of a kernel of 3 x 3."""

    def loss(kernel):
        outputs = jax.lax.conv(batch["images"], kernel, (1, 1), "SAME")
        return jnp.mean((outputs - batch["targets"]) ** 2)

    value, gradient = jax.value_and_grad(loss)(state.params)
    return state._replace(params=state.params - 0.1 * gradient), value


def images():
    rng = np.random.default_rng(0)
    shapes = {"images": (10, 2, 6, 6), "targets": (10, 3, 6, 6)}
    return {name: jnp.float32(rng.normal(size=shape)) for name, shape in shapes.items()}


def kernel():
    return TrainState(jnp.zeros((3, 2, 3, 3)), (), jnp.zeros((), jnp.int32), jax.random.key(0))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a matter of processors")
def test_convolutions_are_not_compiled_into_a_loop_on_processors():
    steps = {
        "convolution": lambda *given: convolution(*given),
        "none": lambda *given: record(*given),
    }
    before = compiled_loop._cache_size()
    epoch(steps["convolution"], kernel(), images(), batch_size=3)
    assert compiled_loop._cache_size() == before
    epoch(steps["none"], start(0), jax.tree.map(jnp.asarray, INDICES), batch_size=3)
    assert compiled_loop._cache_size() == before + 1


def in_a_loop(x):
    return jax.lax.scan(lambda x, _: (blurred(x), None), x, length=2)[0]


def in_a_branch(x):
    return jax.lax.cond(x.sum() > 0, blurred, lambda x: x, x)


def blurred(x):
    return jax.lax.conv_general_dilated(x, jnp.ones((1, 1, 3, 3)), (1, 1), "SAME")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a matter of processors")
@pytest.mark.parametrize("inner", [in_a_loop, in_a_branch, jax.jit(jax.checkpoint(blurred))])
def test_a_convolution_is_found_wherever_it_is(inner):
    def step(state, batch):
        return state._replace(params=inner(state.params)), batch

    before = compiled_loop._cache_size()
    state = TrainState(jnp.ones((1, 1, 4, 4)), (), jnp.zeros((), jnp.int32), jax.random.key(0))
    epoch(step, state, jnp.ones(2), batch_size=1)
    assert compiled_loop._cache_size() == before


def test_convolutions_give_the_same_in_either_loop():
    """The same examples in the same order, the same state and mean."""
    ours, state = epoch(convolution, kernel(), images(), batch_size=3), kernel()
    key, order = shuffled(state.key, 10, 3)
    expected = compiled_loop(convolution, state._replace(key=key), images(), order)
    np.testing.assert_array_equal(*(jax.random.key_data(run[0].key) for run in (ours, expected)))
    np.testing.assert_allclose(ours[0].params, expected[0].params, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours[1], expected[1], rtol=1e-5)
    again = epoch(convolution, kernel(), images(), batch_size=3)
    np.testing.assert_array_equal(ours[0].params, again[0].params)


SEARCH = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10))


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), SEARCH], ids=["adam", "search"])
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


def test_several_passes_are_as_one_after_another():
    """Each in an order of its own; the info is the mean over the steps of all."""
    key, sizes = jax.random.key(5), (7, 2)
    orders = []
    following = key
    for _ in range(3):
        following, order = shuffled(following, *sizes)
        orders.append(order)
    last, ours = shuffled(key, *sizes, 3)
    np.testing.assert_array_equal(ours, np.concatenate(orders))
    assert last == following
    assert any((one != orders[0]).any() for one in orders[1:])

    def step(state, batch):
        params = 0.5 * state.params + batch.sum()  # depends on the order
        return state._replace(params=params, step=state.step + 1), params

    def start():
        return TrainState(jnp.zeros(()), (), jnp.int32(0), jax.random.key(5))

    data, state, infos = jnp.arange(7.0), start(), []
    for _ in range(3):
        state, info = epoch(step, state, data, batch_size=2)
        infos.append(info)
    ours, info = epoch(step, start(), data, batch_size=2, passes=3)
    assert (ours.params, ours.step, ours.key) == (state.params, state.step, state.key)
    np.testing.assert_allclose(info, np.mean(infos), rtol=1e-6)
