"""A character transformer by one default, with a point of error to lose.

    python benchmarks/character_transformer.py

LayerNorm, causal attention, input and output embeddings tied; the text is Python's own help. The
net predicts each next character of a window of 64, and its error is the share that it gets wrong.
The states of both runs are under ``runs/``, and an interrupted run resumes. Writes
``results/targets-character-transformer.json``.
"""

from dataclasses import asdict
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common.results import RESULTS, RUNS, levels, made_by, measured, write
from jax import Array

import swsjax
from swsjax.training import distillation, misclassified, with_teacher

SEEDS = (0,)
MAX_LOSS = 0.01
WIDTH, HEADS, BLOCKS, WINDOW = 64, 4, 2, 64
PRETRAINING = swsjax.PretrainConfig(epochs=40, learning_rate=2e-3, batch_size=64)
NAME = "character-transformer"


class Text(NamedTuple):
    """Windows of a text, (N, WINDOW + 1): held out are the last two tenths of it."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    characters: str
    """By number."""


def main() -> None:
    text = windows()
    out = RESULTS / f"targets-{NAME}.json"
    settings = {
        "net": NAME,
        "config": swsjax.Config().to_dict(),
        "max_loss": MAX_LOSS,
        "pretraining": asdict(PRETRAINING),
        "windows": {split: len(getattr(text, split)) for split in ("train", "validation", "test")},
        "characters": len(text.characters),
    }
    rows = measured(out, settings)
    for seed in SEEDS[len(rows) :]:
        rows.append(run(text, seed))
        write(out, made_by(f"{NAME.replace('-', '_')}.py") | settings | {"seeds": rows})


def windows() -> Text:
    """The help texts in windows that share a character; those to train on in random order."""
    joined = "\n".join(topics[name] for name in sorted(topics))
    characters = "".join(sorted(set(joined)))
    numbers = np.array([characters.index(character) for character in joined], np.uint8)
    count = (len(numbers) - 1) // WINDOW
    cut = numbers[: count * WINDOW + 1]
    all_windows = np.lib.stride_tricks.sliding_window_view(cut, WINDOW + 1)[::WINDOW]
    train, validation, test = np.split(all_windows, [8 * count // 10, 9 * count // 10])
    return Text(np.random.default_rng(0).permutation(train), validation, test, characters)


def run(text: Text, seed: int) -> dict[str, Any]:
    """Pretrain and compress; the test windows are looked at once, at the end."""
    folder = RUNS / f"{NAME}-seed{seed}"
    batch = {"inputs": text.train[:, :-1], "labels": text.train[:, 1:]}
    params = init(jax.random.key(seed), len(text.characters))
    pretrained = swsjax.pretrain(
        params, swsjax.cross_entropy(apply), batch, PRETRAINING, resume=folder / "pretrained"
    ).params
    result = swsjax.compress(
        pretrained,
        distillation(apply),
        with_teacher(batch, apply, pretrained),
        swsjax.Config(seed=seed),
        max_loss=MAX_LOSS,
        evaluate=lambda params: wrong(params, text.validation),
        resume=folder / "retraining",
    )
    (outcome,) = result.outcomes
    data = swsjax.dumps(outcome.params)
    decoded = swsjax.loads(data, like=outcome.params)

    def errors(params: Any) -> dict[str, float]:
        return {
            "validation": float(wrong(params, text.validation).mean()),
            "test": float(wrong(params, text.test).mean()),
        }

    found = {
        "seed": seed,
        "errors": {"pretrained": errors(pretrained), "decoded": errors(decoded)},
        "reached": outcome.reached,
        "text": outcome.text,
        "report": swsjax.report(data).to_dict(),
        "levels": levels(result),
    }
    print(found, flush=True)
    return found


def wrong(params: Any, held_out: np.ndarray) -> np.ndarray:
    """Of each window, the share of characters that are predicted wrong."""
    return misclassified(apply, params, held_out[:, :-1], held_out[:, 1:]).mean(axis=1)


def init(key: Array, characters: int) -> dict[str, Any]:
    keys = iter(jax.random.split(key, 4 * BLOCKS + 2))

    def normal(*shape: int) -> Array:
        return jax.random.normal(next(keys), shape) / shape[0] ** 0.5

    def dense(rows: int, columns: int) -> dict[str, Array]:
        return {"kernel": normal(rows, columns), "bias": jnp.zeros(columns)}

    def norm() -> dict[str, Array]:
        return {"scale": jnp.ones(WIDTH), "bias": jnp.zeros(WIDTH)}

    def block() -> dict[str, Any]:
        return {
            "norm1": norm(),
            "qkv": dense(WIDTH, 3 * WIDTH),
            "mixed": dense(WIDTH, WIDTH),
            "norm2": norm(),
            "wide": dense(WIDTH, 4 * WIDTH),
            "narrow": dense(4 * WIDTH, WIDTH),
        }

    return {
        "characters": normal(characters, WIDTH),
        "positions": normal(WINDOW, WIDTH),
        "blocks": [block() for _ in range(BLOCKS)],
        "norm": norm(),
    }


def apply(params: Any, characters: Array) -> Array:
    """Logits (batch, window, characters) of the next character at each place."""
    x = params["characters"][characters] + params["positions"]
    for block in params["blocks"]:
        qkv = linear(block["qkv"], normed(block["norm1"], x))
        query, key, value = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS), 2, 0)
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + linear(block["mixed"], mixed.reshape(x.shape))
        x = x + linear(
            block["narrow"], jax.nn.gelu(linear(block["wide"], normed(block["norm2"], x)))
        )
    return normed(params["norm"], x) @ params["characters"].T


def linear(params: dict[str, Array], x: Array) -> Array:
    return x @ params["kernel"] + params["bias"]


def normed(params: dict[str, Array], x: Array) -> Array:
    return jax.nn.standardize(x) * params["scale"] + params["bias"]


if __name__ == "__main__":
    main()
