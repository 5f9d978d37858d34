"""Which leaves of a net are compressed, and in which group: ordered rules over their names.

A rule is a pattern and what happens to the leaves it matches: the name of a group, ``None`` for
leaves that are trained but not compressed, ``FROZEN`` for leaves that are not trained. The first
rule that matches a leaf decides; a leaf that no rule matches is in the group ``"weights"``. Leaves
that are not floating arrays of 16 bits or more (counters, keys, functions) stay as they are and
need no rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from swsjax.checks import for_jax
from swsjax.errors import ConfigError
from swsjax.trees import fits, holds_variables, is_array, is_weight, named_leaves

__all__ = ["FROZEN", "WEIGHTS", "Frozen", "Leaf", "Rules", "Selection", "parameters", "select"]

WEIGHTS = "weights"
"""Name of the group of leaves that no rule matches."""


class Frozen(Enum):
    """The type of ``FROZEN``."""

    FROZEN = "frozen"


FROZEN = Frozen.FROZEN
"""In place of a group's name: the leaves are neither trained nor compressed."""

Rules = Sequence[tuple[str, str | Frozen | None]]
"""Patterns of names, with ``*``, ``?`` and ``[...]`` as in file names (``*`` matches ``/`` too), in
order. A pattern that is the name of a leaf means that leaf alone."""


class Leaf(NamedTuple):
    """What happens to one leaf of a net, with its type and shape."""

    name: str
    """``fc1/kernel``."""
    dtype: str
    """Element type of an array, Python type of anything else."""
    shape: tuple[int, ...]
    size: int
    """Number of entries; 0 for leaves that are not arrays, whose shape is ()."""
    group: str | Frozen | None
    """Name of its group, None (trained, not compressed) or ``FROZEN``."""


@dataclass(frozen=True)
class Selection:
    """What happens to each leaf of a net; ``str`` gives the table."""

    leaves: tuple[Leaf, ...]
    """In the order of ``jax.tree.leaves``."""

    def __str__(self) -> str:
        rows = [("leaf", "type", "shape", "weights", "what happens")]
        for leaf in self.leaves:
            shape = "x".join(map(str, leaf.shape)) or "-"
            rows.append((leaf.name, leaf.dtype, shape, f"{leaf.size:,}", _fate(leaf.group)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  "
            f"{size:>{widths[3]}}  {fate}"
            for name, dtype, shape, size, fate in rows
        )


def select(params: Any, rules: Rules = ()) -> Selection:
    """Say what ``compress`` will do with each leaf of a net under these rules: a dry run.

    Args:
        params: any pytree. Of a Flax NNX module, its state, or a tree that holds such, the
            ``nnx.Param`` variables count.
        rules: pairs of a pattern and a group's name, None or ``FROZEN``. Names look like
            ``fc1/kernel``; the first pattern that matches decides.

    Raises:
        ConfigError: the rules are not pairs; a rule matches no leaf, or none that earlier rules
            have left to it, or would train an array of floating or complex numbers that cannot be
            trained, or nothing that can; a value is not a name;
            nothing is left to compress; Linen's batch statistics would be compressed; or a leaf
            is a masked array, or of a type that JAX does not have.

    >>> net = {"fc1": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}, "scale": jnp.ones(3)}
    >>> print(select(net, [("*/bias", None), ("scale", FROZEN)]))
    leaf        type     shape  weights  what happens
    fc1/bias    float32  3            3  trained, not compressed
    fc1/kernel  float32  4x3         12  compressed, in the group 'weights'
    scale       float32  3            3  frozen
    """
    _check_rules(rules)
    found = named_leaves(for_jax("params", parameters(params)))
    names = [name for name, _ in found]
    deciding = [_first_match(name, rules, names) for name in names]
    for number, (pattern, _) in enumerate(rules):
        if number not in deciding:
            raise ConfigError(_unused(pattern, names))
    _check_trainable(rules, found, deciding)
    leaves = [
        _leaf(name, leaf, WEIGHTS if number is None else rules[number][1])
        for (name, leaf), number in zip(found, deciding, strict=True)
    ]
    _check_groups(leaves)
    return Selection(tuple(leaves))


def parameters(net: Any) -> Any:
    """Return the part of a net that rules decide about: of NNX, the state of its parameters.

    >>> named_leaves(parameters([nnx.Param(2.0), nnx.BatchStat(3.0)])), parameters({"w": 1.0})
    ([('0', 2.0)], {'w': 1.0})
    """
    return nnx.state(net, nnx.Param) if holds_variables(net) else net


def _check_rules(rules: Any) -> None:
    is_sequence = isinstance(rules, Sequence) and not isinstance(rules, str)
    if not is_sequence or not all(
        isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)
        for rule in rules
    ):
        raise ConfigError(f"rules must be a list of pairs like ('*/bias', None), got {rules!r}")
    for pattern, group in rules:
        if isinstance(group, str) and group.lower() in ("frozen", "none"):
            raise ConfigError(
                f"rule {pattern!r} maps to {group!r}, which would be the name of a group; expected "
                "swsjax.FROZEN or None, without quotes"
            )
        if not (group is None or group is FROZEN or (isinstance(group, str) and group)):
            raise ConfigError(
                f"rule {pattern!r} maps to {group!r}; expected the name of a group, None or FROZEN"
            )


