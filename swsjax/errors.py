"""The exceptions of the package: each says what was expected, what was found and what to do."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FormatError",
    "MissingExtraError",
    "RetrainingError",
    "SwsjaxError",
    "SwsjaxWarning",
    "WrongTypeError",
]


class SwsjaxError(Exception):
    """Base class of every error that this package raises on purpose."""


class ConfigError(SwsjaxError, ValueError):
    """A setting is out of its range, or does not fit the net or the data."""


class FormatError(SwsjaxError, ValueError):
    """The bytes are not a valid ``.sws`` or safetensors file."""


class DataError(SwsjaxError):
    """A data set is missing, damaged or cannot be downloaded."""


class RetrainingError(SwsjaxError):
    """Training went wrong: the net or the mixture is lost."""


class CheckpointError(SwsjaxError):
    """A checkpoint is missing, damaged, or of a different net or run."""


class WrongTypeError(SwsjaxError, TypeError):
    """An argument, a leaf or a key of a tree is of a type that cannot be taken."""


class MissingExtraError(SwsjaxError, ImportError):
    """A package of an optional extra is not installed; the message names the extra."""


class SwsjaxWarning(UserWarning):
    """A setting is likely to waste the time of a run."""
