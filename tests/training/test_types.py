"""Arrays of types that JAX does not hold, and integers: converted without loss, or refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swsjax.codec.header import DTYPES
from swsjax.errors import ConfigError
from swsjax.file.files import dumps
from swsjax.sws.prior import HyperPriors, init_mixture
from swsjax.sws.quantizing import codebook, non_zeros, quantize
from swsjax.sws.rates import LearningRates
from swsjax.sws.step import init, make_step, soft
from swsjax.sws.walk import stored_bytes
from swsjax.training.augment import crop_and_flip
from swsjax.training.loop import train
from swsjax.training.losses import error_rate, logits_of, with_teacher
from swsjax.training.masks import keep_top
from swsjax.training.net import take_apart
from swsjax.training.pretraining import PretrainConfig, pretrain
from swsjax.training.selection import select
from swsjax.training.stream import Stream, stream_arrays

RNG = np.random.default_rng(0)
X = np.float32(RNG.normal(size=(40, 4)))
DATA = {"x": X, "y": np.float32(RNG.normal(size=(40, 3)))}
PARAMS = {"w": np.float32(RNG.normal(size=(4, 3)))}


def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def with_aux(params, aux, batch):
    return loss(params, batch) + 0 * aux["scale"].sum(), aux


def apply(params, inputs):
    return inputs @ params["w"]


def trained(params=PARAMS, data=DATA, loss=loss, optimizer=optax.sgd(0.1), **options):  # noqa: B008
    options = {"epochs": 1, "batch_size": 20} | options
    return train(params, loss, data, optimizer, **options)


def stepped(params, aux=None):
    """The loss of a net taken apart."""
    net = take_apart(params, aux)
    return net.loss(loss if aux is None else with_aux)(net.weights, net.carried, DATA)[0]


def batch_by_batch(data):
    def batches(number):
        for part in (slice(20), slice(20, 40)):
            yield jax.tree.map(lambda array, part=part: array[part], data)

    return Stream(40, batches)


USES = {
    "train, params": lambda x: trained({"w": x[:4, :3]}).params,
    "train, data": lambda x: trained(data=DATA | {"x": x}).params,
    "train, stream_arrays": lambda x: (
        trained(data=stream_arrays(DATA | {"x": x}, batch_size=20)).params
    ),
    "train, Stream": lambda x: trained(data=batch_by_batch(DATA | {"x": x})).params,
    "train, aux": lambda x: trained(loss=with_aux, aux={"scale": x}).aux,
    "pretrain, data": lambda x: (
        pretrain(PARAMS, loss, DATA | {"x": x}, PretrainConfig(epochs=1, batch_size=20)).params
    ),
    "take_apart, weights": lambda x: stepped({"w": x[:4, :3]}),
    "take_apart, frozen": lambda x: (
        take_apart(PARAMS | {"frozen": x}, rules=[("frozen", None)]).weights
    ),
    "take_apart, aux": lambda x: stepped(PARAMS, {"scale": x}),
    "select": lambda x: select({"w": x}).leaves,
    "logits_of, params": lambda x: logits_of(apply, {"w": x[:4, :3]}, X),
    "logits_of, inputs": lambda x: logits_of(apply, PARAMS, x),
    "with_teacher": lambda x: with_teacher({"inputs": x}, apply, PARAMS)["teacher"],
}


@pytest.mark.parametrize("use", USES)
def test_the_order_of_bytes_does_not_matter(use):
    ours, expected = USES[use](X.astype(">f4")), USES[use](X)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(x, y)
        assert np.asarray(x).dtype == np.asarray(y).dtype


def test_labels_of_another_byte_order():
    labels = np.arange(40) % 3
    assert error_rate(apply, PARAMS, X, labels.astype(">i8")) == error_rate(
        apply, PARAMS, X, labels
    )


def subject_of(use):
    """What the message about the array of a use begins with."""
    match use.partition(", ")[::2]:
        case (_, "data" | "stream_arrays" | "Stream"):
            return "x in data"
        case (_, "aux"):
            return "scale in aux"
        case (_, "frozen"):
            return "frozen in params"
        case ("with_teacher", _) | (_, "inputs"):
            return "(the tree itself) in inputs"
    return "w in params"


@pytest.mark.parametrize("use", USES)
def test_a_mask_is_not_lost(use):
    message = (
        f"{subject_of(use)} is a masked array, whose mask would be lost; fill it, and if the mask "
        "is needed, pass it as an array of its own"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        USES[use](np.ma.masked_array(X, mask=X > 0))


@pytest.mark.parametrize("use", USES)
def test_a_type_wider_than_those_of_jax(use):
    wide = X.astype(np.longdouble)
    if wide.dtype.itemsize == 8:
        pytest.skip("long double is double here")
    message = (
        f"{subject_of(use)} is of type {wide.dtype}, which JAX does not have; convert it to a "
        "narrower one"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        USES[use](wide)


@pytest.mark.parametrize("use", USES)
def test_a_number_that_becomes_infinite(use):
    wide = X.astype(float)
    wide[0, 0] = -1e300
    message = (
        f"{subject_of(use)} holds -1e+300, which does not fit JAX's float32; scale it, leave it "
        "out, or set jax_enable_x64"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        USES[use](wide)


@pytest.mark.parametrize("use", ["data", "stream_arrays", "Stream", "aux"])
def test_an_integer_that_is_cut(use):
    ids = np.arange(40)
    ids[3] = 2**40
    name, use = subject_of(f"train, {use}"), USES[f"train, {use}"]
    message = f"{name} holds {2**40}, which does not fit JAX's int32; "
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        use(ids)


@pytest.mark.parametrize("use", [use for use in USES if use != "select"])
def test_floats_of_64_bits_are_rounded_without_a_word(use):
    ours, expected = USES[use](X.astype(float)), USES[use](X)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(x, y)


def test_a_net_with_an_identifier_of_64_bits():
    message = "ids in params holds 1099511627776, which does not fit JAX's int32; "
    net = PARAMS | {"ids": np.array([2**40, 1])}
    for use in (select, take_apart):
        with pytest.raises(ConfigError, match=f"^{message}"):
            use(net)
    assert non_zeros(net) == 12 + 2  # counted where they are
    # Constants that are not arrays stay in Python.
    net = PARAMS | {"id": 2**40, "most": 1e300}
    taken = take_apart(net)
    assert taken.rebuild(taken.weights, taken.carried)[0]["id"] == 2**40


MIXTURE = init_mixture(-1.0, 1.0)
OF_ARRAYS = {
    "keep_top": lambda x: keep_top({"w": x}, {"w": np.arange(12).reshape(4, 3)}, 5),
    "keep_top, scores": lambda x: keep_top(PARAMS, {"w": x}, 5),
    "non_zeros": lambda x: non_zeros({"w": x}),
    "codebook": lambda x: codebook({"w": x}),
    "quantize": lambda x: quantize(MIXTURE, {"w": x}),
}


@pytest.mark.parametrize("use", OF_ARRAYS)
def test_functions_of_arrays(use):
    call, plain = OF_ARRAYS[use], PARAMS["w"]
    for x, y in zip(*(jax.tree.leaves(call(w)) for w in (plain.astype(">f4"), plain)), strict=True):
        assert np.array_equal(x, y)
    masked = np.ma.masked_array(plain, mask=plain > 0)
    with pytest.raises(ConfigError, match=r"^w in .+ is a masked array, whose mask would be lost"):
        call(masked)
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(
            ConfigError, match=r"^w in .+, which JAX does not have; convert it to a"
        ):
            call(plain.astype(np.longdouble))


@pytest.mark.parametrize("dtype", [jnp.int4, jnp.uint4, jnp.float8_e4m3fn, bool, complex])
def test_the_bytes_of_a_net_with_any_type(dtype):
    """What a file cannot hold is not counted."""
    net = PARAMS | {"other": jnp.ones((3, 40), dtype)}
    counted = net if jnp.dtype(dtype).name in DTYPES else PARAMS
    assert stored_bytes(net, None) == len(dumps(counted))


NARROW = [jnp.float8_e4m3fn, jnp.float8_e5m2]


@pytest.mark.parametrize("dtype", NARROW)
def test_floats_of_eight_bits_are_not_weights(dtype):
    narrow = jnp.asarray(PARAMS["w"], dtype)
    leaves = select(PARAMS | {"scale": narrow}).leaves
    assert {leaf.name: str(leaf.group) for leaf in leaves} == {
        "scale": "Frozen.FROZEN",
        "w": "weights",
    }
    message = (
        f"rule 'scale' maps to 'scales', but scale of type {narrow.dtype} cannot be trained; "
        "expected a floating array of 16 bits or more, or FROZEN"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        select(PARAMS | {"scale": narrow}, [("scale", "scales")])
    message = (
        "params must be floating arrays of 16 bits or more, got w of type "
        f"{narrow.dtype}; convert it"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        trained({"w": narrow})


INTEGERS = {
    "train, epochs": (lambda n: trained(epochs=n).history, ("epochs", 1)),
    "train, batch_size": (lambda n: trained(batch_size=n).history, ("batch_size", 1)),
    "train, seed": (lambda n: trained(seed=n).params, ("seed", None)),
    "stream_arrays, batch_size": (
        lambda n: list(stream_arrays(X, batch_size=n).batches(0)),
        ("batch_size", 1),
    ),
    "stream_arrays, seed": (
        lambda n: list(stream_arrays(X, batch_size=20, seed=n).batches(0)),
        ("seed", 0),
    ),
    "PretrainConfig": (lambda n: PretrainConfig(epochs=n, batch_size=n, seed=n), ("epochs", None)),
    "logits_of": (lambda n: logits_of(apply, PARAMS, X, batch_size=n), ("batch_size", 1)),
    "crop_and_flip": (
        lambda n: crop_and_flip(jax.random.key(0), {"inputs": jnp.ones((2, 8, 8, 3))}, pad=n),
        ("pad", 0),
    ),
    "init_mixture": (lambda n: init_mixture(-1.0, 1.0, components=n), ("components", 1)),
}


@pytest.mark.parametrize("given", [np.int64(2), np.int32(2), np.uint8(2)])
@pytest.mark.parametrize("use", INTEGERS)
def test_integers_of_numpy_are_integers(use, given):
    call, _ = INTEGERS[use]
    ours, expected = call(given), call(2)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(x, y)


def test_settings_hold_integers_of_python():
    config = PretrainConfig(epochs=np.uint8(200), batch_size=np.int32(50))
    assert [type(number) for number in (config.epochs, config.batch_size)] == [int, int]


@pytest.mark.parametrize("given", [True, np.True_, 2.0, "2", None])
@pytest.mark.parametrize("use", INTEGERS)
def test_what_is_no_integer(use, given):
    call, (name, least) = INTEGERS[use]
    bound = "" if least is None else f" of at least {least}"
    message = f"{name} must be an integer{bound}, got {given!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        call(given)


@pytest.mark.parametrize("given", [2**63, 2**70, -(2**70)])
@pytest.mark.parametrize("use", INTEGERS)
def test_integers_of_more_than_64_bits(use, given):
    call, (name, least) = INTEGERS[use]
    bounds = f" from {-(2**63) if least is None else least} to {2**63 - 1}"
    if given < 0 and least is not None:
        bounds = f" of at least {least}"
    message = f"{name} must be an integer{bounds}, got {given}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        call(given)


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63)])
def test_the_largest_seeds(seed):
    assert np.isfinite(trained(seed=seed).params["w"]).all()


def test_nodes_that_are_integers_of_numpy():
    net = take_apart(PARAMS)
    optimizer = LearningRates().optimizer(1, 1)
    settings = {"forward": soft, "tau": 0.1, "hyper": HyperPriors()}
    state = init(net, {"weights": init_mixture(-1.0, 1.0)}, optimizer, jax.random.key(0))
    expected, *ours = (
        jax.jit(make_step(net.loss(loss), optimizer, nodes=nodes, **settings))(state, DATA)[1]
        for nodes in (64, np.int64(64), {"weights": np.int64(64)})
    )
    assert ours == [expected] * 2


@pytest.mark.parametrize("nodes", [True, 64.0, "many"])
def test_nodes_of_another_type(nodes):
    net, message = take_apart(PARAMS), "nodes must be an integer, or one for each mixture by name"
    with pytest.raises(ConfigError, match=f"^{message}, or None, got {nodes!r}$"):
        make_step(
            net.loss(loss),
            LearningRates().optimizer(1, 1),
            forward=soft,
            tau=0.1,
            hyper=HyperPriors(),
            nodes=nodes,
        )
