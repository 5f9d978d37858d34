"""Data sets by their names on the command line."""

from collections.abc import Callable
from typing import Any

from swsjax.lab.cifar import load_cifar10
from swsjax.lab.data import Dataset, load_digits, load_fashion_mnist, load_mnist

__all__ = ["DATASETS", "FORMS", "PRETRAINING"]

DATASETS: dict[str, Callable[[], Dataset]] = {
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "digits": load_digits,
}
"""What loads each data set."""

FORMS: dict[str, tuple[tuple[int, ...], int]] = {
    "mnist": ((28, 28), 10),
    "fashion-mnist": ((28, 28), 10),
    "cifar10": ((32, 32, 3), 10),
    "digits": ((8, 8), 10),
}
"""The shape of an image and the number of classes, known before anything is loaded."""

PRETRAINING: dict[str, dict[str, Any]] = {"digits": {"epochs": 60, "batch_size": 32}}
"""What is different in pretraining on a data set. The nets' own settings are for 50,000 images; of
the digits, there are 1,197."""
