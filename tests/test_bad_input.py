"""A catalogue of bad input: what a user does, and the whole message that comes of it."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import swsjax
from swsjax.file.checkpoint import load_checkpoint, save_checkpoint
from swsjax.cli.main import main
from swsjax.errors import (
    CheckpointError,
    ConfigError,
    FormatError,
    RetrainingError,
    SwsjaxWarning,
)

RNG = np.random.default_rng(0)
DATA = {
    "inputs": np.float32(RNG.normal(size=(200, 4))),
    "labels": RNG.integers(3, size=200),
}
PARAMS = {"w": np.float32(RNG.normal(size=(4, 3)))}
ROUND = {"w": np.eye(4, 3, dtype=np.float32)}
QUICK = swsjax.Config(components=4, soft_epochs=1, hard_epochs=0, batch_size=50, least_steps=1)
MIXTURE = swsjax.init_mixture(-1.0, 1.0)
KEY = jax.random.key(0)


def apply(params, inputs):
    return inputs @ params["w"]


def squared(params, batch):
    return jnp.mean(apply(params, batch["inputs"]) ** 2)


LOSS = swsjax.cross_entropy(apply)


def compress(params=PARAMS, loss=LOSS, data=DATA, config=QUICK, **given):
    return swsjax.compress(params, loss, data, config, **given)


class Plain:
    """A net that is no pytree."""

    weights = PARAMS["w"]


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=True)(linen.Dense(3)(x))


def write(name, content=b""):
    Path(name).write_bytes(content)


def saved(name="net.sws", tree=ROUND, **given):
    swsjax.save(name, tree, **given)
    return name


def under_a_file(name):
    """A path that nobody can write to, the administrator included."""
    write("file")
    return f"file/{name}"


def checkpoint_of_another_run():
    compress(checkpoint="state")
    compress(checkpoint="state", config=swsjax.Config(soft_epochs=1, batch_size=50, tau=0.1))


def cut_checkpoint():
    compress(checkpoint="state")
    for path in Path("state/1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    compress(checkpoint="state")


OPTIMIZER = swsjax.Rates().optimizer(1, 1)


def take_step(loss=LOSS, forward=swsjax.soft, labels=None):
    """A step of a loop of one's own."""
    state = swsjax.init(ROUND, {"weights": MIXTURE}, OPTIMIZER, KEY)
    settings = {"tau": 0.01, "train_size": 200, "hyper": swsjax.HyperPriors()}
    step = swsjax.make_step(loss, OPTIMIZER, forward=forward, labels=labels, **settings)
    return jax.eval_shape(step, state, DATA)


NOTHING = (
    "params hold no weights to compress; expected a pytree of floating arrays, of which the rules "
    "leave some under a mixture, got "
)
AXES = (
    "data must be a pytree of arrays with the same number of examples along the first axis, got "
    "first axes "
)
FAILS = "loss_fn fails on a batch of {'inputs': 'float32[50, 4]', 'labels': 'int32[50]'}: "
LABELS = "labels must be integers of shape (50,), the class of each example, as logits are of shape"
RULES = "rules must be a list of pairs like ('*/bias', None), got "
FITS_NOT = "the file does not fit the tree given: "

