"""Five ways to make a net of your own small, measured alike.

    python examples/five_methods.py

A method takes a net and returns a net, in which zeros are what it pruned. So methods compose, and
all of their nets go through the same codec into the same table: bytes of the file, error on images
on which nothing was chosen.
"""

from functools import partial

import jax
import optax
from flax import nnx

import swsjax
from swsjax import baselines
from swsjax.lab import Variables, classification, load_digits, pretrain_task
from swsjax.measure import compare
from swsjax.sws.recipes import Recipe, compress_task

TRAINING = swsjax.PretrainConfig(epochs=40, batch_size=32)
CONFIG = swsjax.Config(batch_size=32)
fine_tune = partial(baselines.fine_tune, epochs=40, batch_size=32, optimizer=optax.adam(1e-3))


class Net(nnx.Module):
    """Your net: from the shape of an image and the number of classes; it takes images in [0, 1]."""

    def __init__(self, shape, classes, *, rngs):
        self.fc1 = nnx.Linear(shape[0] * shape[1], 128, rngs=rngs)
        self.fc2 = nnx.Linear(128, 64, rngs=rngs)
        self.out = nnx.Linear(64, classes, rngs=rngs)

    def __call__(self, images):
        x = images.reshape(len(images), -1)
        return self.out(nnx.relu(self.fc2(nnx.relu(self.fc1(x)))))


def pruned_by_magnitude(task, pretrained, key):
    """Deep Compression: prune, fine-tune, share the weights by k-means."""
    pruned = baselines.magnitude(pretrained, keep=0.1)
    return baselines.k_means(fine_tune(task, pruned, key=key))


def pruned_at_initialisation(task, key):
    """FORCE, before any training; then train, and share the weights by k-means."""
    pruned = baselines.force(task, task.init(0), keep=0.1, batch_size=32, key=key)
    return baselines.k_means(baselines.retrain(task, pruned, TRAINING, key=key))


def without_channels(task, pretrained, key):
    """Remove half of the hidden units, those of small L1 norm; fine-tune, share by k-means."""
    image = jax.ShapeDtypeStruct((1, *task.dataset.train.images.shape[1:]), "uint8")
    groups = baselines.channel_groups(task.predict, pretrained, image)
    scores = baselines.channel_scores(
        pretrained, groups, lambda name, kernel: baselines.l1_norms(kernel)
    )
    dead = baselines.prune_channels(pretrained, groups, scores, [0.5] * len(groups))
    small = baselines.shrink(task.predict, dead, image)
    return baselines.k_means(fine_tune(baselines.narrowed(task, small), small, key=key))


def shared_softly(task, pretrained):
    """Soft weight-sharing, with what may be lost on the validation images by default."""
    result = compress_task(task, pretrained, Recipe(CONFIG))
    return Variables(result.params, result.aux)


def main():
    """Return the nets by the name of their method, and the table."""
    task = classification(Net, load_digits())
    pretrained = pretrain_task(task, TRAINING)
    key = jax.random.key(0)
    nets = {
        "pretrained": pretrained,
        "6 bits": baselines.quantize_affine(pretrained, bits=6),
        "magnitude": pruned_by_magnitude(task, pretrained, key),
        "FORCE": pruned_at_initialisation(task, key),
        "half of the units": without_channels(task, pretrained, key),
        "soft weight-sharing": shared_softly(task, pretrained),
    }
    test = task.dataset.test
    table = compare(
        {name: task.whole(net) for name, net in nets.items()},
        errors={name: baselines.narrowed(task, net).error(net, test) for name, net in nets.items()},
        baseline=task.whole(pretrained),
    )
    print(table)
    return nets, table


if __name__ == "__main__":
    main()
