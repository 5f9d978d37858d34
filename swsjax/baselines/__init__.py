"""Other methods of compression, to compare with: each a function from a net to a net.

A net is ``lab.Variables``, and the zeros of its kernels are its mask. So methods compose, and their
nets go through the same codec and the same report as those of soft weight-sharing.
"""

from swsjax.baselines.affine import quantize_affine
from swsjax.baselines.channels import (
    Group,
    channel_groups,
    masked_channels,
    remove_channels,
)
from swsjax.baselines.codebooks import (
    k_means,
    k_means_of_net,
    tune_codebook_of_net,
    tune_codebooks,
)
from swsjax.baselines.filters import (
    Convolution,
    circular_singular_values,
    convolutions,
    frobenius_norms,
    l1_norms,
    l2_norms,
    nuclear_norms,
    random_scores,
    singular_values,
    spectral_norms,
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
from swsjax.baselines.removal import narrowed, shrink
from swsjax.baselines.weights import density, kept, kernels, mask, masked, with_kernels

__all__ = [
    "FINE_TUNING",
    "Convolution",
    "Group",
    "channel_groups",
    "circular_singular_values",
    "convolutions",
    "density",
    "fine_tune",
    "force",
    "force_masks",
    "frobenius_norms",
    "grasp",
    "iter_snip",
    "iter_snip_masks",
    "k_means",
    "k_means_of_net",
    "kept",
    "kernels",
    "l1_norms",
    "l2_norms",
    "lottery_ticket",
    "magnitude",
    "magnitude_per_layer",
    "mask",
    "masked",
    "masked_channels",
    "narrowed",
    "nuclear_norms",
    "quantize_affine",
    "random",
    "random_scores",
    "reinitialised",
    "remove_channels",
    "retrain",
    "rewind",
    "saliency",
    "scratch",
    "scratch_b_epochs",
    "shrink",
    "singular_values",
    "snip",
    "spectral_norms",
    "tune_codebook_of_net",
    "tune_codebooks",
    "with_kernels",
]