NETS = [
    ("an empty tree", lambda: compress({}), ConfigError, NOTHING + "no leaves"),
    (
        "an array without entries",
        lambda: compress({"w": np.zeros((0, 3), np.float32)}),
        ConfigError,
        NOTHING + "leaves of type float32",
    ),
    (
        "integer weights",
        lambda: compress({"w": np.ones((4, 3), int)}),
        ConfigError,
        NOTHING + "leaves of type int64",
    ),
    (
        "an object in place of a tree",
        lambda: compress(Plain()),
        ConfigError,
        NOTHING + "leaves of type Plain",
    ),
    (
        "lists of numbers in place of arrays",
        lambda: compress({"w": PARAMS["w"].tolist()}),
        ConfigError,
        NOTHING + "leaves of type float",
    ),
    (
        "all weights zero",
        lambda: compress({"w": np.zeros((4, 3), np.float32)}),
        ConfigError,
        "the weights of the mixture 'weights' are all 0, so there is nothing to share: pretrain "
        "the net, or leave them out by a rule",
    ),
    (
        "one weight",
        lambda: compress({"w": np.float32([[0.5]])}),
        ConfigError,
        "the weights of the mixture 'weights' are all 0.5, so there is nothing to share: pretrain "
        "the net, or leave them out by a rule",
    ),
    (
        "NaN weights",
        lambda: compress({"fc": {"w": np.float32([[np.nan, 1, 2]])}}),
        ConfigError,
        "fc/w holds values that are not finite; pretrain again",
    ),
    (
        "an infinite weight",
        lambda: compress([np.float32([np.inf, 1])]),
        ConfigError,
        "0 holds values that are not finite; pretrain again",
    ),
    (
        "all variables of a Linen net",
        lambda: compress(Linen().init(KEY, DATA["inputs"])),
        ConfigError,
        "params hold Linen's batch_stats, as batch_stats/BatchNorm_0/mean, which are no weights; "
        "give variables['params'] as params and batch_stats as aux, or freeze them by the rule "
        "('batch_stats/*', swsjax.FROZEN)",
    ),
    (
        "text as aux",
        lambda: compress(aux={"mode": "train"}),
        ConfigError,
        "aux must be of arrays, got mode of type str",
    ),
]

ARGUMENTS = [
    (
        "data before the loss",
        lambda: compress(PARAMS, DATA, LOSS),
        ConfigError,
        "loss_fn must be a function, got a dict; compress takes params, loss_fn and data in this "
        "order",
    ),
    (
        "an optimiser as config",
        lambda: compress(config=optax.sgd(0.1)),
        ConfigError,
        "config must be a Config, got a GradientTransformationExtraArgs",
    ),
    (
        "an array as start",
        lambda: compress(start=PARAMS),
        ConfigError,
        "start must be a result of compress, got a dict",
    ),
    (
        "devices as mesh",
        lambda: compress(mesh=jax.devices()),
        ConfigError,
        "mesh must be a jax.sharding.Mesh, got a list; Mesh(jax.devices(), ('data',)) is one",
    ),
    (
        "text as tau",
        lambda: swsjax.Config(tau="0.06"),
        ConfigError,
        "tau must be a number or an optax schedule, got '0.06'",
    ),
    (
        "a negative tau",
        lambda: swsjax.Config(tau=-1.0),
        ConfigError,
        "tau must be positive, got -1.0",
    ),
    (
        "half an epoch",
        lambda: swsjax.Config(soft_epochs=0.5),
        ConfigError,
        "soft_epochs must be an integer, got 0.5",
    ),
    (
        "no epoch",
        lambda: swsjax.Config(soft_epochs=0, hard_epochs=0),
        ConfigError,
        "soft_epochs, hard_epochs and prune_epochs must be at least 0 and not all 0, got 0, 0 "
        "and 0",
    ),
    (
        "no component",
        lambda: swsjax.Config(components=0),
        ConfigError,
        "components must be at least 1, got 0",
    ),
    (
        "a learning rate as rates",
        lambda: swsjax.Config(hard_rates=1e-3),
        ConfigError,
        "hard_rates must be a Rates, got 0.001",
    ),
    (
        "the settings of compress for pretrain",
        lambda: swsjax.pretrain(PARAMS, LOSS, DATA, QUICK),
        ConfigError,
        "config must be a PretrainConfig, got a Config",
    ),
    (
        "a result in place of a mixture",
        lambda: swsjax.quantize({"weights": MIXTURE}, PARAMS),
        ConfigError,
        "quantize takes one GaussianMixture, got a dict; of a result that is "
        "result.mixtures['weights']",
    ),
]

SELECTION = [
    (
        "a typo in a pattern",
        lambda: swsjax.select({"fc1": PARAMS}, [("fc1/v", None)]),
        ConfigError,
        "rule 'fc1/v' matches no leaf; did you mean one of: fc1/w?",
    ),
    (
        "a rule after one that takes it all",
        lambda: compress(rules=[("*", "all"), ("w", None)]),
        ConfigError,
        "rule 'w' decides nothing: earlier rules match all that it matches; put it before them or "
        "leave it out",
    ),
    (
        "a dictionary of rules",
        lambda: compress(rules={"w": None}),
        ConfigError,
        RULES + "{'w': None}",
    ),
    (
        "a rule that is no pair",
        lambda: compress(rules=["w"]),
        ConfigError,
        RULES + "['w']",
    ),
    (
        "FROZEN as text",
        lambda: compress(rules=[("w", "frozen")]),
        ConfigError,
        "rule 'w' maps to 'frozen', which would be a mixture's name; expected swsjax.FROZEN or "
        "None, without quotes",
    ),
    (
        "nothing under a mixture",
        lambda: compress(rules=[("*", None)]),
        ConfigError,
        NOTHING + "leaves of type float32",
    ),
]

