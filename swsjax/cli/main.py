"""The command line: a thin layer over the Python API."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from swsjax.cli import commands
from swsjax.errors import SwsjaxError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted.

    Args:
        arguments: of the command line; those of the process by default.

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
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"swsjax: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="swsjax", description="Make trained networks very small by soft weight-sharing."
    )
    parser.add_argument("--version", action="version", version=f"swsjax {version('swsjax')}")
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

    pretrain = command(commands.run_pretrain, "pretrain", "train a network in the ordinary way")
    compress = command(commands.run_compress, "compress", "retrain, quantise and write a network")
    search = command(
        commands.run_search, "search", "try many settings: the front of error against bytes"
    )
    for trained in (pretrain, compress, search):
        trained.add_argument("model", choices=commands.MODELS)
        trained.add_argument("--data", choices=commands.DATASETS, required=True)
        trained.add_argument("--seed", type=int, default=0, help="random seed (%(default)s)")
        trained.add_argument("--out", type=Path, required=True, help="folder to write to")
    for compressing in (compress, search):
        compressing.add_argument(
            "--checkpoint", type=Path, help="what pretrain wrote; else it pretrains"
        )
        compressing.add_argument(
            "--setting",
            choices=commands.RECIPES["lenet-300-100"].by_name(),
            default="balanced",
            help="from a small error to a small file (%(default)s)",
        )
    compress.add_argument(
        "--config",
        type=Path,
        help="settings in place of those, such as the trial-N.json that search writes",
    )
    search.add_argument(
        "--trials", type=int, default=40, help="how many there are to be in all (%(default)s)"
    )
    search.add_argument(
        "--max-error",
        type=float,
        help="from 0 to 1: nets with more are left out "
        f"({commands.USELESS:g} times the pretrained net's)",
    )
    search.add_argument(
        "--storage",
        help="file, or URL of a database, that all workers share (search.journal in the folder)",
    )
    compress.add_argument(
        "--kept",
        type=float,
        help="share of the weights that pruning leaves: smaller file, larger error the smaller "
        f"it is; 1 prunes nothing ({_balanced('kept')})",
    )
    compress.add_argument(
        "--tau",
        type=float,
        help=f"weight of the prior on the loss ({_balanced('tau')})",
    )

    evaluate = command(commands.run_evaluate, "evaluate", "measure the test error of a file")
    evaluate.add_argument("file", type=Path)
    evaluate.add_argument("--data", choices=commands.DATASETS, required=True)
    inspect = command(commands.run_inspect, "inspect", "show what a file holds and what it costs")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--html", type=Path, help="web page to write the report to, too")

    decode = command(commands.run_decode, "decode", "write a file's weights as safetensors")
    decode.add_argument("file", type=Path)
    encode = command(
        commands.run_encode, "encode", "write a pruned or quantised safetensors file small"
    )
    encode.add_argument("file", type=Path, help="safetensors file")
    for writer in (decode, encode):
        writer.add_argument("--out", type=Path, required=True, help="file to write")

    for reader in (evaluate, inspect, encode):
        reader.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


def _balanced(name: str) -> str:
    """What the balanced recipes of the networks set."""
    return "balanced: " + ", ".join(
        f"{getattr(settings.balanced.config, name)} for {network}"
        for network, settings in commands.RECIPES.items()
    )
