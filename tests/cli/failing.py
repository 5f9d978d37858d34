"""Running a command that fails."""

from swsjax.cli import main


def failure(capsys, *arguments):
    """The one line on stderr of a command that fails, given its arguments."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line
