"""Soft weight-sharing: the mixture prior, retraining under it, quantising, and search."""

from swsjax.sws.compression import compress
from swsjax.sws.config import LEARNED, Annealing, Config
from swsjax.sws.front import Front, Point
from swsjax.sws.merging import kl_divergence, merge
from swsjax.sws.moves import Move
from swsjax.sws.plans import three_stages
from swsjax.sws.prior import (
    Beta,
    Gamma,
    GaussianMixture,
    HyperPriors,
    assign,
    component_log_probs,
    component_means,
    hyper_log_prob,
    init_mixture,
    log_mixing,
    log_prob,
    responsibilities,
)
from swsjax.sws.quantizing import codebook, non_zeros, quantize
from swsjax.sws.rates import LearningRates
from swsjax.sws.record import Details
from swsjax.sws.result import Result
from swsjax.sws.stages import Course, Stage
from swsjax.sws.step import Info, Joint, hard, init, make_step, soft
from swsjax.sws.study import Study, search, space_around
from swsjax.sws.targets import Level
from swsjax.sws.walk import Outcome

__all__ = [
    "LEARNED",
    "Annealing",
    "Beta",
    "Config",
    "Course",
    "Details",
    "Front",
    "Gamma",
    "GaussianMixture",
    "HyperPriors",
    "Info",
    "Joint",
    "LearningRates",
    "Level",
    "Move",
    "Outcome",
    "Point",
    "Result",
    "Stage",
    "Study",
    "assign",
    "codebook",
    "component_log_probs",
    "component_means",
    "compress",
    "hard",
    "hyper_log_prob",
    "init",
    "init_mixture",
    "kl_divergence",
    "log_mixing",
    "log_prob",
    "make_step",
    "merge",
    "non_zeros",
    "quantize",
    "responsibilities",
    "search",
    "soft",
    "space_around",
    "three_stages",
]
