"""Checkpoints of any pytree, and the messages about those that do not fit."""

import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

from swsjax.errors import CheckpointError, ConfigError
from swsjax.file.checkpoint import load_checkpoint, save_checkpoint


class Pair(NamedTuple):
    left: object
    right: object


NET = {"fc1": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3)}}


@pytest.mark.parametrize(
    "params",
    [
        {"fc1": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3)}},
        {"numpy": np.float32([0.1, -0.0, 1e-40])},
        [jnp.ones(2), (jnp.zeros((1, 2)), {"scalar": jnp.asarray(2.5)})],
        Pair(jnp.bfloat16([1, 0.3]), {"none": None, "w": jnp.ones(1, jnp.float16)}),
        {0: jnp.ones(2), 1: jnp.zeros(2)},
    ],
)
def test_a_round_trip_keeps_every_bit(params, tmp_path):
    save_checkpoint(tmp_path / "net", params)
    loaded = load_checkpoint(str(tmp_path / "net"), jax.tree.map(jnp.zeros_like, params))
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


def test_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("net", {"w": jnp.ones(2)})
    np.testing.assert_array_equal(load_checkpoint("net", {"w": jnp.zeros(2)})["w"], 1)


def test_overwriting_with_a_different_net(tmp_path):
    save_checkpoint(tmp_path / "net", NET)
    save_checkpoint(tmp_path / "net", {"other": jnp.ones(4)})
    np.testing.assert_array_equal(
        load_checkpoint(tmp_path / "net", {"other": jnp.zeros(4)})["other"], 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def not_a_checkpoint(folder):
    return (
        f"{folder} is not an Orbax checkpoint; give the folder that `swsjax pretrain` or "
        "Orbax's StandardCheckpointer wrote"
    )


def fails(folder, like, message):
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        load_checkpoint(folder, like)


def test_a_folder_without_a_checkpoint_and_a_file(tmp_path):
    fails(tmp_path, NET, not_a_checkpoint(tmp_path))
    (tmp_path / "file").write_text("not a folder")
    fails(tmp_path / "file", NET, not_a_checkpoint(tmp_path / "file"))


def test_a_damaged_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "net", NET)
    (tmp_path / "net" / "_METADATA").write_text("{")
    fails(tmp_path / "net", NET, not_a_checkpoint(tmp_path / "net"))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"kernel": NET["fc1"]["kernel"]}, "fc1/bias has shape (3,), expected none"),
        (
            NET["fc1"] | {"scale": np.zeros(5)},
            "fc1/scale has shape none (missing), expected (5,)",
        ),
    ],
)
def test_a_checkpoint_of_a_different_net(layer, message, tmp_path):
    save_checkpoint(tmp_path / "net", NET)
    prefix = f"the checkpoint {tmp_path / 'net'} is of a different net: "
    fails(tmp_path / "net", {"fc1": layer}, prefix + message)


def test_what_is_not_a_checkpoint_stays(tmp_path):
    """Orbax would delete it."""
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("precious")
    folder.mkdir()
    (folder / "file").write_text("precious")
    for path in (file, folder):
        with pytest.raises(CheckpointError) as raised:
            save_checkpoint(path, {"w": jnp.ones(2)})
        assert str(raised.value) == (
            f"{path} is not an Orbax checkpoint and would be deleted; choose a new folder"
        )
    assert file.read_text() == (folder / "file").read_text() == "precious"


def test_an_empty_folder_and_a_link(tmp_path):
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    for value in (1.0, 2.0):
        save_checkpoint(link, {"w": jnp.full(2, value)})
        assert link.is_symlink()
        assert load_checkpoint(folder, {"w": jnp.zeros(2)})["w"].tolist() == [value, value]


@pytest.fixture
def big(tmp_path):
    save_checkpoint(tmp_path / "net", {"fc": {"w": jnp.float32([1e6, 2])}})
    return tmp_path / "net"


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", ">f4"])
def test_floating_arrays_are_cast(dtype, big):
    made = load_checkpoint(big, {"fc": {"w": np.zeros(2, dtype)}})["fc"]["w"]
    assert made.dtype == dtype
    assert made.tolist() == np.array([1e6, 2], dtype).tolist()


