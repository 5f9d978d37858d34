r"""The exact prior in one pass over the weights: a kernel for CUDA GPUs, written in Pallas.

A block of threads reads its weights one after another, one each. With d = w - mu_j and the
responsibilities r_j, which stay in registers, it sums log p(w), r_j, r_j d and r_j d^2 for each
component, which give every gradient of the mixture, and writes the gradient of each weight: 8 bytes
are moved per weight. The sums are kept by each thread and added up at the end of the block, so that
nothing is summed by atomic operations, and the result does not change from run to run.

Each component takes four registers of a thread, which has 255, so there may be about 32; ``exact``
takes this path where it can, and otherwise works in blocks.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from swsjax.sws.prior import LOG_SQRT_2PI, GaussianMixture, component_means, log_mixing

__all__ = ["one_pass", "one_pass_with_numbers", "sums_by_component"]

Found = tuple[Array, tuple[GaussianMixture, Array]]
"""Sum of log p(w) over an array of weights, and its gradients: of mixture and weights."""

_THREADS = 256
_PROGRAMS = 2048  # several for each multiprocessor of the largest GPUs
_MOST_ROUNDS = (
    64  # weights that a thread reads: more save additions at the end, but share less well
)


class _Terms(NamedTuple):
    """log of pi_j N(w | mu_j, 1/lambda_j) = height_j - lambda_j (w - mu_j)^2 / 2, (J + 1,) each."""

    heights: Array
    means: Array
    precisions: Array


def one_pass(mixture: GaussianMixture, weights: Array, *, interpret: bool = False) -> Found:
    """Sum of log p(w) over an array of weights, and its gradients, as ``jax.value_and_grad`` does.

    Args:
        mixture: the prior.
        weights: at least one, any shape and floating dtype; computed with in float32.
        interpret: run the kernel step by step as JAX, on any device: for tests.

    Returns:
        The sum, () float32 (nats), and its gradients with respect to the mixture and to each
        weight, the latter in the shape and dtype of ``weights``.

    >>> mixture, w = GaussianMixture(*(jnp.zeros(n) for n in [1, 2, 1, ()])), jnp.array([0.5, 2.0])
    >>> total, (to_mixture, to_weights) = one_pass(mixture, w, interpret=True)
    >>> print(np.asarray(total).round(3), to_weights)
    -3.963 [-0.5 -2. ]
    """
    return _run(mixture, weights, False, interpret)[0]


def one_pass_with_numbers(
    mixture: GaussianMixture, weights: Array, *, interpret: bool = False
) -> tuple[Found, Array]:
    """``one_pass``, and the number of each weight's most responsible component, uint8.

    >>> mixture = GaussianMixture(jnp.ones(1), jnp.zeros(2), jnp.zeros(1), jnp.zeros(()))
    >>> print(one_pass_with_numbers(mixture, jnp.array([0.1, 0.8, 1.3]), interpret=True)[1])
    [0 1 1]
    """
    found, (numbers,) = _run(mixture, weights, True, interpret)
    return found, numbers


def sums_by_component(
    numbers: Array, values: Array, components: int, *, interpret: bool = False
) -> Array:
    """Sum the values of each component's weights, (components,), float32.

    Args:
        numbers: of components, uint8, any shape.
        values: in the shape of ``numbers``.
        components: how many there are, few.
        interpret: as for ``one_pass``.

    >>> numbers, values = jnp.array([0, 2, 2], jnp.uint8), jnp.array([1.0, 2.0, 3.0])
    >>> print(sums_by_component(numbers, values, 3, interpret=True))
    [1. 0. 5.]
    """
    rounds, programs = _layout(values.size)
    sums = pl.pallas_call(
        partial(_add_up, values.size, rounds),
        out_shape=jax.ShapeDtypeStruct((programs, components), jnp.float32),
        grid=(programs,),
        interpret=interpret,
        compiler_params=_COMPILER,
        name="sums_by_component",
    )(numbers.ravel(), values.ravel())
    return jnp.sum(sums, axis=0)


_COMPILER = triton.CompilerParams(num_warps=_THREADS // 32, num_stages=1)


def _run(
    mixture: GaussianMixture, weights: Array, numbered: bool, interpret: bool
) -> tuple[Found, list[Array]]:
    terms, pullback = jax.vjp(_terms, mixture)
    components, size = terms.means.size, weights.size
    rounds, programs = _layout(size)
    to_weights, sums, *numbers = pl.pallas_call(
        partial(_visit, size, rounds, components),
        out_shape=[
            jax.ShapeDtypeStruct((size,), jnp.float32),
            jax.ShapeDtypeStruct((programs, 1 + 3 * components), jnp.float32),
            *[jax.ShapeDtypeStruct((size,), jnp.uint8)] * numbered,
        ],
        grid=(programs,),
        interpret=interpret,
        compiler_params=_COMPILER,
        name="mixture_prior",
    )(jnp.stack(terms), weights.ravel())
    total, *moments = jnp.split(jnp.sum(sums, axis=0), [1, 1 + components, 1 + 2 * components])
    zeroth, first, second = moments
    (to_mixture,) = pullback(_Terms(zeroth, terms.precisions * first, -0.5 * second))
    to_weights = to_weights.reshape(weights.shape).astype(weights.dtype)
    return (total[0], (to_mixture, to_weights)), [
        number.reshape(weights.shape) for number in numbers
    ]


def _terms(mixture: GaussianMixture) -> _Terms:
    heights = log_mixing(mixture) + 0.5 * mixture.log_precisions - LOG_SQRT_2PI
    return _Terms(heights, component_means(mixture), jnp.exp(mixture.log_precisions))


def _layout(size: int) -> tuple[int, int]:
    """Weights that each thread reads, and blocks of threads."""
    rounds = min(max(pl.cdiv(size, _THREADS * _PROGRAMS), 1), _MOST_ROUNDS)
    return rounds, pl.cdiv(size, _THREADS * rounds)


def _visit(
    size: int, rounds: int, components: int, terms: Any, weights: Any, slopes: Any, sums: Any,
    *numbers: Any,
) -> None:  # fmt: skip
    """The kernel of ``one_pass``; the references of its outputs come last."""
    program, zeros = pl.program_id(0), jnp.zeros((_THREADS,), jnp.float32)

    def visit(number: Array, kept: list[Array]) -> list[Array]:
        at, inside = _places(size, program * rounds + number)
        w = triton.load(weights.at[at], mask=inside, other=0.0).astype(jnp.float32)
        apart = [w - terms[1, j] for j in range(components)]
        joint = [terms[0, j] - 0.5 * terms[2, j] * (apart[j] * apart[j]) for j in range(components)]
        most = joint[0]
        best = jnp.zeros((_THREADS,), jnp.int32)
        for j in range(1, components):
            best = jnp.where(joint[j] > most, j, best)
            most = jnp.maximum(joint[j], most)
        scaled = [jnp.exp(each - most) for each in joint]
        together = sum(scaled[1:], start=scaled[0])
        share = jnp.where(inside, 1.0, 0.0) / together
        posterior = [each * share for each in scaled]
        slope = zeros
        for j in range(components):
            slope -= posterior[j] * (terms[2, j] * apart[j])
        triton.store(slopes.at[at], slope, mask=inside)
        for each in numbers:
            triton.store(each.at[at], best.astype(jnp.uint8), mask=inside)
        first = [r * d for r, d in zip(posterior, apart, strict=True)]
        second = [rd * d for rd, d in zip(first, apart, strict=True)]
        value = jnp.where(inside, most + jnp.log(together), 0.0)
        return [a + b for a, b in zip(kept, [value, *posterior, *first, *second], strict=True)]

    kept = jax.lax.fori_loop(0, rounds, visit, [zeros] * (1 + 3 * components))
    for place, each in enumerate(kept):
        sums[program, place] = jnp.sum(each)


def _add_up(size: int, rounds: int, numbers: Any, values: Any, sums: Any) -> None:
    """The kernel of ``sums_by_component``."""
    components = sums.shape[1]
    program, zeros = pl.program_id(0), jnp.zeros((_THREADS,), jnp.float32)

    def visit(number: Array, kept: list[Array]) -> list[Array]:
        at, inside = _places(size, program * rounds + number)
        value = triton.load(values.at[at], mask=inside, other=0.0).astype(jnp.float32)
        owner = triton.load(numbers.at[at], mask=inside, other=0).astype(jnp.int32)
        return [each + jnp.where(owner == j, value, 0.0) for j, each in enumerate(kept)]

    kept = jax.lax.fori_loop(0, rounds, visit, [zeros] * components)
    for place, each in enumerate(kept):
        sums[program, place] = jnp.sum(each)


def _places(size: int, round_: Array) -> tuple[Any, Array]:
    """The places that a block reads in one of all rounds, and which of them are in the array."""
    start = round_ * _THREADS
    return pl.ds(start, _THREADS), start + jnp.arange(_THREADS) < size
