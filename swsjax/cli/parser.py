"""The parser of the command line, and its exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from swsjax.cli import commands
from swsjax.errors import SwsjaxError
from swsjax.lab.nets import NETS
from swsjax.sws.config import Config
from swsjax.sws.recipes import RECIPES

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted.

    Args:
        arguments: of the command line; by default those of the process.

    >>> main(["decode", "no-such-file.sws", "--out", "net.safetensors"])  # says why on stderr
    1
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("swsjax: interrupted", file=sys.stderr)
        return 130
    except (SwsjaxError, OSError, ImportError) as error:
        message = " ".join(str(error).split())
        print(f"swsjax: error: {message}", file=sys.stderr)
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"swsjax: error: {message}; see `{self.prog} --help`\n")


Command = Callable[[Callable[[argparse.Namespace], None], str, str], argparse.ArgumentParser]
"""Adds a command: from what runs it, its name and its help to its parser."""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="swsjax", description="Make trained neural nets very small by soft weight-sharing."
    )
    installed = commands.versions()["swsjax"]
    parser.add_argument("--version", action="version", version=f"swsjax {installed}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        run: Callable[[argparse.Namespace], None], name: str, text: str
    ) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    demo = command(
        commands.run_demo, "demo", "pretrain on handwritten digits, compress, reload and report"
    )
    demo.add_argument("--out", type=Path, default=Path("swsjax-demo"), help="folder (%(default)s)")
    _add_training(command)
    _add_files(command)
    return parser


def _add_training(command: Command) -> None:
    pretrain = command(commands.run_pretrain, "pretrain", "train a net in the ordinary way")
    compress = command(commands.run_compress, "compress", "retrain, quantise and write a net")
    search = command(
        commands.run_search, "search", "try many settings: the front of error against bytes"
    )
    for trained in (pretrain, compress, search):
        trained.add_argument("model", choices=RECIPES if trained is search else NETS)
        trained.add_argument("--data", choices=commands.DATASETS, required=True)
        trained.add_argument("--seed", type=int, default=0, help="random seed (%(default)s)")
        trained.add_argument("--out", type=Path, required=True, help="folder to write to")
    for compressing in (compress, search):
        compressing.add_argument(
            "--pretrained", type=Path, help="checkpoint that pretrain wrote (default: pretrain now)"
        )
        compressing.add_argument(
            "--setting",
            choices=RECIPES["lenet-300-100"].by_name(),
            default="balanced" if compressing is search else None,
            help="settings that were chosen for a LeNet, from a small error to a small file "
            + ("(%(default)s)" if compressing is search else "(default: one for every net)"),
        )
    _add_compress(compress)
    search.add_argument(
        "--trials", type=int, default=40, help="number of trials in all (%(default)s)"
    )
    search.add_argument(
        "--max-error",
        type=float,
        help="from 0 to 1: nets with a larger error are left out "
        f"(default: {commands.USELESS:g} times that of the pretrained net)",
    )
    search.add_argument(
        "--storage",
        help="file or database URL that all workers share (default: search.journal in the folder)",
    )


def _add_compress(compress: argparse.ArgumentParser) -> None:
    compress.add_argument(
        "--max-loss",
        type=_share,
        metavar="SHARE",
        help="validation error that may be lost, 0.5%% or 0.005: ends at the smallest file within "
        "(default: half a percent of what training gained)",
    )
    compress.add_argument(
        "--target-bytes",
        type=_sizes,
        metavar="BYTES",
        help="size of the file, 100k or 100000: ends at the best net within; several as 100k,50k",
    )
    compress.add_argument(
        "--config",
        type=Path,
        help="JSON file of settings to use instead, such as a trial-N.json written by search",
    )
    compress.add_argument(
        "--keep",
        type=float,
        help="fraction of the weights that pruning keeps: the smaller, the smaller the file and "
        f"the larger the error; 1 prunes nothing ({Config().keep}; {_balanced('keep')})",
    )
    compress.add_argument(
        "--tau",
        type=float,
        help="weight of the prior, for a run without a target (default: found; "
        f"{_balanced('tau')})",
    )


def _add_files(command: Command) -> None:
    evaluate = command(commands.run_evaluate, "evaluate", "measure the test error of a file")
    evaluate.add_argument("file", type=Path)
    evaluate.add_argument("--data", choices=commands.DATASETS, required=True)
    inspect = command(commands.run_inspect, "inspect", "show what a file holds and what it costs")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--html", type=Path, help="also write the report to this web page")

    decode = command(commands.run_decode, "decode", "write the weights of a file as safetensors")
    decode.add_argument("file", type=Path)
    encode = command(
        commands.run_encode, "encode", "compress a pruned or quantised safetensors file losslessly"
    )
    encode.add_argument("file", type=Path, help="safetensors file")
    for writer in (decode, encode):
        writer.add_argument("--out", type=Path, required=True, help="file to write")

    for reader in (evaluate, inspect, encode):
        reader.add_argument("--json", action="store_true", help="print JSON instead of text")


def _balanced(name: str) -> str:
    """The values of the balanced recipes."""
    return "balanced: " + ", ".join(
        f"{getattr(settings.balanced.config, name):.3g} for {net}"
        for net, settings in RECIPES.items()
    )


def _share(text: str) -> float:
    """A share, with or without a percent sign."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected 0.5% or 0.005, got {text!r}") from None
    return number / 100 if text.endswith("%") else number


def _sizes(text: str) -> list[int]:
    """Numbers of bytes, with k or M, separated by commas."""
    factors = {"k": 1_000, "M": 1_000_000}
    try:
        return [
            round(float(one.rstrip("kM")) * factors.get(one[-1:], 1)) for one in text.split(",")
        ]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected 100k, 100000 or several as 100k,50k, got {text!r}"
        ) from None
