"""Names that every doctest may use without importing them, and a folder of its own to write in."""

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
