"""The figures of ``docs/figures.md``, but for the front, which is ``frontier.py``'s.

    python benchmarks/figures.py

Weights, components, layers, codebook, encoding and features are those that ``swsjax demo`` writes;
filters are of LeNet-5-Caffe on the same digits, enlarged to 16 x 16 pixels; hyper-priors those of
several settings. About a minute for each of the two nets on one core.
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from swsjax import Beta, Config, Gamma, Rates
from swsjax.file.atomic import write_bytes
from swsjax.lab.task import build, compress_classifier, pretrain_classifier
from swsjax.cli.main import main
from swsjax.lab.data import Dataset, Split, load_digits
from swsjax.lab.nets import LeNet5Caffe
from swsjax.measure.plot import plot_betas, plot_gammas, run_pictures, save_pictures
from swsjax.measure.plot.style import column_png
from swsjax.training.loop import PretrainConfig

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
GAMMAS = {
    "zero component": Gamma(5000.0, 2.0),
    "free components": Gamma(250.0, 0.1),
    "looser": Gamma(25.0, 0.01),
}
BETAS = {
    "mode 0.95": Beta(96.0, 6.0),
    "mode 0.99": Beta(100.0, 2.0),
    "mode 0.99, firmer": Beta(991.0, 11.0),
}
CONFIG = Config(
    tau=0.01,
    pi_zero=0.9,
    soft_epochs=40,
    soft_rates=Rates(precisions=4e-3),
    hard_epochs=20,
    hard_rates=Rates(precisions=5e-4, warmup_epochs=2.0, final=0.0, epsilon=1e-5),
    batch_size=32,
    least_steps=1,
)


def of_the_demo() -> None:
    with tempfile.TemporaryDirectory() as folder:
        main(["demo", "--out", folder])
        for path in Path(folder).glob("*.png"):
            shutil.copy(path, FIGURES)


def filters() -> None:
    digits = load_digits()
    net = build(LeNet5Caffe, enlarged(digits))
    net = pretrain_classifier(net, enlarged(digits), PretrainConfig(epochs=20, batch_size=32))
    result = compress_classifier(net, enlarged(digits), CONFIG)
    print(
        f"LeNet-5-Caffe: {result.history[-1].non_zeros:,} non-zeros, "
        f"validation error {result.history[-1].error:.3f}"
    )
    pictures = run_pictures(net.params, result)
    save_pictures(FIGURES, [drawn for drawn in pictures if drawn.name.startswith("filters")])


def enlarged(dataset: Dataset) -> Dataset:
    """The same images with two pixels for one in both directions, for which LeNet-5 has room."""
    splits = {
        name: Split(np.kron(split.images, np.ones((1, 2, 2), np.uint8)), split.labels)
        for name, split in dataset._asdict().items()
        if isinstance(split, Split)
    }
    return dataset._replace(**splits)


def hyper_priors() -> None:
    for name, draw in (
        ("gammas", partial(plot_gammas, priors=GAMMAS)),
        ("betas", partial(plot_betas, priors=BETAS)),
    ):
        png = column_png(draw, lambda figure: figure.subplots(), height=2.4)
        write_bytes(FIGURES / f"{name}.png", png)


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    hyper_priors()
    filters()
    of_the_demo()
