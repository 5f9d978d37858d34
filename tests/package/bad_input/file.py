"""Bad input to files, the codec, safetensors and checkpoints."""

import jax.numpy as jnp
import numpy as np

import swsjax
from bad_input.case import KEY, PARAMS, REASON, ROUND, Case, apply, saved, under_a_file, write
from swsjax.errors import CheckpointError, ConfigError, FormatError, WrongTypeError
from swsjax.file import load_checkpoint, save_checkpoint

MISFIT = "the file does not fit the tree given: "


def as_safetensors(tree, name="net"):
    swsjax.to_safetensors(tree, name)
    return name


WRITING = [
    Case(
        "the tree before the path",
        lambda: swsjax.save(PARAMS, "net.sws"),
        WrongTypeError,
        "expected a path, got a dict; save takes the path first and then the tree",
    ),
    Case(
        "the path before the tree, for safetensors",
        lambda: swsjax.to_safetensors("net.safetensors", PARAMS),
        WrongTypeError,
        "expected a path, got a dict; to_safetensors takes the tree first and then the path",
    ),
    Case(
        "a function in the tree",
        lambda: saved(tree=ROUND | {"activation": apply}),
        WrongTypeError,
        "leaf activation is a function, not an array; leave it out",
    ),
    Case(
        "a number in the tree",
        lambda: saved(tree=ROUND | {"steps": 3}),
        WrongTypeError,
        "leaf steps is a int, not an array; use numpy.asarray",
    ),
    Case(
        "a random key in the tree",
        lambda: saved(tree=ROUND | {"key": KEY}),
        WrongTypeError,
        "leaf key is a random key; leave it out or give jax.random.key_data(key)",
    ),
    Case(
        "an unknown encoding",
        lambda: saved(encoding="huffman"),
        ConfigError,
        "encoding 'huffman' is not one of entropy, han, han-huffman",
    ),
    Case(
        "metadata that JSON does not know",
        lambda: saved(metadata={"error": jnp.ones(())}),
        WrongTypeError,
        "the metadata is not JSON: Object of type ArrayImpl is not JSON serializable",
    ),
    Case(
        "text as metadata",
        lambda: saved(metadata="toy"),
        WrongTypeError,
        "metadata must be a dictionary, got a str",
    ),
    Case(
        "a path that cannot be written",
        lambda: saved(under_a_file("net.sws")),
        NotADirectoryError,
        "[Errno 20] Not a directory: 'file/net.sws'",
    ),
    Case(
        "a folder that is missing",
        lambda: saved("runs/net.sws"),
        FileNotFoundError,
        "[Errno 2] No such file or directory: 'runs/net.sws'",
    ),
]

READING = [
    Case(
        "bytes to load",
        lambda: swsjax.load(swsjax.dumps(PARAMS)),
        WrongTypeError,
        "expected a path, got a bytes; loads takes bytes",
    ),
    Case(
        "a folder in place of a file",
        lambda: swsjax.load("."),
        IsADirectoryError,
        "[Errno 21] Is a directory: '.'",
    ),
    Case(
        "an empty file",
        lambda: swsjax.load(write("net.sws")),
        FormatError,
        "net.sws is not an .sws file: it starts with b'', not b'sws'",
    ),
    Case(
        "a file cut off",
        lambda: swsjax.load(write("net.sws", swsjax.dumps(ROUND)[:5])),
        FormatError,
        "net.sws: file has 5 bytes, expected at least 9: it is cut off",
    ),
    Case(
        "a file of a different format",
        lambda: swsjax.load(write("net.npz", b"PK\x03\x04")),
        FormatError,
        "net.npz is not an .sws file: it starts with b'PK\\x03\\x04', not b'sws'",
    ),
    Case(
        "a file larger than allowed",
        lambda: swsjax.load(saved(), max_bytes=40),
        FormatError,
        "net.sws: leaf ('w',) at byte 6 brings the arrays to 48 bytes, over the limit of 40; give "
        "a larger max_bytes if you trust the file",
    ),
    Case(
        "a net of a different shape",
        lambda: swsjax.load(saved(), like={"w": np.zeros((3, 4), np.float32)}),
        ConfigError,
        MISFIT + "w is float32[4, 3] in the file, float32[3, 4] expected",
    ),
    Case(
        "a net of a different structure",
        lambda: swsjax.load(saved(), like=[ROUND["w"]]),
        ConfigError,
        MISFIT + "0 is not in the file; w is in the file but not expected",
    ),
    Case(
        "a kernel of PyTorch as it is",
        lambda: swsjax.from_safetensors(
            as_safetensors({"fc.weight": ROUND["w"].T}), ROUND, sources={"w": "fc.weight"}
        ),
        ConfigError,
        "net does not fit the tree given: w, from fc.weight, is float32[3, 4] in the file, "
        'expected float32[4, 3] (try ("fc.weight", flax_kernel))',
    ),
    Case(
        "a name in place of a list",
        lambda: swsjax.from_safetensors("net", ROUND, unused="fc.steps"),
        WrongTypeError,
        "unused must be a list of names, got 'fc.steps'",
    ),
    Case(
        "sources without a tree",
        lambda: swsjax.from_safetensors(as_safetensors(ROUND), sources={"w": "fc.weight"}),
        ConfigError,
        "sources and unused refer to leaves of like; pass like too",
    ),
    Case(
        "an .sws file as safetensors",
        lambda: swsjax.from_safetensors(saved()),
        FormatError,
        f"net.sws is not a valid safetensors file: {REASON}",
    ),
]

CHECKPOINTS = [
    Case(
        "a checkpoint under a file",
        lambda: save_checkpoint(under_a_file("net/checkpoint"), PARAMS),
        NotADirectoryError,
        "[Errno 20] Not a directory: 'file/net'",
    ),
    Case(
        "no checkpoint",
        lambda: load_checkpoint("none", PARAMS),
        CheckpointError,
        "none is not an Orbax checkpoint; give the folder that `swsjax pretrain` or Orbax's "
        "StandardCheckpointer wrote",
    ),
    Case(
        "a checkpoint of a different net",
        lambda: (save_checkpoint("net", PARAMS), load_checkpoint("net", {"w": np.ones(3)})),
        CheckpointError,
        "the checkpoint net is of a different net: w has shape (4, 3), expected (3,)",
    ),
]

CASES = WRITING + READING + CHECKPOINTS