def _first_match(name: str, rules: Rules, names: list[str]) -> int | None:
    """Number of the rule that decides about a leaf."""
    patterns = (pattern for pattern, _ in rules)
    matches = (number for number, given in enumerate(patterns) if fits(name, given, names))
    return next(matches, None)


def _check_trainable(
    rules: Rules, found: list[tuple[str, Any]], deciding: list[int | None]
) -> None:
    """Find rules that would train or compress what cannot be.

    Counters, keys and functions next to weights stay as they are without a word; arrays of floating
    or complex numbers were probably meant.
    """
    for number, (pattern, group) in enumerate(rules):
        decided = [leaf for leaf, by in zip(found, deciding, strict=True) if by == number]
        fixed = [(name, leaf) for name, leaf in decided if not is_weight(leaf)]
        meant = [(name, leaf) for name, leaf in fixed if _is_inexact(leaf)]
        if group is not FROZEN and (meant or len(fixed) == len(decided)):
            name, leaf = (meant or fixed)[0]
            before = "" if len(fixed) == len(decided) else f" for it before {pattern!r}"
            raise ConfigError(
                f"rule {pattern!r} maps to {group!r}, but {name} of type {_kind(leaf)} cannot be "
                f"trained; expected a floating array of 16 bits or more, or FROZEN{before}"
            )


def _is_inexact(leaf: Any) -> bool:
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _kind(leaf: Any) -> str:
    return str(leaf.dtype) if is_array(leaf) else type(leaf).__name__


def _leaf(name: str, leaf: Any, group: str | Frozen | None) -> Leaf:
    if not is_array(leaf):
        return Leaf(name, _kind(leaf), (), 0, FROZEN)
    group = group if is_weight(leaf) else FROZEN
    return Leaf(name, _kind(leaf), np.shape(leaf), int(np.size(leaf)), group)


def _check_groups(leaves: list[Leaf]) -> None:
    compressed = [leaf for leaf in leaves if isinstance(leaf.group, str)]
    if not any(leaf.size for leaf in compressed):
        kinds = ", ".join(dict.fromkeys(leaf.dtype for leaf in leaves))
        found = f"leaves of type {kinds}" if leaves else "no leaves"
        if compressed:
            found += ", those in a group without entries"
        elif any(leaf.group is None for leaf in leaves):
            found += ", none in a group"
        raise ConfigError(
            "params hold no weights to compress; expected a pytree of floating arrays, some of "
            f"which the rules leave in a group, got {found}"
        )
    for leaf in compressed:
        if leaf.name.startswith("batch_stats/"):
            raise ConfigError(
                f"params hold Linen's batch_stats, such as {leaf.name}, which are not weights; "
                "pass variables['params'] as params and batch_stats as aux, or freeze them by the "
                "rule ('batch_stats/*', swsjax.FROZEN)"
            )


def _fate(group: str | Frozen | None) -> str:
    if group is None:
        return "trained, not compressed"
    return f"compressed, in the group {group!r}" if isinstance(group, str) else "frozen"


def _unused(pattern: str, names: list[str]) -> str:
    if any(fits(name, pattern, names) for name in names):
        return (
            f"rule {pattern!r} decides nothing: earlier rules match everything it matches; move "
            "it before them or leave it out"
        )
    near = get_close_matches(pattern, names, n=3, cutoff=0.4)
    listed = ", ".join(near or names[:5]) + ("" if near or len(names) <= 5 else ", ...")
    brackets = "; in a pattern [[] stands for [" if "[" in pattern.replace("[[]", "") else ""
    return f"rule {pattern!r} matches no leaf; did you mean one of: {listed}?{brackets}"
