"""What helps and what does not: LeNet-300-100, one change at a time from the balanced recipe.

    SWSJAX_DATA=... python benchmarks/experiments.py            # all that are not done yet
    SWSJAX_DATA=... python benchmarks/experiments.py "32 components"

Each experiment starts from the same pretrained nets and is judged on the validation images; the
test images are not looked at. Levels are not rounded, except in the line about rounding. Writes
``results/experiments.json``.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from common.results import RESULTS, made_by, read, write
from common.rows import pretrained_net, task_of, unpruned
from common.variants import (
    Then,
    dead_units_removed,
    levels_in_bfloat16,
    may_come_back,
    may_leave_range,
    noisy,
    saliency,
    saliency_per_bit,
    with_last_pass,
    with_m_steps,
)

import swsjax
from swsjax import Config
from swsjax.errors import RetrainingError
from swsjax.lab import Task, Variables
from swsjax.sws import Beta, Gamma, HyperPriors, Result, codebook, non_zeros, three_stages
from swsjax.sws.exact import assigned_means
from swsjax.sws.plans import Stages
from swsjax.sws.recipes import PRUNE_TEMPERATURE, RECIPES, TEMPERATURE
from swsjax.training import cross_entropy, distillation
from swsjax.training.losses import LossWithAux

NET = "lenet-300-100"
SEEDS = (0, 1)
OUT = RESULTS / "experiments.json"

RECIPE = RECIPES[NET].balanced.config
# Without pruning, to show what the mixture does by itself.
BASE = replace(RECIPE, prune_epochs=0)
SOFT, HARD, PRUNE = BASE.soft_learning_rates, BASE.hard_learning_rates, BASE.prune_learning_rates


class Experiment(NamedTuple):
    """A line of a table."""

    name: str
    configs: tuple[Config, ...] = (BASE,)
    """Of several runs, each from the result of the one before."""
    loss: Callable[[Task], LossWithAux] | None = None
    """Of all stages, instead of the recipe's distillation."""
    stages: Stages = three_stages
    from_recipe: bool = False
    """Start from the end of the recipe's hard stage."""
    then: Then | None = None
    """Applied to the quantised net at the end."""


def base(name: str, **changes: Any) -> Experiment:
    """The base with other settings."""
    return Experiment(name, (replace(BASE, **changes),))


def soft(name: str, **rates: float) -> Experiment:
    """The base with other learning rates in the soft stage."""
    return base(name, soft_learning_rates=replace(SOFT, **rates))


def hard(name: str, **rates: float) -> Experiment:
    """The base with other learning rates in the hard stage."""
    return base(name, hard_learning_rates=replace(HARD, **rates))


def handed_over(name: str, at_first: dict[str, Any], then: dict[str, Any]) -> Experiment:
    """The base with other settings in the soft stage, and in the hard stage."""
    configs = (
        replace(BASE, hard_epochs=0, **at_first),
        replace(BASE, soft_epochs=0, **then),
    )
    return Experiment(name, configs)


def pruned(name: str, changes: dict[str, Any] | None = None, **experiment: Any) -> Experiment:
    """The recipe's pruning stage with other settings."""
    config = replace(RECIPE, soft_epochs=0, hard_epochs=0, **(changes or {}))
    return Experiment(name, **{"configs": (config,), "from_recipe": True} | experiment)


def pruned_at(**rates: float) -> Experiment:
    """The recipe's pruning stage with other learning rates."""
    name = " and ".join(f"{group} at {rate:g}" for group, rate in rates.items())
    return pruned(name, {"prune_learning_rates": replace(PRUNE, **rates)})


def labels_only(task: Task) -> LossWithAux:
    return task.loss(cross_entropy)


def no_labels(task: Task, temperature: float = TEMPERATURE) -> LossWithAux:
    return task.loss(partial(distillation, teacher_weight=1.0, temperature=temperature))


def searched() -> Experiment:
    """The point of the search that ``lenet_search.py`` ran again."""
    found = read(RESULTS / f"search-{NET}.json")
    number = found["chosen"]["trial"]
    (point,) = (p for p in found["front"] + found["dominated"] if p["trial"] == number)
    config = Config.from_dict(point["config"])
    return Experiment(f"all settings of trial {number} of the search", (config,))


