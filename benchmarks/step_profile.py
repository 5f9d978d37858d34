"""Where the time of a step of LeNet-300-100 goes, by kind of operation.

    SWSJAX_DATA=... python benchmarks/step_profile.py

Writes ``results/profile-BACKEND.json``: milliseconds per step that the compiled epoch spends in
matrix products, scatters, gathers and everything else, without a prior and in the soft and the
hard stage.
"""

import collections
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from common.results import RESULTS, made_by, write
from common.timing import BATCH, epochs_of

NET = "lenet-300-100"
STEPS = 100
STAGES = ("no prior", "soft stage", "hard stage")
KINDS = {
    "matrix products": ("dot", "ynn", "gemm", "cublas"),
    "scatters": ("scatter",),
    "gathers": ("gather",),
}


def main() -> None:
    runs = epochs_of(NET, STEPS * BATCH)
    spent = {stage: profile(run) for stage, run in zip(STAGES, runs, strict=True)}
    content = made_by("step_profile.py") | {"net": NET, "milliseconds_per_step": spent}
    write(RESULTS / f"profile-{content['machine']['backend']}.json", content)
    print(json.dumps(content, indent=1))


def profile(run: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds per step by kind, of an epoch that has been compiled before."""
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


def kind(operation: str) -> str:
    """Kind of an operation of the compiled program, by the name that the compiler gave it."""
    for name, marks in KINDS.items():
        if any(mark in operation for mark in marks):
            return name
    return "everything else"


if __name__ == "__main__":
    main()
