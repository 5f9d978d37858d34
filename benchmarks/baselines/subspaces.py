"""Nets of every size from one artefact: error and bytes against share kept, width and bits.

    PYTHONPATH=benchmarks SWSJAX_DATA=... python benchmarks/baselines/subspaces.py lenet-300-100

The lines and points of LCS (Nunez et al., arXiv 2110.04252) and what they are compared with: nets
for one target, slimmable nets, universal slimming and, as LEC, network slimming at many thresholds.
``lenet-300-100`` is trained on all of MNIST, ``resnet-8`` with the norms of each system on a part
of it at half the resolution. Writes ``results/baselines/subspaces-NET.json``.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from common.results import RUNS
from common.rows import task_of
from shared import Row, add, arguments, errors, file_of, settings_of

import swsjax
from swsjax.baselines import (
    Family,
    SubspaceConfig,
    at_levels,
    batch_norm_scales,
    bits,
    decaying,
    fit_line,
    fit_point,
    k_means,
    network_slimming,
    probe,
    rounded_inputs,
    shrink,
    slim,
    task_layers,
    top_k,
    width,
    with_scales,
)
from swsjax.baselines.rules import Rule, Width
from swsjax.baselines.schedules import Draw
from swsjax.lab import (
    Dataset,
    Split,
    Task,
    Variables,
    classification,
    group_norm,
    instance_norm,
    resnet_8,
)
from swsjax.lab.nets import take_channels
from swsjax.trees import named_leaves

IMAGES = {"training": 4000, "validation": 1000, "test": 2000}
"""For ResNet-8: the first of each split of MNIST, at half its resolution."""
SLIMMING = 2.5e-3
"""Weight of the penalty on scales in LEC: its sum over the steps is that of the 200 epochs of LCS
with 1e-5."""
CODEBOOK = 32
"""Levels of k-means in each array, for the second row of nets whose weights are floats."""
TRAINING = {
    "lenet-300-100": SubspaceConfig(epochs=5, warmup_epochs=1),
    "resnet-8": SubspaceConfig(epochs=5, warmup_epochs=1, batch_size=64),
}
OF_BITS = 0.025
"""Learning rate of nets of few bits, as in LCS."""
SHARES = {
    "lenet-300-100": (1.0, 0.5, 0.1, 0.05, 0.025, 0.01, 0.005),
    "resnet-8": (1.0, 0.5, 0.25, 0.1, 0.05, 0.025),
}
WIDTHS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
WHOLE = {"lenet-300-100": (), "resnet-8": ("conv0/*", "fc/*")}
"""Kernels that keep all weights and bits: of ResNet-8 as in LCS."""


class Artefact(NamedTuple):
    """What a training leaves, from which nets are taken."""

    at: Callable[[float], Variables]
    """The net of a level."""
    reversed_at: Callable[[float], Variables] | None
    """The net of a level at the other end of the line; of lines only."""
    file_bytes: int
    """Of the artefact itself."""
    gradients: int
    """Gradients of a batch that its training took."""


class System(NamedTuple):
    """One curve of a figure: an artefact, and the levels at which its nets are measured."""

    kind: str
    """What a level is: share, width or bits."""
    name: str
    norm: str
    """Of ResNet-8."""
    fit: Callable[[Task, SubspaceConfig, jax.Array, Path], Artefact]
    levels: Sequence[float]
    probed: bool = False
    """Are the stored statistics compared with those of test batches?"""


def main() -> None:
    net, seeds = arguments(__doc__, TRAINING)
    for seed in seeds:
        for number, system in enumerate(systems(net)):
            for level in system.levels:
                row = {"kind": system.kind, "system": system.name, "level": level, "seed": seed}
                measure = partial(run, net, number, level, seed)
                command = f"baselines/subspaces.py {net}"
                add(file_of("subspaces", net), command, settings(net), row, measure)


def settings(net: str) -> Row:
    """What all rows of a net have in common."""
    own = {"images": IMAGES, "slimming": SLIMMING} if net == "resnet-8" else {"codebook": CODEBOOK}
    whole = list(WHOLE[net])
    return settings_of(net, training=TRAINING[net], of_bits=OF_BITS, whole=whole, **own)


@cache
def systems(net: str) -> list[System]:
    return of_shares(net) + of_widths(net) + of_bits(net)


def of_shares(net: str) -> list[System]:
    levels, whole, ranges = SHARES[net], WHOLE[net], {"": (0.025, 1.0)}
    if net == "lenet-300-100":
        ranges |= {", high sparsity": (0.005, 0.05)}
    targets = (0.1, 0.01) if net == "lenet-300-100" else (0.05,)
    found = []
    for name, ends in ranges.items():
        rule = top_k(*ends, whole=whole)
        found += [
            System("share", f"line{name}", "group", partial(line, rule), levels),
            System("share", f"point{name}", "group", partial(point, rule, None), levels),
        ]
    if net == "lenet-300-100":  # does the line gain by its ends, or by its schedule?
        fit = partial(point, top_k(*ranges[""], whole=whole), decaying)
        found.append(System("share", "point, decaying", "group", fit, levels))
    for share in targets:
        fit = partial(point, top_k(share, share, whole=whole), decaying)
        found.append(
            System("share", f"target {100 * share:g} %", "batch", fit, levels, share < 0.1)
        )
    return found


def of_widths(net: str) -> list[System]:
    rule = width(0.25, 1.0, task_layers(task(net, "batch")))
    universal = System("width", "universal slimming", "batch", partial(point, rule, None), WIDTHS)
    if net == "lenet-300-100":  # without norms its line would be a point
        return [universal]
    slimmable = partial(point, rule, at_levels((0.25, 0.5, 0.75, 1.0)))
    return [
        System("width", "line", "instance", partial(line, rule), WIDTHS),
        System("width", "point", "instance", partial(point, rule, None), WIDTHS),
        universal._replace(probed=True),
        System("width", "slimmable", "batch", slimmable, WIDTHS),
        System("width", "LEC", "batch", slimming, WIDTHS[::2]),
    ]


def of_bits(net: str) -> list[System]:
    least = 2 if net == "lenet-300-100" else 3
    levels, whole = range(least, 9), WHOLE[net]
    rule = bits(least, 8, whole=whole)
    found = [
        System("bits", "line", "group", partial(line, rule), levels),
        System("bits", "point", "group", partial(point, rule, None), levels),
    ]
    for target in (2, 8) if net == "lenet-300-100" else (3,):
        fit = partial(point, bits(target, target, whole=whole), None)
        found.append(System("bits", f"target {target}", "batch", fit, levels, target == least))
    return found


def line(rule: Rule, task: Task, config: SubspaceConfig, key: jax.Array, folder: Path) -> Artefact:
    family = fit_line(task, rule, config, key=key, resume=folder)

    def reversed_at(level: float) -> Variables:
        return rule.compressed(family.on_line(sum(rule.alphas) - alpha_of(rule, level)), level)

    return taken(task, family, config, folder)._replace(reversed_at=reversed_at)


def point(
    rule: Rule,
    draw: Draw | None,
    task: Task,
    config: SubspaceConfig,
    key: jax.Array,
    folder: Path,
) -> Artefact:
    family = fit_point(task, rule, config, key=key, draw=draw, resume=folder)
    return taken(task, family, config, folder)


def taken(task: Task, family: Family, config: SubspaceConfig, folder: Path) -> Artefact:
    """What is measured of a family."""
    rule = family.rule

    def at(level: float) -> Variables:
        return rule.compressed(family.on_line(alpha_of(rule, level)), level)

    nets = 4 if isinstance(rule, Width) else 1
    size = family.save(folder.with_suffix(".sws"))
    return Artefact(at, None, size, nets * config.steps(task.data()))


def alpha_of(rule: Rule, level: float) -> float:
    """The point of a level; of levels outside of those of the training, the nearest end."""
    return float(np.clip(rule.alpha(level), *rule.alphas))


def slimming(task: Task, config: SubspaceConfig, key: jax.Array, folder: Path) -> Artefact:
    of_start, of_training = jax.random.split(key)
    start = task.init(int(jax.random.randint(of_start, (), 0, 2**31 - 1)))
    scales = batch_norm_scales(start)
    net = network_slimming(
        task,
        with_scales(start, scales),
        1.0,
        config,
        key=of_training,
        strength=SLIMMING,
        resume=folder,
    )
    size = len(swsjax.dumps(task.whole(net)))
    return Artefact(partial(slim, net, scales=scales), None, size, config.steps(task.data()))


def run(net: str, number: int, level: float, seed: int) -> Row:
    system = systems(net)[number]
    task, artefact = fitted(net, number, seed)
    small = artefact.at(level)
    found = {"artefact_bytes": artefact.file_bytes, "gradients": artefact.gradients}
    narrowed = narrow(task, system, small, level)
    found |= errors(task, small) | {"file_bytes": len(swsjax.dumps(task.whole(narrowed)))}
    if artefact.reversed_at:
        found["reversed_test_error"] = task.error(artefact.reversed_at(level), task.dataset.test)
    if net == "lenet-300-100" and system.kind == "share":
        shared = k_means(small, levels=CODEBOOK)
        found["shared_file_bytes"] = len(swsjax.dumps(task.whole(shared)))
        found |= {f"shared_{name}": value for name, value in errors(task, shared).items()}
    if net == "resnet-8" and system.probed:
        images = task.dataset.test
        seen = probe(task, narrowed, images, batch_size=250, key=jax.random.key(seed))
        means = {name: x for name, x in seen.distances.items() if name.endswith("/mean")}
        found["distances"] = {
            name.removesuffix("/mean"): float(x.mean()) for name, x in means.items()
        }
    return found


@lru_cache(maxsize=1)
def fitted(net: str, number: int, seed: int) -> tuple[Task, Artefact]:
    """A system trained from a seed, or its state under ``runs/``."""
    system = systems(net)[number]
    config = TRAINING[net]
    its_task = task(net, system.norm)
    if system.kind == "bits":
        config = replace(config, learning_rate=OF_BITS)
        its_task = rounded_inputs(its_task) if net == "resnet-8" else its_task
    name = f"{system.kind}-{system.name}".replace(" ", "-").replace(",", "").replace("%", "percent")
    own = hashlib.sha256(repr((settings(net), config)).encode()).hexdigest()[:12]
    RUNS.mkdir(exist_ok=True)
    folder = RUNS / f"subspaces-{net}-{name}-seed{seed}-{own}"
    return its_task, system.fit(its_task, config, jax.random.key(seed), folder)


@cache
def task(net: str, norm: str) -> Task:
    """The net with a norm, on its images."""
    if net == "lenet-300-100":
        return task_of(net)
    norms: dict[str, dict[str, Any]] = {
        "batch": {},
        "group": {"norm": group_norm(32)},
        "instance": {"norm": instance_norm},
    }
    return classification(partial(resnet_8, **norms[norm]), small_mnist())


@cache
def small_mnist() -> Dataset:
    """The first images of each split, each pixel the mean of four."""
    whole = task_of("lenet-300-100").dataset

    def first(split: Split, number: int) -> Split:
        images = split.images[:number].reshape(number, 14, 2, 14, 2).mean((2, 4))
        return Split(np.round(images).astype(np.uint8), split.labels[:number])

    splits = (whole.train, whole.validation, whole.test)
    return Dataset("mnist", *map(first, splits, IMAGES.values()))


def narrow(task: Task, system: System, small: Variables, level: float) -> Variables:
    """A net without the channels that it does not use."""
    if system.kind != "width":
        return small
    if system.name == "LEC":
        return shrink(task.predict, small, task.dataset.test.images[:1])
    whole = task.whole(small)
    for channels in task_layers(task):
        sizes = [
            leaf.shape[channels[name]] for name, leaf in named_leaves(whole) if name in channels
        ]
        whole = take_channels(whole, channels, np.arange(max(1, round(level * min(sizes)))))
    return task.parts(whole)


if __name__ == "__main__":
    main()