EXPERIMENTS = {
    "The recipe's soft and hard stage, without pruning": [
        base("as it is"),
        Experiment("labels only, no distillation", loss=labels_only),
        Experiment("distillation only, no labels", loss=no_labels),
        Experiment("Gaussian noise of 0.01 on the weights", loss=noisy),
    ],
    "The hand-over to the hard stage": [
        hard("no warm-up, Adam's epsilon 1e-8", warmup_epochs=0.0, epsilon=1e-8),
        hard("no warm-up", warmup_epochs=0.0),
        hard("Adam's epsilon 1e-8", epsilon=1e-8),
        base("40 hard epochs", hard_epochs=40),
        hard("half the rate of the weights in the hard stage", weights=5e-4),
        handed_over("tau halved at the hand-over", {}, {"tau": BASE.tau / 2}),
        handed_over("tau doubled at the hand-over", {}, {"tau": 2 * BASE.tau}),
        handed_over(
            "components merged under 8 nats before the hard stage", {"merge_threshold": 8.0}, {}
        ),
        base("no hard stage, as in the paper", soft_epochs=50, hard_epochs=0),
    ],
    "Annealing": [
        base("60 soft epochs", soft_epochs=60),
        soft("precisions at 1e-3 in the soft stage", precisions=1e-3),
        soft("precisions at 5e-4 in the soft stage", precisions=5e-4),
        base(
            "tau rising from 0 over each stage",
            tau=optax.linear_schedule(0.0, 2 * BASE.tau, 30 * 429),
        ),
        base("batches of 64", batch_size=64),
    ],
    "The mixture": [
        base("8 components", components=8),
        base("32 components", components=32),
        base("pi_zero 0.9", pi_zero=0.9),
        base("pi_zero 0.99", pi_zero=0.99),
        base("pi_zero 0.9999", pi_zero=0.9999),
        base(
            "pi_zero learned, Beta of mode 0.999 and 1e5 pseudo-counts",
            hyper_priors=HyperPriors(pi_zero=Beta(99_900.0, 101.0)),
        ),
        base(
            "no hyper-priors to speak of",
            hyper_priors=HyperPriors(Gamma(1.0, 1e-6), Gamma(1.0, 1e-6)),
        ),
        Experiment(
            "EM in place of Adam, 1 % of the way a step",
            stages=partial(with_m_steps, share=0.01, most=np.inf),
        ),
        Experiment(
            "EM, log-precisions by 7e-4 a step at most, as with Adam",
            stages=partial(with_m_steps, share=0.01, most=7e-4),
        ),
    ],
    "Pruning, from where the recipe's hard stage ends": [
        pruned("to half, in 60 epochs (the recipe)"),
        pruned("to half; then levels rounded to bfloat16", then=levels_in_bfloat16),
        pruned("to half; then dead units removed", then=dead_units_removed),
        pruned(
            "to half; then 5 % zeroed by loss a bit, levels tuned",
            then=partial(with_last_pass, 0.05),
        ),
        pruned("by magnitude alone", stages=partial(three_stages, score=partial(saliency, 0.0))),
        pruned(
            "by curvature alone (Optimal Brain Damage)",
            stages=partial(three_stages, score=partial(saliency, 0.5)),
        ),
        pruned(
            "by saliency over the root of a weight's bits in its layer",
            stages=partial(three_stages, score=saliency_per_bit),
        ),
        pruned("pruned weights may come back", stages=partial(three_stages, hold=may_come_back)),
        pruned(
            "weights may leave the range of the means",
            stages=partial(three_stages, hold=may_leave_range),
        ),
        pruned("in 20 epochs", {"prune_epochs": 20}),
        pruned("in 120 epochs", {"prune_epochs": 120}),
        pruned_at(weights=3e-4),
        pruned_at(weights=3e-3),
        pruned_at(means=3e-5),
        pruned_at(weights=3e-4, means=3e-5),
        pruned(
            "components merged under 8 nats first",
            configs=tuple(
                replace(RECIPE, soft_epochs=0, hard_epochs=0, **changes)
                for changes in ({"prune_epochs": 1, "keep": 1.0, "merge_threshold": 8.0}, {})
            ),
        ),
        pruned("noise of 0.01 on the weights", loss=partial(noisy, temperature=PRUNE_TEMPERATURE)),
        pruned("labels only", loss=labels_only),
        pruned(
            "distillation only, no labels", loss=partial(no_labels, temperature=PRUNE_TEMPERATURE)
        ),
        pruned(
            "distillation at the temperature of the other stages",
            loss=lambda task: task.loss(partial(distillation, temperature=TEMPERATURE)),
        ),
        pruned("to 1, that is only training", {"keep": 1.0}),
        pruned("to 0.475", {"keep": 0.475}),
        searched(),
    ],
}


