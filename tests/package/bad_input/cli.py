"""Bad input to the command line."""

import os
from itertools import product

import numpy as np

import swsjax
from bad_input import pruning
from bad_input.case import NOT_A_CHECKPOINT, REASON, Command, saved, under_a_file, write

COMPRESS = "compress lenet-300-100 --data digits --out small "
SEARCH = "search lenet-300-100 --data digits --out found "
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
    write("notes.txt", b"To do")
    write("deep.json", b'{"tau": ' + 100_000 * b"[" + 100_000 * b"]" + b"}")
    write("learned.json", b'{"annealing": null}')
    saved("listed.sws", metadata={"model": ["lenet-300-100"]})
    saved("clash.sws", {"a": {"b": np.zeros(3)}, "a/b": np.ones(3)})
    os.makedirs("taken/lenet-300-100.sws")
    os.makedirs("pictured/weights.png")
    os.makedirs("held")
    write("held/state")
    os.makedirs("used")
    write("used/checkpoint")
    under_a_file("net.sws")


FILES = [
    Command(
        "a missing file",
        "inspect none.sws",
        1,
        "none.sws does not exist",
    ),
    Command(
        "a file of a different kind",
        "inspect notes.txt",
        1,
        "notes.txt is not an .sws file: it starts with b'To d', not b'sws'",
    ),
    Command("a folder", "inspect .", 1, ". is a folder, not a file"),
    Command(
        "a damaged file",
        "inspect damaged.sws",
        1,
        "damaged.sws: checksum at byte 7 is 00000000, expected 8f5f8f59: the file is damaged or "
        "cut off",
    ),
    Command(
        "a path that cannot be written",
        "decode net.sws --out file/net.safetensors",
        1,
        "file/net.safetensors lies in a file, not in a folder",
    ),
    Command(
        "a type that safetensors does not have",
        "decode complex.sws --out net.safetensors",
        1,
        "complex.sws cannot be written as safetensors: leaf w is of type complex128; safetensors "
        f"supports {REASON}",
    ),
    Command(
        "two arrays with the same name",
        "decode clash.sws --out net.safetensors",
        1,
        "clash.sws cannot be written as safetensors: two arrays have the name a/b",
    ),
    Command(
        "a folder to write to as a file",
        "decode net.sws --out .",
        1,
        ". is a folder, not a file",
    ),
    Command(
        "a file in a folder that is missing",
        "encode net.safetensors --out none/net.sws",
        1,
        "none/net.sws cannot be written: the folder none does not exist",
    ),
    Command("the root to write to", "decode net.sws --out /", 1, "/ is a folder, not a file"),
    Command(
        "a device to write to",
        "decode net.sws --out /dev/null",
        1,
        "/dev/null cannot be used: Not a regular file",
    ),
    Command("a folder as a page", "inspect net.sws --html .", 1, ". is a folder, not a file"),
    Command(
        "a file that decodes to more than is allowed",
        "inspect net.sws --max-bytes 40",
        1,
        "net.sws: leaf ('w',) at byte 6 brings the arrays to 48 bytes, over the limit of 40; give "
        "a larger --max-bytes if you trust the file",
    ),
    Command(
        "no size",
        "decode net.sws --out net.safetensors --max-bytes 8T",
        2,
        "argument --max-bytes: expected 100k or 100000, got '8T'; see `swsjax decode --help`",
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
        "a list of models",
        "evaluate listed.sws --data digits",
        1,
        "listed.sws does not name its model; expected one of lenet-300-100, lenet-5-caffe, "
        "resnet-8, wrn-16-4 in its metadata",
    ),
    Command(
        "a file that is not of the model it names",
        "evaluate named.sws --data digits",
        1,
        "named.sws does not fit lenet-300-100 on digits: "
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
        "file is a file, not a folder",
    ),
    Command(
        "a folder in place of the file",
        "compress lenet-300-100 --data digits --out taken",
        1,
        "taken/lenet-300-100.sws is a folder, not a file",
    ),
    Command(
        "a folder in place of a figure",
        "compress lenet-300-100 --data digits --out pictured",
        1,
        "pictured/weights.png is a folder, not a file",
    ),
    Command(
        "a file in place of the state",
        "compress lenet-300-100 --data digits --out held",
        1,
        "held/state is a file, not a folder; move it away, or choose another --out",
    ),
    Command(
        "a file in place of the checkpoint",
        "pretrain lenet-300-100 --data digits --out used",
        1,
        "used/checkpoint is not an Orbax checkpoint and would be deleted; choose a new folder",
    ),
    Command(
        "a seed that JAX does not have",
        "pretrain lenet-300-100 --data digits --out net --seed 1180591620717411303424",
        2,
        "argument --seed: expected an integer from 0 to 4294967295, got '1180591620717411303424'; "
        "see `swsjax pretrain --help`",
    ),
    Command(
        "no trials",
        SEARCH + "--trials 0",
        2,
        "argument --trials: expected an integer of at least 1, got '0'; see `swsjax search --help`",
    ),
    Command(
        "fewer than no trials",
        SEARCH + "--trials -3",
        2,
        "argument --trials: expected an integer of at least 1, got '-3'; see `swsjax search "
        "--help`",
    ),
    Command(
        "no error allowed",
        SEARCH + "--max-error 0",
        2,
        "argument --max-error: expected a share over 0, got '0'; see `swsjax search --help`",
    ),
    Command(
        "a database without its driver",
        SEARCH + "--storage mysql://me:secret@host/name",
        1,
        "the database mysql://me:***@host/name needs a driver: No module named 'MySQLdb'",
    ),
    Command(
        "a file that is not of a search",
        SEARCH + "--storage notes.txt",
        1,
        "notes.txt is not the file of a search; choose another --storage or --out",
    ),
    Command("a file for the demo", "demo --out file", 1, "file is a file, not a folder"),
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
        "argument --tau: expected a number, got 'much'; see `swsjax compress --help`",
    ),
    Command(
        "--keep with a setting that prunes nothing",
        COMPRESS + "--setting demo --keep 0.5",
        1,
        "--keep has no effect with --setting demo, which prunes nothing; choose another setting",
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
        "settings that are nested too deeply",
        COMPRESS + "--config deep.json",
        1,
        "deep.json holds no settings of compress: it is nested too deeply",
    ),
    Command(
        "a file of a net as settings",
        COMPRESS + "--config damaged.sws",
        1,
        f"damaged.sws holds no settings of compress: {REASON}",
    ),
    Command(
        "learned precisions without tau",
        COMPRESS + "--config learned.json",
        1,
        "--config learned.json learns precisions and has no tau; give --tau",
    ),
    Command(
        "a target and tau",
        COMPRESS + "--tau 0.1 --max-loss 1%",
        1,
        "--tau makes one run with a given tau, which --max-loss and --target-bytes would find, "
        "within --budget; give only one of them",
    ),
    Command(
        "a target and a setting",
        COMPRESS + "--setting demo --target-bytes 10k",
        1,
        "--setting demo makes one run with a given tau, which --max-loss and --target-bytes would "
        "find, within --budget; give only one of them",
    ),
    Command(
        "a loss that is negative",
        COMPRESS + "--max-loss -1",
        2,
        "argument --max-loss: expected 0.5% or 0.005, got '-1'; see `swsjax compress --help`",
    ),
    Command(
        "an infinite size",
        COMPRESS + "--target-bytes inf",
        2,
        "argument --target-bytes: expected 100k, 100000 or several as 100k,50k, got 'inf'; see "
        "`swsjax compress --help`",
    ),
    Command(
        "a typo in the settings",
        COMPRESS + "--config typo.json",
        1,
        "typo.json holds no settings of compress: there is no setting 'tua'; it has " + SETTINGS,
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

COMMANDS = FILES + OPTIONS + pruning.COMMANDS
