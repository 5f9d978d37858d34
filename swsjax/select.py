"""Which leaves of a net are compressed, and under which mixture: ordered rules over their paths.

A rule is a pattern and what becomes of the leaves it matches: the name of a mixture, ``None`` for
leaves that are trained but not compressed, ``FROZEN`` for those that are not trained. The first
rule that matches a leaf decides; a leaf that none matches is under the mixture ``"weights"``. What
is no floating array (counters, keys, functions) stays as it is and needs no rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from swsjax.checks import leaf_name
from swsjax.errors import ConfigError
from swsjax.losses import Params

__all__ = [
    "FROZEN",
    "WEIGHTS",
    "Frozen",
    "Leaf",
    "Rules",
    "Selection",
    "by_mixture",
    "is_weight",
    "select",
]

WEIGHTS = "weights"
"""Name of the mixture over leaves that no rule matches."""


class Frozen(Enum):
    """The type of ``FROZEN``."""

    FROZEN = "frozen"


FROZEN = Frozen.FROZEN
"""In place of a mixture's name: such leaves are neither trained nor compressed."""

Rules = Sequence[tuple[str, str | Frozen | None]]
"""Patterns of paths, with ``*`` and ``?`` as in file names (``*`` matches ``/`` too), in order."""


class Leaf(NamedTuple):
    """What will happen to one leaf of a net, with its type and shape."""

    path: str
    """``fc1/kernel``."""
    dtype: str
    """Its element type, or the Python type of what is no array."""
    shape: tuple[int, ...]
    size: int
    """Number of entries; 0 for what is no array, as its shape is ()."""
    label: str | Frozen | None
    """Name of its mixture, None (trained, not compressed) or ``FROZEN``."""


@dataclass(frozen=True)
class Selection:
    """What will happen to each leaf of a net; ``str`` gives the table."""

    leaves: tuple[Leaf, ...]
    """In the order of ``jax.tree.leaves``."""

    def __str__(self) -> str:
        rows = [("leaf", "type", "shape", "weights", "what happens")]
        for leaf in self.leaves:
            shape = "x".join(map(str, leaf.shape)) or "-"
            rows.append((leaf.path, leaf.dtype, shape, f"{leaf.size:,}", _fate(leaf.label)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"{path:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  "
            f"{size:>{widths[3]}}  {fate}"
            for path, dtype, shape, size, fate in rows
        )


def select(params: Params, rules: Rules = ()) -> Selection:
    """Say what ``compress`` will do with each leaf of a net under these rules: a dry run.

    Args:
        params: any pytree.
        rules: pairs of a pattern and a mixture's name, None or ``FROZEN``. Paths look like
            ``fc1/kernel``; the first pattern that matches decides.

    Raises:
        ConfigError: the rules are no pairs; one matches no leaf, or none that an earlier one has
            left to it; a value is no name; nothing is left to compress; or Linen's batch
            statistics would be compressed.

    >>> net = {"fc1": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}, "scale": jnp.ones(3)}
    >>> print(select(net, [("*/bias", None), ("scale", FROZEN)]))
    leaf        type     shape  weights  what happens
    fc1/bias    float32  3            3  trained, not compressed
    fc1/kernel  float32  4x3         12  compressed under the mixture 'weights'
    scale       float32  3            3  frozen
    """
    is_sequence = isinstance(rules, Sequence) and not isinstance(rules, str)
    if not is_sequence or not all(
        isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)
        for rule in rules
    ):
        raise ConfigError(f"rules must be a list of pairs like ('*/bias', None), got {rules!r}")
    for pattern, label in rules:
        if isinstance(label, str) and label.lower() in ("frozen", "none"):
            raise ConfigError(
                f"rule {pattern!r} maps to {label!r}, which would be a mixture's name; expected "
                "swsjax.FROZEN or None, without quotes"
            )
        if not (label is None or label is FROZEN or (isinstance(label, str) and label)):
            raise ConfigError(
                f"rule {pattern!r} maps to {label!r}; expected a mixture's name, None or FROZEN"
            )
    found = jax.tree.leaves_with_path(params)
    paths = [leaf_name(path) for path, _ in found]
    labels: list[str | Frozen | None] = []
    used = set()
    for path, (_, leaf) in zip(paths, found, strict=True):
        matching = [
            number for number, (pattern, _) in enumerate(rules) if fnmatchcase(path, pattern)
        ]
        used.update(matching[:1])
        if not is_weight(leaf):
            labels.append(FROZEN)
        else:
            labels.append(rules[matching[0]][1] if matching else WEIGHTS)
    for number, (pattern, _) in enumerate(rules):
        if number not in used:
            raise ConfigError(_unused(pattern, paths))
    if not any(
        isinstance(label, str) and np.size(leaf)
        for label, (_, leaf) in zip(labels, found, strict=True)
    ):
        kinds = ", ".join(dict.fromkeys(_dtype(leaf) for _, leaf in found))
        came = f"leaves of type {kinds}" if found else "no leaves"
        raise ConfigError(
            "params hold no weights to compress; expected a pytree of floating arrays, of which "
            f"the rules leave some under a mixture, got {came}"
        )
    for path, label in zip(paths, labels, strict=True):
        if path.startswith("batch_stats/") and isinstance(label, str):
            raise ConfigError(
                f"params hold Linen's batch_stats, as {path}, which are no weights; give "
                "variables['params'] as params and batch_stats as aux, or freeze them by the rule "
                "('batch_stats/*', swsjax.FROZEN)"
            )
    return Selection(
        tuple(
            Leaf(path, _dtype(leaf), np.shape(leaf) if _is_array(leaf) else (), _size(leaf), label)
            for path, (_, leaf), label in zip(paths, found, labels, strict=True)
        )
    )


def by_mixture(params: Params, labels: Sequence[str | None]) -> dict[str, list[Array]]:
    """Leaves under each mixture, by its name; in the order in which the names first come.

    Args:
        params: a pytree.
        labels: for each leaf, in the order of ``jax.tree.leaves``, a name or None.

    >>> by_mixture({"a": 1, "b": 2, "c": 3}, ["convolutions", None, "convolutions"])
    {'convolutions': [1, 3]}
    """
    groups: dict[str, list[Array]] = {}
    for leaf, label in zip(jax.tree.leaves(params), labels, strict=True):
        if label is not None:
            groups.setdefault(label, []).append(leaf)
    return groups


def is_weight(leaf: Any) -> bool:
    """Whether a leaf can be trained: a floating array.

    >>> is_weight(jnp.ones(2)), is_weight(jnp.arange(2)), is_weight(jax.nn.relu)
    (True, False, False)
    """
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _dtype(leaf: Any) -> str:
    return str(leaf.dtype) if _is_array(leaf) else type(leaf).__name__


def _size(leaf: Any) -> int:
    return int(np.size(leaf)) if _is_array(leaf) else 0


def _fate(label: str | Frozen | None) -> str:
    if label is None:
        return "trained, not compressed"
    return f"compressed under the mixture {label!r}" if isinstance(label, str) else "frozen"


def _unused(pattern: str, paths: list[str]) -> str:
    if any(fnmatchcase(path, pattern) for path in paths):
        return (
            f"rule {pattern!r} decides nothing: earlier rules match all that it matches; put it "
            "before them or leave it out"
        )
    near = get_close_matches(pattern, paths, n=3, cutoff=0.4)
    listed = ", ".join(near or paths[:5]) + ("" if near or len(paths) <= 5 else ", ...")
    return f"rule {pattern!r} matches no leaf; did you mean one of: {listed}?"
