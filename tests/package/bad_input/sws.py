"""Bad input to soft weight-sharing: ``compress`` and ``search``."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swsjax
from bad_input.case import (
    DATA,
    FOLDER,
    LOSS,
    PARAMS,
    QUICK,
    REASON,
    RNG,
    Case,
    apply,
    compress,
    per_example,
    squared,
    under_a_file,
    write,
)
from swsjax.errors import (
    CheckpointError,
    ConfigError,
    RetrainingError,
    SwsjaxWarning,
    WrongTypeError,
)
from swsjax.file import save_checkpoint
from swsjax.sws import (
    Config,
    search,
)

MANY = {"w": np.float32(RNG.normal(size=(40, 30)))}
FAR = {"w": np.append(MANY["w"], np.float32([100]))}
FAILS = "loss_fn fails on a batch of {'inputs': 'float32[50, 4]', 'labels': 'int32[50]'}: "


def only_warned(params=MANY, **settings):
    """A run that warns before any time is spent: then the loss fails."""

    def fails(params, batch):
        return 1 / 0

    with pytest.raises(ConfigError, match=r"^loss_fn fails"):
        compress(params, fails, config=Config(batch_size=50, **settings))


def search_with(compress=compress, base=Config(tau=0.1), **options):  # noqa: B008
    settings = {"evaluate": lambda params: 0.5, "trials": 1}
    return search(compress, base, **settings | options)


def resume_with_a_different_tau():
    compress(resume="state")
    compress(resume="state", config=replace(QUICK, tau=0.1))


def resume_from_empty_files():
    compress(resume="state")
    for path in Path("state/1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    compress(resume="state")


ARGUMENTS = [
    Case(
        "data before the loss",
        lambda: compress(PARAMS, DATA, LOSS),
        ConfigError,
        "loss_fn must be a function, got a dict; compress takes params, loss_fn and data in this "
        "order",
    ),
    Case(
        "an optimiser as config",
        lambda: compress(config=optax.sgd(0.1)),
        ConfigError,
        "config must be a Config, got a GradientTransformationExtraArgs",
    ),
    Case(
        "an array as start",
        lambda: compress(start=PARAMS),
        ConfigError,
        "start must be a result of compress, got a dict",
    ),
    Case(
        "the result of a different net as start",
        lambda: compress(MANY, start=compress()),
        ConfigError,
        "start is the result of a different net: w is float32[4, 3] there and float32[40, 30] in "
        "params",
    ),
    Case(
        "a target with tau",
        lambda: compress(max_loss=0.01),
        ConfigError,
        "tau=1.1e-06 decides where a run ends, and so do max_loss, target_bytes and budget: "
        "pass one of them; with tau=None, a run towards a target finds it",
    ),
    Case(
        "a negative loss to allow",
        lambda: compress(config=Config(), max_loss=-0.01),
        ConfigError,
        "max_loss must be a number that is not negative, got -0.01",
    ),
    Case(
        "a size in words",
        lambda: compress(config=Config(), target_bytes="100k"),
        ConfigError,
        "target_bytes must be a number of bytes or several, got '100k'",
    ),
    Case(
        "a size with a fraction",
        lambda: compress(config=Config(), target_bytes=[10_000, 0.5]),
        ConfigError,
        "target_bytes must be positive integers, got 0.5",
    ),
    Case(
        "learned precisions without tau",
        lambda: compress(config=replace(QUICK, tau=None)),
        ConfigError,
        "with learned precisions, annealing=None, set tau; sws.LEARNED does",
    ),
    Case(
        "a start without tau",
        lambda: compress(config=Config(), start=compress()),
        ConfigError,
        "start is for runs with a given tau; set tau in the settings",
    ),
    Case(
        "a list of stages",
        lambda: compress(stages=[]),
        ConfigError,
        "stages must be a function, got a list",
    ),
    Case(
        "all weights zero",
        lambda: compress({"w": np.zeros((4, 3), np.float32)}),
        ConfigError,
        "the weights of the group 'weights' are all 0, so there is nothing to share: pretrain the "
        "net, or leave them out by a rule",
    ),
    Case(
        "one weight",
        lambda: compress({"w": np.float32([[0.5]])}),
        ConfigError,
        "the weights of the group 'weights' are all 0.5, so there is nothing to share: pretrain "
        "the net, or leave them out by a rule",
    ),
    Case(
        "a result in place of its net",
        lambda: swsjax.save("net.sws", compress()),
        WrongTypeError,
        "leaf history/0/stage is a str, not an array; leave it out",
    ),
    Case(
        "a label out of range",
        lambda: compress(data=DATA | {"labels": DATA["labels"] + 1}),
        RetrainingError,
        "loss or prior is not finite after epoch 1 of 1 (soft stage): loss nan, log-prior "
        "1.654e+04; lower the learning rates of that stage, Config.soft_learning_rates, or check "
        "that all data are finite and all labels in range",
    ),
    Case(
        "no component left but the zero one",
        lambda: compress({"w": PARAMS["w"] * 1e-3}),
        RetrainingError,
        "every weight is zero after quantisation: the zero component still has a standard "
        "deviation of 0.25, while hyper_priors ask for 0.02, and holds them all; raise "
        "soft_epochs, or precisions in Config.soft_learning_rates, or lower tau",
    ),
]

LOSSES = [
    Case(
        "a loss of each example",
        lambda: compress(loss=per_example),
        ConfigError,
        "loss_fn must return a scalar, got an array of shape (50,); take the mean over the batch",
    ),
    Case(
        "a loss with metrics",
        lambda: compress(loss=lambda params, batch: (LOSS(params, batch), {})),
        ConfigError,
        "loss_fn must return a scalar, got a tuple; pass its state as aux",
    ),
    Case(
        "a count of errors as loss",
        lambda: compress(loss=lambda params, batch: batch["labels"].sum()),
        ConfigError,
        "loss_fn must return a floating number, got int32",
    ),
    Case(
        "a loss that returns nothing",
        lambda: compress(loss=lambda params, batch: None),
        ConfigError,
        "loss_fn must return a scalar, got None",
    ),
    Case(
        "a loss without aux",
        lambda: compress(loss=lambda params, aux, batch: LOSS(params, batch), aux=jnp.ones(2)),
        ConfigError,
        "loss_fn must return (scalar, aux) if aux is passed, got an array of shape ()",
    ),
    Case(
        "a loss that changes the form of aux",
        lambda: compress(
            loss=lambda params, aux, batch: (LOSS(params, batch), {"mean": jnp.ones(3)}),
            aux={"mean": jnp.ones(2)},
        ),
        ConfigError,
        "loss_fn must return aux in the same form; it received {'mean': 'float32[2]'} and returned "
        "{'mean': 'float32[3]'}",
    ),
    Case(
        "aux for a loss that takes none",
        lambda: compress(loss=squared, aux=jnp.ones(2)),
        ConfigError,
        FAILS + "TypeError: squared() takes 2 positional arguments but 3 were given",
    ),
    Case(
        "data under different names",
        lambda: compress(data={"x": DATA["inputs"], "y": DATA["labels"]}),
        ConfigError,
        "loss_fn fails on a batch of {'x': 'float32[50, 4]', 'y': 'int32[50]'}: KeyError: 'inputs'",
    ),
    Case(
        "a teacher that is not in the data",
        lambda: compress(loss=swsjax.distillation(apply, teacher_weight=1.0)),
        ConfigError,
        FAILS + "KeyError: 'teacher'",
    ),
    Case(
        "images of a different rank",
        lambda: compress(data=DATA | {"inputs": DATA["inputs"].reshape(200, 2, 2)}),
        ConfigError,
        "loss_fn fails on a batch of {'inputs': 'float32[50, 2, 2]', 'labels': 'int32[50]'}: "
        "TypeError: dot_general requires contracting dimensions to have the same shape, got (2,) "
        "and (4,).",
    ),
    Case(
        "errors in a table",
        lambda: compress(evaluate=lambda params: jnp.ones((3, 2))),
        ConfigError,
        "evaluate must return a number, or one for each example, got an array of shape (3, 2)",
    ),
]

SEARCHES = [
    Case(
        "a file in place of a study",
        lambda: search_with(study="search.journal"),
        ConfigError,
        "study must be a Study, got a str",
    ),
    Case(
        "a result in place of compress",
        lambda: search_with(PARAMS),
        ConfigError,
        "compress must be a function, got a dict",
    ),
    Case(
        "a base without tau",
        lambda: search_with(base=Config()),
        ConfigError,
        "space_around samples tau around that of the base, which must be a number, got None",
    ),
    Case(
        "no trial",
        lambda: search_with(trials=0),
        ConfigError,
        "trials must be an integer of at least 1, got 0",
    ),
]

RESUMING = [
    Case(
        "the folder of a different run",
        resume_with_a_different_tau,
        CheckpointError,
        "state holds a run with other settings; choose a different folder, or delete this one to "
        "start again",
    ),
    Case(
        "a damaged state",
        resume_from_empty_files,
        CheckpointError,
        f"the state of epoch 1 in {FOLDER}/state/1 is damaged; delete {FOLDER}/state/1 to resume "
        f"from the epoch before, or its parent to start again ({REASON})",
    ),
    Case(
        "a file in place of the folder",
        lambda: compress(resume=write("state")),
        FileExistsError,
        "[Errno 17] File exists: 'state'",
    ),
    Case(
        "a folder under a file",
        lambda: compress(resume=under_a_file("state")),
        NotADirectoryError,
        "[Errno 20] Not a directory: 'file/state'",
    ),
    Case(
        "a checkpoint of pretraining",
        lambda: (save_checkpoint("net", PARAMS), compress(resume="net")),
        CheckpointError,
        "net holds a checkpoint that no training run wrote; choose a different folder",
    ),
]

WARNINGS = [
    Case(
        "a large tau",
        lambda: only_warned(tau=0.06),
        SwsjaxWarning,
        "tau=0.06 lets the prior over 1,200 weights outweigh the loss; the net may collapse to "
        "zero. Without tau, a suitable one is found",
    ),
    Case(
        "a small tau",
        lambda: only_warned(tau=1e-8),
        SwsjaxWarning,
        "tau=1e-08 gives the prior over 1,200 weights almost no influence; little will be "
        "compressed. Without tau, a suitable one is found",
    ),
    Case(
        "few components",
        lambda: only_warned(components=2),
        SwsjaxWarning,
        "components=2 gives the 1,200 weights of the group 'weights' few values to share; 16 suit "
        "most nets",
    ),
    Case(
        "a weight far out",
        lambda: only_warned(FAR),
        SwsjaxWarning,
        "the weights of the group 'weights' extend to 1.12, but all except a thousandth are within "
        "0.0357: most components start where there are no weights. Move the leaf with the large "
        "weights to a group of its own, or leave it out",
    ),
]

CASES = ARGUMENTS + LOSSES + SEARCHES + RESUMING + WARNINGS
