"""The exceptions of the package: each says what was expected, what came, and what to do."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FormatError",
    "RetrainingError",
    "SwsjaxError",
    "SwsjaxWarning",
]


class SwsjaxError(Exception):
    """Base class of every error that this package raises on purpose."""


class ConfigError(SwsjaxError, ValueError):
    """A setting is out of its range, or does not fit the net or the data."""


class FormatError(SwsjaxError, ValueError):
    """A file or byte string is not a valid ``.sws`` artefact, or no valid safetensors file."""


class DataError(SwsjaxError):
    """A data set is missing, damaged or cannot be downloaded."""


class RetrainingError(SwsjaxError):
    """Retraining went wrong: the net or the mixture is lost."""


class CheckpointError(SwsjaxError):
    """A checkpoint is missing or of another net."""


class SwsjaxWarning(UserWarning):
    """A setting is likely to waste the time of a run."""
