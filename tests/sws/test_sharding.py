"""Arrays on a mesh of one device; on eight devices and in two processes, in other processes."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from jax.sharding import AxisType, Mesh

from swsjax.errors import ConfigError
from swsjax.training.sharding import check_mesh, gather, replicate, shard_batch, shard_weights

ROOM = Path(__file__).parent
# Without the variables of the pytest that runs this. The programs are small: optimising them would
# take longer than running them.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOM.parent), os.environ.get("PYTHONPATH", "")]),
}


def devices(number):
    """Flags that make this many devices, in addition to those of the environment."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"


def test_on_eight_devices():
    options = ["-n0", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(ROOM / "eight_devices.py")],
        env=ENVIRONMENT | {"XLA_FLAGS": devices(8), "NPROC": "16"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)


ONE_OF_TWO = """
import sys

import jax
import jax.numpy as jnp
import numpy as np
import planted
from jax.sharding import Mesh
from swsjax.training.sharding import check_mesh, gather, shard_weights, replicate
from swsjax.training.stream import stream_epoch

address, process, out = sys.argv[1:]
jax.distributed.initialize(address, 2, int(process))
assert (jax.process_count(), len(jax.devices())) == (2, 4)
devices = np.array(jax.devices()).reshape(2, 2)
mesh = Mesh(devices, ("data", "model"))
# On a device already, like weights from a checkpoint.
planted.PARAMS = jax.device_put(planted.PARAMS, jax.local_devices()[0])
result = planted.retrain(1, 1, mesh=mesh)
total, mean = stream_epoch(
    lambda state, batch: (state + batch.sum(axis=0), batch.mean()),
    replicate(jnp.zeros(2), mesh),
    np.arange(24, dtype=np.float32).reshape(3, 4, 2),
    mesh=check_mesh(mesh, 4),
)
across = Mesh(devices.T, ("data", "model"))  # half of the weights in each process
weights = gather(shard_weights(planted.PARAMS["hidden"], across), across)
losses = [epoch.loss for epoch in result.history]
leaves = jax.tree.leaves(result[:3])
np.savez(out, *leaves, losses=losses, total=total, mean=mean, weights=weights)
"""


def test_two_processes_get_what_one_gets(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    outs = [tmp_path / f"{number}.npz" for number in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO, address, str(number), str(out)],
            env=ENVIRONMENT | {"XLA_FLAGS": devices(2)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, out in enumerate(outs)
    ]
    try:
        alone = planted.retrain(1, 1)
        printed = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    first, second = (np.load(out) for out in outs)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], strict=True)
    for number, leaf in enumerate(jax.tree.leaves(alone[:3])):
        # Sums over the batch are in a different order.
        np.testing.assert_allclose(first[f"arr_{number}"], leaf, rtol=1e-5, atol=1e-5)
    losses = [epoch.loss for epoch in alone.history]
    np.testing.assert_allclose(first["losses"], losses, rtol=1e-4)
    np.testing.assert_array_equal(first["total"], [132, 144])
    assert first["mean"] == 11.5
    np.testing.assert_array_equal(first["weights"], planted.PARAMS["hidden"])


def one_device(*names, **settings):
    return Mesh(np.array(jax.devices()[:1]).reshape([1] * len(names)), names, **settings)


@pytest.mark.parametrize(
    "names", [("batch",), ("model",), ("data", "expert"), ("data", "model", "expert")]
)
def test_unexpected_axes(names):
    message = (
        f"mesh has axes {names}; expected 'data', over which batches are divided, "
        "and optionally 'model', over which weights are"
    )
    for check in (
        lambda mesh: check_mesh(mesh, 8),
        lambda mesh: planted.retrain(1, 1, mesh=mesh),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            check(one_device(*names))


@pytest.mark.parametrize("names", [("data",), ("data", "model"), ("model", "data")])
def test_axes_are_left_to_the_compiler(names):
    mesh = one_device(*names, axis_types=(AxisType.Explicit,) * len(names))
    checked = check_mesh(mesh, 7)
    assert checked.axis_names == names
    assert set(checked.axis_types) == {AxisType.Auto}


def test_without_a_mesh_arrays_stay_as_they_are():
    tree = {"w": np.ones((2, 2)), "key": jax.random.key(0)}
    for put in (replicate, shard_weights, shard_batch, gather):
        assert put(tree, None) is tree


def test_without_a_model_axis_weights_are_on_every_device():
    placed = shard_weights({"w": jnp.ones((2, 2))}, one_device("data"))["w"]
    assert placed.sharding.is_fully_replicated
    assert placed.sharding.mesh.axis_names == ("data",)
