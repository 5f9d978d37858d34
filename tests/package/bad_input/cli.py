"""Bad input to the command line."""

from itertools import product

import numpy as np

import swsjax
from bad_input.case import REASON, Command, saved, under_a_file, write

COMPRESS = "compress lenet-300-100 --data digits --out small "
NOT_A_CHECKPOINT = (
    "net.sws is not an Orbax checkpoint; give the folder that `swsjax pretrain` or Orbax's "
    "StandardCheckpointer wrote"
)
LEAVES = product((1, 2, 3), ("bias", "kernel"))
SETTINGS = ", ".join(map(repr, swsjax.Config().to_dict()))


def write_files():
    """The files that the commands refer to."""
    saved()
    saved("named.sws", metadata={"model": "lenet-300-100"})
    saved("complex.sws", {"w": np.zeros(3, np.complex128)})
    write("damaged.sws", b"sws\x01\x00ab\x00\x00\x00\x00")
    write("text.json", b"tau = 0.1")
    write("typo.json", b'{"tua": 0.1}')
    under_a_file("net.sws")


FILES = [
    Command(
        "a missing file",
        "inspect none.sws",
        1,
        "[Errno 2] No such file or directory: 'none.sws'",
    ),
    Command("a folder", "inspect .", 1, "[Errno 21] Is a directory: '.'"),
    Command(
        "a damaged file",
        "inspect damaged.sws",
        1,
        "checksum at byte 7 is 00000000, expected 8f5f8f59: the file is damaged or cut off",
    ),
    Command(
        "a path that cannot be written",
        "decode net.sws --out file/net.safetensors",
        1,
        "[Errno 20] Not a directory: 'file/net.safetensors'",
    ),
    Command(
        "a type that safetensors does not have",
        "decode complex.sws --out net.safetensors",
        1,
        "complex.sws cannot be written as safetensors: leaf w is of type complex128; safetensors "
        f"supports {REASON}",
    ),
    Command(
        "an .sws file to encode",
        "encode net.sws --out small.sws",
        1,
        f"net.sws is not a valid safetensors file: {REASON}",
    ),
    Command(
        "a file without a model",
        "evaluate net.sws --data digits",
        1,
        "net.sws does not name its model; expected one of lenet-300-100, lenet-5-caffe, resnet-8, "
        "wrn-16-4 in its metadata",
    ),
    Command(
        "a file that is not of the model it names",
        "evaluate named.sws --data digits",
        1,
        "named.sws does not fit lenet-300-100 on digits: the file does not fit the tree given: "
        + "; ".join(f"fc{layer}/{leaf} is not in the file" for layer, leaf in LEAVES)
        + "; w is in the file but not expected",
    ),
]

OPTIONS = [
    Command("a file as checkpoint", COMPRESS + "--pretrained net.sws", 1, NOT_A_CHECKPOINT),
    Command(
        "a file in place of the folder",
        "compress lenet-300-100 --data digits --out file",
        1,
        "[Errno 17] File exists: 'file'",
    ),
    Command("a file for the demo", "demo --out file", 1, "[Errno 17] File exists: 'file'"),
    Command("a negative tau", COMPRESS + "--tau -1", 1, "tau must be positive, got -1.0"),
    Command(
        "a share that is none",
        COMPRESS + "--max-loss little",
        2,
        "argument --max-loss: expected 0.5% or 0.005, got 'little'; see `swsjax compress --help`",
    ),
    Command(
        "a size that is none",
        COMPRESS + "--target-bytes 100kB",
        2,
        "argument --target-bytes: expected 100k, 100000 or several as 100k,50k, got '100kB'; see "
        "`swsjax compress --help`",
    ),
    Command(
        "text as tau",
        COMPRESS + "--tau much",
        2,
        "argument --tau: invalid float value: 'much'; see `swsjax compress --help`",
    ),
    Command(
        "--keep with a setting that prunes nothing",
        COMPRESS + "--setting small-loss --keep 0.5",
        1,
        "--keep has no effect with --setting small-loss, which prunes nothing; choose another "
        "setting",
    ),
    Command(
        "--keep above 1",
        COMPRESS + "--keep 50",
        1,
        "keep must be over 0 and at most 1, got 50.0",
    ),
    Command(
        "settings that are not JSON",
        COMPRESS + "--config text.json",
        1,
        "text.json holds no settings of compress: Expecting value: line 1 column 1 (char 0)",
    ),
    Command(
        "a typo in the settings",
        COMPRESS + "--config typo.json",
        1,
        "typo.json holds no settings of compress: Config has no setting 'tua'; it has " + SETTINGS,
    ),
    Command(
        "images too small for the net",
        "compress lenet-5-caffe --data digits --out small",
        1,
        "LeNet-5 needs images of at least 16 x 16 pixels, got (8, 8)",
    ),
    Command(
        "an unknown net",
        "pretrain resnet --data digits --out net",
        2,
        f"argument model: invalid choice: 'resnet' ({REASON}); see `swsjax pretrain --help`",
    ),
    Command(
        "no file",
        "inspect",
        2,
        "the following arguments are required: file; see `swsjax inspect --help`",
    ),
    Command(
        "no command",
        "",
        2,
        "the following arguments are required: COMMAND; see `swsjax --help`",
    ),
]

COMMANDS = FILES + OPTIONS
