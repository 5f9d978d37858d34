r"""Rules: what a level is, at which levels a family is trained, and which point of a line has each.

A family of nets is a line or a point of weights and a rule, after LCS (Nunez et al., WACV 2023,
arXiv 2110.04252). A point :math:`\alpha` of the line has one level: the share of the weights that
is kept (``top_k``), of the channels (``width``), or the number of bits (``bits``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from swsjax.baselines.channels import channel_groups
from swsjax.baselines.inputs import with_input_bits
from swsjax.baselines.leaves import with_leaves
from swsjax.baselines.levels import first_channels, kept_channels, rounded, top_share
from swsjax.baselines.weights import Kernels, check_share, kernels, with_kernels
from swsjax.checks import check_integer
from swsjax.errors import ConfigError
from swsjax.lab.nets import Channels
from swsjax.lab.task import Task, Variables
from swsjax.trees import Params, fits, is_weight, named_leaves

__all__ = [
    "Bits",
    "Rule",
    "TopK",
    "Width",
    "bits",
    "norm_parameters",
    "task_layers",
    "top_k",
    "width",
]

_MOST_BITS = 16  # exact in float32


@dataclass(frozen=True)
class TopK:
    """The level is the share of each kernel's weights that is kept; see ``top_k``."""

    least: float
    """Smallest share of the training."""
    most: float
    """Largest share of the training."""
    whole: tuple[str, ...] = ()
    """Patterns of names of kernels that always keep all their weights."""

    @property
    def alphas(self) -> tuple[float, float]:
        """Smallest and largest point of the training."""
        return self.least, self.most

    def of(self, alpha: ArrayLike) -> Array:
        """Level of a point: the point itself."""
        return jnp.asarray(alpha, jnp.float32)

    def alpha(self, level: ArrayLike) -> Array:
        """Point of a level."""
        return jnp.asarray(level, jnp.float32)

    def check(self, level: Any) -> None:
        """Check that a level is one of any net."""
        check_share("share of the weights", level)

    def ends(self, net: Variables) -> tuple[str, ...]:
        """Names of the leaves that two ends do not share, checked that the rule fits the net."""
        return _all_weights(net, self.whole)

    def compressed(self, net: Variables, level: ArrayLike) -> Variables:
        """Return a net at a level, which may be traced."""
        return _with_each(net, self.whole, lambda kernel: top_share(kernel, level))

    def carried(self, net: Variables, after: Any, level: ArrayLike) -> Any:
        """Return the statistics of a net after a step at a level: those that the step made."""
        return after


@dataclass(frozen=True)
class Bits:
    """The level is the number of bits of each kernel's weights; see ``bits``."""

    least: int
    """Smallest number of the training."""
    most: int
    """Largest number of the training."""
    whole: tuple[str, ...] = ()
    """Patterns of names of kernels that are never rounded."""

    @property
    def alphas(self) -> tuple[float, float]:
        """Smallest and largest point of the training."""
        return 0.0, 1.0

    def of(self, alpha: ArrayLike) -> Array:
        """Level of a point: each number of bits has an equal part of the line."""
        parts = 1 + self.most - self.least
        part = jnp.floor(parts * jnp.asarray(alpha, jnp.float32)).astype(jnp.int32)
        return self.least + jnp.clip(part, 0, parts - 1)

    def alpha(self, level: ArrayLike) -> Array:
        """Point of a level: the middle of its part."""
        middle = jnp.asarray(level, jnp.float32) - self.least + 0.5
        return middle / (1 + self.most - self.least)

    def check(self, level: Any) -> None:
        """Check that a level is one of any net."""
        check_integer("number of bits", level, most=_MOST_BITS)

    def ends(self, net: Variables) -> tuple[str, ...]:
        """Names of the leaves that two ends do not share, checked that the rule fits the net."""
        return _all_weights(net, self.whole)

    def compressed(self, net: Variables, level: ArrayLike) -> Variables:
        """Return a net at a level, which may be traced; see ``rounded_inputs``, too."""
        small = _with_each(net, self.whole, lambda kernel: rounded(kernel, level))
        return small._replace(aux=with_input_bits(small.aux, lambda bits: level))

    def carried(self, net: Variables, after: Any, level: ArrayLike) -> Any:
        """Return the statistics of a net after a step at a level: those that the step made."""
        return after