DATA_SETS = [
    ("no data", lambda: compress(data={}), ConfigError, AXES + "of no arrays"),
    (
        "data of length zero",
        lambda: compress(data={name: x[:0] for name, x in DATA.items()}),
        ConfigError,
        "data hold 0 examples, fewer than a batch of 50; set batch_size in the config",
    ),
    (
        "a batch larger than the data",
        lambda: compress(config=swsjax.Config(batch_size=256)),
        ConfigError,
        "data hold 200 examples, fewer than a batch of 256; set batch_size in the config",
    ),
    (
        "unequal lengths",
        lambda: compress(data=DATA | {"labels": DATA["labels"][1:]}),
        ConfigError,
        AXES + "{\"['inputs']\": (200,), \"['labels']\": (199,)}",
    ),
    (
        "labels in a list",
        lambda: compress(data=DATA | {"labels": DATA["labels"].tolist()}),
        ConfigError,
        AXES + "{\"['inputs']\": (200,), \"['labels'][0]\": ()}",
    ),
    (
        "text as labels",
        lambda: compress(data=DATA | {"labels": DATA["labels"].astype(str)}),
        ConfigError,
        "data must be of numbers, got ['labels'] of type <U21",
    ),
    (
        "labels of a floating type",
        lambda: compress(data=DATA | {"labels": np.float32(DATA["labels"])}),
        ConfigError,
        LABELS + " (50, 3); got float32 of shape (50,)",
    ),
    (
        "one-hot labels",
        lambda: compress(data=DATA | {"labels": np.eye(3, dtype=int)[DATA["labels"]]}),
        ConfigError,
        LABELS + " (50, 3); got int32 of shape (50, 3); take argmax(-1) of one-hot labels",
    ),
    (
        "labels in a column",
        lambda: swsjax.error_rate(apply, PARAMS, DATA["inputs"][:50], DATA["labels"][:50, None]),
        ConfigError,
        LABELS + " (50, 3); got int32 of shape (50, 1)",
    ),
    (
        "a label out of range",
        lambda: compress(data=DATA | {"labels": DATA["labels"] + 1}),
        RetrainingError,
        "loss or prior is not finite after epoch 1 of 1 (soft stage): loss nan, log-prior "
        "1.654e+04; lower the learning rates of that stage, Config.soft_rates, or see whether all "
        "data are finite and all labels in range",
    ),
    (
        "NaN in the data",
        lambda: swsjax.pretrain(PARAMS, LOSS, DATA | {"inputs": np.full((200, 4), np.nan)}),
        RetrainingError,
        "the loss is nan after epoch 1 of 40 of pretraining; lower PretrainConfig.learning_rate, "
        "or see whether all data are finite and all labels in range",
    ),
    (
        "a test set of length zero",
        lambda: swsjax.error_rate(apply, PARAMS, DATA["inputs"][:0], DATA["labels"][:0]),
        ConfigError,
        "inputs hold no examples",
    ),
    (
        "nothing for the teacher to look at",
        lambda: swsjax.with_teacher({"images": DATA["inputs"]}, apply, PARAMS),
        ConfigError,
        "data must have \"inputs\" for the teacher, got ['images']",
    ),
    (
        "the mixtures of a result, merged all at once",
        lambda: swsjax.merge({"weights": MIXTURE}),
        ConfigError,
        "merge takes one GaussianMixture, got a dict; the mixtures of a result are in a "
        "dictionary, by name",
    ),
    (
        "a result in place of its net",
        lambda: swsjax.save("net.sws", compress()),
        TypeError,
        "leaf history/0/stage is a str, not an array; leave it out",
    ),
    (
        "a stream that gives its data once",
        lambda: compress(data=swsjax.Stream(200, lambda number: iter(()))),
        ConfigError,
        "the stream gave no batches; batches(number) must start anew in every epoch",
    ),
    (
        "batches in place of a function to them",
        lambda: compress(data=swsjax.Stream(200, [DATA])),
        ConfigError,
        "a Stream has the number of examples and a function from the number of an epoch to its "
        "batches, got a int and a list",
    ),
    (
        "a stream with batches of another size",
        lambda: compress(data=swsjax.stream_arrays(DATA, batch_size=40)),
        ConfigError,
        "batch 1 of the stream has first axes {\"['inputs']\": (40,)}, expected 50 examples; set "
        "batch_size in the config, and leave out a batch that is incomplete",
    ),
]

