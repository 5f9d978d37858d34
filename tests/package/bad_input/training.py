"""Bad input to nets, rules, data, losses and training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

import swsjax
from bad_input.case import (
    DATA,
    KEY,
    LOSS,
    PARAMS,
    QUICK,
    REASON,
    Case,
    apply,
    compress,
    per_example,
    squared,
    train,
)
from swsjax.errors import ConfigError, RetrainingError
from swsjax.training import take_apart

NOTHING = (
    "params hold no weights to compress; expected a pytree of floating arrays, some of which the "
    "rules leave in a group, got "
)
AXES = "data must be a pytree of arrays with the same number of examples along the first axis, got "
LABELS = "labels must be integers of shape (50,), the class of each example, as logits are of shape"
TIED = (
    "{} and {} are one array, which training would make two; keep it under one name and use it "
    "twice in the net, or pass copies if they are not tied"
)
MASKED = (
    "{} is a masked array, whose mask would be lost; fill it, and if the mask is needed, pass it "
    "as an array of its own"
)
RULES = "rules must be a list of pairs like ('*/bias', None), got "


class Plain:
    """A net that is not a pytree."""

    weights = PARAMS["w"]


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=True)(linen.Dense(3)(x))


NETS = [
    Case("an empty tree", lambda: compress({}), ConfigError, NOTHING + "no leaves"),
    Case(
        "an array without entries",
        lambda: compress({"w": np.zeros((0, 3), np.float32)}),
        ConfigError,
        NOTHING + "leaves of type float32, those in a group without entries",
    ),
    Case(
        "integer weights",
        lambda: compress({"w": np.ones((4, 3), int)}),
        ConfigError,
        NOTHING + "leaves of type int64",
    ),
    Case(
        "an object in place of a tree",
        lambda: compress(Plain()),
        ConfigError,
        NOTHING + "leaves of type Plain",
    ),
    Case(
        "lists of numbers in place of arrays",
        lambda: compress({"w": PARAMS["w"].tolist()}),
        ConfigError,
        NOTHING + "leaves of type float",
    ),
    Case(
        "NaN weights",
        lambda: compress({"fc": {"w": np.float32([[np.nan, 1, 2]])}}),
        ConfigError,
        "fc/w holds values that are not finite; pretrain again",
    ),
    Case(
        "an infinite weight",
        lambda: compress([np.float32([np.inf, 1])]),
        ConfigError,
        "0 holds values that are not finite; pretrain again",
    ),
    Case(
        "all variables of a Linen net",
        lambda: compress(Linen().init(KEY, DATA["inputs"])),
        ConfigError,
        "params hold Linen's batch_stats, such as batch_stats/BatchNorm_0/mean, which are not "
        "weights; pass variables['params'] as params and batch_stats as aux, or freeze them by the "
        "rule ('batch_stats/*', swsjax.FROZEN)",
    ),
    Case(
        "one array under two names",
        lambda: compress({"embed": PARAMS["w"], "head": PARAMS["w"].T}),
        ConfigError,
        TIED.format("embed", "head"),
    ),
    Case(
        "one array under two names in train",
        lambda: train([PARAMS["w"], PARAMS["w"]]),
        ConfigError,
        TIED.format("0", "1"),
    ),
    Case(
        "one array under two names, of which one is frozen",
        lambda: compress({"embed": PARAMS["w"], "w": PARAMS["w"]}, rules=[("w", swsjax.FROZEN)]),
        ConfigError,
        TIED.format("embed", "w"),
    ),
    Case(
        "identifiers of 64 bits",
        lambda: compress(PARAMS | {"ids": np.array([1, 2**40])}),
        ConfigError,
        "ids in params holds 1099511627776, which does not fit JAX's int32; scale it, leave it "
        "out, or set jax_enable_x64",
    ),
    Case(
        "a frozen array out of the range of float32",
        lambda: compress(PARAMS | {"most": np.array([1e300])}, rules=[("most", swsjax.FROZEN)]),
        ConfigError,
        "most in params holds 1e+300, which does not fit JAX's float32; scale it, leave it out, or "
        "set jax_enable_x64",
    ),
    Case(
        "a masked array among the weights",
        lambda: compress({"w": np.ma.masked_less(PARAMS["w"], 0)}),
        ConfigError,
        MASKED.format("w in params"),
    ),
    Case(
        "weights of eight bits",
        lambda: compress({"w": jnp.asarray(PARAMS["w"], jnp.float8_e4m3fn)}),
        ConfigError,
        NOTHING + "leaves of type float8_e4m3fn",
    ),
    Case(
        "text as aux",
        lambda: compress(aux={"mode": "train"}),
        ConfigError,
        "aux must hold arrays, got mode of type str",
    ),
    Case(
        "text as aux in train",
        lambda: train(aux={"mode": "train"}),
        ConfigError,
        "aux must hold arrays, got mode of type str",
    ),
    Case(
        "an NNX module with statistics in train",
        lambda: train(nnx.BatchNorm(3, rngs=nnx.Rngs(0))),
        ConfigError,
        "params hold mean, a BatchStat of Flax NNX, which would be trained; split the module by "
        "nnx.split(module, nnx.Param, ...), and pass the other state as aux",
    ),
    Case(
        "an NNX module with aux",
        lambda: take_apart(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), {"mean": jnp.ones(2)}),
        ConfigError,
        "aux is passed with an NNX module, which carries its own variables; store it in one",
    ),
]

SELECTION = [
    Case(
        "a typo in a pattern",
        lambda: swsjax.select({"fc1": PARAMS}, [("fc1/v", None)]),
        ConfigError,
        "rule 'fc1/v' matches no leaf; did you mean one of: fc1/w?",
    ),
    Case(
        "a rule after one that matches every leaf",
        lambda: compress(rules=[("*", "all"), ("w", None)]),
        ConfigError,
        "rule 'w' decides nothing: earlier rules match everything it matches; move it before them "
        "or leave it out",
    ),
    Case(
        "a dictionary of rules",
        lambda: compress(rules={"w": None}),
        ConfigError,
        RULES + "{'w': None}",
    ),
    Case(
        "a rule that is not a pair",
        lambda: compress(rules=["w"]),
        ConfigError,
        RULES + "['w']",
    ),
    Case(
        "a rule for integers",
        lambda: compress(PARAMS | {"mask": np.arange(3)}, rules=[("mask", None)]),
        ConfigError,
        "rule 'mask' maps to None, but mask of type int64 cannot be trained; expected a floating "
        "array of 16 bits or more, or FROZEN",
    ),
    Case(
        "a rule for weights and complex numbers",
        lambda: compress(PARAMS | {"c": np.ones(3, complex)}, rules=[("[cw]", "all")]),
        ConfigError,
        "rule '[cw]' maps to 'all', but c of type complex128 cannot be trained; expected a "
        "floating array of 16 bits or more, or FROZEN for it before '[cw]'",
    ),
    Case(
        "FROZEN as text",
        lambda: compress(rules=[("w", "frozen")]),
        ConfigError,
        "rule 'w' maps to 'frozen', which would be the name of a group; expected swsjax.FROZEN or "
        "None, without quotes",
    ),
    Case(
        "a number in place of a group",
        lambda: compress(rules=[("w", 1)]),
        ConfigError,
        "rule 'w' maps to 1; expected the name of a group, None or FROZEN",
    ),
    Case(
        "nothing in a group",
        lambda: compress(rules=[("*", None)]),
        ConfigError,
        NOTHING + "leaves of type float32, none in a group",
    ),
]

DATA_SETS = [
    Case("no data", lambda: compress(data={}), ConfigError, AXES + "no arrays"),
    Case(
        "data of length zero",
        lambda: compress(data={name: x[:0] for name, x in DATA.items()}),
        ConfigError,
        "data hold 0 examples, fewer than a batch of 50; set a smaller batch_size",
    ),
    Case(
        "a batch larger than the data",
        lambda: compress(config=swsjax.Config(batch_size=256)),
        ConfigError,
        "data hold 200 examples, fewer than a batch of 256; set a smaller batch_size",
    ),
    Case(
        "unequal lengths",
        lambda: compress(data=DATA | {"labels": DATA["labels"][1:]}),
        ConfigError,
        AXES + "first axes {'inputs': (200,), 'labels': (199,)}",
    ),
    Case(
        "labels in a list",
        lambda: compress(data=DATA | {"labels": DATA["labels"].tolist()}),
        ConfigError,
        AXES + "first axes {'inputs': (200,), 'labels/0': ()}",
    ),
    Case(
        "text as labels",
        lambda: compress(data=DATA | {"labels": DATA["labels"].astype(str)}),
        ConfigError,
        "data must hold numbers, got labels of type <U21",
    ),
    Case(
        "a masked array as inputs",
        lambda: compress(data=DATA | {"inputs": np.ma.masked_less(DATA["inputs"], 0)}),
        ConfigError,
        MASKED.format("inputs in data"),
    ),
    Case(
        "labels of a floating type",
        lambda: compress(data=DATA | {"labels": np.float32(DATA["labels"])}),
        ConfigError,
        LABELS + " (50, 3); got float32 of shape (50,)",
    ),
    Case(
        "one-hot labels",
        lambda: compress(data=DATA | {"labels": np.eye(3, dtype=int)[DATA["labels"]]}),
        ConfigError,
        LABELS + " (50, 3); got int32 of shape (50, 3); take argmax(-1) of one-hot labels",
    ),
    Case(
        "labels in a column",
        lambda: swsjax.error_rate(apply, PARAMS, DATA["inputs"][:50], DATA["labels"][:50, None]),
        ConfigError,
        LABELS + " (50, 3); got int32 of shape (50, 1)",
    ),
    Case(
        "NaN in the data",
        lambda: swsjax.pretrain(PARAMS, LOSS, DATA | {"inputs": np.full((200, 4), np.nan)}),
        RetrainingError,
        "the loss is nan after epoch 1 of 40; lower the learning rate, or check that all data are "
        "finite and all labels in range",
    ),
    Case(
        "a test set of length zero",
        lambda: swsjax.error_rate(apply, PARAMS, DATA["inputs"][:0], DATA["labels"][:0]),
        ConfigError,
        "inputs hold no examples",
    ),
    Case(
        "no inputs for the teacher",
        lambda: swsjax.with_teacher({"images": DATA["inputs"]}, apply, PARAMS),
        ConfigError,
        "data must have \"inputs\" for the teacher, got ['images']",
    ),
]

STREAMS = [
    Case(
        "a stream that produces its batches once",
        lambda: compress(data=swsjax.Stream(200, lambda number: iter(()))),
        ConfigError,
        "the stream produced no batches; batches(number) must start afresh in every pass",
    ),
    Case(
        "batches in place of a function",
        lambda: compress(data=swsjax.Stream(200, [DATA])),
        ConfigError,
        "Stream.size must be the number of examples, and Stream.batches a function from the number "
        "of a pass to its batches; got values of type int and list",
    ),
    Case(
        "a stream with batches of a different size",
        lambda: compress(data=swsjax.stream_arrays(DATA, batch_size=40)),
        ConfigError,
        "batch 1 of the stream has first axes {'inputs': (40,)}, expected 50 examples; set "
        "batch_size, and leave out an incomplete batch",
    ),
    Case(
        "a stream with fewer batches than its size",
        lambda: compress(data=swsjax.stream_arrays(DATA, batch_size=50)._replace(size=400)),
        ConfigError,
        "the stream produced 4 batches of 50, but its size, 400, makes 8; set its size to the "
        "number of examples in a pass",
    ),
]

LOSSES = [
    Case(
        "a loss of each example in pretrain",
        lambda: swsjax.pretrain(PARAMS, per_example, DATA),
        ConfigError,
        "loss_fn must return a scalar, got an array of shape (128,); take the mean over the batch",
    ),
    Case(
        "a temperature below 1",
        lambda: swsjax.distillation(apply, temperature=0.5),
        ConfigError,
        "temperature must be at least 1, got 0.5",
    ),
    Case(
        "a weight of the teacher in per cent",
        lambda: swsjax.output_matching(apply, teacher_weight=50),
        ConfigError,
        "teacher_weight must lie in [0, 1], got 50",
    ),
    Case(
        "a net of two heads",
        lambda: train(loss=swsjax.cross_entropy(lambda params, x: [apply(params, x), x])),
        ConfigError,
        "apply must return one array, got a list of 0, 1; pass a function that returns one of them",
    ),
    Case(
        "a teacher of two heads",
        lambda: train(
            loss=swsjax.distillation(apply),
            data=swsjax.with_teacher(DATA, lambda params, x: (apply(params, x), x), PARAMS),
        ),
        ConfigError,
        "teacher in a batch must be one array of shape (50, 3), as the outputs of apply are, got a "
        "tuple of 0, 1",
    ),
    Case(
        "targets in a column for a net of three outputs",
        lambda: train(
            loss=swsjax.output_matching(apply, teacher_weight=0.5),
            data=swsjax.with_teacher(DATA, apply, PARAMS) | {"targets": DATA["inputs"][:, :1]},
        ),
        ConfigError,
        "targets in a batch must be one array of shape (50, 3), as the outputs of apply are, got "
        "shape (50, 1)",
    ),
    Case(
        "a loss without aux in train",
        lambda: train(loss=lambda params, aux, batch: LOSS(params, batch), aux=jnp.ones(2)),
        ConfigError,
        "loss_fn must return (scalar, aux) if aux is passed, got an array of shape ()",
    ),
    Case(
        "a loss with metrics in train",
        lambda: train(loss=lambda params, batch: (squared(params, batch), {})),
        ConfigError,
        "loss_fn must return a scalar, got a tuple; pass its state as aux",
    ),
]

TRAINING = [
    Case(
        "the settings of compress for pretrain",
        lambda: swsjax.pretrain(PARAMS, LOSS, DATA, QUICK),
        ConfigError,
        "config must be a PretrainConfig, got a Config",
    ),
    Case(
        "half an epoch of pretraining",
        lambda: swsjax.PretrainConfig(epochs=0.5),
        ConfigError,
        "epochs must be an integer, got 0.5",
    ),
    Case(
        "a negative learning rate",
        lambda: swsjax.PretrainConfig(learning_rate=-0.1),
        ConfigError,
        "learning_rate must be finite and not negative, got -0.1",
    ),
    Case(
        "no epoch of training",
        lambda: train(epochs=0),
        ConfigError,
        "epochs must be an integer of at least 1, got 0",
    ),
    Case(
        "True epochs of training",
        lambda: train(epochs=True),
        ConfigError,
        "epochs must be an integer of at least 1, got True",
    ),
    Case(
        "half a seed",
        lambda: train(seed=0.5),
        ConfigError,
        "seed must be an integer, got 0.5",
    ),
    Case(
        "a seed of 70 bits",
        lambda: train(seed=2**70),
        ConfigError,
        "seed must be an integer from -9223372036854775808 to 9223372036854775807, got "
        "1180591620717411303424",
    ),
    Case(
        "a seed of 70 bits in settings",
        lambda: swsjax.Config(seed=2**70),
        ConfigError,
        "seed must be an integer from -9223372036854775808 to 9223372036854775807, got "
        "1180591620717411303424",
    ),
    Case(
        "no example in a batch",
        lambda: train(batch_size=0),
        ConfigError,
        "batch_size must be an integer of at least 1, got 0",
    ),
    Case(
        "a learning rate as optimizer",
        lambda: train(optimizer=0.1),
        ConfigError,
        "optimizer must be an optax optimiser, got a float; optax.adam(learning_rate) is one",
    ),
    Case(
        "a schedule as optimizer",
        lambda: train(optimizer=optax.constant_schedule(0.1)),
        ConfigError,
        "optimizer must be an optax optimiser, got a function; optax.adam(learning_rate) is one",
    ),
    Case(
        "an optimiser in a chain that passes it what it does not take",
        lambda: train(
            optimizer=optax.chain(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)), optax.scale(2))
        ),
        ConfigError,
        f"the optimizer cannot make a step: {REASON}; optax.chain passes all arguments to each of "
        "its parts, so one that does not take them must be passed alone",
    ),
    Case(
        "data before the loss in train",
        lambda: train(loss=DATA, data=LOSS),
        ConfigError,
        "loss_fn must be a function, got a dict; train takes params, loss_fn and data in this "
        "order",
    ),
    Case(
        "a counter among the weights",
        lambda: train({"steps": jnp.array(3)}),
        ConfigError,
        "params must be floating arrays, got steps of type int32; leave it out",
    ),
    Case(
        "an error that is None",
        lambda: train(evaluate=lambda params: None),
        ConfigError,
        "evaluate must return a number, or one for each example, got None",
    ),
    Case(
        "devices as mesh",
        lambda: compress(mesh=jax.devices()),
        ConfigError,
        "mesh must be a jax.sharding.Mesh, got a list; Mesh(jax.devices(), ('data',)) is one",
    ),
    Case(
        "a mesh without an axis for the data",
        lambda: train(mesh=jax.sharding.Mesh(jax.devices()[:1], ("batch",))),
        ConfigError,
        "mesh has axes ('batch',); expected 'data', over which batches are divided, and optionally "
        "'model', over which weights are",
    ),
]

CASES = NETS + SELECTION + DATA_SETS + STREAMS + LOSSES + TRAINING
