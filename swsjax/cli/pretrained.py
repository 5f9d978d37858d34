"""Pretrained nets: trained once, kept in the output folder, and found again by the same command."""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from swsjax.cli.datasets import PRETRAINING
from swsjax.cli.output import check_output, write_json
from swsjax.cli.terminal import Reporter
from swsjax.errors import CheckpointError, ConfigError
from swsjax.file.checkpoint import check_replaceable, load_checkpoint, save_checkpoint
from swsjax.lab.nets import NETS
from swsjax.lab.task import Task, Variables, pretrain_task
from swsjax.training.pretraining import PretrainConfig

__all__ = ["Origin", "given", "kept"]

# Written last: a net without it is not finished.
_RECORD = "pretrain.json"
_STATE = "state"


class Origin(NamedTuple):
    """Where a pretrained net comes from, and where it is kept.

    >>> origin = Origin("lenet-300-100", "digits", 3, Path("net"))
    >>> origin.config.epochs, origin.config.seed
    (60, 3)
    """

    model: str
    """Name of the net."""
    data: str
    """Name of the data set."""
    seed: int
    """Random seed."""
    folder: Path
    """Of the checkpoint, its settings and, while it is trained, the state."""

    @property
    def config(self) -> PretrainConfig:
        """Settings of the pretraining."""
        changes = PRETRAINING.get(self.data, {})
        return replace(NETS[self.model].pretraining, **changes, seed=self.seed)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides how the net is made, as values of JSON."""
        names = {"model": self.model, "data": self.data, "seed": self.seed}
        return names | {"pretraining": asdict(self.config)}

    def check(self) -> "Origin":
        """Check, before any work, that the folder holds this net, or none yet; return itself.

        Raises:
            CheckpointError: it holds a different net, or something else where the net belongs.
            ConfigError: a file is where a folder belongs.

        >>> Path("net.json").write_text("{}")
        2
        >>> Origin("lenet-300-100", "digits", 0, Path("net.json")).check()
        Traceback (most recent call last):
            ...
        swsjax.errors.ConfigError: net.json is a file, not a folder; move it away, or choose \
another --out
        """
        for path in (self.folder, self.folder / _STATE):
            if path.is_file():
                raise ConfigError(
                    f"{path} is a file, not a folder; move it away, or choose another --out"
                )
        record = self.folder / _RECORD
        if self.folder.is_dir():
            check_output(record)
        check_replaceable(self.folder / "checkpoint")
        if record.is_file() and not self.is_made():
            raise CheckpointError(
                f"{self.folder} holds a net with other settings than {self.model} on {self.data} "
                f"with --seed {self.seed}; delete it, or choose another --out"
            )
        return self

    def is_made(self) -> bool:
        """Whether the folder holds this net, finished.

        >>> Origin("lenet-300-100", "digits", 0, Path("none")).is_made()
        False
        """
        record = self.folder / _RECORD
        return record.is_file() and _is_of(record, self.settings)


def kept(task: Task, origin: Origin, show: Reporter) -> Variables:
    """Return the pretrained net of a folder; train it first, or the rest of it, if it is not there.

    Workers that share the folder wait for the first one, and then find its net.

    Args:
        task: net and data.
        origin: checked.
        show: reports the epochs.

    >>> from unittest.mock import patch
    >>> from swsjax.cli.terminal import reporter
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> origin = Origin("lenet-300-100", "digits", 0, Path("net"))
    >>> with reporter() as show, patch.dict(PRETRAINING["digits"], epochs=1):
    ...     trained, found = kept(task, origin, show), kept(task, origin, show)
    >>> bool((trained.params["fc1"]["kernel"] == found.params["fc1"]["kernel"]).all())
    True
    """
    origin.folder.mkdir(parents=True, exist_ok=True)
    checkpoint, state = origin.folder / "checkpoint", origin.folder / _STATE
    with _locked(origin.folder):
        if origin.check().is_made():
            return task.parts(load_checkpoint(checkpoint, _form(task)))
        net = pretrain_task(task, origin.config, callback=show.epoch, resume=state)
        save_checkpoint(checkpoint, task.whole(net))
        write_json(origin.folder / _RECORD, origin.settings)
        shutil.rmtree(state)
    return net


def given(options: argparse.Namespace, task: Task) -> Variables | None:
    """Return the net of ``--pretrained``, if there is one.

    Raises:
        CheckpointError: there is no checkpoint, or it is of a different net.

    >>> given(argparse.Namespace(pretrained=None), None) is None
    True
    """
    if options.pretrained is None:
        return None
    return task.parts(load_checkpoint(options.pretrained, _form(task)))


def _form(task: Task) -> Any:
    """Shapes and types of a net, as a file holds it."""
    return jax.eval_shape(lambda: task.whole(task.init(0)))


def _is_of(record: Path, settings: dict[str, Any]) -> bool:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # not written by this program
        return False
    return isinstance(found, dict) and settings.items() <= found.items()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process has the folder; the system frees it when a process dies."""
    try:
        import fcntl
    except ModuleNotFoundError:  # not on Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