LOSSES = [
    (
        "a loss of each example",
        lambda: compress(loss=lambda params, batch: apply(params, batch["inputs"])[:, 0]),
        ConfigError,
        "loss_fn must return a scalar, got an array of shape (50,); take the mean over the batch",
    ),
    (
        "a loss of each example in pretrain",
        lambda: swsjax.pretrain(PARAMS, lambda p, batch: batch["inputs"][:, 0], DATA),
        ConfigError,
        "loss_fn must return a scalar, got an array of shape (128,); take the mean over the batch",
    ),
    (
        "a loss with metrics",
        lambda: compress(loss=lambda params, batch: (LOSS(params, batch), {})),
        ConfigError,
        "loss_fn must return a scalar, got a tuple; give what it carries as aux",
    ),
    (
        "a count of errors as loss",
        lambda: compress(loss=lambda params, batch: batch["labels"].sum()),
        ConfigError,
        "loss_fn must return a floating number, got int32",
    ),
    (
        "a loss that returns nothing",
        lambda: compress(loss=lambda params, batch: None),
        ConfigError,
        "loss_fn must return a scalar, got a NoneType",
    ),
    (
        "a loss without aux",
        lambda: compress(loss=lambda params, aux, batch: LOSS(params, batch), aux=jnp.ones(2)),
        ConfigError,
        "loss_fn must return (scalar, aux), as aux is given to compress, got an array of shape ()",
    ),
    (
        "another aux than was given",
        lambda: compress(
            loss=lambda params, aux, batch: (LOSS(params, batch), {"mean": jnp.ones(3)}),
            aux={"mean": jnp.ones(2)},
        ),
        ConfigError,
        "loss_fn must return aux in the form it got it; it got {'mean': 'float32[2]'} and returned "
        "{'mean': 'float32[3]'}",
    ),
    (
        "aux for a loss that takes none",
        lambda: compress(loss=squared, aux=jnp.ones(2)),
        ConfigError,
        FAILS + "TypeError: squared() takes 2 positional arguments but 3 were given",
    ),
    (
        "data under other names",
        lambda: compress(data={"x": DATA["inputs"], "y": DATA["labels"]}),
        ConfigError,
        "loss_fn fails on a batch of {'x': 'float32[50, 4]', 'y': 'int32[50]'}: KeyError: 'inputs'",
    ),
    (
        "a teacher that is not in the data",
        lambda: compress(loss=swsjax.distillation(apply, share=1.0)),
        ConfigError,
        FAILS + "KeyError: 'teacher'",
    ),
    (
        "images of another rank",
        lambda: compress(data=DATA | {"inputs": DATA["inputs"].reshape(200, 2, 2)}),
        ConfigError,
        "loss_fn fails on a batch of {'inputs': 'float32[50, 2, 2]', 'labels': 'int32[50]'}: "
        "TypeError: dot_general requires contracting dimensions to have the same shape, got (2,) "
        "and (4,).",
    ),
    (
        "an error of each class",
        lambda: compress(evaluate=lambda params: jnp.ones(3)),
        ConfigError,
        "evaluate must return a number, got a ArrayImpl of shape (3,)",
    ),
    (
        "no component left but the zero one",
        lambda: compress({"w": PARAMS["w"] * 1e-3}),
        RetrainingError,
        "every weight is zero after quantisation: the zero component is still 0.25 wide, where "
        "hyper_priors ask for 0.02, and holds them all; raise soft_epochs, or precisions in "
        "Config.soft_rates, or lower tau",
    ),
]

