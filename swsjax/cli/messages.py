"""Errors and warnings as one line each, in the words of the command line."""

import errno
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from swsjax.errors import SwsjaxError

__all__ = ["for_users", "in_words", "one_line", "short_warnings"]

_REASONS = {
    errno.ENOENT: "does not exist",
    errno.EISDIR: "is a folder, not a file",
    errno.EEXIST: "is a file, not a folder",  # where a folder was to be made
    errno.ENOTDIR: "lies in a file, not in a folder",
    errno.EACCES: "cannot be opened: permission denied",
    errno.EPERM: "cannot be opened: permission denied",
}
# Words of Python and what they are on the command line.
_WORDS = {
    r"\blarger max_bytes\b": "larger --max-bytes",
    r"as (the argument )?`folder` or in SWSJAX_DATA": "in SWSJAX_DATA",
    r"\bevaluate returns (\S+) for the pretrained net and (\S+) for one of zeros, .*": (
        r"the pretrained net has a validation error of \1, one of zeros \2: train it better, or "
        "give --max-loss"
    ),
    r"\b(tau|components|keep)=(\S+)": r"\1 \2",
    r"\bConfig\.(\w+)": r"\1 (see --config)",
    r"\bsettings of \w+ must be a dictionary, got (.*)": r"expected an object of JSON, got \1",
    r"\b[A-Z]\w+ has no setting": "there is no setting",
    r"\. Move the leaf .*": "; from Python, a rule leaves them out",
    r", or move such arrays to a group of their own by a rule": "",
    r"\bchoose a different folder\b": "choose another --out",
    r"\b(c|C)hoose a different (name or )?storage\b": r"\1hoose another --storage or --out",
}


def in_words(error: Exception) -> str:
    """Return the message of an error as one line.

    >>> in_words(FileNotFoundError(errno.ENOENT, "No such file or directory", "net.sws"))
    'net.sws does not exist'
    >>> in_words(ZeroDivisionError("division by zero"))
    'unexpected ZeroDivisionError: division by zero; `python -X dev -m swsjax` shows where'
    """
    if isinstance(error, BrokenPipeError):
        return "the output was closed before its end"
    if isinstance(error, OSError) and error.filename is not None:
        strerror = error.strerror or type(error).__name__
        reason = _REASONS.get(error.errno or 0, f"cannot be used: {strerror}")
        return one_line(f"{error.filename} {reason}")
    if isinstance(error, RecursionError):
        return "something in the input is nested too deeply"
    text = one_line(str(error))
    if not isinstance(error, SwsjaxError | OSError | ImportError):
        return f"unexpected {type(error).__name__}: {text}; `python -X dev -m swsjax` shows where"
    return for_users(text)


def for_users(text: str) -> str:
    """Return a message without what only users of Python know.

    >>> for_users("tau=1e-3 lets the prior outweigh the loss")
    'tau 1e-3 lets the prior outweigh the loss'
    """
    for words, others in _WORDS.items():
        text = re.sub(words, others, text)
    return text


def one_line(text: str) -> str:
    """Return a text without line breaks, other white space than blanks, and control characters.

    >>> one_line("two\\n lines \\x1b[31m")
    'two lines \\\\x1b[31m'
    """
    return "".join(map(_visible, " ".join(text.split())))


def _visible(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


@contextmanager
def short_warnings() -> Iterator[None]:
    """Print each warning as one line on stderr, without the line of the code that gave it.

    >>> with short_warnings():
    ...     pass
    """

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"swsjax: warning: {for_users(one_line(str(message)))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