def main(*chosen: str) -> None:
    lines = read(OUT)["experiments"] if OUT.exists() else {}
    # Seed by seed: an interrupted run has then done every experiment for as many seeds as it could.
    for seed in SEEDS:
        for group, experiments in EXPERIMENTS.items():
            for experiment in experiments:
                rows = lines.setdefault(group, {}).setdefault(experiment.name, [])
                wanted = not chosen or experiment.name in chosen
                if not wanted or seed in [row["seed"] for row in rows]:
                    continue
                rows.append(run(experiment, seed))
                print(group, "|", experiment.name, rows[-1], flush=True)
                write(OUT, made_by("experiments.py") | {"net": NET, "experiments": lines})


def run(experiment: Experiment, seed: int) -> dict[str, Any]:
    task, (net, _, data) = task_of(NET), start_of(seed)
    try:
        result, seconds = retrained(experiment._replace(name="", then=None), seed)
    except RetrainingError as error:
        return {"seed": seed, "failed": str(error)}
    # Levels in full: what rounding them gains is a line of its own.
    params = jax.tree.map(partial(assigned_means, result.mixtures["weights"]), result.retrained)
    if experiment.then is not None:
        _, loss = losses(experiment)
        params = experiment.then(lambda p, batch: loss(p, net.aux, batch)[0], data, params)
    file = swsjax.dumps(params)
    quantised, before = (Variables(p, result.aux) for p in (params, result.retrained))
    return {
        "seed": seed,
        "validation_error": task.error(quantised, task.dataset.validation),
        "retrained_validation_error": task.error(before, task.dataset.validation),
        "file_bytes": len(file),
        "han_rate": swsjax.report(file).rates["han"],
        "non_zeros": non_zeros(params),
        "levels": int(codebook(params).size),
        "seconds": seconds,
    }


@lru_cache(maxsize=1)  # for lines that differ only at the end
def retrained(experiment: Experiment, seed: int) -> tuple[Result, float]:
    """What ``compress`` returns, and the seconds that it took."""
    net, start, data = start_of(seed)
    loss, prune_loss = losses(experiment)
    result = start if experiment.from_recipe else None
    started = time.perf_counter()
    for config in experiment.configs:
        result = swsjax.compress(
            net.params,
            loss,
            data,
            replace(config, seed=seed),
            aux=net.aux,
            prune_loss_fn=prune_loss,
            start=result,
            stages=experiment.stages,
        )
    return result, time.perf_counter() - started


def losses(experiment: Experiment) -> list[LossWithAux]:
    """Loss of the soft and the hard stage, and loss of the pruning stage."""
    task = task_of(NET)
    if experiment.loss is not None:
        return [experiment.loss(task)] * 2
    return [
        task.loss(partial(distillation, temperature=temperature))
        for temperature in (TEMPERATURE, PRUNE_TEMPERATURE)
    ]


@cache
def start_of(seed: int) -> tuple[Variables, Result, dict[str, jax.Array]]:
    """The pretrained net, the recipe's result before pruning, and the data of the retraining."""
    net, _ = pretrained_net(NET, seed)
    recipe = RECIPES[NET].balanced
    recipe = recipe._replace(config=replace(recipe.config, seed=seed))
    start, _ = unpruned(NET, recipe, [net])
    return net, start, task_of(NET).data([net])


if __name__ == "__main__":
    main(*sys.argv[1:])