@dataclass(frozen=True)
class Width:
    """The level is the share of each layer's channels that is kept; see ``width``."""

    least: float
    """Smallest share of the training."""
    most: float
    """Largest share of the training."""
    layers: tuple[Channels, ...]
    """The channels of each layer."""

    @property
    def alphas(self) -> tuple[float, float]:
        """Smallest and largest point of the training."""
        return 0.0, 1.0

    def of(self, alpha: ArrayLike) -> Array:
        """Level of a point."""
        return self.least + (self.most - self.least) * jnp.asarray(alpha, jnp.float32)

    def alpha(self, level: ArrayLike) -> Array:
        """Point of a level."""
        above = jnp.asarray(level, jnp.float32) - self.least
        return above / (self.most - self.least) if self.most > self.least else 0 * above

    def check(self, level: Any) -> None:
        """Check that a level is one of any net."""
        check_share("share of the channels", level)

    def ends(self, net: Variables) -> tuple[str, ...]:
        """Names of the leaves that two ends do not share, checked that the rule fits the net."""
        kept_channels(net.params, net.params, self.layers, 1.0)
        return norm_parameters(net.params)

    def compressed(self, net: Variables, level: ArrayLike) -> Variables:
        """Return a net at a level, which may be traced; its statistics stay."""
        return net._replace(params=first_channels(net.params, self.layers, level))

    def carried(self, net: Variables, after: Any, level: ArrayLike) -> Any:
        """Return the statistics of a net after a step at a level: new for its channels only."""
        kept = kept_channels(after, net.params, self.layers, level)
        found = zip(named_leaves(after), jax.tree.leaves(net.aux), strict=True)
        held = {name: jnp.where(kept[name], new, old) for (name, new), old in found if name in kept}
        return with_leaves(after, held)


Rule = TopK | Bits | Width
"""What a level is, and at which levels a family is trained."""


def top_k(least: float, most: float, *, whole: Sequence[str] = ()) -> TopK:
    r"""Keep a share of the largest weights of each kernel; the point :math:`\alpha` is the share.

    Args:
        least: smallest share of the training; LCS takes 0.025, and 0.005 for high sparsity.
        most: largest share; LCS takes 1, and 0.05 for high sparsity.
        whole: patterns of names of kernels that keep all weights, in LCS the first convolution and
            the classifier: ``("conv0/*", "fc/*")``.

    Raises:
        ConfigError: not 0 < least <= most <= 1, or whole does not hold names.

    >>> top_k(0.025, 1.0)
    TopK(least=0.025, most=1.0, whole=())
    """
    _check_range("share of the weights", least, most)
    return TopK(float(least), float(most), _names(whole))


def bits(least: int, most: int, *, whole: Sequence[str] = ()) -> Bits:
    """Round the weights of each kernel to a number of bits; each has an equal part of the line.

    With a task of ``rounded_inputs``, inputs of convolutions are rounded to as many, as in LCS.

    Args:
        least: smallest number of bits of the training; LCS takes 3.
        most: largest number, at most 16; LCS takes 8.
        whole: patterns of names of kernels that are never rounded.

    Raises:
        ConfigError: not integers with 1 <= least <= most <= 16, or whole does not hold names.

    >>> bits(3, 8).of(jnp.array([0.0, 0.2, 0.99])).tolist()
    [3, 4, 8]
    """
    least = check_integer("least number of bits", least, most=_MOST_BITS)
    most = check_integer("most number of bits", most, most=_MOST_BITS)
    _check_order("number of bits", least, most)
    return Bits(least, most, _names(whole))


