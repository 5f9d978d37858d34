"""Other methods of compression, to compare with: each a function from a net to a net.

A net is ``lab.Variables``, and the zeros of its kernels are its mask. So methods compose, and their
nets go through the same codec and the same report as those of soft weight-sharing.
"""

from swsjax.baselines.affine import quantize_affine
from swsjax.baselines.codebooks import (
    k_means,
    k_means_of_net,
    tune_codebook_of_net,
    tune_codebooks,
)
from swsjax.baselines.finish import (
    FINE_TUNING,
    fine_tune,
    reinitialised,
    retrain,
    rewind,
    scratch,
    scratch_b_epochs,
)
from swsjax.baselines.initial import (
    force,
    force_masks,
    grasp,
    iter_snip,
    iter_snip_masks,
    random,
    saliency,
    snip,
)
from swsjax.baselines.lottery import lottery_ticket
from swsjax.baselines.magnitudes import magnitude, magnitude_per_layer
from swsjax.baselines.weights import density, kept, kernels, mask, masked, with_kernels

__all__ = [
    "FINE_TUNING",
    "density",
    "fine_tune",
    "force",
    "force_masks",
    "grasp",
    "iter_snip",
    "iter_snip_masks",
    "k_means",
    "k_means_of_net",
    "kept",
    "kernels",
    "lottery_ticket",
    "magnitude",
    "magnitude_per_layer",
    "mask",
    "masked",
    "quantize_affine",
    "random",
    "reinitialised",
    "retrain",
    "rewind",
    "saliency",
    "scratch",
    "scratch_b_epochs",
    "snip",
    "tune_codebook_of_net",
    "tune_codebooks",
    "with_kernels",
]
