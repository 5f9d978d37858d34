r"""A trained family of nets: one artefact from which a net of any size is taken.

family = fit_line(task, top_k(0.025, 1.0), key=key)
net = family.at(0.3)
family.save("family.sws")
load_family("family.sws").at(0.3)
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from swsjax.baselines.leaves import with_leaves
from swsjax.baselines.rules import Rule, bits, top_k, width
from swsjax.errors import ConfigError, FormatError, SwsjaxWarning
from swsjax.file.files import load, read_metadata, save
from swsjax.lab.task import Variables
from swsjax.trees import named_leaves

__all__ = ["Family", "load_family", "mixed"]

_RULES: Mapping[str, Callable[..., Rule]] = {"TopK": top_k, "Width": width, "Bits": bits}


@dataclass(frozen=True)
class Family:
    """A line or a point of nets, and the rule that makes a net of each level.

    >>> net = Variables({"kernel": jnp.array([[0.0, 2.0, -3.0, 1.0]])}, {})
    >>> family = Family(net, {"kernel": jnp.array([[4.0, 2.0, -3.0, 1.0]])}, top_k(0.25, 1.0))
    >>> family.at(0.75).params["kernel"].tolist()
    [[3.0, 2.0, -3.0, 0.0]]
    """

    net: Variables
    """The first end of the line, with the statistics of all nets; or the point."""
    other: Mapping[str, Array]
    """The leaves of params at the other end, by name. Those that are not here are the same at both
    ends; at a point all are."""
    rule: Rule
    """What a level is, and at which levels the family was trained."""

    def on_line(self, alpha: ArrayLike) -> Variables:
        r"""Return the net at a point of the line, not compressed.

        .. math:: w(\alpha) = (1 - \alpha) w_1 + \alpha w_2

        ``rule.compressed`` compresses it to any level: to ``rule.of(1 - alpha)`` in LCS's Figure 6,
        the line reversed.

        Args:
            alpha: 0 at the first end and 1 at the other.
        """
        return self.net._replace(params=mixed(self.net.params, self.other, alpha))

    def at(self, level: float | Array) -> Variables:
        """Return the net at a level: an ordinary net, compressed.

        Pruned weights, and those of channels that are left out, are zero.

        Args:
            level: share of the weights or channels, or number of bits. Under ``jax.jit`` its value
                is not known, and not checked.

        Raises:
            ConfigError: no net has this level.
        """
        if not isinstance(level, jax.core.Tracer):
            self.rule.check(level)
            least, most = self.rule.least, self.rule.most
            if not least <= level <= most:
                warnings.warn(
                    f"the family was trained at levels from {least} to {most}, and its net at "
                    f"{level} may be poor; choose a level between them, or fit a family to it",
                    SwsjaxWarning,
                    stacklevel=2,
                )
        return self.rule.compressed(self.on_line(self.rule.alpha(level)), level)

    def save(self, path: str | PathLike[str]) -> int:
        """Write the family to an ``.sws`` file: all weights of its ends, and the rule as metadata.

        Returns:
            The size of the file in bytes.

        Raises:
            OSError: the file cannot be written.
        """
        tree = {"params": self.net.params, "aux": self.net.aux, "other": dict(self.other)}
        rule = {"kind": type(self.rule).__name__, **asdict(self.rule)}
        return save(path, tree, metadata={"family": rule})


def load_family(path: str | PathLike[str], *, like: Variables | None = None) -> Family:
    """Read a family that ``Family.save`` wrote; its nets are equal bit by bit.

    Args:
        path: of the file.
        like: a net of the same kind, such as ``task.init(0)``. Without it, params and statistics
            are nested dictionaries.

    Raises:
        ConfigError: the family is of a net of other arrays than like.
        FormatError: the file is damaged, or holds no family.

    >>> family = Family(Variables({"kernel": jnp.ones((2, 2))}, {}), {}, top_k(0.25, 1.0))
    >>> size = family.save("family.sws")
    >>> load_family("family.sws").rule
    TopK(least=0.25, most=1.0, whole=())
    """
    rule = _rule_of(path, read_metadata(path).get("family"))
    tree = jax.tree.map(jnp.asarray, load(path))
    net = Variables(tree["params"], tree.get("aux", {}))
    if like is not None:
        net = _as(like, net)
    return Family(net, tree.get("other", {}), rule)


def mixed(params: Any, other: Mapping[str, Array], alpha: ArrayLike) -> Any:
    """Return the weights at a point of a line.

    Args:
        params: weights at the first end.
        other: leaves at the other end, by name; those that are not here do not change.
        alpha: 0 at the first end and 1 at the other.

    >>> mixed({"a": jnp.zeros(1), "b": jnp.ones(1)}, {"a": jnp.ones(1)}, 0.25)
    {'a': Array([0.25], dtype=float32), 'b': Array([1.], dtype=float32)}
    """
    alpha = jnp.asarray(alpha, jnp.float32)
    found = [(name, leaf) for name, leaf in named_leaves(params) if name in other]
    between = {
        name: ((1 - alpha) * leaf + alpha * other[name]).astype(leaf.dtype) for name, leaf in found
    }
    return with_leaves(params, between)


def _rule_of(path: str | PathLike[str], found: Any) -> Rule:
    try:
        settings = dict(found)
        return _RULES[settings.pop("kind")](**settings)
    except (TypeError, KeyError, ConfigError) as error:
        raise FormatError(
            f"{path}: expected the rule of a family in the metadata, got {found!r}; Family.save "
            "writes families"
        ) from error


def _as(like: Variables, net: Variables) -> Variables:
    """The net in the containers of another one."""
    found, wanted = (
        {
            part + name: leaf
            for part, tree in zip(("params/", "aux/"), each, strict=True)
            for name, leaf in named_leaves(tree)
        }
        for each in (net, like)
    )
    problems = [
        f"{name} is {_text(found.get(name))} in the file, {_text(wanted.get(name))} expected"
        for name in sorted({**found, **wanted})
        if _text(found.get(name)) != _text(wanted.get(name))
    ]
    if problems:
        raise ConfigError(
            "the family in the file is of another net: " + "; ".join(problems) + "; load it "
            "with a net of its own"
        )
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def _text(leaf: Any) -> str:
    return "missing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