OWN_LOOPS = [
    (
        "a mixture without a name",
        lambda: swsjax.init(PARAMS, MIXTURE, OPTIMIZER, KEY),
        ConfigError,
        "mixtures must be a dictionary of them by name, got a GaussianMixture; "
        "{'weights': mixture} is for one over all weights",
    ),
    (
        "rates in place of their optimiser",
        lambda: swsjax.init(PARAMS, {"weights": MIXTURE}, swsjax.Rates(), KEY),
        ConfigError,
        "optimizer must be one of optax over (params, mixtures), got a Rates; "
        "Rates().optimizer(epochs, steps_per_epoch) makes one",
    ),
    (
        "a counter among the weights",
        lambda: swsjax.init({"steps": jnp.array(3)}, {"weights": MIXTURE}, OPTIMIZER, KEY),
        ConfigError,
        "params must be floating arrays, got steps of type int32; leave it out",
    ),
    (
        "the name of a stage as what it computes with",
        lambda: take_step(forward="soft"),
        ConfigError,
        "forward must be soft or hard, the functions, got 'soft'",
    ),
    (
        "a loss of each example in a step",
        lambda: take_step(loss=lambda params, batch: batch["inputs"][:, 0]),
        ConfigError,
        "loss_fn must return a scalar, got an array of shape (200,); take the mean over the batch",
    ),
    (
        "a label too many",
        lambda: take_step(labels=["weights", None]),
        ConfigError,
        "labels must name the mixture of each of the 1 leaves of params, or None, got 2",
    ),
    (
        "a label of no mixture",
        lambda: take_step(labels=["kernels"]),
        ConfigError,
        "the labels name the mixtures ['kernels'], but the state has ['weights']; give them to "
        "init",
    ),
]

FILES = [
    (
        "the tree before the path",
        lambda: swsjax.save(PARAMS, "net.sws"),
        TypeError,
        "expected a path, got a dict; save takes the path first and then the tree",
    ),
    (
        "the path before the tree, for safetensors",
        lambda: swsjax.to_safetensors("net.safetensors", PARAMS),
        TypeError,
        "expected a path, got a dict; to_safetensors takes the tree first and then the path",
    ),
    (
        "a tree to report on",
        lambda: swsjax.report(PARAMS),
        TypeError,
        "expected a path, got a dict; save writes one, dumps makes its bytes",
    ),
    (
        "bytes to load",
        lambda: swsjax.load(swsjax.dumps(PARAMS)),
        TypeError,
        "expected a path, got a bytes; loads takes bytes",
    ),
    (
        "an error that is not named",
        lambda: swsjax.report(saved(), errors=0.02),
        ConfigError,
        "errors must be a dictionary of error rates by what they were measured on, as "
        "{'test': 0.02}, got 0.02",
    ),
    (
        "a function in the tree",
        lambda: saved(tree=ROUND | {"activation": apply}),
        TypeError,
        "leaf activation is a function, not an array; leave it out",
    ),
    (
        "a number in the tree",
        lambda: saved(tree=ROUND | {"steps": 3}),
        TypeError,
        "leaf steps is a int, not an array; use numpy.asarray",
    ),
    (
        "a random key in the tree",
        lambda: saved(tree=ROUND | {"key": KEY}),
        TypeError,
        "leaf key is a random key; leave it out or give jax.random.key_data(key)",
    ),
    (
        "an encoding that is none",
        lambda: saved(encoding="huffman"),
        ValueError,
        "encoding 'huffman' is not one of entropy, han, han-huffman",
    ),
    (
        "metadata that JSON does not know",
        lambda: saved(metadata={"error": jnp.ones(())}),
        TypeError,
        "the metadata is not JSON: Object of type ArrayImpl is not JSON serializable",
    ),
    (
        "a path that cannot be written",
        lambda: saved(under_a_file("net.sws")),
        NotADirectoryError,
        "[Errno 20] Not a directory: 'file/net.sws'",
    ),
    (
        "a folder that is not there",
        lambda: saved("runs/net.sws"),
        FileNotFoundError,
        "[Errno 2] No such file or directory: 'runs/net.sws'",
    ),
    (
        "a missing file",
        lambda: swsjax.report("none.sws"),
        FileNotFoundError,
        "[Errno 2] No such file or directory: 'none.sws'",
    ),
    (
        "a folder in place of a file",
        lambda: swsjax.load("."),
        IsADirectoryError,
        "[Errno 21] Is a directory: '.'",
    ),
    (
        "an empty file",
        lambda: (write("net.sws"), swsjax.load("net.sws")),
        FormatError,
        "not an .sws file: it starts with b'', not b'sws'",
    ),
    (
        "a file cut off",
        lambda: (write("net.sws", swsjax.dumps(ROUND)[:5]), swsjax.load("net.sws")),
        FormatError,
        "file has 5 bytes, expected at least 9: it is cut off",
    ),
    (
        "a file of another format",
        lambda: (write("net.npz", b"PK\x03\x04"), swsjax.load("net.npz")),
        FormatError,
        "not an .sws file: it starts with b'PK\\x03\\x04', not b'sws'",
    ),
    (
        "a net of another shape",
        lambda: swsjax.load(saved(), like={"w": np.zeros((3, 4), np.float32)}),
        ValueError,
        FITS_NOT + "w is float32[4, 3] in the file, float32[3, 4] expected",
    ),
    (
        "a net of another structure",
        lambda: swsjax.load(saved(), like=[ROUND["w"]]),
        ValueError,
        FITS_NOT + "0 is not in the file; w is in the file but not expected",
    ),
    (
        "a kernel of PyTorch as it is",
        lambda: (
            swsjax.to_safetensors({"fc.weight": ROUND["w"].T}, "net"),
            swsjax.from_safetensors("net", ROUND, sources={"w": "fc.weight"}),
        ),
        ConfigError,
        "net does not fit the tree given: w, from fc.weight, is float32[3, 4] in the file, "
        'float32[4, 3] expected (try ("fc.weight", flax_kernel))',
    ),
    (
        "one name in place of a list",
        lambda: swsjax.from_safetensors("net", ROUND, unused="fc.steps"),
        TypeError,
        "unused must be a list of names, got 'fc.steps'",
    ),
]

