"""Train two small nets with PyTorch and write what test_torch_nets.py reads.

    pip install torch==2.13.0 && python tests/file/data/make_torch_fixture.py

Each net is written as PyTorch users write it, ``save_file(net.state_dict(), ...)``, once in
float32 and the multilayer perceptron also in bfloat16; ``torch-logits.npz`` holds 16 test images
and the logits of each net.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


def perceptron(nn):
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(64, 48),
            relu1=nn.ReLU(),
            fc2=nn.Linear(48, 32),
            relu2=nn.ReLU(),
            fc3=nn.Linear(32, 10),
        )
    )


def convnet(nn):
    """The flattened array has 8 channels of 2 x 3 pixels: no two axes are alike."""
    return nn.Sequential(
        OrderedDict(
            channel=nn.Unflatten(1, (1, 8)),
            conv1=nn.Conv2d(1, 6, 3, padding=1),
            bn1=nn.BatchNorm2d(6),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 8, (3, 2), bias=False),
            bn2=nn.BatchNorm2d(8),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(48, 24),
            relu3=nn.ReLU(),
            fc2=nn.Linear(24, 10),
        )
    )


def main():
    # Imported here, so that pytest can collect doctests in this file without PyTorch.
    import torch
    from safetensors.torch import save_file
    from sklearn.datasets import load_digits
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    train, test = slice(None, 1500), slice(1500, None)
    few = images[test][:16]
    nets = {"mlp": perceptron(nn), "convnet": convnet(nn)}

    def fit(net):
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(30):
            for chosen in torch.randperm(1500).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(
                    net(images[train][chosen]), labels[train][chosen]
                ).backward()
                optimizer.step()
        net.eval()
        assert (net(images[test]).argmax(1) == labels[test]).float().mean() > 0.85

    def logits(net):
        with torch.no_grad():
            return net(few).numpy()

    arrays = {"images": few.numpy()}
    for name, net in nets.items():
        fit(net)
        save_file(net.state_dict(), FOLDER / f"torch-{name}.safetensors")
        arrays[name] = logits(net)
    mlp = nets["mlp"]
    halved = {name: weight.bfloat16() for name, weight in mlp.state_dict().items()}
    save_file(halved, FOLDER / "torch-mlp-bfloat16.safetensors")
    mlp.load_state_dict(halved)
    np.savez(FOLDER / "torch-logits.npz", **arrays, mlp_bfloat16=logits(mlp))


if __name__ == "__main__":
    main()
