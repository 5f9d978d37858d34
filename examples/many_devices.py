"""Retrain on all available devices, in one process or in several.

One process, all its devices; here eight virtual ones on a processor (``NPROC`` is the number of
XLA's threads: with fewer threads than devices, they would wait for each other):

    NPROC=16 XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/many_devices.py

With ``--model 2`` the weights are divided over two devices, and each batch over four.

Two processes, one line in each of two terminals (or on two machines, with the address of the
first):

    python examples/many_devices.py --coordinator localhost:9876 --processes 2 --process 0
    python examples/many_devices.py --coordinator localhost:9876 --processes 2 --process 1

Under Slurm and on Cloud TPUs, ``jax.distributed.initialize()`` finds these by itself.
"""

import argparse

import jax
import numpy as np
from jax.sharding import Mesh

import swsjax
from swsjax.lab import LeNet300100, Variables, classification, load_digits, pretrain_task
from swsjax.sws.recipes import Recipe, compress_task


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="digits.sws")
    parser.add_argument("--model", type=int, default=1, help="devices to divide the weights over")
    parser.add_argument("--epochs", type=int, default=10, help="of each stage (%(default)s)")
    parser.add_argument("--coordinator", help="address of process 0; only with several processes")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    arguments = parser.parse_args()
    if arguments.coordinator:
        jax.distributed.initialize(arguments.coordinator, arguments.processes, arguments.process)
    mesh = Mesh(np.array(jax.devices()).reshape(-1, arguments.model), ("data", "model"))

    task = classification(LeNet300100, load_digits())
    pretrained = pretrain_task(task, swsjax.PretrainConfig(epochs=20))
    config = swsjax.Config(
        tau=1.1e-6, soft_epochs=arguments.epochs, hard_epochs=arguments.epochs, prune_epochs=0
    )
    result = compress_task(task, pretrained, Recipe(config), mesh=mesh)
    net = Variables(result.params, result.aux)

    if jax.process_index() == 0:  # every process has the same result
        size = swsjax.save(arguments.out, task.whole(net))
        error = task.error(net, task.dataset.validation)
        print(f"{mesh.size} devices: validation error {error:.4f}, {size} bytes")


if __name__ == "__main__":
    main()
