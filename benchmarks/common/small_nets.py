"""Small nets of many kinds, on data that come with scikit-learn and Python: for ``other_nets.py``.

None of them, nor its data, had a part in the choice of a default. Parameters are plain dicts and
lists of arrays.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import relu, silu
from sklearn.datasets import load_diabetes, load_sample_image, make_friedman1

from swsjax import PretrainConfig, cross_entropy
from swsjax.lab import load_digits
from swsjax.training import logits_of, misclassified

__all__ = ["NETS", "Examples", "SmallNet"]

Params = Any
Apply = Callable[[Params, Array], Array]
SHORT = PretrainConfig(epochs=30, learning_rate=2e-3, batch_size=32)


class Examples(NamedTuple):
    """Inputs and labels, (N, ...) each."""

    inputs: np.ndarray
    labels: np.ndarray


class Data(NamedTuple):
    """The splits of a data set."""

    train: Examples
    validation: Examples
    test: Examples


class SmallNet(NamedTuple):
    """A net, what it is trained on, and how it is measured."""

    init: Callable[[Array], Params]
    apply: Apply
    data: Data
    loss: Callable[[Apply], Callable[..., Array]] = cross_entropy
    measure: Callable[[Apply, Params, np.ndarray, np.ndarray], Array] = misclassified
    """Of each example."""
    pretraining: PretrainConfig = SHORT


def squared_error(apply: Apply) -> Callable[..., Array]:
    """Mean squared error over a batch."""
    return lambda params, batch: jnp.mean((apply(params, batch["inputs"]) - batch["labels"]) ** 2)


def squares(apply: Apply, params: Params, inputs: np.ndarray, labels: np.ndarray) -> Array:
    """Squared error of each example, (N,)."""
    errors = (logits_of(apply, params, inputs) - labels) ** 2
    return errors.reshape(len(errors), -1).mean(axis=1)


def dense(key: Array, rows: int, columns: int, gain: float = 2.0) -> dict[str, Array]:
    kernel = jax.random.normal(key, (rows, columns)) * (gain / rows) ** 0.5
    return {"kernel": kernel, "bias": jnp.zeros(columns)}


def linear(layer: dict[str, Array], x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"]


def layers(*sizes: int) -> Callable[[Array], Params]:
    """The initialisation of a net of dense layers."""

    def init(key: Array) -> Params:
        keys = jax.random.split(key, len(sizes) - 1)
        return [dense(*each) for each in zip(keys, sizes[:-1], sizes[1:], strict=True)]

    return init


def mlp(params: Params, x: Array) -> Array:
    *hidden, out = params
    x = x.reshape(len(x), -1)
    for layer in hidden:
        x = relu(linear(layer, x))
    return linear(out, x)


def regression(params: Params, x: Array) -> Array:
    return mlp(params, x)[:, 0]


def autoencoder(params: Params, x: Array) -> Array:
    """A bottleneck without a ReLU."""
    first, bottleneck, *rest = params
    return mlp(rest, linear(bottleneck, relu(linear(first, x))))


def digits() -> Data:
    """8 x 8 pixels from 0 to 1, and their classes."""
    found = load_digits()
    return Data(
        *(
            Examples(split.images.reshape(-1, 64).astype(np.float32) / 255, split.labels)
            for split in (found.train, found.validation, found.test)
        )
    )


def digits_alone() -> Data:
    """Digits in units of their standard deviation, to be reproduced."""
    scale = digits().train.inputs.std()
    return Data(*(Examples(split.inputs / scale, split.inputs / scale) for split in digits()))


def noisy_digits() -> Data:
    """A fifth of the training images have a random class."""
    found, random = digits(), np.random.default_rng(0)
    labels = found.train.labels.copy()
    chosen = random.random(len(labels)) < 0.2
    labels[chosen] = random.integers(0, 10, chosen.sum())
    return found._replace(train=found.train._replace(labels=labels))


def standardised(inputs: np.ndarray, targets: np.ndarray, train: int, validation: int) -> Data:
    """Splits in order, in units of the training examples."""
    joined = np.column_stack([inputs, targets])
    joined = (joined - joined[:train].mean(axis=0)) / joined[:train].std(axis=0)
    parts = np.split(joined.astype(np.float32), [train, train + validation])
    return Data(*(Examples(part[:, :-1], part[:, -1]) for part in parts))


def diabetes() -> Data:
    """442 patients in random order."""
    inputs, targets = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(targets))
    return standardised(inputs[order], targets[order], 250, 92)


def friedman() -> Data:
    """Friedman's first function of five of ten inputs, with noise."""
    return standardised(*make_friedman1(6000, noise=0.5, random_state=0), 3000, 1500)


