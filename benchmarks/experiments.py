"""What helps and what does not: LeNet-300-100, one change at a time from the recipe.

    SWSJAX_DATA=... python benchmarks/experiments.py            # all that are not done yet
    SWSJAX_DATA=... python benchmarks/experiments.py "32 components"

Each experiment starts from the same pretrained nets and is judged on the validation images; the
test images are not looked at. Levels are not rounded, but in a line of their own. Writes
``results/experiments.json``, from which ``tables.py`` makes the tables of ``docs/experiments.md``.
One to three minutes an experiment and seed on two cores.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import jax
import numpy as np
import optax
from row import RESULTS, pretrained_of, start_of
from variants import (
    Then,
    expectation_maximisation,
    last_pass,
    no_end,
    no_range,
    noisy,
    saliency,
    saliency_of_bits,
    to_bfloat16,
    without_dead_units,
)

import swsjax
from swsjax import Config, Rates, prune, stages
from swsjax.file.atomic import write_bytes
from swsjax.lab.task import (
    PRUNE_TEMPERATURE,
    TEMPERATURE,
    Classifier,
    build,
    distillation_data,
)
from swsjax.lab.data import Dataset, load_mnist
from swsjax.sws.exact import assigned_means
from swsjax.training.losses import Loss, cross_entropy, distillation
from swsjax.lab.nets import LeNet300100
from swsjax.sws.prior import Beta, Gamma, HyperPriors
from swsjax.sws.recipes import LENET_300_100, LENET_300_100_PRETRAINING

NET = "lenet-300-100"
SEEDS = (0, 1)
OUT = RESULTS / "experiments.json"


def chosen_of_search() -> dict[str, Any]:
    """The point of the search that its benchmark ran again."""
    content = json.loads((RESULTS / f"search-{NET}.json").read_text())
    points = content["front"] + content["beaten"]
    (point,) = (one for one in points if one["trial"] == content["chosen"]["trial"])
    return point


# Without pruning, so that what the mixture does by itself shows.
RECIPE = LENET_300_100.balanced.config
BASE = replace(RECIPE, prune_epochs=0)
SOFT, HARD = BASE.soft_rates, BASE.hard_rates
SEARCHED = chosen_of_search()


class Experiment(NamedTuple):
    """One line of a table."""

    name: str
    stages: tuple[Config, ...] = (BASE,)
    """Run one after the other, each from the result of the one before."""
    loss: Callable[[Classifier], Loss] | None = None
    """In place of the recipe's distillation."""
    from_recipe: bool = False
    """Starts where the recipe's soft and hard stage end."""
    instead: tuple[tuple[Any, str, Any], ...] = ()
    """Functions in place of the method's: module or class, name, function."""
    then: Then | None = None
    """What is done to the quantised net at the end."""


def only_soft(**changes: Any) -> Config:
    return replace(BASE, hard_epochs=0, **changes)


def only_hard(**changes: Any) -> Config:
    return replace(BASE, soft_epochs=0, **changes)


def em(*, most: float) -> tuple[Any, str, Any]:
    def optimizer(*arguments: Any) -> optax.GradientTransformation:
        return expectation_maximisation(0.01, most, *arguments)

    return Rates, "optimizer", optimizer


def pruned(**changes: Any) -> Config:
    settings = {"soft_epochs": 0, "hard_epochs": 0} | changes
    return replace(RECIPE, **settings)