@pytest.mark.parametrize("kind", [np.zeros, jnp.zeros, jax.ShapeDtypeStruct])
@pytest.mark.parametrize(
    ("dtype", "problem"),
    [
        ("float16", "float32[2] and has 1000000.0, which float16 does not hold"),
        ("int8", "of type float32, expected int8"),
        ("complex64", "of type float32, expected complex64"),
    ],
)
def test_a_type_that_does_not_hold_what_is_stored(kind, dtype, problem, big):
    like = {"fc": {"w": kind((2,), np.dtype(dtype))}}
    fails(big, like, f"the checkpoint {big} does not fit: fc/w is {problem}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_like_may_be_traced_or_described(dtype, big):
    like = {"fc": {"w": jnp.ones(2, dtype)}}
    expected = load_checkpoint(big, like)["fc"]["w"] * 2
    made = jax.jit(lambda like: jax.tree.map(jnp.add, load_checkpoint(big, like), like))(like)
    np.testing.assert_array_equal(made["fc"]["w"], expected / 2 + 1)
    described = load_checkpoint(big, jax.eval_shape(lambda: like))["fc"]["w"]
    assert isinstance(described, jax.Array)
    assert described.dtype == dtype
    assert jax.eval_shape(lambda like: load_checkpoint(big, like), like) == jax.eval_shape(
        lambda: like
    )


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"w": np.ma.masked_less(np.array([1.0, -1.0]), 0)},
            ConfigError,
            "w in params is a masked array, whose mask would be lost; fill it, and if the mask is "
            "needed, pass it as an array of its own",
        ),
        (
            {"fc": np.ones(2, np.longdouble)},
            ConfigError,
            f"fc in params is of type {np.dtype(np.longdouble)}, which JAX does not have; convert "
            "it to a narrower one",
        ),
        ({"w": "text"}, TypeError, "leaf w is a str, not an array; leave it out"),
        ({"w": np.array(["a"])}, TypeError, "leaf w has element type <U1; leave it out"),
        (
            [jax.random.key(0)],
            TypeError,
            "leaf 0 is a random key; leave it out or give jax.random.key_data(key)",
        ),
        (
            [np.zeros((0, 2))],
            CheckpointError,
            "leaf 0 is empty, which a checkpoint cannot hold; leave it out",
        ),
        ({}, CheckpointError, "params hold no arrays; a checkpoint needs at least one"),
    ],
    ids=["masked", "longdouble", "text", "texts", "key", "empty", "none"],
)
def test_what_a_checkpoint_cannot_hold(params, error, message, tmp_path, capfd):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        save_checkpoint(tmp_path / "net", params)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [243, 255])
def test_every_name_that_the_file_system_allows(size, tmp_path, capfd):
    folder = tmp_path / ("n" * size)
    for value in (1.0, 2.0):
        save_checkpoint(folder, {"w": jnp.full(2, value)})
        assert load_checkpoint(folder, {"w": jnp.zeros(2)})["w"].tolist() == [value, value]
    assert list(tmp_path.iterdir()) == [folder]
    assert capfd.readouterr().err == ""


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "net", NET)

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(orbax.checkpoint.StandardCheckpointer, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "net", {"other": jnp.ones(4)})
    assert load_checkpoint(tmp_path / "net", NET)["fc1"]["kernel"].tolist() == [
        [0, 1, 2],
        [3, 4, 5],
    ]


def test_what_a_killed_save_left_is_replaced(tmp_path, monkeypatch):
    """Killed between the two renamings: the old checkpoint is aside, the new one whole."""
    save_checkpoint(tmp_path / "net", NET)
    rename = Path.rename

    def fail(path, to):
        if path.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "net", {"w": jnp.ones(2)})
    monkeypatch.undo()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".new", ".old"]
    save_checkpoint(tmp_path / "net", {"w": jnp.full(2, 3.0)})
    assert load_checkpoint(tmp_path / "net", {"w": jnp.zeros(2)})["w"].tolist() == [3, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
