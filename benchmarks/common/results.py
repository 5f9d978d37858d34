"""Where results are, and the one way to write them."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from swsjax.file.atomic import write_bytes
from swsjax.sws import Result

__all__ = ["FIGURES", "RESULTS", "RUNS", "levels", "made_by", "measured", "read", "write"]

_ROOT = Path(__file__).parents[2]
RESULTS = _ROOT / "benchmarks" / "results"
"""What is committed: JSON and compressed nets."""
RUNS = _ROOT / "runs"
"""What can be made again: pretrained nets and states of runs. Git ignores it."""
FIGURES = _ROOT / "docs" / "figures"


def made_by(command: str, *packages: str) -> dict[str, Any]:
    """The first entries of a results file: command, machine, and versions of these packages."""
    device = jax.devices()[0]
    return {
        "command": f"python benchmarks/{command}",
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "backend": device.platform,
            "device": device.device_kind,
            "devices": jax.device_count(),
        },
        "versions": {name: version(name) for name in ("swsjax", "jax", "numpy", *packages)},
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a results file, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """Read a results file."""
    return json.loads(path.read_text())


def measured(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The seeds that a results file holds, if it is of the same settings."""
    content = read(path) if path.exists() else {}
    same = all(content.get(name) == value for name, value in settings.items())
    return content["seeds"] if content and same else []


def levels(result: Result) -> list[dict[str, Any]]:
    """The nets on the way to the targets of a run, as plain values."""
    return [
        level.move._asdict() | {"loss": level.loss, "file_bytes": level.file_bytes}
        for level in result.levels
    ]
