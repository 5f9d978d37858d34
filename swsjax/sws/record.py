"""The record of an epoch of soft weight-sharing: the net as if it were quantised now."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from swsjax.codec import entropy_bound
from swsjax.sws.prior import GaussianMixture
from swsjax.sws.quantizing import codebook, non_zeros, quantize_groups
from swsjax.sws.units import Carried
from swsjax.training.epochs import TrainState
from swsjax.training.net import Weights
from swsjax.training.sharding import gather

__all__ = ["Details", "figures_of", "read_details"]


class Details(NamedTuple):
    """What soft weight-sharing adds to the record of an epoch."""

    levels: int
    """Distinct values of the compressed weights, zero included, if quantised now."""
    components: int
    """Free components that are assigned at least one weight."""
    smallest_sigma: float
    """Standard deviation of the narrowest component."""
    mixtures: dict[str, GaussianMixture]
    """The mixtures after the epoch, by group, as NumPy arrays."""
    prior_error: float = 0.0
    """Relative error of the tabulated prior and its gradients, on a sample; 0 if exact."""
    nodes: dict[str, int] | None = None
    """Nodes of each mixture's grid in the next epoch; None if the prior is exact."""


def figures_of(
    state: TrainState,
    mesh: Mesh | None = None,
    error: Callable[[Weights, Any], float | None] = lambda weights, carried: None,
) -> dict[str, Any]:
    """Measure the net as if it were quantised now: fields of ``Epoch``, details included.

    Args:
        state: its params are the ``Joint`` of weights and mixtures.
        mesh: devices that hold it.
        error: of quantised weights and the carried part; None if it is not measured.

    >>> from swsjax.sws import LearningRates, init, init_mixture
    >>> from swsjax.training import take_apart
    >>> net, optimizer = take_apart([jnp.array([0.0, 1.0, 0.9])]), LearningRates().optimizer(1, 1)
    >>> mixtures = {"weights": init_mixture(-1.0, 1.0, std=0.05)}
    >>> figures = figures_of(init(net, mixtures, optimizer, jax.random.key(0)))
    >>> figures["non_zeros"], figures["details"].levels
    (2, 3)
    """
    weights, mixtures = state.params
    quantised, carried = gather((quantize_groups(mixtures, weights), state.aux), mesh)
    groups = quantised.groups
    mixtures = jax.tree.map(np.asarray, mixtures)
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(quantised)]
    units = jax.tree.leaves(carried.units) if isinstance(carried, Carried) else []
    codebooks = [codebook(leaves) for leaves in groups.values()]
    details = Details(
        levels=len(codebook(codebooks)),
        components=sum(int(np.count_nonzero(levels)) for levels in codebooks),
        smallest_sigma=min(
            float(np.exp(-0.5 * mixture.log_precisions.max())) for mixture in mixtures.values()
        ),
        mixtures=mixtures,
    )
    return {
        "error": error(quantised, carried),
        "non_zeros": non_zeros(groups),
        "bound_bytes": sum(bound.total for bound in entropy_bound(arrays)) / 8
        + 4 * int(np.count_nonzero(jax.device_get(units))),
        "details": details,
    }


def read_details(entry: Mapping[str, Any]) -> Details:
    """Return the details that were written as JSON.

    >>> entry = {"levels": 3, "components": 2, "smallest_sigma": 0.1, "mixtures": {}}
    >>> read_details(entry).levels
    3
    """
    mixtures = {
        name: GaussianMixture._make(
            np.asarray(mixture[field], np.float32) for field in GaussianMixture._fields
        )
        for name, mixture in entry["mixtures"].items()
    }
    return Details(**{**entry, "mixtures": mixtures})
