"""Streamed data: each example once per pass, and training as on arrays on the device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swsjax.errors import ConfigError
from swsjax.training.stream import Stream, stream_arrays, stream_epoch


def order(stream, number):
    """The numbers that a pass draws from ``range``, in order."""
    return np.concatenate(list(stream.batches(number))).tolist()


@given(st.data(), st.integers(1, 40), st.integers(0, 3), st.integers(0, 3))
@settings(deadline=None)
def test_every_example_at_most_once_per_pass_in_full_batches(data, size, seed, number):
    batch_size = data.draw(st.integers(1, size))
    arrays = {"index": np.arange(size), "rows": np.arange(3 * size).reshape(size, 3)}
    stream = stream_arrays(arrays, batch_size=batch_size, seed=seed)
    assert stream.size == size
    batches = list(stream.batches(number))
    assert [len(batch["index"]) for batch in batches] == [batch_size] * (size // batch_size)
    drawn = np.concatenate([batch["index"] for batch in batches])
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(range(size))
    rows = np.concatenate([batch["rows"] for batch in batches])
    np.testing.assert_array_equal(rows, arrays["rows"][drawn])


def test_the_incomplete_batch_is_left_out_and_differs_from_pass_to_pass():
    stream = stream_arrays(np.arange(11), batch_size=3)
    drawn = [order(stream, number) for number in range(20)]
    assert {len(seen) for seen in drawn} == {9}
    assert set().union(*drawn) == set(range(11))


def test_order_depends_on_seed_and_pass_only():
    draw = partial(stream_arrays, np.arange(100), batch_size=10)
    once, again, other = draw(seed=1), draw(seed=1), draw(seed=2)
    orders = [order(once, number) for number in range(3)]
    assert [order(again, number) for number in (2, 1, 0)] == orders[::-1]
    drawn = [tuple(seen) for seen in (*orders, order(other, 0), order(draw(), 0), range(100))]
    assert len(set(drawn)) == 6


def test_a_batch_from_a_file_of_a_terabyte(tmp_path):
    path = tmp_path / "images"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole, which takes no space on the disk
    images = np.memmap(path, np.uint8, "r", shape=(2**20, 2**10, 2**10))
    stream = stream_arrays({"images": images, "labels": np.arange(2**20)}, batch_size=4)
    batch = next(iter(stream.batches(0)))
    assert {name: (type(x), x.shape) for name, x in batch.items()} == {
        "images": (np.ndarray, (4, 2**10, 2**10)),
        "labels": (np.ndarray, (4,)),
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            np.zeros((7, 2)),
            "data hold 7 examples, fewer than a batch of 8; set a smaller batch_size",
        ),
        (
            (np.zeros(8), np.zeros(9)),
            "data must be a pytree of arrays with the same number of examples along the first "
            r"axis, got first axes {'0': \(8,\), '1': \(9,\)}",
        ),
    ],
)
def test_arrays_that_make_no_batch(data, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        stream_arrays(data, batch_size=8)


def step(state, batch):
    """Exact on small integers; the state depends on the order of the batches."""
    state = {"x": 3 * state["x"] + batch.sum(), "steps": state["steps"] + 1}
    return state, {"first": batch[0], "x": state["x"]}


def start():
    return {"x": jnp.asarray(1.0), "steps": jnp.asarray(0)}


@given(st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_an_epoch_is_a_loop_over_the_batches(batches):
    batches = np.asarray(batches, np.float32)
    state, infos = start(), []
    for batch in batches:
        state, info = step(state, jnp.asarray(batch))
        infos.append(info)
    ours, mean = stream_epoch(step, start(), iter(batches))
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, state[name], strict=True)
    for name in mean:
        values = np.float64([info[name] for info in infos])
        np.testing.assert_allclose(mean[name], values.mean(), rtol=1e-6, atol=1e-6)


def test_the_state_is_donated_but_not_the_batches():
    state, batches = start(), [jnp.ones(3), jnp.ones(3)]
    stream_epoch(step, state, batches)
    assert all(leaf.is_deleted() for leaf in state.values())
    assert not any(batch.is_deleted() for batch in batches)


def test_a_batch_is_drawn_only_when_needed():
    drawn, traced = [], []

    def noting(state, batch):
        traced.append(len(drawn))
        return step(state, batch)

    def batches():
        for number in range(5):
            drawn.append(number)
            yield np.full(3, number, np.float32)

    stream_epoch(noting, start(), batches())
    assert traced[0] == 1
    assert drawn == list(range(5))
    in_first_epoch = len(traced)
    stream_epoch(noting, start(), batches())
    assert len(traced) == in_first_epoch


def test_a_stream_of_the_same_batches_gives_the_same_net():
    drawn, asked = [], []

    def loss_fn(params, batch):
        jax.debug.callback(drawn.append, batch.pop("index"), ordered=True)
        return planted.loss_fn(params, batch)

    def batches(number):
        asked.append(number)
        for chosen in drawn[8 * number : 8 * number + 8]:
            yield {name: array[chosen] for name, array in planted.DATA.items()}

    indexed = planted.DATA | {"index": np.arange(520)}
    result = planted.retrain(1, 1, loss_fn, indexed)
    jax.effects_barrier()
    streamed = planted.retrain(1, 1, data=Stream(520, batches))
    assert len(drawn) == 16
    assert asked == [0, 1]
    assert [epoch.stage for epoch in streamed.history] == ["soft", "hard"]
    for x, y in zip(jax.tree.leaves(streamed[:3]), jax.tree.leaves(result[:3]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
    losses = [[epoch.loss for epoch in run.history] for run in (streamed, result)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_net_is_trained_on_the_data_of_the_stream():
    data = planted.DATA | {"y": -planted.DATA["y"]}
    streamed = planted.retrain(3, 0, data=stream_arrays(data, batch_size=64))
    assert [epoch.stage for epoch in streamed.history] == ["soft"] * 3
    losses = [planted.loss_fn(params, data) for params in (planted.PARAMS, streamed.retrained)]
    assert losses[1] < 0.97 * losses[0]


def test_a_stream_with_fewer_examples_than_a_batch():
    message = "the stream holds 63 examples, fewer than a batch of 64; set a smaller batch_size"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        planted.retrain(1, 1, data=Stream(63, lambda number: []))
