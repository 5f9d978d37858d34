"""Settings of the commands that train: from their options to how a net is compressed."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from swsjax.cli.datasets import FORMS
from swsjax.errors import ConfigError
from swsjax.lab.nets import NETS
from swsjax.lab.task import Task, Variables
from swsjax.sws.budget import retraining_seconds
from swsjax.sws.config import Config
from swsjax.sws.moves import epochs_of, first_tau, shortened, usual_epochs
from swsjax.sws.recipes import RECIPES, Recipe
from swsjax.sws.wanted import budget_text
from swsjax.training.loop import feed_of
from swsjax.training.losses import misclassified
from swsjax.training.net import take_apart

__all__ = [
    "DEMO",
    "duration",
    "form_of",
    "plain_settings",
    "recipe_of",
    "recipes_for",
    "search_base",
    "targets_of",
    "usual_steps",
    "weights_of",
]

DEMO = Recipe(
    Config(tau=5e-6, soft_epochs=60, hard_epochs=40, prune_epochs=0, batch_size=32, least_steps=1)
)
"""Of ``swsjax demo``, which takes a minute or two: an epoch is one pass through 1,197 images."""
# Times the first tau of a walk: the middle of what it goes through.
_MIDDLE = 4


def recipes_for(model: str, data: str) -> Mapping[str, Recipe]:
    """Return the settings that were chosen for a net on a data set, by name; the rest have none.

    >>> list(recipes_for("lenet-5-caffe", "mnist")), list(recipes_for("lenet-5-caffe", "digits"))
    (['small-loss', 'balanced', 'smallest'], [])
    >>> list(recipes_for("lenet-300-100", "digits"))
    ['demo']
    """
    if data == "mnist" and model in RECIPES:
        return RECIPES[model].by_name()
    return {"demo": DEMO} if (model, data) == ("lenet-300-100", "digits") else {}


@cache
def form_of(model: str, data: str) -> Variables:
    """Return shapes and types of a net on a data set, before either is made.

    Raises:
        ConfigError: the net does not take such images.

    >>> form_of("lenet-300-100", "digits").params["fc1"]["kernel"].shape
    (64, 300)
    """
    shape, classes = FORMS[data]
    module = nnx.eval_shape(lambda: NETS[model].model(shape, classes, rngs=nnx.Rngs(0)))
    parts = (nnx.state(module, kind) for kind in (nnx.Param, nnx.BatchStat))
    return Variables(*map(nnx.to_pure_dict, parts))


def weights_of(model: str, data: str) -> int:
    """Return the number of parameters of a net on a data set, before either is made.

    Raises:
        ConfigError: the net does not take such images.

    >>> weights_of("lenet-300-100", "mnist")
    266610
    """
    return sum(leaf.size for leaf in jax.tree.leaves(form_of(model, data).params))


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return how the options of ``compress`` ask for a net to be compressed.

    Raises:
        ConfigError: they contradict each other, or are not for this net and data set.
    """
    weights_of(options.model, options.data)  # raises if they do not fit
    recipe, source = Recipe(Config()), "the default"
    if options.setting is not None:
        recipe, source = _chosen(options), f"--setting {options.setting}"
    if options.config is not None:
        recipe = recipe._replace(config=_config(options.config))
        source = f"--config {options.config}"
    if options.keep is not None and not recipe.config.prune_epochs:
        raise ConfigError(
            f"--keep has no effect with {source}, which prunes nothing; choose another setting"
        )
    given = {name: getattr(options, name) for name in ("keep", "tau")}
    changes = {name: value for name, value in given.items() if value is not None}
    config = replace(recipe.config, seed=options.seed, **changes)
    if config.tau is None and config.annealing is None:
        raise ConfigError(f"{source} learns precisions and has no tau; give --tau")
    if config.tau is not None and targets_of(options):
        source = source if options.tau is None else "--tau"
        raise ConfigError(
            f"{source} makes one run with a given tau, which --max-loss and --target-bytes would "
            "find, within --budget; give only one of them"
        )
    return recipe._replace(config=config)


