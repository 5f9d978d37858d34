"""Retrain on all devices there are, in one process or in several.

One process, all its devices; eight virtual ones on a processor without accelerators (``NPROC``, the
number of XLA's threads, is for one with fewer cores than that: they would wait for each other):

    NPROC=16 XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/many_devices.py

With ``--model 2`` the weights are divided over two devices, and the batches over four.

Two processes, one line in each of two terminals (or on two machines, with the first one's address):

    python examples/many_devices.py --coordinator localhost:9876 --processes 2 --process 0
    python examples/many_devices.py --coordinator localhost:9876 --processes 2 --process 1

Under Slurm, on Cloud TPUs and the like, ``jax.distributed.initialize()`` finds these by itself.
"""

import argparse

import jax
import numpy as np
from jax.sharding import Mesh

import swsjax
from swsjax.lab.task import build, compress_classifier, pretrain_classifier
from swsjax.lab.data import load_digits
from swsjax.lab.nets import LeNet300100
from swsjax.training.loop import PretrainConfig


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="digits.sws")
    parser.add_argument("--model", type=int, default=1, help="devices to divide the weights over")
    parser.add_argument(
        "--epochs", type=int, default=10, help="of each stage (10; few lose the net)"
    )
    parser.add_argument("--coordinator", help="address of process 0; only with several processes")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    arguments = parser.parse_args()
    if arguments.coordinator:
        jax.distributed.initialize(arguments.coordinator, arguments.processes, arguments.process)
    mesh = Mesh(np.array(jax.devices()).reshape(-1, arguments.model), ("data", "model"))

    digits = load_digits()
    net = pretrain_classifier(build(LeNet300100, digits), digits, PretrainConfig(epochs=20))
    # A tenth of the epochs of the default: the precisions must move as much faster.
    config = swsjax.Config(
        soft_epochs=arguments.epochs,
        soft_rates=swsjax.Rates(precisions=2e-2),
        hard_epochs=arguments.epochs,
    )
    result = compress_classifier(net, digits, config, mesh=mesh)

    if jax.process_index() == 0:  # every process has the same result
        size = swsjax.save(arguments.out, result.params)
        error = net._replace(params=result.params).error(digits.validation)
        print(f"{mesh.size} devices: validation error {error:.4f}, {size} bytes")


if __name__ == "__main__":
    main()
