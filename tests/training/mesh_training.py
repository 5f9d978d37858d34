"""The training of `killed_training` on eight devices, whole and interrupted: FOLDER."""

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from killed_training import everything, loss_fn, run

from swsjax.file.files import save


def counted(traces, before):
    """Note each time that the loss is traced."""

    def loss(*arguments):
        traces.append(len(traces))
        return before(*arguments)

    return loss


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    mesh = Mesh(np.reshape(jax.devices(), (4, 2)), ("data", "model"))
    traces = []
    whole = run(mesh=mesh, loss_fn=counted(traces, loss_fn))
    assert len(traces) == 1, "an epoch compiled again"
    for leaf in jax.tree.leaves((whole.params, whole.aux)):
        assert isinstance(leaf.sharding, SingleDeviceSharding), "an array was not gathered"
    save(folder / "whole.sws", everything(whole))

    def interrupt(epoch):
        if epoch.epoch == 5:
            raise KeyboardInterrupt

    try:
        run(folder / "state", mesh=mesh, callback=interrupt)
    except KeyboardInterrupt:
        save(folder / "resumed.sws", everything(run(folder / "state", mesh=mesh)))
