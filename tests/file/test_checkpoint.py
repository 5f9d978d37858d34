"""Checkpoints of any pytree, and the messages about those that do not fit."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swsjax.errors import CheckpointError
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
