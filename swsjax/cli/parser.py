"""The parser of the command line, and its exit codes.

It imports no other room, so that help, version, misuse and completion answer at once; the tests
compare the names below with those of the rooms.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import swsjax
from swsjax.cli.messages import in_words, one_line, short_warnings
from swsjax.cli.options import budget, number, path, share, size, sizes, whole

__all__ = [
    "BALANCED",
    "DATASETS",
    "FINISHERS",
    "LENETS",
    "METHODS",
    "MISSED",
    "MODELS",
    "SETTINGS",
    "USELESS",
    "main",
]

MODELS = ("lenet-300-100", "lenet-5-caffe", "resnet-8", "wrn-16-4")
"""Names of nets."""
LENETS = MODELS[:2]
"""Nets that have settings of their own, on MNIST."""
DATASETS = ("mnist", "fashion-mnist", "cifar10", "digits")
"""Names of data sets."""
SETTINGS = ("small-loss", "balanced", "smallest", "demo")
"""Names of the settings of a LeNet on MNIST, and that of the demo."""
METHODS = (
    *("random", "snip", "iter-snip", "force", "grasp"),
    *("magnitude", "magnitude-per-layer", "lottery"),
    *("l1-filters", "spectral", "nuclear", "frobenius", "thinet", "lasso"),
    *("slimming", "soft-filters", "structures"),
)
"""Names of the methods that prune."""
FINISHERS = ("fine-tune", "scratch", "rewind", "share")
"""Names of what may follow pruning."""
BALANCED = {
    "keep": "0.6; balanced: 0.5 for lenet-300-100, 0.7 for lenet-5-caffe",
    "tau": "found; balanced: 9.09e-07 for lenet-300-100, 1.82e-06 for lenet-5-caffe",
}
"""Defaults of two options, and their values in the balanced settings."""
USELESS = 3.0
"""Nets with more than this many times the error of the pretrained net are of no use: they are left
out of a search, and a run without a target that ends at one has missed."""
MISSED = 3
"""Exit code of a run whose net lost more than it should have."""
_LARGEST_SEED = 2**32 - 1
_MOST = 10_000  # steps, batches, epochs or levels; far more would not end
# The options of compress that the demo stands for; of those left out, the default.
_DEMO = {
    **{"model": "lenet-300-100", "data": "digits", "setting": "demo", "seed": 0},
    **dict.fromkeys(["pretrained", "config", "keep", "tau", "max_loss", "target_bytes", "budget"]),
}
_OF_FILES = ("compare", "evaluate", "inspect", "decode", "encode")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 failed, 2 misused, 3 done but the net lost more than its target, 130 interrupted.

    Args:
        arguments: of the command line; by default those of the process.

    >>> main(["decode", "no-such-file.sws", "--out", "net.safetensors"])  # says why on stderr
    1
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have characters that it lacks
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    _complete(parser)
    options = parser.parse_args(arguments)
    if options.command == "prune" and options.keep is None and options.method != "structures":
        options.misused("the following arguments are required: --keep")
    try:
        with short_warnings():
            code = _run(options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        advice = "" if options.command in _OF_FILES else "; the same command goes on from here"
        print(f"swsjax: interrupted{advice}", file=sys.stderr)
        return 130
    except Exception as error:
        if sys.flags.dev_mode:  # a user has no use for a traceback
            raise
        print(f"swsjax: error: {in_words(error)}", file=sys.stderr)
        if isinstance(error, BrokenPipeError):  # nor for a second one, when Python flushes
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(options: argparse.Namespace) -> int:
    # Imported here: with JAX, it takes seconds.
    modules = dict.fromkeys(_OF_FILES, "files") | {"prune": "pruning"}
    module = import_module(f"swsjax.cli.{modules.get(options.command, 'commands')}")
    run: Callable[[argparse.Namespace], int | None] = getattr(module, f"run_{options.command}")
    return run(options) or 0


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a command line may go on, and exit."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    argcomplete.autocomplete(parser)


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"swsjax: error: {one_line(message)}; see `{self.prog} --help`\n")


Command = Callable[[str, str], argparse.ArgumentParser]
"""Adds a command: from its name and its help to its parser."""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="swsjax", description="Make trained neural nets very small by soft weight-sharing."
    )
    parser.add_argument("--version", action="version", version=f"swsjax {swsjax.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return subparsers.add_parser(name, help=text, description=text)

    demo = command("demo", "pretrain on handwritten digits, compress, reload and report")
    demo.add_argument("--out", type=path, default=Path("swsjax-demo"), help="folder (%(default)s)")
    demo.set_defaults(**_DEMO)
    _add_training(command)
    _add_files(command)
    return parser


def _add_training(command: Command) -> None:
    pretrain = command("pretrain", "train a net in the ordinary way")
    compress = command("compress", "retrain, quantise and write a net")
    prune = command("prune", "prune, train what is left, and write a net")
    search = command("search", "try many settings: the front of error against bytes")
    prune.add_argument("method", choices=METHODS)
    for trained in (pretrain, compress, prune, search):
        trained.add_argument("model", choices=MODELS)
        trained.add_argument("--data", choices=DATASETS, required=True)
        trained.add_argument(
            "--seed", type=whole(0, _LARGEST_SEED), default=0, help="random seed (%(default)s)"
        )
        trained.add_argument("--out", type=path, required=True, help="folder to write to")
    for compressing in (compress, prune, search):
        compressing.add_argument(
            "--pretrained", type=path, help="checkpoint that pretrain wrote (default: pretrain now)"
        )
    for compressing in (compress, search):
        compressing.add_argument(
            "--setting",
            choices=SETTINGS,
            help="settings that were chosen for a LeNet on MNIST, from a small error to a small "
            "file; demo: for lenet-300-100 on digits "
            + (
                "(default: balanced, or demo, if made for net and data)"
                if compressing is search
                else "(default: one for every net)"
            ),
        )
    for with_targets in (compress, prune):
        _add_targets(with_targets)
    _add_compress(compress)
    _add_prune(prune)
    search.add_argument(
        "--trials", type=whole(1), default=40, help="number of trials in all (%(default)s)"
    )
    search.add_argument(
        "--max-error",
        type=_share_above_zero,
        metavar="SHARE",
        help="1%% or 0.01: nets with a larger error are left out "
        f"(default: {USELESS:g} times that of the pretrained net)",
    )
    search.add_argument(
        "--storage",
        type=_storage,
        help="file or database URL that all workers share (default: search.journal in the folder)",
    )


def _add_targets(compress: argparse.ArgumentParser) -> None:
    compress.add_argument(
        "--max-loss",
        type=share,
        metavar="SHARE",
        help="validation error that may be lost, 0.5%% or 0.005: ends at the smallest file within "
        "(default: half a percent of what training gained)",
    )
    compress.add_argument(
        "--target-bytes",
        type=sizes,
        metavar="BYTES",
        help="size of the file, 100k or 100000: ends at the best net within; several as 100k,50k",
    )
    compress.add_argument(
        "--budget",
        type=budget,
        metavar="STEPS",
        help="steps to take in all, 20k or 20000, or the time, 10min or 2h, on the way to a target "
        "(default: as many steps as the settings make, printed before the first)",
    )


def _add_compress(compress: argparse.ArgumentParser) -> None:
    compress.add_argument(
        "--config",
        type=path,
        help="JSON file of settings to use instead, such as a trial-N.json written by search",
    )
    compress.add_argument(
        "--keep",
        type=number,
        help="fraction of the weights that pruning keeps: the smaller, the smaller the file and "
        f"the larger the error; 1 prunes nothing ({BALANCED['keep']})",
    )
    compress.add_argument(
        "--tau",
        type=number,
        help=f"weight of the prior, for a run without a target (default: {BALANCED['tau']})",
    )


def _add_prune(prune: argparse.ArgumentParser) -> None:
    prune.add_argument(
        "--keep",
        type=_share_above_zero,
        metavar="SHARE",
        help="share to keep, 5%% or 0.05: of all weights in kernels, or of the channels of each "
        "layer; for slimming, of all scales. structures takes --strength instead",
    )
    prune.add_argument(
        "--strength",
        type=_not_negative,
        metavar="X",
        help="of the penalty on scales, for slimming (1e-4) and structures (0.01)",
    )
    prune.add_argument(
        "--finish",
        choices=FINISHERS,
        help="what trains the weights that are left of a trained net (default: fine-tune); share: "
        "soft weight-sharing after that, for any method, towards the targets above",
    )
    prune.set_defaults(misused=prune.error)
    helps = {
        "steps": "of iter-snip and force (60), or rounds of lottery (1)",
        "batches": "of each gradient of snip, iter-snip, force and grasp (1)",
        "epochs": "of the training after pruning (default: 40 of fine-tune, otherwise those of the "
        "pretraining)",
        "levels": "then make a codebook of so many values for each array, and tune it",
    }
    for name, text in helps.items():
        prune.add_argument(f"--{name}", type=whole(1, _MOST), metavar="N", help=text)


def _add_files(command: Command) -> None:
    compare = command("compare", "measure several files side by side")
    evaluate = command("evaluate", "measure the test error of a file")
    inspect = command("inspect", "show what a file holds and what it costs")
    decode = command("decode", "write the weights of a file as safetensors")
    encode = command("encode", "compress a pruned or quantised safetensors file losslessly")
    compare.add_argument("files", type=path, nargs="+", metavar="file")
    compare.add_argument(
        "--data", choices=DATASETS, help="measure the test error of each file on this, too"
    )
    for reader in (evaluate, inspect, decode):
        reader.add_argument("file", type=path)
    for reader in (compare, evaluate, inspect, decode):
        reader.add_argument(
            "--max-bytes",
            type=size,
            metavar="BYTES",
            help="refuse a file whose decoded weights take more, such as 8G (default: 4 GiB)",
        )
    encode.add_argument("file", type=path, help="safetensors file")
    encode.add_argument(
        "--drop-negative-zeros",
        action="store_true",
        help="write -0.0 as 0.0, which computes the same and takes fewer bytes",
    )
    evaluate.add_argument("--data", choices=DATASETS, required=True)
    for paged in (compare, inspect):
        paged.add_argument("--html", type=path, help="also write the report to this web page")
    for writer in (decode, encode):
        writer.add_argument("--out", type=path, required=True, help="file to write")
    for reader in (compare, evaluate, inspect, encode):
        reader.add_argument("--json", action="store_true", help="print JSON instead of text")


def _share_above_zero(text: str) -> float:
    value = share(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a share over 0, got {text!r}")
    return value


def _not_negative(text: str) -> float:
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def _storage(text: str) -> str:
    path(text)
    return text