CHECKPOINTS = [
    (
        "the checkpoint of another run",
        checkpoint_of_another_run,
        CheckpointError,
        "state holds a run with other settings, data or weights; give another folder, or delete "
        "this one to start anew",
    ),
    (
        "a file in place of a checkpoint's folder",
        lambda: (write("state"), compress(checkpoint="state")),
        FileExistsError,
        "[Errno 17] File exists: 'state'",
    ),
    (
        "a checkpoint under a file",
        lambda: compress(checkpoint=under_a_file("state")),
        NotADirectoryError,
        "[Errno 20] Not a directory: 'file/state'",
    ),
    (
        "a checkpoint of pretraining to go on from",
        lambda: (save_checkpoint("net", PARAMS), compress(checkpoint="net")),
        CheckpointError,
        "net holds a checkpoint that is none of a retraining; give another folder",
    ),
    (
        "a checkpoint of pretraining under a file",
        lambda: save_checkpoint(under_a_file("net/checkpoint"), PARAMS),
        NotADirectoryError,
        "[Errno 20] Not a directory: 'file/net'",
    ),
    (
        "no checkpoint",
        lambda: load_checkpoint("none", PARAMS),
        CheckpointError,
        "none is not an Orbax checkpoint; give the folder that `swsjax pretrain` or Orbax's "
        "StandardCheckpointer wrote",
    ),
    (
        "a checkpoint of another net",
        lambda: (save_checkpoint("net", PARAMS), load_checkpoint("net", {"w": np.ones(3)})),
        CheckpointError,
        "the checkpoint net is of another net: w has shape (4, 3), expected (3,)",
    ),
]

CATALOGUE = [
    *(NETS + ARGUMENTS + SELECTION + DATA_SETS),
    *(LOSSES + OWN_LOOPS + FILES + CHECKPOINTS),
]


