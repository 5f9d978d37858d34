"""Inputs without labels: the net is distilled into its own compressed version.

    python examples/unlabelled.py

The outputs of the pretrained net take the place of the labels: the compressed net learns to
reproduce them.
"""

import numpy as np
from flax import nnx

import swsjax
from swsjax.lab.data import load_digits


class Net(nnx.Module):
    """Two hidden layers."""

    def __init__(self, *, rngs):
        self.fc1 = nnx.Linear(64, 128, rngs=rngs)
        self.fc2 = nnx.Linear(128, 64, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        """Logits of images with values from 0 to 255."""
        x = images.reshape(len(images), -1) / 255
        return self.out(nnx.relu(self.fc2(nnx.relu(self.fc1(x)))))


def apply(net, images):
    return net(images)


def pretrained(data):
    """Stands for the net that you have."""
    graph, params = nnx.split(Net(rngs=nnx.Rngs(0)), nnx.Param)
    loss = swsjax.cross_entropy(lambda params, images: nnx.merge(graph, params)(images))
    config = swsjax.PretrainConfig(epochs=40, batch_size=32)
    return nnx.merge(graph, swsjax.pretrain(params, loss, data, config).params)


def main(file="unlabelled.sws"):
    digits = load_digits()
    net = pretrained({"inputs": digits.train.images, "labels": digits.train.labels})

    # From here on, only the images are used.
    data = swsjax.with_teacher({"inputs": digits.train.images}, apply, net)
    loss = swsjax.distillation(apply, teacher_weight=1.0)
    result = swsjax.compress(net, loss, data)
    state = nnx.state(result.params, nnx.Param)
    swsjax.save(file, state)

    # Nothing was chosen on the validation images, so they are held out with the test images.
    images, labels = map(np.concatenate, zip(digits.validation, digits.test, strict=True))
    decoded = Net(rngs=nnx.Rngs(0))
    nnx.update(decoded, swsjax.load(file, like=state))
    errors = {
        "pretrained": {"held out": swsjax.error_rate(apply, net, images, labels)},
        "decoded": {"held out": swsjax.error_rate(apply, decoded, images, labels)},
    }
    measured = swsjax.report(file, errors=errors)
    print(measured)
    return state, measured


if __name__ == "__main__":
    main()
