"""What a type checker knows of the nets that users get back: run by mypy, not by pytest."""

from typing import Any, assert_type

import swsjax
from swsjax.sws import Result


def shrunk(net: list[int]) -> Result[list[int]]:
    found = swsjax.compress(net, lambda weights, batch: weights, {})
    assert_type(found.params, list[int])
    assert_type(found.retrained, list[int])
    assert_type(swsjax.load("net.sws", like=net), list[int])
    assert_type(swsjax.loads(b"", like=net, max_bytes=9), list[int])
    assert_type(swsjax.load("net.sws"), Any)
    assert_type(swsjax.loads(b""), Any)
    return found
