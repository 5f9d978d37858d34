"""The stages of a retraining, epoch by epoch, and what each epoch reports."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from swsjax.advice import check_epoch, check_mixtures, warn_of_lost_arrays
from swsjax.codec import entropy_bound
from swsjax.config import Config
from swsjax.errors import ConfigError
from swsjax.grid import node_count
from swsjax.losses import LossWithAux, Params
from swsjax.merge import merge
from swsjax.nets import Net
from swsjax.prior import GaussianMixture
from swsjax.prune import keep_largest, pruning, saliency, share_left
from swsjax.quantize import codebook, non_zeros, quantize_each
from swsjax.resume import Keeper
from swsjax.retrain import Forward, Info, Rates, State, Step, init, make_step
from swsjax.select import by_mixture
from swsjax.sharding import gather, place_weights, replicate, settle
from swsjax.stream import Stream, batches_of, stream_epoch
from swsjax.table import error_with, refined
from swsjax.train import epoch

__all__ = ["Progress", "Run", "Stage", "range_of", "run_stages"]


class Progress(NamedTuple):
    """What an epoch of ``compress`` reports; the history is a list of these."""

    stage: str
    """``"soft"``, ``"hard"`` or ``"prune"``."""
    epoch: int
    """Epochs done in all, from 1."""
    epochs: int
    """Epochs that there will be in all."""
    loss: float
    """Mean loss over the epoch, without the prior (nats)."""
    non_zeros: int
    """Compressed weights that would not be zero, were the net quantised now."""
    levels: int
    """Distinct values of the compressed weights, zero included, were they quantised now."""
    bound_bytes: float
    """Entropy bound of the net quantised now, left-out leaves included; the file comes out about
    a quarter smaller."""
    components: int
    """Free components that hold a weight."""
    smallest_sigma: float
    """Standard deviation of the narrowest component."""
    error: float | None
    """What ``evaluate`` says of the net quantised now; None without it."""
    prior_error: float
    """Relative error of the tabulated prior and its gradients, on a sample; 0 if exact."""
    mixtures: dict[str, GaussianMixture]
    """The mixtures after the epoch by name, in NumPy arrays."""


class Stage(NamedTuple):
    """A stage of retraining: its name, what the net computes with, rates, number of epochs."""

    name: str
    forward: Forward
    """``soft`` or ``hard``."""
    loss_fn: LossWithAux
    """Of trained part, carried part and batch, as ``Net.loss`` makes it."""
    rates: Rates
    epochs: int
    tau: float | optax.Schedule
    """Weight of the prior; 0: none acts."""
    kept: float | None = None
    """Share of the weights not zero at its start that pruning leaves; None: no pruning."""


class Run(NamedTuple):
    """What the stages of a run have in common.

    The ``config``, ``mesh``, ``evaluate`` and ``callback`` of ``compress``, and what it made of its
    other arguments.
    """

    net: Net
    """The net in its parts, as it was given."""
    data: Any
    """Arrays on the devices, or a ``Stream``."""
    train_size: int
    """Number of training examples."""
    config: Config
    epochs: int
    """Epochs of all stages."""
    mesh: Mesh | None
    has_aux: bool
    """Whether ``evaluate`` takes auxiliary state."""
    evaluate: Callable[..., float] | None
    callback: Callable[[Progress], None] | None

    @property
    def passes(self) -> int:
        """Passes through the data in an epoch."""
        return -(-self.config.least_steps // self.steps)

    @property
    def steps(self) -> int:
        """Steps in a pass through the data."""
        return self.train_size // self.config.batch_size


class Place(NamedTuple):
    """Where a stage stands, beside its state."""

    nodes: dict[str, int] | None
    """Of the grid of each mixture."""
    at_start: int
    """Weights that were not zero when it began."""


def run_stages(
    run: Run, stages: list[Stage], mixtures: dict[str, GaussianMixture], kept: Keeper | None
) -> tuple[State, list[Progress]]:
    """Run what is left of the stages; the state after them, its mixtures merged.

    Args:
        run: what they have in common.
        stages: one after another.
        mixtures: the priors by name, at the start.
        kept: where the state is written after each epoch, and may lie already.

    Returns:
        The state, and the history of all epochs.

    >>> from swsjax.nets import take_apart
    >>> from swsjax.prior import init_mixture
    >>> from swsjax.retrain import soft
    >>> net = take_apart({"w": jnp.array([0.9, 1.1, 0.0])})
    >>> loss = net.loss(lambda params, batch: jnp.mean((params["w"] - batch) ** 2))
    >>> stages = [Stage("soft", soft, loss, Rates(), epochs=1, tau=0.01)]
    >>> config = Config(batch_size=2, method="exact", least_steps=1)
    >>> run = Run(net, jnp.ones((4, 3)), 4, config, 1, None, False, None, None)
    >>> state, history = run_stages(run, stages, {"weights": init_mixture(-1.0, 1.0)}, None)
    >>> len(history), history[0].loss < 1
    (1, True)
    """
    history, place = [], None
    if kept is not None and kept.progress is not None:
        history = [_from_json(entry) for entry in kept.progress["history"]]
        place = Place(kept.progress["nodes"], kept.progress["at_start"])
    # Copies: the state of an epoch is donated, and the caller's arrays are the caller's.
    params, mixtures, carried = jax.tree.map(
        lambda leaf: jnp.array(leaf, copy=True), (run.net.params, mixtures, run.net.carried)
    )
    keys = jax.random.split(jax.random.key(run.config.seed), len(stages))
    before = 0
    for stage, key in zip(stages, keys, strict=True):
        before += stage.epochs
        if not stage.epochs or before < len(history):
            continue
        optimizer = stage.rates.optimizer(stage.epochs, run.steps * run.passes)
        if stage.kept is not None:
            optimizer = pruning(optimizer, run.net.labels)
        if place is not None:  # gone on with: the arrays themselves come from the disk
            mixtures = _like(history[-1].mixtures)
        elif stage.kept is not None:
            params = jax.tree.map(_cut, params, quantize_each(mixtures, params, run.net.labels))
        state = init(
            place_weights(params, run.mesh),
            replicate(mixtures, run.mesh),
            optimizer,
            replicate(key, run.mesh),
            aux=replicate(carried, run.mesh),
        )
        state = settle(state, run.mesh)
        if place is None or kept is None:
            place = Place(_first_nodes(run, state), _non_zeros(params, run.net))
        else:
            state = kept.restore(state)
        step_on = _steps(run, stage, optimizer)
        while len(history) < before:
            number = len(history) - (before - stage.epochs)
            state, place, progress = _epoch(run, stage, step_on, state, place, number, history)
            history.append(progress)
            if kept is not None:
                kept.save(len(history), state, _to_json(history, place))
            if run.callback is not None:
                run.callback(progress)
        mixtures = {
            name: merge(mixture, run.config.merge_threshold)
            for name, mixture in state.mixtures.items()
        }
        params, carried, place = state.params, state.aux, None
        if stage.name == "soft":
            quantised = gather(quantize_each(mixtures, params, run.net.labels), run.mesh)
            warn_of_lost_arrays(quantised, run.net.labels)
    return state._replace(mixtures=mixtures), history


def _steps(
    run: Run, stage: Stage, optimizer: optax.GradientTransformation
) -> Callable[[tuple[tuple[str, int], ...] | None], Step]:
    """The step of a stage for grids of so many nodes: an epoch compiles again for another step."""

    @cache
    def step_on(nodes: tuple[tuple[str, int], ...] | None) -> Step:
        return make_step(
            stage.loss_fn,
            optimizer,
            forward=stage.forward,
            tau=stage.tau,
            train_size=run.train_size,
            hyper=run.config.hyper_priors,
            nodes=None if nodes is None else dict(nodes),
            labels=run.net.labels,
        )

    return step_on


def _epoch(
    run: Run,
    stage: Stage,
    step_on: Callable[[Any], Step],
    state: State,
    place: Place,
    number: int,
    history: list[Progress],
) -> tuple[State, Place, Progress]:
    """One epoch of a stage, ``number`` of its own already done, and what there is to say of it."""
    config, labels = run.config, run.net.labels
    if stage.kept is not None:
        # Over the first half, from when there are gradients to tell; the other half trains.
        half = stage.epochs // 2
        left = share_left(stage.kept, number / half if half else 1.0)
        scores = saliency(state.params, state.opt_state.squares)
        groups, scored = by_mixture(state.params, labels), by_mixture(scores, labels)
        kept = keep_largest(groups, scored, round(left * place.at_start))
        state = state._replace(params=_replaced(state.params, kept, labels))
    nodes = None if place.nodes is None else tuple(place.nodes.items())
    infos = []
    for turn in range(run.passes):
        if isinstance(run.data, Stream):
            number_of_pass = len(history) * run.passes + turn
            batches = batches_of(run.data, number_of_pass, config.batch_size)
            state, info = stream_epoch(step_on(nodes), state, batches, mesh=run.mesh)
        else:
            state, info = epoch(
                step_on(nodes), state, run.data, batch_size=config.batch_size, mesh=run.mesh
            )
        infos.append(info)
    info = jax.tree.map(lambda *figures: sum(figures) / len(figures), *infos)
    groups = by_mixture(state.params, labels)
    prior_error = 0.0
    if place.nodes is not None:
        prior_error = max(
            error_with(place.nodes[name], state.mixtures[name], leaves).item()
            for name, leaves in groups.items()
        )
    progress = _progress(run, stage, state, info, len(history) + 1, prior_error)
    check_epoch(progress, info, (state.params, state.mixtures))
    check_mixtures(progress, groups, state.mixtures, config)
    # In pruning no prior acts.
    if place.nodes and stage.kept is None and prior_error > config.tolerance / 10:
        place = place._replace(nodes=_refined(groups, state, place.nodes, config))
    return state, place, progress


def _progress(
    run: Run, stage: Stage, state: State, info: Info, number: int, prior_error: float
) -> Progress:
    quantised, carried = gather(
        (quantize_each(state.mixtures, state.params, run.net.labels), state.aux), run.mesh
    )
    groups = by_mixture(quantised, run.net.labels)
    error = None
    if run.evaluate is not None:
        whole, aux = run.net.whole(quantised, carried)
        error = _number(run.evaluate(whole, aux) if run.has_aux else run.evaluate(whole))
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(quantised)]
    mixtures = jax.tree.map(np.asarray, state.mixtures)
    return Progress(
        stage=stage.name,
        epoch=number,
        epochs=run.epochs,
        loss=info.loss.item(),
        non_zeros=non_zeros(groups),
        levels=len(codebook(groups)),
        bound_bytes=sum(bound.total for bound in entropy_bound(arrays)) / 8,
        components=sum(int(np.count_nonzero(codebook(leaves))) for leaves in groups.values()),
        smallest_sigma=min(
            float(np.exp(-0.5 * mixture.log_precisions.max())) for mixture in mixtures.values()
        ),
        error=error,
        prior_error=prior_error,
        mixtures=mixtures,
    )


def _number(error: Any) -> float:
    """What ``evaluate`` returned, as a number that JSON knows."""
    try:
        return float(error)
    except (TypeError, ValueError):
        raise ConfigError(
            f"evaluate must return a number, got a {type(error).__name__} of shape "
            f"{np.shape(error)}"
        ) from None


def _first_nodes(run: Run, state: State) -> dict[str, int] | None:
    """Nodes to start with: enough for the precision that the hyper-prior prefers.

    Single components may become far narrower, but those that hold few weights do not matter; the
    error that is measured once an epoch decides.
    """
    if run.config.method == "exact":
        return None
    gamma = run.config.hyper_priors.precision
    sigma = min(run.config.initial_std, (gamma.rate / gamma.shape) ** 0.5)
    groups = by_mixture(state.params, run.net.labels)
    nodes = {name: node_count(*range_of(leaves), sigma) for name, leaves in groups.items()}
    return _refined(groups, state, nodes, run.config)


def range_of(leaves: list[Array]) -> tuple[float, float]:
    """Smallest and largest weight.

    >>> range_of([jnp.array([1.0, -2.0]), jnp.zeros(0)])
    (-2.0, 1.0)
    """
    leaves = [leaf for leaf in leaves if leaf.size]
    return min(x.min().item() for x in leaves), max(x.max().item() for x in leaves)


def _refined(
    groups: dict[str, list[Array]], state: State, nodes: dict[str, int], config: Config
) -> dict[str, int]:
    """As many nodes as keep the error within the tolerance until it is next measured.

    An epoch raises the error fourfold as components narrow, a hundredfold where a stage begins.
    """
    target = config.tolerance / 20
    return {
        name: refined(state.mixtures[name], leaves, nodes[name], target)
        for name, leaves in groups.items()
    }


def _cut(weights: Array, quantised: Array) -> Array:
    """Weights, exactly zero where they are quantised to zero."""
    return jnp.where(quantised == 0, 0, weights)


def _replaced(
    params: Params, groups: dict[str, list[Array]], labels: tuple[str | None, ...]
) -> Params:
    """The params with other leaves under the mixtures."""
    leaves, structure = jax.tree.flatten(params)
    new = {name: iter(group) for name, group in groups.items()}
    return jax.tree.unflatten(
        structure,
        [
            leaf if label is None else next(new[label])
            for leaf, label in zip(leaves, labels, strict=True)
        ],
    )


def _non_zeros(params: Params, net: Net) -> int:
    return non_zeros(by_mixture(params, net.labels))


def _like(mixtures: dict[str, GaussianMixture]) -> dict[str, GaussianMixture]:
    return jax.tree.map(jnp.zeros_like, mixtures)


def _to_json(history: list[Progress], place: Place) -> dict[str, Any]:
    entries = [
        entry._asdict() | {"mixtures": {name: m._asdict() for name, m in entry.mixtures.items()}}
        for entry in history
    ]
    listed = jax.tree.map(lambda x: x.tolist() if isinstance(x, np.ndarray) else x, entries)
    return {"history": listed, **place._asdict()}


def _from_json(entry: dict[str, Any]) -> Progress:
    mixtures = {
        name: GaussianMixture._make(
            np.asarray(mixture[field], np.float32) for field in GaussianMixture._fields
        )
        for name, mixture in entry["mixtures"].items()
    }
    return Progress(**entry | {"mixtures": mixtures})
