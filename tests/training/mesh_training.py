"""Three epochs of `killed_training` on eight devices, whole and interrupted: FOLDER."""

import sys
from functools import partial
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
    on_mesh = partial(run, mesh=mesh, epochs=3)
    whole = on_mesh(loss_fn=counted(traces, loss_fn))
    assert len(traces) == 1, "an epoch compiled again"
    for leaf in jax.tree.leaves((whole.params, whole.aux)):
        assert isinstance(leaf.sharding, SingleDeviceSharding), "an array was not gathered"
    save(folder / "whole.sws", everything(whole))

    def interrupt(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    try:
        on_mesh(folder / "state", callback=interrupt)
    except KeyboardInterrupt:
        save(folder / "resumed.sws", everything(on_mesh(folder / "state")))
