"""The command that prunes: a method, what trains the weights that are left, and codebooks."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from swsjax.baselines import (
    fine_tune,
    force,
    grasp,
    iter_snip,
    k_means,
    kernels,
    lottery_ticket,
    magnitude,
    magnitude_per_layer,
    random,
    retrain,
    rewind,
    scratch,
    snip,
    tune_codebooks,
)
from swsjax.baselines.weights import number_kept
from swsjax.cli.pretrained import Origin, given
from swsjax.cli.runs import (
    Errors,
    Output,
    Run,
    errors_on,
    nets_of,
    origins_of,
    output_of,
    task_of,
    write_run,
)
from swsjax.cli.settings import form_of, plain_settings, targets_of, usual_steps
from swsjax.cli.terminal import reporter
from swsjax.errors import ConfigError
from swsjax.lab.task import Task, Variables
from swsjax.sws.config import Config
from swsjax.sws.recipes import Recipe, compress_task, errors_of
from swsjax.sws.result import Result
from swsjax.sws.wanted import budget_text
from swsjax.training.history import Epoch
from swsjax.training.pretraining import PretrainConfig
from swsjax.training.selection import select

__all__ = ["FINISHERS", "METHODS", "run_prune"]


class _Start(NamedTuple):
    """What a net is pruned with, and what is left of it trained."""

    task: Task
    initial: Variables
    """The net before its pretraining."""
    pretrained: Variables
    config: PretrainConfig
    """Of the pretraining."""
    key: Array
    folder: Path
    """For the state of a training."""
    callback: Callable[[Epoch], None]
    """Shows each epoch of a training."""

    @property
    def run(self) -> dict[str, Any]:
        """What each training takes: it is shown, and can be resumed."""
        return {"key": self.key, "callback": self.callback, "resume": self.folder}


METHODS: dict[str, Callable[..., Variables]] = {
    "random": lambda at, keep: random(at.initial, keep, key=at.key),
    "snip": lambda at, keep, batches=1: snip(
        at.task, at.initial, keep, batches=batches, key=at.key
    ),
    "iter-snip": lambda at, keep, steps=60, batches=1: iter_snip(
        at.task, at.initial, keep, steps=steps, batches=batches, key=at.key
    ),
    "force": lambda at, keep, steps=60, batches=1: force(
        at.task, at.initial, keep, steps=steps, batches=batches, key=at.key
    ),
    "grasp": lambda at, keep, batches=1: grasp(
        at.task, at.initial, keep, batches=batches, key=at.key
    ),
    "magnitude": lambda at, keep: magnitude(at.pretrained, keep),
    "magnitude-per-layer": lambda at, keep: magnitude_per_layer(at.pretrained, keep),
    "lottery": lambda at, keep, steps=1: lottery_ticket(
        at.task, at.initial, keep, at.config, rounds=steps, **at.run
    ),
}
"""From a start and the share to keep to a pruned net; further arguments are options."""
FINISHERS: dict[str, Callable[[_Start, Variables, int], Variables]] = {
    "fine-tune": lambda at, net, epochs: fine_tune(
        at.task, net, epochs=epochs, augment=at.config.augment(), **at.run
    ),
    "scratch": lambda at, net, epochs: scratch(
        at.task, net, replace(at.config, epochs=epochs), **at.run
    ),
    "rewind": lambda at, net, epochs: _retrained(at, rewind(net, at.initial), epochs),
}
"""From a start and a pruned net to a trained one, in a number of epochs."""
# Methods whose weights are trained; those of all others are initial, and left to be trained.
_AFTER_TRAINING = ("magnitude", "magnitude-per-layer")
_TUNED_EPOCHS = 40  # of fine-tuning, as Liu et al. (arXiv 1810.05270)
# Of the codebooks. Adam, as the gradient of a value is a sum over its weights.
_CODEBOOK_EPOCHS, _CODEBOOK_OPTIMIZER = 10, optax.adam(1e-3)


def run_prune(options: argparse.Namespace) -> int:
    """Prune a net, train what is left of it, and write it.

    Raises:
        ConfigError: the options contradict each other or keep nothing, or a file is where the state
            belongs.
    """
    taken, targets = _taken(options), _targets(options)
    kept, weights = _numbers_kept(options)
    output = output_of(options, options.model, method=options.method)
    (origin,) = origins_of(options)
    if options.finish == "rewind":
        _check_initial(options, origin)
    task = task_of(options)
    own = given(options, task)
    epochs = _epochs(options, origin.config)
    _say(options, kept, weights, epochs, task)
    with reporter() as show:
        (pretrained,) = nets_of(own, task, [origin], show)
        initial, keys = task.init(options.seed), jax.random.split(jax.random.key(options.seed), 3)
        folders = [output.state / name for name in ("method", "training", "codebooks")]
        at_method, at_training, at_codebooks = (
            _Start(task, initial, pretrained, origin.config, key, folder, show.epoch)
            for key, folder in zip(keys, folders, strict=True)
        )
        pruned = METHODS[options.method](at_method, options.keep, **taken)
        finish = FINISHERS.get(_finisher(options), _retrained)
        trained = finish(at_training, pruned, epochs)
        if options.finish == "share":
            run = _shared(options, at_training, trained, output, targets)
        else:
            run = _with_codebooks(options, at_codebooks, trained)
    return write_run(
        output, run._replace(settings=_settings(options, taken, epochs) | run.settings)
    )


def _retrained(at: _Start, net: Variables, epochs: int) -> Variables:
    """A net trained as its pretraining would, under its zeros."""
    config = replace(at.config, epochs=epochs)
    return retrain(at.task, net, config, **at.run)


def _with_codebooks(options: argparse.Namespace, at: _Start, trained: Variables) -> Run:
    """The run of a net that is pruned and trained, with codebooks if there are levels."""
    net, earlier = trained, {"pretrained": at.pretrained}
    if options.levels is not None:
        earlier["pruned"] = trained
        net = tune_codebooks(
            at.task,
            k_means(trained, options.levels),
            epochs=_CODEBOOK_EPOCHS,
            optimizer=_CODEBOOK_OPTIMIZER,
            augment=at.config.augment(),
            **at.run,
        )

    def errors(decoded: Variables) -> Errors:
        stages = earlier | {"decoded": decoded}
        return {stage: errors_on(at.task, found) for stage, found in stages.items()}

    result = Result(net.params, trained.params, {}, [], select(net.params), net.aux)
    return Run(at.task, at.pretrained, result, errors, {})


def _shared(
    options: argparse.Namespace,
    at: _Start,
    trained: Variables,
    output: Output,
    targets: dict[str, Any],
) -> Run:
    """The run of soft weight-sharing of a net that is pruned and trained; it keeps zeros."""
    recipe = _sharing(options)
    result = compress_task(
        at.task,
        trained,
        recipe,
        augment=at.config.augment(),
        callback=at.callback,
        resume=output.state / "sharing",
        **targets,
    )

    def errors(decoded: Variables) -> Errors:
        found = errors_of(at.task, at.pretrained, result, decoded)
        pruned = errors_on(at.task, trained)
        return {"pretrained": found["pretrained"], "pruned": pruned} | found

    return Run(at.task, at.pretrained, result, errors, plain_settings(recipe))


def _sharing(options: argparse.Namespace) -> Recipe:
    return Recipe(Config(seed=options.seed))


def _taken(options: argparse.Namespace) -> dict[str, int]:
    """The options of the method that are given, checked that it takes them."""
    names = ("steps", "batches")
    found = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name in found:
        takers = [
            method for method, prune in METHODS.items() if name in signature(prune).parameters
        ]
        if options.method not in takers:
            raise ConfigError(
                f"--{name} is for {_listed(takers)}, and has no effect with {options.method}; "
                "leave it out"
            )
    return found


def _targets(options: argparse.Namespace) -> dict[str, Any]:
    """The targets of soft weight-sharing, checked with all else that depends on the finisher."""
    targets, is_shared = targets_of(options), options.finish == "share"
    for name in () if is_shared else targets:
        raise ConfigError(
            f"--{name.replace('_', '-')} is for --finish share, which can reach it; leave it out"
        )
    if is_shared and options.levels is not None:
        raise ConfigError(
            "--levels has no effect with --finish share, which finds its own levels; leave it out"
        )
    if options.finish in FINISHERS and options.method not in _AFTER_TRAINING:
        raise ConfigError(
            f"--finish {options.finish} is for {_listed(_AFTER_TRAINING)}; what {options.method} "
            "keeps is trained by the settings of the pretraining: leave it out, or give share"
        )
    return targets


def _numbers_kept(options: argparse.Namespace) -> tuple[int, int]:
    """How many weights of the net are kept, and how many there are.

    Raises:
        ConfigError: none would be kept, or the net does not take the images.
    """
    forms = jax.eval_shape(kernels, form_of(options.model, options.data))
    found = {name: kernel.size for name, kernel in forms.items()}
    total = sum(found.values())
    if options.method != "magnitude-per-layer":
        return number_kept(total, options.keep), total
    return sum(number_kept(size, options.keep, name) for name, size in found.items()), total


def _check_initial(options: argparse.Namespace, origin: Origin) -> None:
    """Check that the seed is that of the given net, whose initial weights it makes again.

    Raises:
        ConfigError: there is no record that it is.
    """
    path = options.pretrained
    if path is not None and not origin._replace(folder=path.parent).is_made():
        raise ConfigError(
            f"--finish rewind goes back to the initial weights of {path}: leave --pretrained out, "
            "or give a checkpoint that `swsjax pretrain` wrote, and its --seed"
        )


def _finisher(options: argparse.Namespace) -> str:
    """The name of what trains the pruned net, or train: by the settings of its pretraining."""
    if options.method not in _AFTER_TRAINING:
        return "train"
    return options.finish if options.finish in FINISHERS else "fine-tune"


def _epochs(options: argparse.Namespace, config: PretrainConfig) -> int:
    """Epochs of the training that follows pruning."""
    usual: int = _TUNED_EPOCHS if _finisher(options) == "fine-tune" else config.epochs
    return usual if options.epochs is None else options.epochs


def _say(options: argparse.Namespace, kept: int, weights: int, epochs: int, task: Task) -> None:
    """Say what will be done and how long it takes, before anything is trained."""
    shares = ""
    if options.finish == "share":
        steps = usual_steps(_sharing(options), len(task.dataset.train.labels))
        shares = f", sharing about {budget_text(options.budget or steps)}"
    print(
        f"{options.method} keeps {kept:,} of {weights:,} weights; training takes {epochs} "
        f"epochs{shares}",
        flush=True,
    )


def _settings(options: argparse.Namespace, taken: dict[str, int], epochs: int) -> dict[str, Any]:
    """What the page shows of the options."""
    shown = {"method": options.method, "keep": options.keep, **taken}
    shown |= {"finish": options.finish or _finisher(options), "epochs": epochs}
    return shown | {"levels": options.levels, "seed": options.seed}


def _listed(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
