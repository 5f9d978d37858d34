"""The operations of a net, in one list: a trace whose calls of functions are inlined."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from swsjax.trees import named_leaves

__all__ = [
    "MOVING",
    "POINTWISE",
    "PRODUCTS",
    "REDUCING",
    "Graph",
    "Operation",
    "contracted",
    "moved_leaves",
    "traced",
]

_POINTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type
    copy copy_p cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le
    log log1p logistic lt max min mul name ne neg nextafter not or pow reduce_precision rem round
    rsqrt select_n sharding_constraint sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
POINTWISE = frozenset(_POINTWISE.split())
"""Operations on each entry by itself, by the names of their primitives."""
_MOVING = "broadcast_in_dim concatenate pad reshape rev slice squeeze stack transpose"
MOVING = frozenset(_MOVING.split())
"""Operations that only move or repeat entries."""
PRODUCTS = frozenset(("conv_general_dilated", "dot_general"))
"""Operations that multiply and sum."""
REDUCING = frozenset(f"reduce_{name}" for name in ("and", "max", "min", "or", "prod", "sum", "xor"))
"""Operations that join the entries along some axes."""
_CALLS = """
    checkpoint closed_call core_call custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr jit pjit
    remat remat2
"""


class Operation(NamedTuple):
    """One operation between arrays, which are numbered."""

    primitive: Any
    """Of JAX."""
    params: Mapping[str, Any]
    """Its static parameters."""
    inputs: tuple[int, ...]
    """Numbers of the arrays that it takes."""
    outputs: tuple[int, ...]
    """Numbers of the arrays that it makes."""

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return str(self.primitive.name)


class Graph(NamedTuple):
    """What a net computes; its arrays are numbered: the leaves of the net, the inputs, others."""

    leaves: tuple[str, ...]
    """Names of the leaves of the net."""
    shapes: tuple[tuple[int, ...], ...]
    """Of each array."""
    dtypes: tuple[Any, ...]
    """Of each array."""
    constants: Mapping[int, Any]
    """The values of arrays that are neither computed nor passed."""
    operations: tuple[Operation, ...]
    """In order."""
    results: tuple[int, ...]
    """Numbers of the arrays that are returned."""
    from_inputs: frozenset[int]
    """Numbers of the arrays that depend on the inputs."""


def traced(apply: Callable[..., Any], net: Any, *inputs: Any) -> Graph:
    """Trace a function of a net and inputs.

    Args:
        apply: from the net and inputs to outputs.
        net: pytree of arrays or their shapes (``jax.ShapeDtypeStruct``).
        inputs: arrays or shapes.

    >>> graph = traced(lambda net, x: jax.nn.relu(x @ net["w"]), {"w": jnp.ones((3, 2))},
    ...                jnp.ones((1, 3)))
    >>> [(operation.name, operation.outputs) for operation in graph.operations]
    [('dot_general', (2,)), ('max', (4,))]
    """
    closed = jax.make_jaxpr(apply)(net, *inputs)
    leaves = tuple(name for name, _ in named_leaves(net))
    builder = _Builder()
    given = [builder.number(variable.aval) for variable in closed.jaxpr.invars]
    results = builder.inline(closed.jaxpr, closed.consts, given)
    depend = set(given[len(leaves) :])
    for operation in builder.operations:
        if depend.intersection(operation.inputs):
            depend.update(operation.outputs)
    return Graph(
        leaves,
        tuple(builder.shapes),
        tuple(builder.dtypes),
        builder.constants,
        tuple(builder.operations),
        tuple(results),
        frozenset(depend),
    )


def contracted(operation: Operation, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Pairs of axes, one of each operand, over which a product sums channels.

    None for other operations, nor for a convolution in groups.

    Args:
        operation: a matrix product, a convolution or another one.
        shapes: of all arrays.

    >>> graph = traced(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 4)))
    >>> contracted(graph.operations[0], graph.shapes)
    [(1, 0)]
    """
    params = operation.params
    if operation.name == "dot_general":
        (left, right), _ = params["dimension_numbers"]
        return list(zip(left, right, strict=True))
    if operation.name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        if params["feature_group_count"] == params["batch_group_count"] == 1:
            return [(numbers.lhs_spec[1], numbers.rhs_spec[1])]
    return []


def moved_leaves(graph: Graph) -> tuple[dict[int, int], Counter[int]]:
    """Return the leaf of each array that is only a leaf moved, and how often each leaf is used.

    Args:
        graph: from ``traced``.

    >>> graph = traced(lambda b, x: x + b.reshape(1, 2), jnp.ones(2), jnp.ones((3, 2)))
    >>> moved_leaves(graph)
    ({0: 0, 2: 0}, Counter({0: 1}))
    """
    sources = {number: number for number in range(len(graph.leaves))}
    uses: Counter[int] = Counter(sources[number] for number in graph.results if number in sources)
    for operation in graph.operations:
        first = sources.get(operation.inputs[0]) if len(operation.inputs) == 1 else None
        if first is not None and operation.name in MOVING | {"convert_element_type", "copy"}:
            sources[operation.outputs[0]] = first
        else:
            uses.update(sources[number] for number in operation.inputs if number in sources)
    return sources, uses


class _Builder:
    """Collects the operations of a trace and of those inside it."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.dtypes: list[Any] = []
        self.constants: dict[int, Any] = {}
        self.operations: list[Operation] = []

    def number(self, aval: Any) -> int:
        self.shapes.append(tuple(aval.shape))
        self.dtypes.append(aval.dtype)
        return len(self.shapes) - 1

    def constant(self, aval: Any, value: Any) -> int:
        number = self.number(aval)
        self.constants[number] = value
        return number

    def inline(self, jaxpr: Jaxpr, constants: Sequence[Any], given: Sequence[int]) -> list[int]:
        """Add the operations of a trace; return the numbers of its results."""
        known = dict(zip(jaxpr.invars, given, strict=True))
        for variable, value in zip(jaxpr.constvars, constants, strict=True):
            known[variable] = self.constant(variable.aval, value)

        def number(atom: Any) -> int:
            return self.constant(atom.aval, atom.val) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            inputs = [number(atom) for atom in equation.invars]
            inner = next(_inner(equation), None)
            if inner is not None:
                outputs = self.inline(inner.jaxpr, inner.consts, inputs)
            else:
                outputs = [self.number(variable.aval) for variable in equation.outvars]
                self.operations.append(
                    Operation(equation.primitive, equation.params, tuple(inputs), tuple(outputs))
                )
            known.update(zip(equation.outvars, outputs, strict=True))
        return [number(atom) for atom in jaxpr.outvars]


def _inner(equation: Any) -> Iterator[ClosedJaxpr]:
    """The trace of the function that an equation calls, if it does nothing else."""
    if equation.primitive.name in _CALLS.split():
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr):
                yield value
            elif isinstance(value, Jaxpr):
                yield ClosedJaxpr(value, ())
