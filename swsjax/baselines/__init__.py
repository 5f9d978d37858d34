"""Other methods of compression, to compare with: each a function from a net to a net.

A net is ``lab.Variables``, and the zeros of its kernels are its mask. So methods compose, and their
nets go through the same codec and the same report as those of soft weight-sharing.
"""

from swsjax.baselines.affine import quantize_affine
from swsjax.baselines.channels import Group, channel_groups, masked_channels, remove_channels
from swsjax.baselines.codebooks import k_means, k_means_of_net, tune_codebook_of_net, tune_codebooks
from swsjax.baselines.families import Family, load_family
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
from swsjax.baselines.in_training import train_task
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
from swsjax.baselines.inputs import rounded_inputs
from swsjax.baselines.lottery import lottery_ticket
from swsjax.baselines.magnitudes import magnitude, magnitude_per_layer
from swsjax.baselines.probes import Probe, correlations, probe
from swsjax.baselines.reconstruction import lasso_regression, thinet
from swsjax.baselines.removal import narrowed, narrowed_module, shrink
from swsjax.baselines.rules import bits, task_layers, top_k, width
from swsjax.baselines.schedules import at_levels, decaying, late, sandwich, uniform
from swsjax.baselines.sensitivity import sensitivities, shares_by_sensitivity, skewness
from swsjax.baselines.shares import channel_scores, channels_kept, global_shares, prune_channels
from swsjax.baselines.slimming import (
    add_scale_signs,
    batch_norm_scales,
    network_slimming,
    slim,
    with_scales,
)
from swsjax.baselines.soft_filters import (
    convolution_kernels,
    soft_filter_pruning,
    zero_smallest_filters,
)
from swsjax.baselines.structures import (
    accelerated_proximal,
    last_layers,
    scaled_task,
    sparse_structure_selection,
)
from swsjax.baselines.subspaces import SubspaceConfig, fit_line, fit_point
from swsjax.baselines.weights import (
    density,
    kept,
    kernels,
    mask,
    masked,
    sparsity_patterns,
    with_kernels,
)

__all__ = [
    "FINE_TUNING",
    "Convolution",
    "Family",
    "Group",
    "Probe",
    "SubspaceConfig",
    "accelerated_proximal",
    "add_scale_signs",
    "at_levels",
    "batch_norm_scales",
    "bits",
    "channel_groups",
    "channel_scores",
    "channels_kept",
    "circular_singular_values",
    "convolution_kernels",
    "convolutions",
    "correlations",
    "decaying",
    "density",
    "fine_tune",
    "fit_line",
    "fit_point",
    "force",
    "force_masks",
    "frobenius_norms",
    "global_shares",
    "grasp",
    "iter_snip",
    "iter_snip_masks",
    "k_means",
    "k_means_of_net",
    "kept",
    "kernels",
    "l1_norms",
    "l2_norms",
    "lasso_regression",
    "last_layers",
    "late",
    "load_family",
    "lottery_ticket",
    "magnitude",
    "magnitude_per_layer",
    "mask",
    "masked",
    "masked_channels",
    "narrowed",
    "narrowed_module",
    "network_slimming",
    "nuclear_norms",
    "probe",
    "prune_channels",
    "quantize_affine",
    "random",
    "random_scores",
    "reinitialised",
    "remove_channels",
    "retrain",
    "rewind",
    "rounded_inputs",
    "saliency",
    "sandwich",
    "scaled_task",
    "scratch",
    "scratch_b_epochs",
    "sensitivities",
    "shares_by_sensitivity",
    "shrink",
    "singular_values",
    "skewness",
    "slim",
    "snip",
    "soft_filter_pruning",
    "sparse_structure_selection",
    "sparsity_patterns",
    "spectral_norms",
    "task_layers",
    "thinet",
    "top_k",
    "train_task",
    "tune_codebook_of_net",
    "tune_codebooks",
    "uniform",
    "width",
    "with_kernels",
    "with_scales",
    "zero_smallest_filters",
]
