"""The command that prunes: a method, what trains the weights that are left, and codebooks."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import jax
import optax

from swsjax.baselines import (
    batch_norm_scales,
    fine_tune,
    k_means,
    kernels,
    retrain,
    rewind,
    scratch,
    tune_codebooks,
)
from swsjax.baselines.weights import number_kept
from swsjax.cli.methods import METHODS, STRUCTURED, Start, check_fits, shrunk
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
from swsjax.training.pretraining import PretrainConfig
from swsjax.training.selection import select
from swsjax.trees import named_leaves

__all__ = ["FINISHERS", "run_prune"]


FINISHERS: dict[str, Callable[[Start, Variables, int], Variables]] = {
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
_BY_MAGNITUDE = ("magnitude", "magnitude-per-layer")
_AFTER_TRAINING = (*_BY_MAGNITUDE, *STRUCTURED)
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
    kept = _what_is_kept(options)
    output = output_of(options, options.model, method=options.method)
    (origin,) = origins_of(options)
    if options.finish == "rewind":
        _check_initial(options, origin)
    task = task_of(options)
    own = given(options, task)
    epochs = _epochs(options, origin.config)
    _say(options, kept, epochs, task)
    with reporter() as show:
        (pretrained,) = nets_of(own, task, [origin], show)
        initial, keys = task.init(options.seed), jax.random.split(jax.random.key(options.seed), 3)
        folders = [output.state / name for name in ("method", "training", "codebooks")]
        at_method, at_training, at_codebooks = (
            Start(task, initial, pretrained, origin.config, key, folder, show.epoch)
            for key, folder in zip(keys, folders, strict=True)
        )
        pruned = METHODS[options.method](at_method, **taken)
        if options.method in STRUCTURED:
            small, pruned = shrunk(task, pruned)
            at_training, at_codebooks = (
                at._replace(task=small) for at in (at_training, at_codebooks)
            )
        finish = FINISHERS.get(_finisher(options), _retrained)
        trained = finish(at_training, pruned, epochs)
        if options.finish == "share":
            run = _shared(options, at_training, trained, output, targets)
        else:
            run = _with_codebooks(options, at_codebooks, trained)
    return write_run(
        output, run._replace(settings=_settings(options, taken, epochs) | run.settings)
    )


def _retrained(at: Start, net: Variables, epochs: int) -> Variables:
    """A net trained as its pretraining would, under its zeros."""
    config = replace(at.config, epochs=epochs)
    return retrain(at.task, net, config, **at.run)


def _with_codebooks(options: argparse.Namespace, at: Start, trained: Variables) -> Run:
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
    at: Start,
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


def _taken(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the method that are given, checked that it takes them."""
    names = ("keep", "steps", "batches", "strength")
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
            f"--finish {options.finish} is for trained nets, such as those of magnitude; what "
            f"{options.method} keeps is trained by the settings of the pretraining: leave it out, "
            "or give share"
        )
    if options.finish == "rewind" and options.method in STRUCTURED:
        raise ConfigError(
            f"--finish rewind is for {_listed(_BY_MAGNITUDE)}; {options.method} removes channels, "
            "which the initial net has: give scratch, for new random weights"
        )
    return targets


def _what_is_kept(options: argparse.Namespace) -> str:
    """What the method keeps, in words, checked that the net has it and that something is kept.

    Raises:
        ConfigError: nothing would be kept, the net lacks it, or does not take the images.
    """
    form, share = form_of(options.model, options.data), f"{100 * (options.keep or 0):g} %"
    method = options.method
    check_fits(method, form)
    if method == "structures":
        return "keeps the blocks whose scales do not reach zero"
    if method == "soft-filters":
        return f"keeps {share} of the filters of each convolution"
    if method == "slimming":
        leaves = dict(named_leaves(form.params))
        total = sum(leaves[name].size for name in batch_norm_scales(form))
        return f"keeps {number_kept(total, options.keep, 'the scales'):,} of {total:,} scales"
    if method in STRUCTURED:
        return f"keeps {share} of the channels of each layer"
    found = {name: kernel.size for name, kernel in jax.eval_shape(kernels, form).items()}
    total = sum(found.values())
    if method == "magnitude-per-layer":
        kept = sum(number_kept(size, options.keep, name) for name, size in found.items())
    else:
        kept = number_kept(total, options.keep)
    return f"keeps {kept:,} of {total:,} weights"


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


def _say(options: argparse.Namespace, kept: str, epochs: int, task: Task) -> None:
    """Say what will be done and how long it takes, before anything is trained."""
    shares = ""
    if options.finish == "share":
        steps = usual_steps(_sharing(options), len(task.dataset.train.labels))
        shares = f", sharing about {budget_text(options.budget or steps)}"
    print(f"{options.method} {kept}; training takes {epochs} epochs{shares}", flush=True)


def _settings(options: argparse.Namespace, taken: dict[str, Any], epochs: int) -> dict[str, Any]:
    """What the page shows of the options."""
    shown = {"method": options.method, **taken}
    shown |= {"finish": options.finish or _finisher(options), "epochs": epochs}
    return shown | {"levels": options.levels, "seed": options.seed}


def _listed(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