@pytest.mark.parametrize(
    ("use", "error", "message"), [pytest.param(*case, id=name) for name, *case in CATALOGUE]
)
def test_message(use, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        use()
    assert type(caught.value) is error
    assert str(caught.value) == message


def test_damaged_checkpoint(tmp_path, monkeypatch):
    """Orbax's own words end it, which change from version to version."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "state" / "1"
    message = (
        f"the state of epoch 1 in {folder} is damaged; delete {folder} to go on from the epoch "
        "before, or the folder above to start anew ("
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}"):
        cut_checkpoint()


MANY = {"w": np.float32(RNG.normal(size=(40, 30)))}
FAR = {"w": np.append(MANY["w"], np.float32([100]))}


@pytest.mark.parametrize(
    ("params", "settings", "message"),
    [
        pytest.param(
            MANY,
            {"tau": 0.06},
            "tau=0.06 lets the prior over 1,200 weights outweigh the loss of 200 examples; the net "
            "may collapse to zero. Try tau=0.0002, the default",
            id="a large tau",
        ),
        pytest.param(
            MANY,
            {"tau": 1e-6},
            "tau=1e-06 hardly lets the prior over 1,200 weights be felt beside the loss of 200 "
            "examples; little will be compressed. Try tau=0.0002, the default",
            id="a small tau",
        ),
        pytest.param(
            MANY,
            {"components": 2},
            "components=2 leaves the 1,200 weights of the mixture 'weights' few values to gather "
            "at; 16 suit most nets",
            id="few components",
        ),
        pytest.param(
            FAR,
            {},
            "the weights of the mixture 'weights' reach to 100, but all except a thousandth are "
            "within 3.18: most components start where there are no weights. Put the leaf with the "
            "large ones under another mixture, or leave it out",
            id="a weight far out",
        ),
    ],
)
def test_warning(params, settings, message):
    """It comes before any time is spent: the loss is not even tried."""
    config = swsjax.Config(batch_size=50, **settings)
    with (
        pytest.warns(SwsjaxWarning) as seen,
        pytest.raises(ConfigError, match=r"^loss_fn fails"),
    ):
        compress(params, lambda params, batch: 1 / 0, config=config)
    assert [str(warning.message) for warning in seen] == [message]
    assert seen[0].filename == __file__


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        pytest.param(
            "inspect none.sws",
            1,
            "[Errno 2] No such file or directory: 'none.sws'",
            id="a missing file",
        ),
        pytest.param("inspect .", 1, "[Errno 21] Is a directory: '.'", id="a folder"),
        pytest.param(
            "inspect damaged.sws",
            1,
            "checksum at byte 7 is 00000000, expected 8f5f8f59: the file is damaged or cut off",
            id="a damaged file",
        ),
        pytest.param(
            "decode net.sws --out file/net.safetensors",
            1,
            "[Errno 20] Not a directory: 'file/net.safetensors'",
            id="a path that cannot be written",
        ),
        pytest.param(
            "evaluate net.sws --data digits",
            1,
            "net.sws does not say which model it holds; expected one of lenet-300-100, "
            "lenet-5-caffe in its metadata",
            id="a file without a model",
        ),
        pytest.param(
            "compress lenet-300-100 --data digits --out small --checkpoint net.sws",
            1,
            "net.sws is not an Orbax checkpoint; give the folder that `swsjax pretrain` or Orbax's "
            "StandardCheckpointer wrote",
            id="a file as checkpoint",
        ),
        pytest.param(
            "compress lenet-300-100 --data digits --out file",
            1,
            "[Errno 17] File exists: 'file'",
            id="a file in place of the folder",
        ),
        pytest.param(
            "demo --out file",
            1,
            "[Errno 17] File exists: 'file'",
            id="a file for the demo",
        ),
        pytest.param(
            "compress lenet-300-100 --data digits --out small --tau -1",
            1,
            "tau must be positive, got -1.0",
            id="a negative tau",
        ),
        pytest.param(
            "compress lenet-300-100 --data digits --out small --tau much",
            2,
            "argument --tau: invalid float value: 'much'; see `swsjax compress --help`",
            id="text as tau",
        ),
        pytest.param(
            "inspect",
            2,
            "the following arguments are required: file; see `swsjax inspect --help`",
            id="no file",
        ),
    ],
)
def test_command(command, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    saved()
    write("damaged.sws", b"sws\x01\x00ab\x00\x00\x00\x00")
    under_a_file("net.sws")
    try:
        came = main(command.split())
    except SystemExit as stopped:
        came = stopped.code
    assert came == code
    assert capsys.readouterr() == ("", f"swsjax: error: {message}\n")
