"""What the runs of one ``compress`` have in common, and one of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from swsjax.errors import RetrainingError
from swsjax.sws.advice import why_zero
from swsjax.sws.config import Config
from swsjax.sws.plans import Stages
from swsjax.sws.prior import GaussianMixture
from swsjax.sws.quantizing import non_zeros, quantize_groups
from swsjax.sws.record import read_details
from swsjax.sws.reference import References
from swsjax.sws.stages import Made, Run, run_stages
from swsjax.training.epochs import TrainState
from swsjax.training.history import Epoch, Log
from swsjax.training.loop import Feed
from swsjax.training.losses import LossWithAux
from swsjax.training.net import Net, Weights
from swsjax.training.resume import Identity, identity_of, opened, with_settings
from swsjax.training.selection import Rules
from swsjax.training.sharding import gather

__all__ = ["Job", "Quantised", "shared_identity"]


class Quantised(NamedTuple):
    """A net after a run, quantised."""

    retrained: Weights
    """Its weights before they were quantised."""
    carried: Any
    """The carried part at the end of the run."""
    weights: Weights
    """Its weights."""
    statistics: Any
    """The carried part with statistics re-estimated for these weights."""


class Job(NamedTuple):
    """What the runs of one ``compress`` have in common."""

    net: Net
    """The pretrained net in parts."""
    feed: Feed
    """The data."""
    loss_fn: LossWithAux
    """Of the soft and the hard stage."""
    prune_loss_fn: LossWithAux
    """Of the pruning stage."""
    stages: Stages
    """Makes the stages of a run from its settings."""
    evaluate: Callable[[Weights, Any], np.ndarray] | None
    """Losses of weights and the carried part on validation data: one, or one for each example."""
    callback: Callable[[Epoch], None] | None
    """Called with the record of each epoch."""
    identity: Identity | None
    """Of the net, the data and the losses; None if nothing is written."""
    made: Made
    """Steps and estimates of all runs."""
    reference: References
    """Of a loss, what it is compared with."""

    def run(
        self,
        config: Config,
        start: TrainState,
        folder: str | PathLike[str] | None = None,
        before: int = 0,
        usual: int = 0,
    ) -> tuple[TrainState, list[Epoch]]:
        """Retrain from a state; the state after it and its history.

        Args:
            config: settings of the run.
            start: as ``stages.started`` makes it, or after another run.
            folder: in which the state is written after each epoch.
            before: epochs of earlier runs, which those of this one are counted after.
            usual: about how many epochs all runs take together.
        """

        def counted(epoch: Epoch) -> Epoch:
            epochs = max(before + epoch.epochs, usual)
            return epoch._replace(epoch=before + epoch.epoch, epochs=epochs)

        callback = self.callback
        report = None if callback is None else lambda epoch: callback(counted(epoch))
        with nullcontext() if folder is None else opened(folder, self._identity(config)) as resume:
            log = Log.opened(resume, report, read_details)
            planned = self.stages(config, self.loss_fn, self.prune_loss_fn, self.feed)
            error = None if self.evaluate is None else self._error
            run = Run(self.net, self.feed, config, planned, error, log, self.made, self.reference)
            state = run_stages(run, start)
        return state, [counted(epoch) for epoch in log.history]

    def quantised(self, state: TrainState, config: Config) -> Quantised:
        """Quantise the net after a run.

        Args:
            state: after the run.
            config: settings of the run.

        Raises:
            RetrainingError: every weight is zero.
        """
        mixtures = state.params.mixtures
        retrained, carried = gather((state.params.weights, state.aux), self.feed.mesh)
        weights = quantize_groups(mixtures, retrained)
        if non_zeros(weights.groups) == 0:
            raise RetrainingError(
                f"every weight is zero after quantisation: {why_zero(mixtures, config)}"
            )
        statistics = self.made.estimate(self.prune_loss_fn)(weights, carried)
        return Quantised(retrained, carried, weights, statistics)

    def losses(self, weights: Weights, carried: Any) -> np.ndarray:
        """Measure a net: its losses on validation data, or without them its loss in training."""
        if self.evaluate is not None:
            return self.evaluate(weights, carried)
        return np.array(self.made.loss_meter(self.loss_fn)(weights, carried))

    def _identity(self, config: Config) -> Identity:
        assert self.identity is not None
        return with_settings(self.identity, config)

    def _error(self, weights: Weights, carried: Any) -> float:
        assert self.evaluate is not None
        return self.evaluate(weights, carried).mean().item()


def shared_identity(
    net: Net,
    mixtures: Mapping[str, GaussianMixture] | None,
    rules: Rules,
    feed: Feed,
    losses: Sequence[LossWithAux],
) -> Identity:
    """Return what identifies all runs of a ``compress``; each adds its settings.

    Args:
        net: the pretrained net in parts.
        mixtures: that the first run starts with, if they are given.
        rules: which leaves are compressed.
        feed: the data.
        losses: of the stages, each once.

    >>> from swsjax.training import take_apart
    >>> from swsjax.training.loop import feed_of
    >>> net, feed = take_apart(np.ones(4)), feed_of(np.ones(8), 4)
    >>> shared_identity(net, None, (), feed, [net.loss(lambda w, batch: batch.mean())])["loss"]
    [1.0]
    """

    def on_first_batch(loss: LossWithAux) -> list[float]:
        return feed.on_first_batch(lambda batch: loss(net.weights, net.carried, batch)[0])

    return identity_of(
        settings=rules,
        weights=(net.weights, net.carried, mixtures),
        data=feed.content,
        losses=[value for loss in losses for value in on_first_batch(loss)],
    )
