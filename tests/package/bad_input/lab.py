"""Bad input to data sets, nets and tasks."""

from flax import nnx

from bad_input.case import Case, write
from swsjax.errors import ConfigError, DataError
from swsjax.lab import LeNet5Caffe, PooledConv, classification, load_digits, load_mnist


class WithDropout(nnx.Module):
    def __init__(self, image_shape, classes, *, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(64, classes, rngs=rngs)


CASES = [
    Case(
        "a net with dropout",
        lambda: classification(WithDropout, load_digits()),
        ConfigError,
        "the variables of a WithDropout must be of type nnx.Param or nnx.BatchStat, got also "
        "dropout/rngs/count, dropout/rngs/key; remove the layers that have them, such as dropout",
    ),
    Case(
        "images too small for LeNet-5",
        lambda: classification(LeNet5Caffe, load_digits()),
        ConfigError,
        "LeNet-5 needs images of at least 16 x 16 pixels, got (8, 8)",
    ),
    Case(
        "a convolution of an even size",
        lambda: PooledConv(1, 20, 4, rngs=nnx.Rngs(0)),
        ConfigError,
        "size of the convolution must be odd, got 4",
    ),
    Case(
        "all images for validation",
        lambda: load_digits(validation=1497),
        ConfigError,
        "validation is 1497, expected 0 to 1496",
    ),
    Case(
        "no data and no mirror",
        lambda: load_mnist("none", mirrors=[]),
        DataError,
        "none/mnist/train-images-idx3-ubyte.gz is missing and cannot be downloaded: no mirror "
        "given. Put the file there yourself, or name a folder that has it, as `folder` or in "
        "SWSJAX_DATA.",
    ),
    Case(
        "a file in place of the data folder",
        lambda: load_mnist(write("file"), mirrors=["http://localhost:1/"]),
        DataError,
        "file/mnist/train-images-idx3-ubyte.gz cannot be written: Not a directory. Name a writable "
        "folder, as the argument `folder` or in SWSJAX_DATA.",
    ),
]
