"""Data sets by their names on the command line."""

from collections.abc import Callable

from swsjax.lab.cifar import load_cifar10
from swsjax.lab.data import Dataset, load_digits, load_fashion_mnist, load_mnist

__all__ = ["DATASETS"]

DATASETS: dict[str, Callable[[], Dataset]] = {
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "digits": load_digits,
}
"""What loads each data set."""
