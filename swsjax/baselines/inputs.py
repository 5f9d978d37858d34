r"""Convolutions whose inputs are rounded, as LCS does beside their weights.

Nunez et al., *LCS* (WACV 2023, arXiv 2110.04252). A task's net is traced, and its trace is run with
other inputs of its convolutions: so it is any net, and no layer of it has to know.

    fit_line(rounded_inputs(task), bits(3, 8), key=key)
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jax.typing import ArrayLike

from swsjax.baselines.levels import rounded_between
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.trees import Params

__all__ = ["RANGES", "rounded_inputs", "with_input_bits"]

RANGES = "rounded_inputs"
"""Name in ``aux`` of the ranges of inputs, and of their number of bits."""

_Change = Callable[[Array], Array]


def rounded_inputs(task: Task, *, momentum: float = 0.9) -> Task:
    r"""Make a task whose net rounds the inputs of its convolutions, each to a range of its own.

    .. math:: l \leftarrow m l + (1 - m) \min(x, 0), \quad h \leftarrow m h + (1 - m) \max(x, 0)

    in each step of a training, from zero. Inputs are rounded to :math:`2^b` evenly spaced values
    from l to h, one of them 0, as ``levels.rounded_between`` does. The net begins with b = 0, which
    leaves them as they are. ``bits`` sets b: in a training, after 80 % of its steps.

    Args:
        task: with convolutions of JAX; those that are written as matrix products, as in
            ``lab.PooledConv``, stay as they are.
        momentum: m, in [0, 1). LCS does not state its own.

    Raises:
        ConfigError: the net has no convolutions, or momentum is out of its range.

    >>> from functools import partial
    >>> from swsjax.lab import Dataset, ResidualNet, Split, classification
    >>> split = Split(np.zeros((4, 4, 4, 3), np.uint8), np.arange(4) % 2)
    >>> model = partial(ResidualNet, widths=(2, 2, 2, 2), blocks=1)
    >>> task = rounded_inputs(classification(model, Dataset("black", split, split, split)))
    >>> sorted(task.init(0).aux["rounded_inputs"])
    ['bits', 'high', 'low']
    """
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must be in [0, 1), got {momentum}")
    like = jax.eval_shape(lambda: task.init(0))
    number = 0

    def counted(x: Array) -> Array:
        nonlocal number
        number += 1
        return x

    jax.eval_shape(_changed(task.predict, counted), like, task.dataset.test.images[:1])
    if not number:
        raise ConfigError(
            "the net has no convolutions whose inputs could be rounded; fit the task as it is"
        )

    def init(seed: int) -> Variables:
        net, zeros = task.init(seed), jnp.zeros(number)
        state = {"bits": jnp.zeros((), jnp.int32), "high": zeros, "low": zeros}
        return net._replace(aux={**net.aux, RANGES: state})

    def apply(params: Params, aux: Any, images: Array) -> tuple[Array, Any]:
        own, state = _split(aux)
        ranges: list[tuple[Array, Array]] = []

        def change(x: Array) -> Array:
            old_low, old_high = (state[end][len(ranges)] for end in ("low", "high"))
            low = momentum * old_low + (1 - momentum) * jnp.min(x, initial=0)
            high = momentum * old_high + (1 - momentum) * jnp.max(x, initial=0)
            ranges.append((low.astype(old_low.dtype), high.astype(old_high.dtype)))
            return _rounded(x, low, high, state["bits"])

        logits, after = _changed(task.apply, change)(params, own, images)
        low, high = map(jnp.stack, zip(*ranges, strict=True))
        return logits, {**after, RANGES: {**state, "low": low, "high": high}}

    def predict(net: Variables, images: Array) -> Array:
        own, state = _split(net.aux)
        ranges = iter(zip(state["low"], state["high"], strict=True))

        def change(x: Array) -> Array:
            return _rounded(x, *next(ranges), state["bits"])

        logits: Array = _changed(task.predict, change)(net._replace(aux=own), images)
        return logits

    return task._replace(init=init, apply=apply, predict=predict)


def with_input_bits(aux: Any, bits: Callable[[Array], ArrayLike]) -> Any:
    """Return the state of a net with another number of bits of the inputs of its convolutions.

    Args:
        aux: of a net; if it is not one of ``rounded_inputs``, it stays as it is.
        bits: from the number of bits to the other one; 0 leaves inputs as they are.

    >>> with_input_bits({"rounded_inputs": {"bits": jnp.array(0)}}, lambda bits: bits + 3)
    {'rounded_inputs': {'bits': Array(3, dtype=int32)}}
    >>> with_input_bits({}, lambda bits: 3)
    {}
    """
    if not isinstance(aux, Mapping) or RANGES not in aux:
        return aux
    own, state = _split(aux)
    return {**own, RANGES: {**state, "bits": jnp.asarray(bits(state["bits"]), jnp.int32)}}


def _split(aux: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    return {name: leaf for name, leaf in aux.items() if name != RANGES}, aux[RANGES]


def _rounded(x: Array, low: Array, high: Array, bits: Array) -> Array:
    return jnp.where(bits > 0, rounded_between(x, low, high, jnp.maximum(bits, 1)), x)


def _changed(function: Callable[..., Any], change: _Change) -> Callable[..., Any]:
    """The same function, with changed inputs of its convolutions, in their order."""

    def changed(*arguments: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = _run(closed, jax.tree.leaves(arguments), change)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return changed


def _run(closed: ClosedJaxpr, arguments: list[Any], change: _Change) -> list[Any]:
    known = dict(zip(closed.jaxpr.invars, arguments, strict=True))
    known |= dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in closed.jaxpr.eqns:
        values, name = [read(atom) for atom in equation.invars], equation.primitive.name
        if name == "conv_general_dilated":
            values[0] = change(values[0])
        if name in ("jit", "pjit"):
            results = _run(equation.params["jaxpr"], values, change)
        elif name.startswith("custom_"):
            results = _with_own_gradient(closed.jaxpr, equation, values)
        else:
            found = equation.primitive.bind(*values, **equation.params)
            results = found if equation.primitive.multiple_results else [found]
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _with_own_gradient(jaxpr: Jaxpr, equation: Any, values: list[Any]) -> list[Any]:
    """Run a call of a function with its own gradient, such as ReLU's at zero, as a trace."""
    of_variables = {
        atom: value
        for atom, value in zip(equation.invars, values, strict=True)
        if not isinstance(atom, Literal)
    }
    single = jaxpr.replace(
        constvars=[], invars=list(of_variables), outvars=equation.outvars, eqns=[equation]
    )
    results: list[Any] = jaxpr_as_fun(ClosedJaxpr(single, ()))(*of_variables.values())
    return results