EXPERIMENTS = {
    "The recipe's soft and hard stage, without pruning": [
        Experiment("as it is"),
        Experiment("labels only, no distillation", loss=lambda net: cross_entropy(net.apply)),
        Experiment(
            "distillation only, no labels", loss=lambda net: distillation(net.apply, share=1.0)
        ),
        Experiment("Gaussian noise of 0.01 on the weights", loss=noisy),
    ],
    "The hand-over to the hard stage": [
        Experiment(
            "no warm-up, Adam's epsilon 1e-8",
            (replace(BASE, hard_rates=replace(HARD, warmup_epochs=0.0, epsilon=1e-8)),),
        ),
        Experiment("no warm-up", (replace(BASE, hard_rates=replace(HARD, warmup_epochs=0.0)),)),
        Experiment("Adam's epsilon 1e-8", (replace(BASE, hard_rates=replace(HARD, epsilon=1e-8)),)),
        Experiment("40 hard epochs", (replace(BASE, hard_epochs=40),)),
        Experiment(
            "half the rate of the weights in the hard stage",
            (replace(BASE, hard_rates=replace(HARD, weights=5e-4)),),
        ),
        Experiment("tau halved at the hand-over", (only_soft(), only_hard(tau=BASE.tau / 2))),
        Experiment("tau doubled at the hand-over", (only_soft(), only_hard(tau=2 * BASE.tau))),
        Experiment(
            "components merged under 8 nats before the hard stage",
            (only_soft(merge_threshold=8.0), only_hard()),
        ),
        Experiment("no hard stage, as in the paper", (only_soft(soft_epochs=50),)),
    ],
    "Annealing": [
        Experiment("60 soft epochs", (replace(BASE, soft_epochs=60),)),
        Experiment(
            "precisions at 1e-3 in the soft stage",
            (replace(BASE, soft_rates=replace(SOFT, precisions=1e-3)),),
        ),
        Experiment(
            "precisions at 5e-4 in the soft stage",
            (replace(BASE, soft_rates=replace(SOFT, precisions=5e-4)),),
        ),
        Experiment(
            "tau rising from 0 over each stage",
            (replace(BASE, tau=optax.linear_schedule(0.0, 2 * BASE.tau, 30 * 429)),),
        ),
        Experiment("batches of 64", (replace(BASE, batch_size=64),)),
    ],
    "The mixture": [
        Experiment("8 components", (replace(BASE, components=8),)),
        Experiment("32 components", (replace(BASE, components=32),)),
        Experiment("pi_zero 0.9", (replace(BASE, pi_zero=0.9),)),
        Experiment("pi_zero 0.99", (replace(BASE, pi_zero=0.99),)),
        Experiment("pi_zero 0.9999", (replace(BASE, pi_zero=0.9999),)),
        Experiment(
            "pi_zero learned, Beta of mode 0.999 and 1e5 pseudo-counts",
            (replace(BASE, hyper_priors=HyperPriors(pi_zero=Beta(99_900.0, 101.0))),),
        ),
        Experiment(
            "no hyper-priors to speak of",
            (replace(BASE, hyper_priors=HyperPriors(Gamma(1.0, 1e-6), Gamma(1.0, 1e-6))),),
        ),
        Experiment("EM in place of Adam, 1 % of the way a step", instead=(em(most=np.inf),)),
        Experiment(
            "EM, log-precisions by 7e-4 a step at most, as with Adam", instead=(em(most=7e-4),)
        ),
    ],
    "Pruning, from where the recipe's hard stage ends": [
        Experiment("to half, in 60 epochs (the recipe)", (pruned(),), from_recipe=True),
        *(
            Experiment(f"to half; then {what}", (pruned(),), from_recipe=True, then=then)
            for what, then in (
                ("levels rounded to bfloat16", to_bfloat16),
                ("dead units removed", without_dead_units),
                ("5 % zeroed by loss a bit, levels tuned", partial(last_pass, 0.05)),
            )
        ),
        Experiment(
            "by magnitude alone",
            (pruned(),),
            from_recipe=True,
            instead=((stages, "saliency", partial(saliency, 0.0)),),
        ),
        Experiment(
            "by curvature alone (Optimal Brain Damage)",
            (pruned(),),
            from_recipe=True,
            instead=((stages, "saliency", partial(saliency, 0.5)),),
        ),
        Experiment(
            "by saliency over the root of a weight's bits in its layer",
            (pruned(),),
            from_recipe=True,
            instead=((stages, "saliency", saliency_of_bits),),
        ),
        Experiment(
            "pruned weights may come back",
            (pruned(),),
            from_recipe=True,
            instead=((prune, "_held", no_end),),
        ),
        Experiment(
            "weights may leave the range of the means",
            (pruned(),),
            from_recipe=True,
            instead=((prune, "_held", no_range),),
        ),
        Experiment("in 20 epochs", (pruned(prune_epochs=20),), from_recipe=True),
        Experiment("in 120 epochs", (pruned(prune_epochs=120),), from_recipe=True),
        *(
            Experiment(
                " and ".join(f"{group} at {rate:g}" for group, rate in rates.items()),
                (pruned(prune_rates=replace(RECIPE.prune_rates, **rates)),),
                from_recipe=True,
            )
            for rates in (
                {"weights": 3e-4},
                {"weights": 3e-3},
                {"means": 3e-5},
                {"weights": 3e-4, "means": 3e-5},
            )
        ),
        Experiment(
            "components merged under 8 nats first",
            (pruned(prune_epochs=1, kept=1.0, merge_threshold=8.0), pruned()),
            from_recipe=True,
        ),
        Experiment(
            "noise of 0.01 on the weights",
            (pruned(),),
            loss=partial(noisy, temperature=PRUNE_TEMPERATURE),
            from_recipe=True,
        ),
        Experiment(
            "labels only", (pruned(),), loss=lambda net: cross_entropy(net.apply), from_recipe=True
        ),
        Experiment(
            "distillation only, no labels",
            (pruned(),),
            loss=lambda net: distillation(net.apply, share=1.0, temperature=PRUNE_TEMPERATURE),
            from_recipe=True,
        ),
        Experiment(
            "distillation at the temperature of the other stages",
            (pruned(),),
            loss=lambda net: distillation(net.apply, temperature=TEMPERATURE),
            from_recipe=True,
        ),
        Experiment("to 1, that is only training", (pruned(kept=1.0),), from_recipe=True),
        Experiment("to 0.475", (pruned(kept=0.475),), from_recipe=True),
        Experiment(
            f"all settings of trial {SEARCHED['trial']} of the search",
            (Config.from_dict(SEARCHED["config"]),),
        ),
    ],
}


