"""Regression: how a disease progresses, from ten measurements of a patient.

    python examples/regression.py

Any mean loss will do. The prior is weighed against it as against a cross-entropy in nats, so scale
the targets until the loss is between about 0.1 and 1: standardise them.

There are only 300 patients, and their targets are noisy. So the compressed net learns from the
outputs of the pretrained one instead.
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes

import swsjax

SIZES = (10, 100, 100, 1)
HELD_OUT = 142  # of 442 patients


def init(key):
    return [
        {"kernel": jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, "bias": jnp.zeros(b)}
        for k, a, b in zip(jax.random.split(key, 3), SIZES[:-1], SIZES[1:], strict=True)
    ]


def apply(params, x):
    *hidden, out = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return (x @ out["kernel"] + out["bias"])[:, 0]


def loss(params, batch):
    return jnp.mean((apply(params, batch["inputs"]) - batch["targets"]) ** 2)


def patients():
    """Training and held-out data, standardised by the training data."""
    inputs, targets = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(targets))
    all_of = np.column_stack([inputs, targets])[order].astype(np.float32)
    train = all_of[HELD_OUT:]
    all_of = (all_of - train.mean(axis=0)) / train.std(axis=0)
    both = {"inputs": all_of[:, :-1], "targets": all_of[:, -1]}
    return tuple(
        {name: x[part] for name, x in both.items()}
        for part in (slice(HELD_OUT, None), slice(HELD_OUT))
    )


def main(file="regression.sws"):
    data, held_out = patients()

    def error(params):
        """Fraction of the variance that is not explained, 1 - R2."""
        return float(loss(params, held_out) / held_out["targets"].var())

    config = swsjax.PretrainConfig(epochs=20, batch_size=32, weight_decay=0.1)
    params = swsjax.pretrain(init(jax.random.key(0)), loss, data, config).params

    taught = swsjax.with_teacher(data, apply, params)
    matching = swsjax.output_matching(apply, teacher_weight=1.0)
    result = swsjax.compress(params, matching, taught)
    swsjax.save(file, result.params)

    decoded = swsjax.load(file, like=result.params)
    errors = {"pretrained": {"held out": error(params)}, "decoded": {"held out": error(decoded)}}
    measured = swsjax.report(file, errors=errors)
    print(measured)
    return result.params, measured


if __name__ == "__main__":
    main()
