r"""Compressible subspaces: a line or a point of nets, trained at all levels at once.

Nunez, Horton, Prabhu, Ranjan, Farhadi, Rastegari, *LCS: Learning Compressible Subspaces for
Adaptive Network Compression at Inference Time* (WACV 2023, arXiv 2110.04252). Other nets of one
artefact are the same functions with other arguments:

    fit_line(task, top_k(0.025, 1.0), key=key)          # LCS+L, with
    fit_line(task, width(0.25, 1.0, layers), key=key)   # channels, and
    fit_line(rounded_inputs(task), bits(3, 8), key=key)  # bits
    fit_point(task, top_k(0.025, 1.0), key=key)         # LCS+P
    fit_point(task, width(0.25, 1.0, layers), key=key)  # universal slimming
    fit_point(
        task, width(0.25, 1.0, layers), draw=at_levels((0.25, 0.5, 0.75, 1.0)), key=key
    )  # slimmable
    fit_point(task, top_k(0.1, 0.1), draw=decaying, key=key)  # TopK-target
    fit_point(task, bits(4, 4), key=key)                # bit-width target

Their nets differ in the norms, too, which belong to the task: group norm in LCS with ``top_k`` and
``bits``, instance norm with ``width``, and BatchNorm in the others. A net for one target at another
level is ``family.rule.compressed(family.on_line(0), level)``, without a warning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from swsjax.baselines.families import Family, mixed
from swsjax.baselines.in_training import seed_of
from swsjax.baselines.inputs import with_input_bits
from swsjax.baselines.rules import Rule
from swsjax.baselines.schedules import Draw, late_bits, line_draw, point_draw
from swsjax.baselines.weights import check_finite
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.training.augment import Augment, crop_and_flip
from swsjax.training.loop import train
from swsjax.training.losses import LossWithAux
from swsjax.training.pretraining import PretrainConfig
from swsjax.trees import Params, is_number, named_leaves

__all__ = ["SubspaceConfig", "fit_line", "fit_point", "squared_cosine"]


@dataclass(frozen=True)
class SubspaceConfig(PretrainConfig):
    """Settings of LCS on CIFAR-10: SGD with momentum, warm-up and a half cosine to zero.

    Raises ``ConfigError`` if a setting is out of its range.
    """

    epochs: int = 200
    """Passes through the data."""
    learning_rate: float = 0.1
    """At its highest; LCS takes 0.025 for ``bits``."""
    weight_decay: float = 5e-4
    """Times the weight, added to its gradient."""
    momentum: float = 0.9
    """Share of the last update that is added to the next."""
    warmup_epochs: int = 5
    """Epochs in which the learning rate rises from zero, linearly."""
    pad: int = 0
    """Pixels of zeros around an image that is then cropped to its size, and flipped at random; 0
    leaves images as they are."""

    def __post_init__(self) -> None:
        """Check what can be checked before any time is spent."""
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be in [0, 1), got {self.momentum}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ConfigError(
                f"warmup_epochs must be at least 0 and fewer than the {self.epochs} epochs, got "
                f"{self.warmup_epochs}"
            )
        if self.pad < 0:
            raise ConfigError(f"pad must not be negative, got {self.pad}")

    def learning_rates(self, steps: int) -> optax.Schedule:
        """The learning rate by the number of the step, of a training of this many steps."""
        warmup = steps * self.warmup_epochs // self.epochs
        return optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warmup, steps)

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """The optimiser of a training of this many steps."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay),
            optax.sgd(self.learning_rates(steps), momentum=self.momentum),
        )

    def augment(self) -> Augment | None:
        """Random crops and flips, if images are padded."""
        return partial(crop_and_flip, pad=self.pad) if self.pad else None


def fit_line(
    task: Task,
    rule: Rule,
    config: PretrainConfig = SubspaceConfig(),
    *,
    key: Array,
    draw: Draw | None = None,
    cosine_weight: float = 1.0,
    resume: str | PathLike[str] | None = None,
) -> Family:
    r"""Train the line between two nets, each point of it at its own level.

    .. math:: \sum_j L \big( f((1 - \alpha_j) w_1 + \alpha_j w_2, \gamma_j) \big)
        + \beta \cos^2(w_1, w_2)

    with f the compression to a level, and points :math:`\alpha_j` and levels :math:`\gamma_j` drawn
    in each step. The ends are initialised independently. With ``width`` they share all weights but
    the parameters of norms. The cosine is one over all kernels that they do not share; in LCS, of
    convolutions only.

    Two functions rather than one with a flag: a point has no cosine, and other schedules.

    Args:
        task: net and images.
        rule: what a level is, such as ``top_k(0.025, 1.0)``.
        config: loss, augmentation, optimiser and schedule; its seed is not used.
        key: random key of the initialisations, levels, order of the examples and augmentation.
        draw: points and levels of a step; by default those of LCS: ``decaying`` for ``top_k``,
            ``sandwich`` for ``width`` and ``uniform`` for ``bits``.
        cosine_weight: :math:`\beta`.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: the rule does not fit the net, the weight is not a number of at least 0, or the
            data are fewer than a batch.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.baselines.rules import top_k
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> family = fit_line(task, top_k(0.1, 1.0), PretrainConfig(epochs=1), key=jax.random.key(0))
    >>> int(jnp.count_nonzero(family.at(0.1).params["fc2"]["kernel"]))  # of 30,000
    3000
    """
    if not is_number(cosine_weight) or not 0 <= cosine_weight < float("inf"):
        raise ConfigError(f"cosine_weight must be a number of at least 0, got {cosine_weight!r}")
    keys = _keys(key)
    net, second = task.init(seed_of(keys.first)), task.init(seed_of(keys.second))
    names = set(rule.ends(net))
    other = {name: leaf for name, leaf in named_leaves(second.params) if name in names}
    family = Family(net, other, rule)
    return _fitted(
        task, family, config, keys, draw or line_draw(rule), cosine_weight, resume=resume
    )


