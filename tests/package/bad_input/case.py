"""What the cases of all rooms share: their form, a small net with data, and short runs of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import swsjax
from swsjax.sws.config import LEARNED

FOLDER = "<folder>"
"""In a message: the folder in which the case runs, in full."""
REASON = "<reason>"
"""In a message: words of another package, which differ between its versions."""
NOT_A_CHECKPOINT = (
    "net.sws is not an Orbax checkpoint; give the folder that `swsjax pretrain` or Orbax's "
    "StandardCheckpointer wrote"
)


class Case(NamedTuple):
    """A call with bad input."""

    case: str
    """What the user does."""
    call: Callable[[], object]
    """Runs in an empty folder."""
    error: type[Exception]
    """The exact type; ``SwsjaxWarning`` if the call warns."""
    message: str
    """All of it."""


class Command(NamedTuple):
    """A command line with bad input."""

    case: str
    """What the user does."""
    arguments: str
    """Those after ``swsjax``."""
    code: int
    """The exit code."""
    message: str
    """All of the line on stderr, after ``swsjax: error: ``."""


RNG = np.random.default_rng(0)
DATA = {
    "inputs": np.float32(RNG.normal(size=(200, 4))),
    "labels": RNG.integers(3, size=200),
}
PARAMS = {"w": np.float32(RNG.normal(size=(4, 3)))}
ROUND = {"w": np.eye(4, 3, dtype=np.float32)}
QUICK = replace(LEARNED, components=4, soft_epochs=1, hard_epochs=0, batch_size=50, least_steps=1)
KEY = jax.random.key(0)


def apply(params, inputs):
    return inputs @ params["w"]


def squared(params, batch):
    return jnp.mean(apply(params, batch["inputs"]) ** 2)


def per_example(params, batch):
    return apply(params, batch["inputs"])[:, 0]


LOSS = swsjax.cross_entropy(apply)


def compress(params=PARAMS, loss=LOSS, data=DATA, config=QUICK, **options):
    return swsjax.compress(params, loss, data, config, **options)


def train(params=PARAMS, loss=LOSS, data=DATA, optimizer=optax.sgd(0.1), **options):  # noqa: B008
    return swsjax.train(params, loss, data, optimizer, **{"epochs": 1, "batch_size": 50} | options)


def write(name, content=b""):
    Path(name).write_bytes(content)
    return name


def saved(name="net.sws", tree=ROUND, **options):
    swsjax.save(name, tree, **options)
    return name


def under_a_file(name):
    """A path that nobody can write to, the administrator included."""
    return f"{write('file')}/{name}"
