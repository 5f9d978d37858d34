"""Where the time of a step of LeNet-300-100 goes, by kind of operation.

    SWSJAX_DATA=... python benchmarks/step_profile.py

Writes ``benchmarks/results/profile-BACKEND.json``: milliseconds a step that the compiled epoch
spends in matrix products, scatters, gathers and everything else, for the step without a prior and
for those of the soft and the hard stage.
"""

import collections
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from speed import BATCH, OUT, training

from swsjax.file.atomic import write_bytes
from swsjax.lab.nets import LeNet300100

STEPS = 100
KINDS = {
    "matrix products": ("dot", "ynn", "gemm", "cublas"),
    "scatters": ("scatter",),
    "gathers": ("gather",),
}


def kind(operation: str) -> str:
    """What an operation of the compiled program is, from the name the compiler gave it."""
    for name, marks in KINDS.items():
        if any(mark in operation for mark in marks):
            return name
    return "everything else"


def profile(run: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds a step by kind, of an epoch that has been compiled before."""
    jax.block_until_ready(run())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    spent: dict[str, float] = collections.defaultdict(float)
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                # Operations are named as in the program, "dot.24"; runtime events are not.
                if "hlo_op" in dict(event.stats):
                    spent[kind(event.name)] += event.duration_ns / 1e6 / STEPS
    return dict(sorted(spent.items()))


def main() -> None:
    stages = ("no prior", "soft stage", "hard stage")
    runs = training(LeNet300100, STEPS * BATCH)
    content = {
        "command": "python benchmarks/step_profile.py",
        "net": "lenet-300-100",
        "milliseconds_per_step": {
            name: profile(run) for name, run in zip(stages, runs, strict=True)
        },
    }
    path = OUT / f"profile-{jax.default_backend()}.json"
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
