"""Sixty steps of FORCE against the same loop in PyTorch: the ratio of medians, measured in turn.

    pip install torch==2.13.0
    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/masks_speed.py

LeNet-300-100 on MNIST, 1 % of the weights, batches of 128 from images in memory, on the same cores.
The loop in PyTorch is written from the description of the authors' code: a masked forward pass, a
backward pass, and a threshold that is the last of the ``topk``. Writes
``results/baselines/masks-speed-cpu.json``.
"""

import os
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import torch
from common.results import RESULTS, made_by, write
from common.rows import task_of
from common.timing import medians
from torch import Tensor, nn

from swsjax.baselines import force

NET = "lenet-300-100"
STEPS, KEEP, BATCH = 60, 0.01, 128
REPEATS = 9
SIZES = (784, 300, 100, 10)


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    task = task_of(NET)
    net = task.init(0)
    ours = partial(force, task, net, KEEP, steps=STEPS, batch_size=BATCH, key=jax.random.key(0))
    images = torch.tensor(task.dataset.train.images).flatten(1)
    labels = torch.tensor(task.dataset.train.labels, dtype=torch.long)
    theirs = partial(force_in_torch, layers(), images, labels)
    ours_seconds, torch_seconds = medians(ours, theirs, repeats=REPEATS)
    found: dict[str, Any] = {
        "net": NET,
        "steps": STEPS,
        "keep": KEEP,
        "batch_size": BATCH,
        "repeats": REPEATS,
        "cores_used": len(os.sched_getaffinity(0)),
        "seconds": ours_seconds,
        "torch_seconds": torch_seconds,
        "speedup": torch_seconds / ours_seconds,
    }
    print(found)
    made = made_by("baselines/masks_speed.py", "torch")
    write(RESULTS / "baselines" / "masks-speed-cpu.json", made | found)


def layers() -> list[nn.Linear]:
    """The dense net, as PyTorch users initialise it for this method."""
    torch.manual_seed(0)
    found = [nn.Linear(*pair) for pair in pairwise(SIZES)]
    for layer in found:
        nn.init.kaiming_normal_(layer.weight)
    return found


def force_in_torch(net: list[nn.Linear], images: Tensor, labels: Tensor) -> list[Tensor]:
    """The masks after all steps: weights that are pruned keep their gradient, and may return."""
    size = sum(layer.weight.numel() for layer in net)
    masks = [torch.ones_like(layer.weight) for layer in net]
    batches = torch.randperm(len(images))[: STEPS * BATCH].split(BATCH)
    for step, batch in enumerate(batches, start=1):
        weights = [(layer.weight * mask).detach() for layer, mask in zip(net, masks, strict=True)]
        for weight in weights:
            weight.requires_grad_()
        x = images[batch].float().div_(255)
        for weight, layer in zip(weights[:-1], net, strict=False):
            x = nn.functional.relu(nn.functional.linear(x, weight, layer.bias))
        logits = nn.functional.linear(x, weights[-1], net[-1].bias)
        gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, labels[batch]), weights)
        scores = [
            (layer.weight.detach() * gradient).abs()
            for layer, gradient in zip(net, gradients, strict=True)
        ]
        k = round(size * KEEP ** (step / STEPS))
        threshold = torch.cat([score.flatten() for score in scores]).topk(k).values[-1]
        masks = [(score >= threshold).float() for score in scores]
    return masks


if __name__ == "__main__":
    main()
