"""What ``speed.py`` compares with: a plain PyTorch version of the same training on the CPU.

Written like its public re-implementations: the prior as logsumexp over (weights, components),
everything by autograd, batches gathered from tensors in memory.
"""

import math
import os
from collections.abc import Callable

import torch
from torch import nn

from swsjax.lab.data import load_mnist

VERSION = torch.__version__
THREADS = os.cpu_count()
torch.set_num_threads(THREADS)


def lenet_300_100_epoch(images: int, batch: int, *, components: int | None) -> Callable[[], float]:
    """An epoch of LeNet-300-100, with a prior of this many free components or without one."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    return _epoch(net, images, batch, components)


def lenet_5_caffe_epoch(images: int, batch: int) -> Callable[[], float]:
    """An epoch of LeNet-5-Caffe without a prior."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip
    return _epoch(net, images, batch, None)


def _epoch(net: nn.Module, images: int, batch: int, components: int | None) -> Callable[[], float]:
    split = load_mnist().train
    inputs = torch.tensor(split.images[:images])
    labels = torch.tensor(split.labels[:images], dtype=torch.long)
    groups = [{"params": net.parameters(), "lr": 1e-3}]
    if components is not None:
        means = nn.Parameter(torch.linspace(-0.5, 0.5, components))
        log_precisions = nn.Parameter(torch.full((components + 1,), -2 * math.log(0.25)))
        logits = nn.Parameter(torch.zeros(components))
        groups += [{"params": [means], "lr": 1e-4}, {"params": [log_precisions], "lr": 1e-3}]
        groups += [{"params": [logits], "lr": 3e-3}]
    optimizer = torch.optim.Adam(groups)

    def log_prior() -> torch.Tensor:
        weights = torch.cat([p.reshape(-1) for p in net.parameters()])
        mu = torch.cat([torch.zeros(1), means])
        log_pi = torch.cat(
            [torch.tensor([math.log(0.999)]), math.log(0.001) + torch.log_softmax(logits, 0)]
        )
        joint = log_pi + 0.5 * (log_precisions - math.log(2 * math.pi))
        joint = joint - 0.5 * log_precisions.exp() * (weights[:, None] - mu) ** 2
        hyper = 4999 * log_precisions[0] - 2 * log_precisions[0].exp()
        hyper = hyper + (249 * log_precisions[1:] - 0.1 * log_precisions[1:].exp()).sum()
        return torch.logsumexp(joint, -1).sum() + hyper

    def run() -> float:
        for rows in torch.randperm(images).split(batch):
            x = inputs[rows].float().div_(255)[:, None]
            loss = nn.functional.cross_entropy(net(x), labels[rows])
            if components is not None:
                loss = loss - 0.06 / images * log_prior()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    return run
