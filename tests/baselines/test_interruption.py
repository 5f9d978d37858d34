"""Methods that train a net for its channels or blocks: interrupted, and resumed."""

from functools import partial

import jax
import numpy as np
import pytest
from small_tasks import BATCH, interrupted_and_resumed, small, untrained

from swsjax.baselines import (
    accelerated_proximal,
    network_slimming,
    soft_filter_pruning,
    sparse_structure_selection,
    with_scales,
)
from swsjax.training import PretrainConfig

CONFIG = PretrainConfig(epochs=2, batch_size=BATCH)
METHODS = {
    "slimming": lambda net: partial(
        network_slimming, net=with_scales(net, ["bn/scale"]), keep=0.5, config=CONFIG
    ),
    "soft filters": lambda net: partial(soft_filter_pruning, net=net, rate=0.5, config=CONFIG),
    "structures": lambda net: partial(
        sparse_structure_selection,
        net=net,
        blocks={"last": ("fc/kernel", "fc/bias")},
        config=CONFIG,
        proximal=accelerated_proximal(0.01, strength=0.1),
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_and_resumed(method, tmp_path):
    """After one of two epochs, the second run does the other alone, and ends the same."""
    key = jax.random.key(0)
    run = partial(METHODS[method](untrained("normalised")), small("normalised"), key=key)
    resumed = interrupted_and_resumed(run, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed, run())
