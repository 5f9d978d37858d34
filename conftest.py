"""What all tests share: the names and the folder of doctests, and an end to compiled programs."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _doctest_surroundings(
    request: pytest.FixtureRequest, doctest_namespace: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace.update(jax=jax, jnp=jnp, np=np)
        monkeypatch.chdir(request.getfixturevalue("tmp_path"))


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_dropped() -> Iterator[None]:
    """Every program that XLA compiles maps memory, of which Linux lets a process have 65,530."""
    yield
    jax.clear_caches()