def words() -> Data:
    """Windows of 20 words of 12 topics of Python's help; a tenth of its passages each held out."""
    texts = {name: re.findall("[a-z_]+", text.lower()) for name, text in topics.items()}
    longest = sorted(texts, key=lambda name: (-len(texts[name]), name))[:12]
    number = {word: n for n, word in enumerate(sorted({w for t in longest for w in texts[t]}))}
    inputs, labels, fold = [], [], []
    for label, name in enumerate(longest):
        numbers = np.array([number[word] for word in texts[name]], np.int32)
        for n, part in enumerate(np.split(numbers, range(100, len(numbers) - 20, 100))):
            windows = np.lib.stride_tricks.sliding_window_view(part, 20)[::4]
            inputs.append(windows)
            labels += [label] * len(windows)
            fold += [n % 10] * len(windows)
    every = Examples(np.concatenate(inputs), np.array(labels))
    chosen = (np.array(fold) < 8, np.array(fold) == 8, np.array(fold) == 9)
    return Data(*(Examples(*(array[where] for array in every)) for where in chosen))


def photograph() -> Data:
    """The places of the pixels of a grey photograph, and their brightness; there is no other."""
    image = load_sample_image("china.jpg").mean(axis=2)[:424]
    grey = image.reshape(106, 4, 160, 4).mean(axis=(1, 3))
    across, down = np.meshgrid(np.linspace(-1, 1, 160), np.linspace(-1, 1, 106))
    places = np.stack([across, down], axis=-1).reshape(-1, 2).astype(np.float32)
    pixels = Examples(places, ((grey - grey.mean()) / grey.std()).ravel().astype(np.float32))
    return Data(pixels, pixels, pixels)


def gru(params: Params, x: Array) -> Array:
    """Reads a digit row by row (Cho et al., arXiv 1406.1078)."""
    size = params["recurrent"]["kernel"].shape[0]
    state = jnp.zeros((len(x), size))
    for row in jnp.split(x, 8, axis=1):
        reset, update, new = jnp.split(linear(params["input"], row), 3, axis=1)
        kept, old, now = jnp.split(linear(params["recurrent"], state), 3, axis=1)
        update = jax.nn.sigmoid(update + old)
        new = jnp.tanh(new + jax.nn.sigmoid(reset + kept) * now)
        state = (1 - update) * new + update * state
    return linear(params["out"], state)


def init_gru(key: Array, size: int = 64) -> Params:
    of_input, of_state, of_out = jax.random.split(key, 3)
    orthogonal = jax.random.orthogonal(of_state, size, shape=(3,))
    kernel = orthogonal.transpose(1, 0, 2).reshape(size, 3 * size)
    return {
        "input": dense(of_input, 8, 3 * size, 1.0),
        "recurrent": {"kernel": kernel, "bias": jnp.zeros(3 * size)},
        "out": dense(of_out, size, 10, 1.0),
    }


def convolution(params: dict[str, Array], x: Array, stride: int = 1, groups: int = 1) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        x, params["kernel"], (stride, stride), "SAME", None, None, layout, groups
    )
    return y + params["bias"]


def group_normed(params: dict[str, Array], x: Array) -> Array:
    """In groups of eight channels."""
    grouped = x.reshape(*x.shape[:-1], -1, 8)
    normed = jax.nn.standardize(grouped, axis=(1, 2, 4)).reshape(x.shape)
    return normed * params["scale"] + params["bias"]


def separable(params: Params, x: Array) -> Array:
    """Depthwise and pointwise convolutions with GroupNorm, and a mean over places."""
    x = convolution(params["stem"], x.reshape(-1, 8, 8, 1))
    for stride, block in zip((2, 1), params["blocks"], strict=True):
        x = silu(group_normed(block["norm"], x))
        x = convolution(block["depthwise"], x, stride, x.shape[-1])
        x = convolution(block["pointwise"], x)
    return linear(params["out"], silu(x).mean(axis=(1, 2)))


