"""Nets, data sets and tasks to try methods on."""

from swsjax.lab.cifar import load_cifar10
from swsjax.lab.data import (
    Dataset,
    Split,
    data_folder,
    load_digits,
    load_fashion_mnist,
    load_mnist,
)
from swsjax.lab.nets import NETS, KnownNet, LeNet5Caffe, LeNet300100, PooledConv
from swsjax.lab.residual import (
    ResidualNet,
    group_norm,
    instance_norm,
    resnet_8,
    wide_resnet_16_4,
)
from swsjax.lab.task import Task, Variables, classification, pretrain_task

__all__ = [
    "NETS",
    "Dataset",
    "KnownNet",
    "LeNet5Caffe",
    "LeNet300100",
    "PooledConv",
    "ResidualNet",
    "Split",
    "Task",
    "Variables",
    "classification",
    "data_folder",
    "group_norm",
    "instance_norm",
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "pretrain_task",
    "resnet_8",
    "wide_resnet_16_4",
]
