"""What a result says of itself."""

import numpy as np

from swsjax.sws import Level, Move, Outcome, Result
from swsjax.training import Epoch, select

NET = {"w": np.eye(4, dtype=np.float32)}
HISTORY = [Epoch("soft", 1, 2, 0.5, 0.125, 1234), Epoch("hard", 2, 2, 0.25, 0.0625, 999)]


def result(**parts):
    return Result(NET, NET, {}, HISTORY, select(NET), **parts)


def test_a_run_is_summed_up_in_two_lines():
    expected = "Result of 2 epochs\n  999 weights are not zero, error 0.0625"
    assert repr(result()) == str(result()) == expected


def test_a_walk_says_what_was_reached():
    levels = [
        Level(Move("anneal", None, 1e-7), 0.0123456, 20_000),
        Level(Move("prune", 0, 1e-7, keep=0.6), 0.02, 15_000),
    ]
    ends = [Outcome(NET, None, 0.02, 15_000, True, "15,000 bytes & more <here>")] * 2
    walked = result(levels=levels, outcomes=ends)
    assert repr(walked) == (
        "Result of 2 epochs, 2 nets on the way\n"
        "  15,000 bytes & more <here>\n"
        "  15,000 bytes & more <here>"
    )
    end = "15,000 bytes &amp; more &lt;here&gt;"
    assert walked._repr_html_() == (
        f"<p>Result of 2 epochs, 2 nets on the way<br>{end}<br>{end}</p>"
        "<table><tr><th>made by</th><th>from</th><th>tau</th><th>bytes</th><th>loss</th></tr>"
        "<tr><td>anneal</td><td>pretrained</td><td>1e-07</td><td>20,000</td><td>0.01235</td></tr>"
        "<tr><td>prune, keeping 60%</td><td>net 0</td><td>1e-07</td><td>15,000</td><td>0.02</td>"
        "</tr></table>"
    )
