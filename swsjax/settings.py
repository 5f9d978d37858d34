"""Checks that all settings share: a number where there should be one, when it is given."""

from dataclasses import fields
from numbers import Integral, Real
from typing import Any, TypeGuard

import jax

from swsjax.errors import ConfigError

__all__ = ["check_numbers", "is_number"]


def check_numbers(settings: Any) -> None:
    """Check that the fields of a dataclass annotated ``int`` or ``float`` hold such.

    Raises:
        ConfigError: one does not.

    >>> from swsjax.train import PretrainConfig
    >>> PretrainConfig(epochs=1.5)
    Traceback (most recent call last):
        ...
    swsjax.errors.ConfigError: epochs must be an integer, got 1.5
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.type is int and not isinstance(value, Integral):
            raise ConfigError(f"{field.name} must be an integer, got {value!r}")
        if field.type is float and not is_number(value):
            raise ConfigError(f"{field.name} must be a number, got {value!r}")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a real number, or an array that holds one.

    >>> is_number(0.1), is_number(jnp.float32(0.1)), is_number("0.1")
    (True, True, False)
    """
    return isinstance(value, Real) or (isinstance(value, jax.Array) and value.ndim == 0)
