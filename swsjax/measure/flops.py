"""What a net computes: the multiply-adds of its matrix products and convolutions, from shapes.

Counted are multiply-adds, as in the papers, which call them FLOPs; each is two floating-point
operations. Additions of biases, norms, activations and pooling are left out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from swsjax.errors import ConfigError
from swsjax.trees import named_leaves

__all__ = ["Operations", "multiply_adds"]


class Operations(NamedTuple):
    """Multiply-adds of a net, by what they multiply with."""

    leaves: Mapping[str, int]
    """For each leaf of the net that is multiplied with, by name: those with its entries."""
    others: int
    """Those of two arrays that both depend on the inputs (attention), or with constants."""

    @property
    def total(self) -> int:
        """All of them: those of the dense net."""
        return sum(self.leaves.values()) + self.others

    def masked(self, net: Any) -> int:
        """Count those that are left if products with zeros are skipped.

        Each leaf's multiply-adds times its density, as each entry is in equally many of them.

        Args:
            net: the arrays, with the names of the net that was counted.

        >>> net = {"kernel": jnp.array([[1.0, 0.0], [2.0, 3.0]])}
        >>> multiply_adds(lambda net, x: x @ net["kernel"], net, jnp.ones((1, 2))).masked(net)
        3
        """
        arrays = dict(named_leaves(net))
        densities = {
            name: Fraction(int(jnp.count_nonzero(arrays[name])), arrays[name].size)
            for name in self.leaves
        }
        return self.others + sum(
            round(number * densities[name]) for name, number in self.leaves.items()
        )


def multiply_adds(apply: Callable[..., Any], net: Any, *inputs: Any) -> Operations:
    """Count the multiply-adds of one call of a net, leaf by leaf.

    The function is traced, not run. A matrix product or convolution counts for the leaf that it
    multiplies with, also if that was reshaped, transposed, cast, sliced, padded or joined with
    others first; the zeros of a padding of weights do not count, those of a padding of activations
    do, as is usual. An array made of several leaves by arithmetic counts as the largest of them, as
    a kernel times its scales does. Loops count as often as they run.

    Args:
        apply: from the net and inputs to outputs.
        net: pytree of arrays or their shapes (``jax.ShapeDtypeStruct``).
        inputs: arrays or shapes; a batch of one example gives the cost of one example.

    Raises:
        ConfigError: a loop without a fixed number of steps computes products.

    >>> net = {"w": jnp.ones((3, 3, 8, 16)), "fc": jnp.ones((16, 10))}
    >>> def apply(net, x):
    ...     x = jax.lax.conv_general_dilated(
    ...         x, net["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    ...     return x.mean((1, 2)) @ net["fc"]
    >>> found = multiply_adds(apply, net, jax.ShapeDtypeStruct((1, 32, 32, 8), jnp.float32))
    >>> found.leaves, found.total
    ({'fc': 160, 'w': 1179648}, 1179808)
    """
    closed = jax.make_jaxpr(apply)(net, *inputs)
    named = named_leaves(net)
    sources = [_Source({name: Fraction(1)}, math.prod(leaf.shape)) for name, leaf in named]
    sources += [_DATA] * (len(closed.jaxpr.invars) - len(sources))
    counts, _ = _walked(closed, sources)
    leaves = {name: round(counts[name]) for name, _ in named if name in counts}
    return Operations(leaves, round(counts.get(None, Fraction(0))))


class _Source(NamedTuple):
    """Where an array of the trace comes from."""

    shares: dict[str | None, Fraction]
    """The share of its entries that come from each leaf; None: from elsewhere."""
    size: int
    """Entries of the largest leaf behind it; -1 if it depends on the inputs."""


_DATA = _Source({None: Fraction(1)}, -1)
_CONSTANT = _Source({None: Fraction(1)}, 0)

_Counts = dict[str | None, Fraction]
_Walked = tuple[_Counts, list[_Source]]
"""Multiply-adds by leaf, and the sources of the outputs."""


def _walked(trace: ClosedJaxpr | Jaxpr, inputs: Sequence[_Source]) -> _Walked:
    """Walk a trace, given the sources of its inputs."""
    jaxpr = trace.jaxpr if isinstance(trace, ClosedJaxpr) else trace
    known = dict.fromkeys(jaxpr.constvars, _CONSTANT)
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def source(atom: Any) -> _Source:
        return _CONSTANT if isinstance(atom, Literal) else known[atom]

    counts: _Counts = {}
    for equation in jaxpr.eqns:
        found, results = _of_equation(equation, [source(atom) for atom in equation.invars])
        counts = _sum(counts, found)
        known.update(zip(equation.outvars, results, strict=True))
    return counts, [source(atom) for atom in jaxpr.outvars]


def _of_equation(equation: Any, operands: list[_Source]) -> _Walked:
    match equation.primitive.name:
        case "dot_general":
            return _of_product(equation, operands)
        case "conv_general_dilated":
            return _of_convolution(equation, operands)
        case "pad":
            return _of_padding(equation, operands)
        case "concatenate" | "stack":
            return _of_joining(equation, operands)
        case "scan":
            return _of_scan(equation, operands)
        case "while":
            return _of_while(equation, operands)
        case "cond":
            return _of_branches(equation, operands)
    inner = [value for value in equation.params.values() if isinstance(value, ClosedJaxpr | Jaxpr)]
    if len(inner) == 1 and _number_of_inputs(inner[0]) == len(operands):
        return _walked(inner[0], operands)
    return {}, [_merged(operands)] * len(equation.outvars)


def _of_product(equation: Any, operands: list[_Source]) -> _Walked:
    """A matrix product: each output is a sum over the contracted axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return _counted(equation, operands, math.prod(shape[axis] for axis in contracted))


def _of_convolution(equation: Any, operands: list[_Source]) -> _Walked:
    """A convolution: each output is a sum over the kernel of its channel."""
    kernel = equation.invars[1].aval
    outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    return _counted(equation, operands, kernel.size // max(outputs, 1))


def _counted(equation: Any, operands: list[_Source], per_output: int) -> _Walked:
    """Multiply-adds of sums of products, by the operand that is made of weights."""
    number = equation.outvars[0].aval.size * per_output
    weights = [operand for operand in operands if operand.size >= 0]
    return _times(_merged(weights or operands).shares, number), [_merged(operands)]


def _of_padding(equation: Any, operands: list[_Source]) -> _Walked:
    padded = operands[0]
    if padded.size < 0:
        return {}, [padded]
    share = _share(equation.invars[0], equation.outvars[0])
    return {}, [padded._replace(shares=_times(padded.shares, share))]


def _of_joining(equation: Any, operands: list[_Source]) -> _Walked:
    if any(operand.size < 0 for operand in operands):
        return {}, [_DATA]
    shares: _Counts = {}
    for atom, operand in zip(equation.invars, operands, strict=True):
        shares = _sum(shares, _times(operand.shares, _share(atom, equation.outvars[0])))
    return {}, [_Source(shares, max(operand.size for operand in operands))]


def _of_scan(equation: Any, operands: list[_Source]) -> _Walked:
    """A loop of a fixed length; what it carries may depend on the inputs only after a step."""
    start, carried = equation.params["num_consts"], equation.params["num_carry"]
    end = start + carried
    while True:
        counts, results = _walked(equation.params["jaxpr"], operands)
        before = operands[start:end]
        after = [_merged(pair) for pair in zip(before, results[:carried], strict=True)]
        if after == before:
            return _times(counts, equation.params["length"]), results
        operands = operands[:start] + after + operands[end:]


def _of_while(equation: Any, operands: list[_Source]) -> _Walked:
    tests, bodies = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    counts, results = _walked(equation.params["body_jaxpr"], operands[tests:])
    if any(counts.values()):
        raise ConfigError(
            "apply computes products in a loop without a fixed number of steps, which cannot be "
            "counted; write it as jax.lax.scan, or as fori_loop with bounds that are constants"
        )
    carried = operands[tests + bodies :]
    return {}, [_merged(pair) for pair in zip(carried, results, strict=True)]


def _of_branches(equation: Any, operands: list[_Source]) -> _Walked:
    """A choice costs as much as its most expensive branch."""
    index, *given = operands
    branches = [_walked(branch, given) for branch in equation.params["branches"]]
    counts, results = max(branches, key=lambda walked: sum(walked[0].values()))
    return counts, [_merged([index, result]) for result in results]


def _merged(operands: Sequence[_Source]) -> _Source:
    """The source of what is computed from several arrays: the inputs, or the largest leaf."""
    if any(operand.size < 0 for operand in operands):
        return _DATA
    return max(operands, key=lambda operand: operand.size, default=_CONSTANT)


def _share(part: Any, whole: Any) -> Fraction:
    """How much of an array a part is; at most all of it, as padding may be negative."""
    return min(Fraction(1), Fraction(part.aval.size, max(whole.aval.size, 1)))


def _times(counts: _Counts, factor: int | Fraction) -> _Counts:
    return {name: number * factor for name, number in counts.items()}


def _sum(first: _Counts, second: _Counts) -> _Counts:
    both = first | second
    return {name: first.get(name, Fraction(0)) + second.get(name, 0) for name in both}


def _number_of_inputs(trace: ClosedJaxpr | Jaxpr) -> int:
    return len((trace.jaxpr if isinstance(trace, ClosedJaxpr) else trace).invars)