def fit_point(
    task: Task,
    rule: Rule,
    config: PretrainConfig = SubspaceConfig(),
    *,
    key: Array,
    draw: Draw | None = None,
    resume: str | PathLike[str] | None = None,
) -> Family:
    r"""Train one net at all levels.

    .. math:: \sum_j L(f(w, \gamma_j))

    as ``fit_line`` with equal ends, without a cosine.

    Args:
        task: net and images.
        rule: what a level is, such as ``bits(3, 8)``.
        config: loss, augmentation, optimiser and schedule; its seed is not used.
        key: random key of the initialisation, levels, order of the examples and augmentation.
        draw: levels of a step; by default those of LCS: ``late`` for ``top_k``, ``sandwich`` for
            ``width`` and ``uniform`` for ``bits``.
        resume: folder for the state of the run, as for ``train``.

    Raises:
        ConfigError: the rule does not fit the net, or the data are fewer than a batch.
        CheckpointError: the folder holds a different run.
        RetrainingError: the loss is not finite.

    >>> from swsjax.baselines.rules import bits
    >>> from swsjax.lab import LeNet300100, classification, load_digits
    >>> task = classification(LeNet300100, load_digits())
    >>> family = fit_point(task, bits(3, 8), PretrainConfig(epochs=1), key=jax.random.key(0))
    >>> len(jnp.unique(family.at(3).params["fc2"]["kernel"])) <= 8
    True
    """
    keys = _keys(key)
    net = task.init(seed_of(keys.first))
    rule.ends(net)
    return _fitted(
        task, Family(net, {}, rule), config, keys, draw or point_draw(rule), 0.0, resume=resume
    )


def squared_cosine(params: Params, other: Mapping[str, Array]) -> Array:
    r"""Squared cosine of the angle between the kernels at the ends of a line, over all of them.

    .. math:: \cos^2(w_1, w_2) = \frac{\langle w_1, w_2 \rangle^2}{|w_1|^2 |w_2|^2}

    Args:
        params: weights at the first end.
        other: leaves at the other end, by name; if it has no kernels, the value is 0.

    >>> print(squared_cosine({"kernel": jnp.array([[1.0, 0.0]])}, {"kernel": jnp.ones((1, 2))}))
    0.5
    """
    first = {name: leaf for name, leaf in named_leaves(params) if name in other and leaf.ndim > 1}
    if not first:
        return jnp.zeros(())
    second = {name: other[name] for name in first}
    squared_lengths = optax.tree.vdot(first, first) * optax.tree.vdot(second, second)
    return jnp.square(optax.tree.vdot(first, second)) / squared_lengths


class _Keys(NamedTuple):
    first: Array
    second: Array
    order: Array
    levels: Array


def _keys(key: Array) -> _Keys:
    return _Keys(*jax.random.split(key, 4))


def _fitted(
    task: Task,
    family: Family,
    config: PretrainConfig,
    keys: _Keys,
    draw: Draw,
    cosine_weight: float,
    *,
    resume: str | PathLike[str] | None,
) -> Family:
    check_finite(family.net)
    data = task.data()
    steps = config.steps(data)
    trained = train(
        {"net": family.net.params, "other": family.other},
        _loss(task.loss(config.loss), family.rule, draw, cosine_weight, steps),
        data,
        config.optimizer(steps),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=seed_of(keys.order),
        aux={"net": family.net.aux, "key": keys.levels, "step": jnp.zeros((), jnp.int32)},
        augment=config.augment(),
        resume=resume,
    )
    aux = with_input_bits(trained.aux["net"], lambda bits: 0)  # until a level is taken
    net = Variables(trained.params["net"], aux)
    return Family(net, trained.params["other"], family.rule)


def _loss(
    loss_fn: LossWithAux, rule: Rule, draw: Draw, cosine_weight: float, steps: int
) -> LossWithAux:
    """The loss of a line; the statistics go from net to net of a step."""

    def loss(ends: Any, carried: Any, batch: Any) -> tuple[Array, Any]:
        aux, (key, drawn) = carried["net"], jax.random.split(carried["key"])
        progress = carried["step"] / steps
        alphas, levels = draw(rule, drawn, progress)
        total = cosine_weight * squared_cosine(ends["net"], ends["other"])
        for alpha, level in zip(alphas, levels, strict=True):
            whole = Variables(mixed(ends["net"], ends["other"], alpha), aux)
            small = rule.compressed(whole, level)
            seen = with_input_bits(small.aux, lambda bits: late_bits(bits, progress))
            value, after = loss_fn(small.params, seen, batch)
            total, aux = total + value, rule.carried(whole, after, level)
        return total, {"net": aux, "key": key, "step": carried["step"] + 1}

    return loss