def search_base(options: argparse.Namespace) -> tuple[Recipe, str]:
    """Return the settings that a search starts from, and their name.

    Those chosen for the net on the data set, or the default of every net with a ``tau`` for its
    number of weights.

    Raises:
        ConfigError: the setting is not for this net and data set.
    """
    weights = weights_of(options.model, options.data)
    recipes = recipes_for(options.model, options.data)
    name = "balanced" if "balanced" in recipes else next(iter(recipes), "default")
    recipe = recipes.get(name, Recipe(Config(tau=_MIDDLE * first_tau(weights))))
    if options.setting is not None:
        name, recipe = options.setting, _chosen(options)
    return recipe._replace(config=replace(recipe.config, seed=options.seed)), name


def targets_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the targets that the options of ``compress`` ask for.

    >>> targets_of(argparse.Namespace(max_loss=0.01, target_bytes=None, budget=None))
    {'max_loss': 0.01}
    """
    given = {name: getattr(options, name) for name in ("max_loss", "target_bytes", "budget")}
    return {name: value for name, value in given.items() if value is not None}


def usual_steps(recipe: Recipe, examples: int) -> int:
    """Return about how many steps a run takes, if it is given no budget.

    Args:
        recipe: with the settings of the run.
        examples: number of training examples.

    >>> usual_steps(Recipe(Config()), 50_000), usual_steps(Recipe(Config(tau=1e-6)), 50_000)
    (67470, 28860)
    """
    config = recipe.config
    steps = max(1, examples // config.batch_size)  # of fewer than a batch, compress says so
    steps *= -(-config.least_steps // steps)
    if config.tau is not None:
        return epochs_of(config) * steps
    return usual_epochs(shortened(config, steps)) * steps


def duration(options: argparse.Namespace, recipe: Recipe, task: Task, net: Variables) -> str:
    """Return about how long a run takes on this machine: its steps, and for a walk their time.

    Args:
        options: of the command, with the budget.
        recipe: with the settings of the run.
        task: what the net is trained on.
        net: pretrained.

    >>> options = argparse.Namespace(budget=timedelta(minutes=10))
    >>> duration(options, Recipe(Config()), task=None, net=None)
    '10 minutes'
    """
    if isinstance(options.budget, timedelta):
        return budget_text(options.budget)
    config, split = recipe.config, task.dataset.validation
    steps = options.budget or usual_steps(recipe, len(task.dataset.train.labels))
    if config.tau is not None:  # a single run, of which the first epochs tell as much
        return budget_text(steps)
    parts = take_apart(net.params, net.aux)
    feed = feed_of(
        task.data(),
        config.batch_size,
        least_steps=config.least_steps,
        augment=NETS[options.model].pretraining.augment(),
    )
    seconds = steps * retraining_seconds(
        parts.loss(task.loss()), parts, feed, lambda: misclassified(task.predict, net, *split)
    )
    here = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return f"{budget_text(steps)}, {here} here"


def plain_settings(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as values of JSON.

    >>> plain_settings(DEMO)["soft_epochs"], plain_settings(DEMO)["teachers"]
    (60, 0)
    """
    return recipe.config.to_dict() | {
        "teacher_weight": recipe.teacher_weight,
        "temperature": recipe.temperature,
        "teachers": recipe.teachers,
    }


def _chosen(options: argparse.Namespace) -> Recipe:
    """The recipe of ``--setting``."""
    recipes = recipes_for(options.model, options.data)
    if options.setting in recipes:
        return recipes[options.setting]
    is_demo = options.setting == "demo"
    made_for = "lenet-300-100 on digits" if is_demo else f"{' and '.join(RECIPES)} on mnist"
    raise ConfigError(
        f"--setting {options.setting} was chosen for {made_for}; without --setting, the default "
        f"suits {options.model} on {options.data}"
    )


def _config(path: Path) -> Config:
    """Settings from a JSON file."""
    try:
        return Config.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except RecursionError as error:
        raise ConfigError(
            f"{path} holds no settings of compress: it is nested too deeply"
        ) from error
    except ValueError as error:  # not JSON, not text, or not settings
        raise ConfigError(f"{path} holds no settings of compress: {error}") from error