def width(least: float, most: float, layers: Sequence[Channels]) -> Width:
    r"""Keep the first channels of each layer: a share :math:`l + (m - l) \alpha` from l to m.

    Args:
        least: smallest share l of the training; LCS takes 0.25.
        most: largest share m; LCS takes 1.
        layers: the channels of each layer, as ``task_layers`` finds all of them; or of some layers,
            such as ``lab.NETS["resnet-8"].channels``. Leaves that the net lacks are ignored.

    Raises:
        ConfigError: not 0 < least <= most <= 1, or layers are not mappings from names to axes.

    >>> width(0.25, 1.0, [{"fc1/kernel": 1, "fc1/bias": 0, "fc2/kernel": 0}]).of(0.5)
    Array(0.625, dtype=float32)
    """
    _check_range("share of the channels", least, most)
    if not layers or not all(isinstance(channels, Mapping) for channels in layers):
        raise ConfigError(
            "layers must be a sequence of mappings from names of leaves to axes, got "
            f"{layers!r}; task_layers finds them"
        )
    made = ({name: int(axis) for name, axis in channels.items()} for channels in layers)
    return Width(float(least), float(most), tuple(made))


def task_layers(task: Task) -> tuple[Channels, ...]:
    """Find the channels of all layers of a task's net, for ``width``.

    Channels that a residual net adds up are one layer. Those that cannot be cut are left out, such
    as those of group norm with several channels per group: see ``channel_groups``.

    Args:
        task: its net in evaluation is traced, not run.

    Raises:
        ConfigError: as ``channel_groups``.

    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> first, second = task_layers(classification(LeNet300100, load_digits()))
    >>> first
    {'fc1/bias': 0, 'fc1/kernel': 1, 'fc2/kernel': 0}
    """
    groups = channel_groups(
        lambda whole, images: task.predict(task.parts(whole), images),
        jax.eval_shape(lambda: task.whole(task.init(0))),
        task.dataset.test.images[:1],
    )
    return tuple(dict(list(group.members)) for group in groups)


def norm_parameters(params: Params) -> tuple[str, ...]:
    """Names of the parameters of norms: of layers whose leaves all have at most one axis.

    >>> norm_parameters({"bn": {"bias": jnp.ones(2), "scale": jnp.ones(2)},
    ...                  "fc": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}})
    ('bn/bias', 'bn/scale')
    """
    named = [(name, name.rpartition("/")[0], leaf) for name, leaf in named_leaves(params)]
    with_kernel = {layer for _, layer, leaf in named if jnp.ndim(leaf) > 1}
    return tuple(
        name for name, layer, leaf in named if is_weight(leaf) and layer not in with_kernel
    )


def _check_range(what: str, least: Any, most: Any) -> None:
    check_share(f"least {what}", least)
    check_share(f"most {what}", most)
    _check_order(what, least, most)


def _check_order(what: str, least: Any, most: Any) -> None:
    if least > most:
        raise ConfigError(f"the least {what} is {least}, more than the most, {most}; swap them")


def _names(whole: Sequence[str]) -> tuple[str, ...]:
    if isinstance(whole, str) or not all(isinstance(name, str) for name in whole):
        raise ConfigError(f"whole must be a sequence of names or patterns, got {whole!r}")
    return tuple(whole)


def _all_weights(net: Variables, whole: Sequence[str]) -> tuple[str, ...]:
    _chosen(net, whole)
    return tuple(name for name, leaf in named_leaves(net.params) if is_weight(leaf))


def _chosen(net: Variables, whole: Sequence[str]) -> Kernels:
    """The kernels that are compressed."""
    found = kernels(net)
    for pattern in whole:
        if not any(fits(name, pattern, found) for name in found):
            raise ConfigError(
                f"{pattern!r} in whole fits no kernel; the kernels are {', '.join(found)}"
            )
    chosen = {
        name: kernel
        for name, kernel in found.items()
        if not any(fits(name, pattern, found) for pattern in whole)
    }
    if not chosen:
        raise ConfigError(
            f"whole fits all kernels, and none is left to compress: {', '.join(found)}"
        )
    return chosen


def _with_each(net: Variables, whole: Sequence[str], change: Callable[[Array], Array]) -> Variables:
    changed = {name: change(kernel) for name, kernel in _chosen(net, whole).items()}
    return with_kernels(net, {**kernels(net), **changed})
