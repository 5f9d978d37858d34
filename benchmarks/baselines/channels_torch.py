"""Torch-Pruning's side of ``channels_libraries.py``: the same nets in PyTorch, there and back.

Torch-Pruning (Fang et al., arXiv 2301.12900) follows the graph that autograd records. As in
PyTorch, kernels are (outputs, inputs, height, width), and the positions of a channel are side by
side after flattening.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

from swsjax.lab import Variables
from swsjax.trees import named_leaves

torch.set_num_threads(1)
_MEAN = torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None]
_STD = torch.tensor([0.2470, 0.2435, 0.2616])[:, None, None]


class LeNet5(nn.Module):
    """LeNet-5-Caffe on (batch, 1, 28, 28)."""

    image_shape = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)
        self.kept_whole = [self.fc2]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images from 0 to 1."""
        for layer in (self.conv1, self.conv2):
            x = functional.max_pool2d(layer(x), 2)
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))


class ResNet8(nn.Module):
    """ResNet-8 on (batch, 3, 16, 16), with the padding that XLA calls SAME."""

    image_shape = (3, 16, 16)

    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.kept_whole: list[nn.Module] = [self.conv0]
        for group, (inputs, width) in enumerate(((16, 16), (16, 32), (32, 64))):
            name, stride = f"g{group}b0", 2 if group else 1
            layers = {
                "bn1": nn.BatchNorm2d(inputs),
                "conv1": nn.Conv2d(inputs, width, 3, stride, padding=int(stride == 1), bias=False),
                "bn2": nn.BatchNorm2d(width),
                "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False),
            }
            if group:
                layers["short"] = nn.Conv2d(inputs, width, 1, stride, bias=False)
            for layer, module in layers.items():
                setattr(self, name + layer, module)
            self.kept_whole += [layers[layer] for layer in ("conv2", "short") if layer in layers]
        self.bn, self.fc = nn.BatchNorm2d(64), nn.Linear(64, 10)
        self.kept_whole.append(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images from 0 to 1."""
        x = self.conv0((x - _MEAN) / _STD)
        for group in range(3):
            before = functional.relu(getattr(self, f"g{group}b0bn1")(x))
            padded = functional.pad(before, (0, 1, 0, 1)) if group else before
            inner = getattr(self, f"g{group}b0bn2")(getattr(self, f"g{group}b0conv1")(padded))
            added = getattr(self, f"g{group}b0conv2")(functional.relu(inner))
            x = added + (getattr(self, f"g{group}b0short")(before) if group else x)
        return self.fc(functional.relu(self.bn(x)).mean((2, 3)))


NETS: dict[str, Callable[[], Any]] = {"lenet-5-caffe": LeNet5, "resnet-8": ResNet8}
_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def in_torch(net: str, variables: Variables) -> Any:
    """The net with these weights."""
    module = NETS[net]().eval()
    state = {}
    for name, leaf in named_leaves(variables.params) + named_leaves(variables.aux):
        layer, _, kind = name.partition("/")
        array = np.asarray(leaf)
        if layer == "fc1" and kind == "kernel":
            outputs, channels = array.shape[1], module.conv2.out_channels
            side = round((len(array) / channels) ** 0.5)
            array = array.reshape(side, side, channels, outputs).transpose(3, 2, 0, 1)
            array = array.reshape(outputs, -1)
        elif kind == "kernel":
            array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
        state[f"{layer}.{_NAMES.get(kind, kind)}"] = torch.tensor(array)
    module.load_state_dict(state, strict=False)  # its counts of batches are not in ours
    return module


def in_jax(module: Any, like: Variables) -> Variables:
    """The weights of a net, pruned or not, with the names of another one."""
    state = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}

    def found(name: str) -> jax.Array:
        layer, _, kind = name.partition("/")
        array = state[f"{layer}.{_NAMES.get(kind, kind)}"]
        if layer == "fc1" and kind == "kernel":
            outputs, channels = len(array), module.conv2.out_channels
            side = round((array.shape[1] / channels) ** 0.5)
            array = array.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0)
            array = array.reshape(-1, outputs)
        elif kind == "kernel":
            array = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
        return jnp.asarray(array)

    return Variables(
        *(
            jax.tree.unflatten(
                jax.tree.structure(part), [found(name) for name, _ in named_leaves(part)]
            )
            for part in like
        )
    )


def pruned(module: Any, keep: float, reduction: str) -> Any:
    """Prune a copy by L1 norms.

    Args:
        module: net.
        keep: share of the channels to keep of each layer.
        reduction: over the layers that a channel runs through: ``"first"`` for the filters that
            make it alone, as Li et al., ``"mean"`` for all of them, Torch-Pruning's default.
    """
    copy = deepcopy(module)
    importance = tp.importance.GroupMagnitudeImportance(
        p=1, group_reduction=reduction, normalizer=None if reduction == "first" else "mean"
    )
    pruner = tp.pruner.BasePruner(
        copy,
        torch.zeros(1, *module.image_shape),
        importance=importance,
        pruning_ratio=1 - keep - 1e-9,  # 20 * (1 - 0.8) is below 4 in binary
        ignored_layers=copy.kept_whole,
    )
    pruner.step()
    return copy


def counted(module: Any) -> tuple[int, int]:
    """Multiply-adds and parameters, as Torch-Pruning counts them."""
    operations, parameters = tp.utils.count_ops_and_params(
        module, torch.zeros(1, *module.image_shape)
    )
    return int(operations), int(parameters)


def logits(module: Any, images: np.ndarray) -> np.ndarray:
    """Logits of uint8 images, with channels last if they have any."""
    x = torch.tensor(images).float() / 255
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    with torch.no_grad():
        return module(x).numpy()
