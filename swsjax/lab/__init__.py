"""Nets, data sets and tasks to try methods on."""

from swsjax.lab.data import (
    Dataset,
    Split,
    data_folder,
    load_digits,
    load_fashion_mnist,
    load_mnist,
)
from swsjax.lab.nets import NETS, KnownNet, LeNet5Caffe, LeNet300100, PooledConv
from swsjax.lab.task import Task, Variables, classification, pretrain_task

__all__ = [
    "NETS",
    "Dataset",
    "KnownNet",
    "LeNet5Caffe",
    "LeNet300100",
    "PooledConv",
    "Split",
    "Task",
    "Variables",
    "classification",
    "data_folder",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "pretrain_task",
]