def init_separable(key: Array) -> Params:
    keys = iter(jax.random.split(key, 6))

    def conv(size: int, rows: int, columns: int) -> dict[str, Array]:
        wide = dense(next(keys), size * size * rows, columns)
        return wide | {"kernel": wide["kernel"].reshape(size, size, rows, columns)}

    def block(channels: int) -> Params:
        return {
            "norm": {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)},
            "depthwise": conv(3, 1, channels),
            "pointwise": conv(1, channels, 64),
        }

    stem, blocks = conv(3, 1, 32), [block(32), block(64)]
    return {"stem": stem, "blocks": blocks, "out": dense(next(keys), 64, 10, 1.0)}


def residual(params: Params, x: Array) -> Array:
    """Ten blocks with parametric ReLUs, and a scale of each channel before it is added."""
    x = linear(params["in"], x)
    for block in params["blocks"]:
        h = linear(block["first"], x)
        h = jnp.where(h > 0, h, block["slope"] * h)
        x = x + block["scale"] * linear(block["second"], h)
    return linear(params["out"], x)


def init_residual(key: Array, width: int = 64) -> Params:
    keys = iter(jax.random.split(key, 22))

    def block() -> Params:
        two = {name: dense(next(keys), width, width) for name in ("first", "second")}
        return two | {"slope": jnp.full(width, 0.25), "scale": jnp.full(width, 0.1)}

    return {
        "in": dense(next(keys), 64, width),
        "blocks": [block() for _ in range(10)],
        "out": dense(next(keys), width, 10, 1.0),
    }


def bag_of_words(params: Params, x: Array) -> Array:
    return mlp(params["layers"], params["embedding"][x].mean(axis=1))


def init_bag_of_words(key: Array, vocabulary: int, classes: int) -> Params:
    of_words, of_layers = jax.random.split(key)
    embedding = 0.1 * jax.random.normal(of_words, (vocabulary, 32))
    return {"embedding": embedding, "layers": layers(32, 64, classes)(of_layers)}


def siren(params: Params, x: Array) -> Array:
    """Brightness at a place: sines as activations (Sitzmann et al., arXiv 2006.09661)."""
    *hidden, out = params
    for layer in hidden:
        x = jnp.sin(20 * linear(layer, x))
    return linear(out, x)[:, 0]


def init_siren(key: Array, width: int = 64) -> Params:
    bounds = [0.5, *[(6 / width) ** 0.5 / 20] * 3]
    sizes = (2, width, width, width, 1)
    keys = jax.random.split(key, 4)
    return [
        {"kernel": jax.random.uniform(k, (a, b), minval=-u, maxval=u), "bias": jnp.zeros(b)}
        for k, a, b, u in zip(keys, sizes[:-1], sizes[1:], bounds, strict=True)
    ]


def on_words() -> SmallNet:
    data = words()
    every = np.concatenate([split.inputs for split in data])
    classes = int(data.train.labels.max()) + 1
    init = partial(init_bag_of_words, vocabulary=int(every.max()) + 1, classes=classes)
    return SmallNet(init, bag_of_words, data)


NETS: dict[str, Callable[[], SmallNet]] = {
    "logistic regression, digits": lambda: SmallNet(
        layers(64, 10), mlp, digits(), pretraining=replace(SHORT, learning_rate=0.02)
    ),
    "MLP, digits": lambda: SmallNet(layers(64, 100, 10), mlp, digits()),
    "MLP, a fifth of the labels random": lambda: SmallNet(layers(64, 100, 10), mlp, noisy_digits()),
    "wide MLP, digits": lambda: SmallNet(layers(64, 1024, 1024, 10), mlp, digits()),
    "residual MLP, digits": lambda: SmallNet(init_residual, residual, digits()),
    "GRU, digits": lambda: SmallNet(init_gru, gru, digits()),
    "separable convolutions, digits": lambda: SmallNet(init_separable, separable, digits()),
    "autoencoder, digits": lambda: SmallNet(
        layers(64, 128, 16, 128, 64), autoencoder, digits_alone(), squared_error, squares
    ),
    "bag of words, Python's help": on_words,
    "MLP, Friedman's function": lambda: SmallNet(
        layers(10, 100, 100, 1), regression, friedman(), squared_error, squares
    ),
    "MLP, diabetes": lambda: SmallNet(
        layers(10, 100, 100, 1), regression, diabetes(), squared_error, squares
    ),
    "SIREN, a photograph": lambda: SmallNet(
        init_siren,
        siren,
        photograph(),
        squared_error,
        squares,
        PretrainConfig(epochs=100, learning_rate=1e-3, batch_size=256),
    ),
}
"""By net and data."""