@cache
def nets(seed: int) -> tuple[Classifier, swsjax.Result, dict[str, Any]]:
    """Pretrained net, the recipe's result before pruning, and the data of the retraining."""
    dataset = load_mnist()
    config = replace(BASE, seed=seed)
    pretraining = replace(LENET_300_100_PRETRAINING, seed=seed)
    net, _ = pretrained_of(NET, build(LeNet300100, dataset, seed=seed), pretraining, dataset)
    start, _ = start_of(NET, net, pretraining, config, dataset)
    return net, start, distillation_data(net, dataset.train)


@lru_cache(maxsize=1)  # for lines that differ in the end alone
def retrained(experiment: Experiment, seed: int) -> tuple[swsjax.Result, float]:
    """What ``compress`` returns, and the seconds that it took."""
    net, start, data = nets(seed)
    result = start if experiment.from_recipe else None
    loss, pruning_loss = losses(experiment, net)
    started = time.perf_counter()
    for config in experiment.stages:
        config = replace(config, seed=seed)
        with ExitStack() as stack:
            for one in experiment.instead:
                stack.enter_context(patch.object(*one))
            result = swsjax.compress(
                net.params, loss, data, config, prune_loss_fn=pruning_loss, start=result
            )
    return result, time.perf_counter() - started


def losses(experiment: Experiment, net: Classifier) -> tuple[Loss, Loss]:
    """Of the soft and hard stage, and of pruning."""
    if experiment.loss is not None:
        return experiment.loss(net), experiment.loss(net)
    soft_and_hard, pruning = (
        distillation(net.apply, temperature=t) for t in (TEMPERATURE, PRUNE_TEMPERATURE)
    )
    return soft_and_hard, pruning


def run(experiment: Experiment, seed: int, dataset: Dataset) -> dict[str, Any]:
    try:
        result, seconds = retrained(experiment._replace(name="", then=None), seed)
    except swsjax.RetrainingError as error:
        return {"seed": seed, "failed": str(error)}
    net, _, data = nets(seed)
    # In full: how much rounded levels gain is a line of its own.
    full = partial(assigned_means, result.mixtures["weights"])
    params = jax.tree.map(full, result.retrained)
    if experiment.then is not None:
        params = experiment.then(losses(experiment, net)[1], data, params)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.sws"
        size = swsjax.save(path, params)
        han = swsjax.report(path).rates["han"]
    return {
        "seed": seed,
        "validation_error": net._replace(params=params).error(dataset.validation),
        "retrained_validation_error": net._replace(params=result.retrained).error(
            dataset.validation
        ),
        "file_bytes": size,
        "han_rate": han,
        "non_zeros": swsjax.non_zeros(params),
        "levels": int(swsjax.codebook(params).size),
        "seconds": seconds,
    }


def main(chosen: list[str]) -> None:
    dataset = load_mnist()
    content = json.loads(OUT.read_text()) if OUT.exists() else {"experiments": {}}
    content |= {
        "command": "python benchmarks/experiments.py",
        "net": NET,
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
    }
    # Seed by seed, so that an interrupted run has seen every experiment as often as it could.
    for seed in SEEDS:
        for group, experiments in EXPERIMENTS.items():
            rows_of = content["experiments"].setdefault(group, {})
            for experiment in experiments:
                rows = rows_of.setdefault(experiment.name, [])
                wanted = not chosen or experiment.name in chosen
                if not wanted or seed in [row["seed"] for row in rows]:
                    continue
                rows.append(run(experiment, seed, dataset))
                print(group, "|", experiment.name, rows[-1], flush=True)
                write_bytes(OUT, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
